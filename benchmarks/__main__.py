"""All benchmarks, one after the other: `python -m benchmarks`. Each is a program of its own; this only calls them.

It stops at the first that fails; of the figures none makes it fail, only a row that is not as Graph has it and a
window with more calls than Meta allows.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from benchmarks.report import ROOT, as_help

FULL: Final = {
    "worker_efficiency": (),
    "webhook_latency": ("--rate", "0.2", "--rate", "2", "--rate", "10"),
    "fifty_thousand": (),
    "broken_page": (),
    "revoked_token": (),
    "budget_simulation": (),
    "hundred_thousand": (),
    "poor_page": (),
    "backfill_speed": (),
    "million": (),
    "live_beside_backfill": (),
    # Ten windows of five minutes are 50 minutes, so here they are shorter; by itself its default is the long form.
    "budget_window": (
        "--window",
        "60",
        "--windows",
        "5",
        "--limit",
        "300",
        "--kill-every",
        "10",
        "--flushes",
        "2",
    ),
}
QUICK: Final = {
    "worker_efficiency": (
        "--leads",
        "1500",
        "--pairs",
        "3",
        "--sweep-leads",
        "400",
        "--peers",
        "prefork:16,threads:64",
    ),
    "webhook_latency": ("--seconds", "20"),
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
@click.option("--quick", is_flag=True, help="Small sizes: about ten minutes instead of seventy.")
@click.option(
    "--json-dir", type=click.Path(file_okay=False, path_type=Path), help="Write each one's figures here."
)
def main(quick: bool, json_dir: Path | None) -> None:
    for name, options in (QUICK if quick else FULL).items():
        click.secho(f"\n{name}", bold=True)
        told = ("--json", str(json_dir.resolve() / f"{name}.json")) if json_dir else ()
        command = [sys.executable, "-m", f"benchmarks.{name}", *options, *told]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        if ended.returncode != 0:
            sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
