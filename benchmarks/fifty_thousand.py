"""Claim: of 50,000 announced leads, a fifth of them duplicates, each distinct lead is exactly one row, as Graph has it.

    sandbox's signed webhooks -> receiver -> stream -> worker -> Graph -> table leadgen -> compared field by field

Everything is leadsync's real processes. Webhooks come in all payload variants, 1 to 20 changes each, out of order,
with sample pings, updates and other fields between them. It ends with status 1 if a lead is missing, is not stored,
differs in any field, or if there is a row that Graph never had. Beside it stand the ratios that cost money or
patience: Graph calls a distinct lead (1.00 at best, since a duplicate needs none), rows a distinct lead, and CPU
milliseconds a distinct lead of each part.

What it does not show: how fast it could be. Sandbox and senders share the machine with what is measured, and the
webhooks come as fast as they are taken, so latency here is mostly waiting in the stream. There is no peer: this is
a proof, not a race (worker_efficiency.py is one). Nothing is broken on purpose.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.processes import Spent, Stopwatch
from benchmarks.report import (
    as_help,
    json_option,
    machine,
    print_machine,
    remark_full_machine,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import WEBHOOK_PATH, Rig, Stuck, build_rig, told_when_stuck, wait_until
from worker.demo import differences
from worker.desks import open_store, open_stream
from worker.inbox import LIVE_QUEUE, UPKEEP_QUEUE

DUPLICATES: Final = 0.2
"""Share of all announcements."""
PATIENCE_SECONDS: Final = 90.0
"""Longer than a claim after a crash takes."""
ROWS_A_QUESTION: Final = 1_000
SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What landed against what Graph holds."""

    distinct: int
    rows: Mapping[str, int]
    """Rows of leadgen by state."""
    missing: tuple[str, ...]
    wrong: Mapping[str, tuple[str, ...]]
    unknown: int
    """Rows that Graph never had."""

    @property
    def good(self) -> bool:
        """Each distinct lead exactly one stored row, equal in every field."""
        only_stored = dict(self.rows) == {"stored": self.distinct}
        return only_stored and not (self.missing or self.wrong or self.unknown)


def announce(rig: Rig, distinct: int, duplicates: int) -> None:
    """Have the sandbox send it all."""
    order = {
        "count": distinct,
        "duplicates": duplicates / distinct,
        "batch": 20,
        "vary_batch": True,
        "reorder": True,
        "variants": True,
        "sample_pings": max(1, distinct // 1_000),
        "updates": max(1, distinct // 200),
        "other_fields": max(1, distinct // 1_000),
    }
    rig.post("/sandbox/send", order)


def watch(rig: Rig, distinct: int, console: Console) -> float:
    """Seconds until all was sent, every lead was a row and the stream was empty."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = moved_at = time.monotonic()
    before: tuple[int, int] = (-1, -1)
    with (
        psycopg.connect(rig.database_url, autocommit=True) as connection,
        Progress(*columns, console=console, refresh_per_second=2) as progress,
    ):
        sent, landed = (progress.add_task(label, total=distinct) for label in ("announced", "rows"))
        while True:
            told = rig.get("/sandbox/send")
            rows = _count(connection, "select count(*) from leadgen where state = 'stored'")
            progress.update(sent, completed=told["created"])
            progress.update(landed, completed=rows)
            at_rest = not told["running"] and not told["pending"] and _stream_length(rig) == 0
            if rows >= distinct and at_rest:
                return time.monotonic() - began
            if (told["created"], rows) != before:
                before, moved_at = (told["created"], rows), time.monotonic()
            if time.monotonic() - moved_at > PATIENCE_SECONDS:
                console.print(
                    f"[red]nothing moved for {PATIENCE_SECONDS:.0f} s[/]; {rows:,} of {distinct:,} rows"
                )
                return time.monotonic() - began
            time.sleep(0.25)


def _stream_length(rig: Rig) -> int:
    return int(asyncio.run(_condition(rig))["length"])


def _all_look(rig: Rig) -> bool:
    """Whether workers and schedule have started, so that their start is not counted."""
    progress: dict[str, int] = asyncio.run(_condition(rig))["progress"]
    return progress.keys() >= {LIVE_QUEUE, UPKEEP_QUEUE, "schedule"}


async def _condition(rig: Rig) -> dict[str, Any]:
    async with open_stream(rig.settings) as stream:
        return await stream.condition()


def judge(rig: Rig) -> Verdict:
    """Compare every row with the sandbox's truth."""
    truth = {lead["id"]: lead for lead in rig.lines("/sandbox/truth")}
    rows = asyncio.run(_rows(rig, sorted(truth)))
    wrong = {i: found for i, row in rows.items() if (found := differences(truth[i], row))}
    with psycopg.connect(rig.database_url) as connection:
        states: dict[str, int] = dict(
            connection.execute("select state, count(*) from leadgen group by 1").fetchall()
        )
        ids = {row[0] for row in connection.execute("select leadgen_id from leadgen").fetchall()}
    missing = tuple(sorted(truth.keys() - rows.keys()))
    return Verdict(len(truth), states, missing, wrong, len(ids - truth.keys()))


async def _rows(rig: Rig, ids: list[str]) -> dict[str, Any]:
    async with open_store(rig.settings) as store:
        return {
            row["leadgen_id"]: row
            for start in range(0, len(ids), ROWS_A_QUESTION)
            for row in await store.stored(ids[start : start + ROWS_A_QUESTION])
        }


def _count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def show(verdict: Verdict, told: Mapping[str, Any], spent: Spent, seconds: float, console: Console) -> None:
    """Print what landed."""
    distinct = verdict.distinct
    table = Table(title="What landed", title_justify="left", show_header=False)
    table.add_row("leads announced, duplicates among them", f"{told['announced']:,}")
    table.add_row("distinct leads that Graph holds", f"{distinct:,}")
    table.add_row("rows by state", ", ".join(f"{n:,} {state}" for state, n in verdict.rows.items()) or "none")
    table.add_row("distinct leads that are no stored row", f"{len(verdict.missing):,}")
    table.add_row("rows that differ from Graph's answer", f"{len(verdict.wrong):,}")
    table.add_row("rows that Graph never had", f"{verdict.unknown:,}")
    table.add_row(
        "Graph calls, and calls : distinct leads", f"{told['calls']:,}, {told['calls'] / distinct:.4f}"
    )
    table.add_row("HTTP requests to Graph", f"{told['http_requests']:,}")
    table.add_row("seconds in all", f"{seconds:.1f}")
    table.add_row(
        "distinct leads/s; announcements/s", f"{distinct / seconds:,.0f}; {told['announced'] / seconds:,.0f}"
    )
    console.print(table)
    cost = Table(title="CPU milliseconds a distinct lead", title_justify="left", show_header=False)
    for name, used in spent.by_name.items():
        cost.add_row(name, f"{1_000 * used / distinct:.3f}")
    console.print(cost)
    for leadgen_id in verdict.missing[:SHOWN]:
        console.print(f"[red]missing:[/] {leadgen_id}")
    for leadgen_id, fields in list(verdict.wrong.items())[:SHOWN]:
        console.print(f"[red]differs:[/] {leadgen_id}: {', '.join(fields)}")


@click.command(help=as_help(__doc__))
@click.option(
    "--announced", default=50_000, show_default=True, help="Leads announced, a fifth of them duplicates."
)
@click.option("--latency", default=0.15, show_default=True, help="Graph's, in seconds.")
@click.option("--pages", default=10, show_default=True, help="Facebook Pages that they come from.")
@click.option("--processes", default=2, show_default=True, help="Processes of leadsync's worker.")
@json_option
def main(announced: int, latency: float, pages: int, processes: int, json_path: Path | None) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    duplicates = round(announced * DUPLICATES)
    distinct = announced - duplicates
    with ExitStack() as held:
        with console.status("starting everything"):
            extra = {"WORKER_CONCURRENCY": str(processes)}
            rig = held.enter_context(build_rig(latency=latency, pages=pages, extra=extra))
            held.enter_context(told_when_stuck(rig, console))
            held.enter_context(rig.running(rig.specs(*WEBHOOK_PATH)))
            wait_until(
                "every process' first look at its work", lambda: _all_look(rig), patience=PATIENCE_SECONDS
            )
        stopwatch = Stopwatch(rig.pids())
        announce(rig, distinct, duplicates)
        seconds = watch(rig, distinct, console)
        spent = stopwatch.stop()
        calls, condition = rig.get("/sandbox/calls"), asyncio.run(_condition(rig))
        with console.status("comparing every row with what the sandbox holds"):
            verdict = judge(rig)
        if verdict.distinct != distinct:
            raise Stuck(f"the sandbox made {verdict.distinct:,} leads instead of {distinct:,}")
    deliveries = condition["deliveries"]
    told = {
        "announced": announced,
        "calls": calls["calls"],
        "http_requests": calls["http_requests"],
        "deliveries": deliveries,
    }
    show(verdict, told, spent, seconds, console)
    console.print(shares({"while it ran": [spent]}))
    remark_full_machine({"while it ran": [spent]}, console)
    if verdict.good:
        console.print("[green]every distinct lead is exactly one stored row, equal field by field")
    else:
        console.print("[red]not every distinct lead is exactly one stored row as Graph holds it")
    figures = {
        "options": {"announced": announced, "latency": latency, "pages": pages, "processes": processes},
        "told": told,
        "seconds": seconds,
        "distinct": verdict.distinct,
        "rows": verdict.rows,
        "missing": len(verdict.missing),
        "wrong": len(verdict.wrong),
        "unknown": verdict.unknown,
        "good": verdict.good,
        "spent": spent_as_json([spent]),
    }
    write_json(json_path, "fifty_thousand", about, figures)
    sys.exit(0 if verdict.good else 1)


if __name__ == "__main__":
    main()
