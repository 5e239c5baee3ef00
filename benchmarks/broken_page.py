"""Claim: one Page's trouble delays no other Page's leads.

    three Pages at the same rate; in turn all healthy, then the third broken in one way, then healthy again, ...

For each way of breaking: the healthy two Pages' p50 from webhook to row (`stored_at - received_at`) while the third is
broken, over their p50 in the healthy stretch right before it, so that a machine that slows down slows both. The goal
is at most 1.5. The broken Page's leads are not measured; they wait, by intent.

What it does not show: many broken Pages at once, and a machine at its limit.
"""

import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.report import Spread, as_help, json_option, machine, print_machine, ratio, write_json
from benchmarks.rig import WEBHOOK_PATH, Rig, build_rig, told_when_stuck, wait_until

SPENT: Final = "calls spent, 5,000 waiting"
WAYS: Final[dict[str, dict[str, Any]]] = {
    "every call times out": {"class": "timeout", "hold_seconds": 30},
    "bodies that drip": {"class": "slow_body"},
    "HTTP 500": {"class": "5xx"},
    "bodies of 64 MB": {"class": "huge_body"},
    "token revoked": {"class": "190/460"},
    "throttled (80005)": {"class": "80005", "minutes": 60},
    "no lead visible": {"class": "not_visible", "for_seconds": 3600},
    SPENT: {},
}
BACKLOG: Final = 5_000
"""Leads that wait for a Page whose calls are spent, beside those of the stretch."""
GOAL: Final = 1.5
PATIENCE_SECONDS: Final = 60.0


def stretch(rig: Rig, healthy: list[str], broken: str, seconds: float, rate: float) -> float:
    """Send to all three for so long; the healthy two Pages' p50 in seconds."""
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        row = connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        since = row[0]
        count = round(seconds * rate)
        for page_id in (*healthy, broken):
            rig.post("/sandbox/send", {"count": count, "page": page_id, "rate": rate})
        time.sleep(seconds)
        query = (
            "select count(*), percentile_cont(0.5) within group (order by extract(epoch from stored_at - received_at))"
            " from leads where received_at >= %s and page_id = any(%s)"
        )
        found: list[Any] = []

        def landed() -> bool:
            found[:] = connection.execute(query, (since, healthy)).fetchone() or ()
            return bool(found[0] >= count * len(healthy))

        wait_until("the healthy Pages' leads", landed, patience=PATIENCE_SECONDS)
        return float(found[1])


def break_page(rig: Rig, way: str, rule: dict[str, Any], page_id: str) -> None:
    """Let the trouble begin."""
    if way == SPENT:
        budget_limit(rig, page_id, "40")
        rig.post("/sandbox/send", {"count": BACKLOG, "page": page_id, "batch": 200, "rate": 5_000})
        rule = {"class": "100", "kinds": ["form_leads"]}  # nothing is saved by listings
    rig.post("/sandbox/faults", {"rules": [{**rule, "pages": [page_id]}]})


def mend_page(rig: Rig, way: str, page_id: str) -> None:
    """End the trouble; what waited is read."""
    rig.post("/sandbox/faults", {"rules": []})
    if way == SPENT:
        budget_limit(rig, page_id, "--clear")
        query = "select count(*) from leadgen where page_id = %s and state = 'waiting'"
        with psycopg.connect(rig.database_url, autocommit=True) as connection:

            def gone() -> bool:
                row = connection.execute(query, (page_id,)).fetchone()
                return row is not None and row[0] == 0

            wait_until("what waited", gone, patience=PATIENCE_SECONDS)


def budget_limit(rig: Rig, page_id: str, *words: str) -> None:
    """As an operator sets it."""
    command = (sys.executable, "-m", "worker", "budget", "limit", page_id, *words)
    subprocess.run(command, env=dict(rig.env), check=True, stdout=subprocess.DEVNULL)


@click.command(help=as_help(__doc__))
@click.option("--latency", default=0.15, show_default=True, help="Graph's, in seconds.")
@click.option("--seconds", default=8.0, show_default=True, help="One stretch.")
@click.option("--rate", default=5.0, show_default=True, help="Leads a second a Page.")
@click.option("--way", "ways", multiple=True, type=click.Choice(list(WAYS)), help="Only these; default all.")
@click.option("--pairs", default=3, show_default=True, help="Healthy and broken stretches a way.")
@json_option
def main(
    latency: float, seconds: float, rate: float, ways: tuple[str, ...], pairs: int, json_path: Path | None
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    figures: dict[str, Spread] = {}
    with build_rig(latency=latency, pages=3 * len(WAYS)) as rig, told_when_stuck(rig, console):
        pages = [page["page_id"] for page in rig.get("/sandbox/pages")["pages"]]
        with rig.running(rig.specs(*WEBHOOK_PATH)):
            stretch(rig, pages[:2], pages[2], 3.0, rate)
            for way in ways or WAYS:
                rule = WAYS[way]
                # Pages of its own, so that the trouble of one way is over with it.
                first, second, third = (pages.pop() for _ in range(3))
                alone, beside = [], []
                for _ in range(pairs):
                    alone.append(stretch(rig, [first, second], third, seconds, rate))
                    break_page(rig, way, rule, third)
                    beside.append(stretch(rig, [first, second], third, seconds, rate))
                    mend_page(rig, way, third)
                figures[way] = ratio(beside, alone)
                p50 = f"{Spread.over(alone).median * 1000:.0f} ms"
                console.print(f"{way}: healthy alone {p50}, ratio {figures[way].show(2)}")
    table = Table("the third Page", "healthy Pages' p50, over alone", f"at most {GOAL}")
    for way, spread in figures.items():
        table.add_row(way, spread.show(2), "yes" if spread.median <= GOAL else "[red]no[/]")
    console.print(table)
    write_json(json_path, "broken_page", about, {way: asdict(spread) for way, spread in figures.items()})


if __name__ == "__main__":
    main()
