"""Claim: 100,000 references that wait for one Page cost others nothing, and few calls: they are read by the listing.

    the first Page may make no call -> its leads are announced and become waiting rows -> its override is set to 4,800
    calls a window -> all are stored; a second Page's leads come in at a steady rate before, meanwhile and after

Printed: calls that the sandbox counted for the first Page and those saved, the time from the override to the last row,
the upkeep worker's memory, and the second Page's p50 from webhook to row while they wait and while they are read, over
its p50 before. The goal is at most 1.5; the stretches are one after the other, so a machine that slows down shows.

What it does not show: leads spread so thin over time that no listing is worth its call.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.report import as_help, json_option, machine, print_machine, write_json
from benchmarks.rig import WEBHOOK_PATH, Rig, build_rig, told_when_stuck, wait_until

PATIENCE_SECONDS: Final = 900.0
GOAL: Final = 1.5


@click.command(help=as_help(__doc__))
@click.option("--leads", default=100_000, show_default=True, help="That wait.")
@click.option("--override", default=4_800, show_default=True, help="Calls a window of their Page.")
@click.option("--latency", default=0.1, show_default=True, help="Graph's, in seconds.")
@click.option("--rate", default=5.0, show_default=True, help="Leads a second of the second Page.")
@click.option("--seconds", default=20.0, show_default=True, help="One stretch of the second Page.")
@json_option
def main(
    leads: int, override: int, latency: float, rate: float, seconds: float, json_path: Path | None
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    sandbox = {"forms_per_page": 1, "limit_floor": override}
    with (
        build_rig(latency=latency, pages=2, sandbox=sandbox) as rig,
        told_when_stuck(rig, console),
        rig.running(rig.specs(*WEBHOOK_PATH)),
    ):
        figures = _measure(rig, leads, override, rate, seconds, console)
    table = Table("", "seen", "goal")
    table.add_row("rows stored", f"{figures['stored']:,}", f"{leads:,}")
    table.add_row("calls of the first Page", f"{figures['calls']:,}", f"at most {override:,}")
    table.add_row("calls saved", f"{figures['saved']:,}", "")
    table.add_row("from override to last row", f"{figures['seconds']:.0f} s", "")
    table.add_row(
        "memory of the upkeep child, before and most",
        " and ".join(f"{mb:.0f} MB" for mb in figures["memory"]),
        "",
    )
    for when in ("while they wait", "while they are read"):
        table.add_row(f"second Page's p50 {when}, over before", f"{figures[when]:.2f}", f"at most {GOAL}")
    console.print(table)
    write_json(json_path, "hundred_thousand", about, figures)


def _measure(
    rig: Rig, leads: int, override: int, rate: float, seconds: float, console: Console
) -> dict[str, Any]:
    first, second = (page["page_id"] for page in rig.get("/sandbox/pages")["pages"])
    _limit(rig, first, 0)
    before = _stretch(rig, second, rate, seconds)
    memory = _memory(rig)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        waiting = progress.add_task("waiting", total=leads)
        rig.post("/sandbox/send", {"count": leads, "page": first, "batch": 200, "rate": 2_000})
        _follow(rig, first, "waiting", leads, lambda count: progress.update(waiting, completed=count))
        wait = _stretch(rig, second, rate, seconds)
        began_at = time.monotonic()
        _limit(rig, first, override)
        since = _now(rig)
        rig.post("/sandbox/send", {"count": round(rate * seconds), "page": second, "rate": rate})
        stored = progress.add_task("stored", total=leads)
        most = memory

        def look(count: int) -> None:
            nonlocal most
            most = max(most, _memory(rig))
            progress.update(stored, completed=count)

        _follow(rig, first, "stored", leads, look)
        lasted = time.monotonic() - began_at
    wait_until("the second Page's leads", lambda: _p50(rig, second, since)[0] >= rate * seconds, patience=60)
    told = rig.get("/sandbox/calls")["pages"][first]
    saved = _saved(rig, first)
    return {
        "stored": _count(rig, first, "stored"),
        "calls": told["calls"],
        "kinds": told["kinds"],
        "results": told["results"],
        "saved": saved,
        "seconds": lasted,
        "memory": (memory, most),
        "while they wait": wait / before,
        "while they are read": _p50(rig, second, since)[1] / before,
    }


def _limit(rig: Rig, page_id: str, calls: int) -> None:
    """As an operator does it."""
    subprocess.run(
        (sys.executable, "-m", "worker", "budget", "limit", page_id, str(calls)), env=dict(rig.env), check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _saved(rig: Rig, page_id: str) -> int:
    command = (sys.executable, "-m", "worker", "budget", "--page", page_id, "--json")
    told = subprocess.run(command, env=dict(rig.env), check=True, capture_output=True)
    return int(json.loads(told.stdout)["pages"][0]["saved"])


def _stretch(rig: Rig, page_id: str, rate: float, seconds: float) -> float:
    """Send to a Page for so long; its p50 in seconds."""
    since = _now(rig)
    count = round(rate * seconds)
    rig.post("/sandbox/send", {"count": count, "page": page_id, "rate": rate})
    time.sleep(seconds)
    wait_until("the second Page's leads", lambda: _p50(rig, page_id, since)[0] >= count, patience=60)
    return _p50(rig, page_id, since)[1]


def _follow(rig: Rig, page_id: str, state: str, wanted: int, look: Any) -> None:
    def reached() -> bool:
        count = _count(rig, page_id, state)
        look(count)
        return count >= wanted

    wait_until(f"{wanted:,} rows {state}", reached, patience=PATIENCE_SECONDS, poll=0.5)


def _count(rig: Rig, page_id: str, state: str) -> int:
    return int(_ask(rig, "select count(*) from leadgen where page_id = %s and state = %s", page_id, state)[0])


def _now(rig: Rig) -> Any:
    return _ask(rig, "select clock_timestamp()")[0]


def _p50(rig: Rig, page_id: str, since: Any) -> tuple[int, float]:
    query = (
        "select count(*), percentile_cont(0.5) within group (order by extract(epoch from stored_at - received_at))"
        " from leads where page_id = %s and received_at >= %s"
    )
    count, p50 = _ask(rig, query, page_id, since)
    return int(count), float(p50 or 0.0)


def _ask(rig: Rig, query: str, *values: object) -> Any:
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row


def _memory(rig: Rig) -> float:
    """Resident memory of the upkeep worker's child, which reads what waits, in MB."""
    pid = rig.pids()["upkeep"]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pages = [int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in children]
    except OSError:
        return 0.0
    return max(pages, default=0) * 4_096 / 1e6


if __name__ == "__main__":
    main()
