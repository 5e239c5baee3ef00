"""All benchmarks, one after the other: `python -m benchmarks`. Each is a program of its own; this only calls them.

    python -m benchmarks --only receiver_speed --into docs/measured.md     one of them, and its section anew

It stops at the first that fails; of the figures none makes it fail, only a row that is not as Graph has it and a
window with more calls than Meta allows.
"""

import ast
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from benchmarks.measured import Run, merged, section
from benchmarks.report import ROOT, as_help

WIDTH: Final = 120
"""Columns of what is printed into docs/measured.md."""

FULL: Final = {
    "worker_efficiency": (),
    "receiver_speed": (),
    "webhook_latency": (),
    "scale": ("--rows", "10000", "--rows", "1000000", "--rows", "10000000"),
    "fifty_thousand": (),
    "broken_page": (),
    "revoked_token": (),
    "budget_simulation": (),
    "hundred_thousand": (),
    "poor_page": (),
    "backfill_speed": ("--leads", "100000", "--pairs", "5"),
    "million": (),
    "live_beside_backfill": (),
    # Ten windows of five minutes, its default, are 50 minutes.
    "budget_window": ("--windows", "2", "--flushes", "1"),
}
QUICK: Final = {
    "worker_efficiency": (
        "--leads",
        "1500",
        "--pairs",
        "2",
        "--sweep-leads",
        "200",
        "--peers",
        "prefork:8,threads:32",
        "--latency",
        "0.15",
        "--processes",
        "2",
    ),
    "receiver_speed": (
        "--pairs",
        "1",
        "--seconds",
        "0.3",
        "--changes",
        "1",
        "--changes",
        "10",
        "--connections",
        "8",
    ),
    "webhook_latency": ("--seconds", "5", "--burst", "500"),
    "scale": ("--rows", "1000", "--rows", "20000", "--pages", "100", "--leads", "500", "--pairs", "1"),
    "fifty_thousand": ("--announced", "5000"),
    "broken_page": ("--pairs", "1", "--seconds", "4"),
    "revoked_token": ("--pairs", "1", "--seconds", "4"),
    "backfill_speed": ("--leads", "20000", "--forms", "8", "--pairs", "1"),
    "million": ("--leads", "30000"),
    "live_beside_backfill": ("--leads", "240000", "--pairs", "1", "--seconds", "6"),
    "budget_simulation": ("--quick",),
    "hundred_thousand": ("--leads", "5000", "--seconds", "5"),
    "poor_page": ("--window", "30", "--days", "1"),
    "budget_window": (
        "--window",
        "15",
        "--windows",
        "2",
        "--limit",
        "100",
        "--kill-every",
        "8",
        "--flushes",
        "1",
    ),
}
"""To see that everything works; too small for figures to quote."""


@click.command(help=as_help(__doc__))
@click.option("--quick", is_flag=True, help="Small sizes: about fifteen minutes instead of two hours.")
@click.option(
    "--only", "wanted", multiple=True, type=click.Choice(list(FULL)), help="This one alone; repeatable."
)
@click.option(
    "--json-dir", type=click.Path(file_okay=False, path_type=Path), help="Write each one's figures here."
)
@click.option(
    "--into", type=click.Path(dir_okay=False, path_type=Path), help="Put each one's section into this file."
)
def main(quick: bool, wanted: tuple[str, ...], json_dir: Path | None, into: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="leadsync-bench-") as spare:
        for name, options in (QUICK if quick else FULL).items():
            if not wanted or name in wanted:
                run = _run(name, options, (json_dir or Path(spare)).resolve())
                if into is not None:
                    before = into.read_text() if into.exists() else ""
                    into.write_text(merged(before, name, section(run), list(FULL)))


def _run(name: str, options: Sequence[str], folder: Path) -> Run:
    """Run one, showing what it prints; ends this program with its status where that is not 0."""
    click.secho(f"\n{name}", bold=True)
    told = folder / f"{name}.json"
    command = ["python", "-m", f"benchmarks.{name}", *options]
    began, printed = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, "-u", *command[1:], "--json", str(told)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(WIDTH)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            click.echo(line, nl=False)
            printed.append(line)
    if process.returncode != 0:
        sys.exit(process.returncode)
    claim = " ".join(_docstring(name).split("\n\n")[0].split())
    seconds = time.monotonic() - began
    return Run(name, claim, shlex.join(command), seconds, json.loads(told.read_text()), "".join(printed))


def _docstring(name: str) -> str:
    """Read, not imported: a benchmark's file may need what only it needs."""
    return ast.get_docstring(ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())) or ""


if __name__ == "__main__":
    main()
