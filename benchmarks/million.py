"""Claim: a backfill of a million leads needs at most 150 MB above what its worker holds anyway; the export neither.

    one form of a million historic leads -> `leadsync backfill --form F` -> a million rows -> `leadsync export`

The worker's memory is the resident memory of its whole process tree, looked at five times a second, against what the
same tree held when it had looked for work once and found none. Pages shared by main process and child count twice, in
both figures. The export's is its peak (VmHWM), against the peak of the same export that finds no lead.

Rows are counted and their ids summed up against the sandbox's; exit status 1 where a lead lacks. leads/s are told and
compared with nothing: backfill_speed.py does that.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.backfill_speed import BACKFILL_PATH, EXTRA, begin_backfill, wait_for_a_look
from benchmarks.processes import Stopwatch
from benchmarks.report import as_help, json_option, machine, print_machine, shares, spent_as_json, write_json
from benchmarks.rig import Rig, build_rig, told_when_stuck, wait_until

GOAL_MB: Final = 150.0
PATIENCE_SECONDS: Final = 3_600.0
LOOK_SECONDS: Final = 0.2
NO_FORM: Final = "1"
"""An export of this form finds no lead."""


def resident_mb(root: int) -> float:
    """What a process and all of its descendants hold in memory now, in MB; nothing for those that are gone."""
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except (OSError, IndexError):
            continue
    return total * 4_096 / 1e6


class Watcher:
    """The most that a process tree held since its beginning."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = 0.0

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.most = max(self.most, resident_mb(self._root))


def backfill(rig: Rig, form_id: str, leads: int, console: Console) -> dict[str, Any]:
    """Read the form; memory before and the most of it in MB, seconds, CPU, calls."""
    pid = rig.pids()["backfill"]
    idle = resident_mb(pid)
    watch = Stopwatch(rig.pids())
    with (
        psycopg.connect(rig.database_url, autocommit=True) as connection,
        Watcher(pid) as watcher,
        _bar(console, "reading", leads) as advance,
    ):
        began = time.monotonic()
        begin_backfill(rig, "--form", form_id, "--page", _page(rig))

        def ended() -> bool:
            query = (
                "select (select coalesce(sum(leads), 0) from slices),"
                " (select count(*) from backfills where state = 'running')"
            )
            read, running = connection.execute(query).fetchone() or (0, 1)
            advance(int(read))
            return bool(running == 0)

        wait_until("the end of the backfill", ended, patience=PATIENCE_SECONDS, poll=0.5)
        seconds = time.monotonic() - began
        stored, ids = connection.execute(
            "select count(*), sum(leadgen_id::numeric) from leads"
        ).fetchone() or (0, 0)
        calls, slices = connection.execute("select sum(calls), count(*) from slices").fetchone() or (0, 0)
    spent = watch.stop()
    return {
        "stored": stored, "ids": int(ids or 0), "calls": int(calls), "slices": slices, "seconds": seconds,
        "idle": idle, "most": watcher.most, "spent": spent,
    }  # fmt: skip


def export(rig: Rig, path: Path, leads: int, console: Console) -> dict[str, Any]:
    """Export nothing and then everything; the peaks of both in MB."""
    nothing, _ = _exported(rig, ("--form", NO_FORM, "-o", str(path.with_name("nothing.csv"))), None)
    with _bar(console, "exporting", leads) as advance:
        everything, seconds = _exported(rig, ("-o", str(path)), lambda: advance(0))
        advance(leads)
    size = path.stat().st_size
    return {"idle": nothing, "most": everything, "seconds": seconds, "bytes": size}


def _has_export(rig: Rig) -> bool:
    command = (sys.executable, "-m", "worker", "export", "--help")
    return subprocess.run(command, env=dict(rig.env), capture_output=True, check=False).returncode == 0


def _exported(rig: Rig, words: Sequence[str], look: Any) -> tuple[float, float]:
    command = (sys.executable, "-m", "worker", "export", *words)
    began, most = time.monotonic(), 0.0
    process = subprocess.Popen(
        command, env=dict(rig.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        most = max(most, _peak_mb(process.pid))
        if look:
            look()
        time.sleep(0.02)
    if process.returncode != 0:
        raise click.ClickException(f"leadsync export ended with status {process.returncode}")
    return most, time.monotonic() - began


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return max((int(words[1]) * 1_024 / 1e6 for words in found), default=0.0)


def _page(rig: Rig) -> str:
    page_id: str = rig.get("/sandbox/pages")["pages"][0]["page_id"]
    return page_id


@contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, completed=count)


@click.command(help=as_help(__doc__))
@click.option("--leads", default=1_000_000, show_default=True, help="Of the one form.")
@click.option("--latency", default=0.1, show_default=True, help="Graph's, in seconds.")
@click.option("--with-export/--without-export", default=True, show_default=True, help="Export them, too.")
@json_option
def main(leads: int, latency: float, with_export: bool, json_path: Path | None) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    world = {"leads": leads, "forms_per_page": 1}
    exported: dict[str, Any] = {}
    with (
        build_rig(latency=latency, pages=1, extra=EXTRA, sandbox=world) as rig,
        told_when_stuck(rig, console),
    ):
        form_id = rig.get("/sandbox/pages")["pages"][0]["forms"][0]["form_id"]
        with rig.running(rig.specs(*BACKFILL_PATH)):
            wait_for_a_look(rig)
            read = backfill(rig, form_id, leads, console)
        if with_export and _has_export(rig):
            exported = export(rig, rig.log_path.with_name("leads.csv"), leads, console)
        with console.status("the sandbox's own list"):
            truth = sum(int(lead["id"]) for lead in rig.lines("/sandbox/truth?origin=historic"))
    spent = read.pop("spent")
    whole = read["stored"] == leads and read["ids"] == truth
    table = Table("", "seen", "goal")
    stored = f"{read['stored']:,}" if whole else f"[red]{read['stored']:,}, not the sandbox's[/]"
    table.add_row("rows stored, ids as the sandbox has them", stored, f"{leads:,}")
    _add_memory(table, "backfill worker", read)
    if exported:
        _add_memory(table, "leadsync export", exported)
    elif with_export:
        table.add_row("memory of leadsync export", "no such command here", "")
    table.add_row("backfill", f"{read['seconds']:.0f} s, {leads / read['seconds']:,.0f} leads/s", "")
    table.add_row("calls, slices", f"{read['calls']:,} in {read['slices']:,}", "")
    table.add_row("CPU of the worker", f"{1e6 * spent.by_name['backfill'] / leads:.0f} us a lead", "")
    if exported:
        rate = f"{leads / exported['seconds']:,.0f} leads/s, {exported['bytes'] / 1e6:,.0f} MB"
        table.add_row("export", f"{exported['seconds']:.0f} s, {rate}", "")
    console.print(table)
    console.print(shares({"leadsync": [spent]}))
    figures = {"backfill": read, "export": exported, "spent": spent_as_json([spent])}
    write_json(json_path, "million", about, figures)
    if not whole:
        raise click.ClickException("the rows are not the sandbox's leads")


def _add_memory(table: Table, what: str, told: dict[str, Any]) -> None:
    more = told["most"] - told["idle"]
    shown = f"{more:,.0f} MB more ({told['idle']:,.0f} -> {told['most']:,.0f})"
    table.add_row(
        f"memory of {what}", shown if more <= GOAL_MB else f"[red]{shown}[/]", f"at most {GOAL_MB:.0f} MB"
    )


if __name__ == "__main__":
    main()
