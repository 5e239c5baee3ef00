"""Claim: a backfill that reads as fast as it can costs live leads little: their p50 is at most 1.5 times what it was.

    live leads at a steady rate to the first form of each Page; in turns without and with a backfill of all other
    forms of the same Pages; p50 and p99 from webhook to row (`stored_at - received_at`), paired

Beside it one lead is read straight from the sandbox twice a second, all along: what that read got slower is Graph's
and the machine's share, not leadsync's. After each stretch the backfills are cancelled and their rows thrown away, so
that every backfill begins from nothing; what it read meanwhile is told. A stretch that outlasts it is refused.

What it does not show: a machine with a core for each process. On two cores the live worker, the backfill worker,
Postgres and the sandbox share them, and with them their waits.
"""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.backfill_speed import EXTRA, PAGES, begin_backfill
from benchmarks.processes import Spent, Stopwatch
from benchmarks.report import (
    Spread,
    as_help,
    json_option,
    machine,
    percentile,
    print_machine,
    ratio,
    remark_full_machine,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import WEBHOOK_PATH, Rig, Stuck, build_rig, told_when_stuck, wait_until
from benchmarks.webhook_latency import DirectReader

GOAL: Final = 1.5
PATIENCE_SECONDS: Final = 120.0
PROBE_SECONDS: Final = 0.5
ALONE, BESIDE = "alone", "beside a backfill"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds from webhook to row of each live lead, those of the direct reads; and leads/s of the backfill."""

    live: Sequence[float]
    direct: Sequence[float]
    backfilled: float
    spent: Spent

    @property
    def p50(self) -> float:
        """Of the live leads."""
        return statistics.median(self.live)

    @property
    def direct_p50(self) -> float:
        """Of the direct reads."""
        return statistics.median(self.direct)


class Prober:
    """Reads one lead again and again, straight from the sandbox."""

    def __init__(self, rig: Rig, lead: dict[str, Any]) -> None:
        self._reader = DirectReader(rig)
        self._lead = lead
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._probe, daemon=True)

    def __enter__(self) -> "Prober":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> list[float]:
        """Of each read."""
        return self._reader.seconds

    def _probe(self) -> None:
        while not self._ended.wait(PROBE_SECONDS):
            self._reader.read(self._lead)


def stretch(rig: Rig, lead: dict[str, Any], rate: float, seconds: float, *, beside: bool) -> Stretch:
    """Live leads for so long."""
    pages = rig.get("/sandbox/pages")["pages"]
    live_forms = [page["forms"][0]["form_id"] for page in pages]
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        if beside:
            with ThreadPoolExecutor() as commands:
                for page in pages:
                    for form in page["forms"][1:]:
                        words = ("--form", form["form_id"], "--page", page["page_id"])
                        commands.submit(begin_backfill, rig, *words)
            wait_until("the first leads of the backfill", lambda: _listed(connection) > 0, patience=60)
        since = _one(connection, "select clock_timestamp()")
        listed, began = _listed(connection), time.monotonic()
        watch = Stopwatch(rig.pids())
        count = round(rate * seconds)
        with Prober(rig, lead) as prober:
            rig.post("/sandbox/send", {"count": count, "forms": live_forms, "rate": rate})
            time.sleep(seconds)
            rows = "select count(*) from leads where received_at >= %s"
            still = (
                not beside or _one(connection, "select count(*) from backfills where state = 'running'") > 0
            )
            backfilled = (_listed(connection) - listed) / (time.monotonic() - began)
            wait_until(
                "the live leads", lambda: _one(connection, rows, since) >= count, patience=PATIENCE_SECONDS
            )
        spent = watch.stop()
        if not still:
            raise Stuck("the backfill was over before its stretch: give it more --leads")
        query = "select extract(epoch from stored_at - received_at)::float from leads where received_at >= %s"
        live = [value for (value,) in connection.execute(query, (since,))]
        if beside:
            _throw_away(rig, connection)
    return Stretch(live, list(prober.seconds), backfilled, spent)


def _throw_away(rig: Rig, connection: "psycopg.Connection[Any]") -> None:
    """End the backfills and what they hold, so that the next begins from nothing."""
    ids = [str(i) for (i,) in connection.execute("select backfill_id from backfills where state = 'running'")]
    command = (sys.executable, "-m", "worker", "backfills", "cancel", *ids)
    subprocess.run(command, env=dict(rig.env), check=True, stdout=subprocess.DEVNULL)
    calls = -1

    def quiet() -> bool:
        nonlocal calls
        before, calls = calls, int(rig.get("/sandbox/calls")["kinds"].get("form_leads", 0))
        return calls == before

    wait_until("the end of the walks", quiet, patience=60, poll=2.0)
    connection.execute("truncate leadgen, backfills, slices, findings")
    connection.execute("checkpoint")


def _listed(connection: "psycopg.Connection[Any]") -> int:
    return int(_one(connection, "select coalesce(sum(leads), 0) from slices"))


def _one(connection: "psycopg.Connection[Any]", query: str, *values: object) -> Any:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


@click.command(help=as_help(__doc__))
@click.option("--latency", default=0.1, show_default=True, help="Graph's, in seconds.")
@click.option("--rate", default=5.0, show_default=True, help="Live leads a second, of all Pages together.")
@click.option("--seconds", default=20.0, show_default=True, help="One stretch.")
@click.option("--pairs", default=4, show_default=True, help="Stretches without and with a backfill.")
@click.option("--leads", default=800_000, show_default=True, help="Historic leads, enough for one stretch.")
@click.option(
    "--forms", default=2, show_default=True, type=click.IntRange(2), help="A Page; the first is live."
)
@json_option
def main(
    latency: float, rate: float, seconds: float, pairs: int, leads: int, forms: int, json_path: Path | None
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    world = {"leads": leads, "forms_per_page": forms, "kept_leads": leads}
    runs: dict[str, list[Stretch]] = {ALONE: [], BESIDE: []}
    with (
        build_rig(latency=latency, pages=PAGES, extra=EXTRA, sandbox=world) as rig,
        told_when_stuck(rig, console),
        rig.running(rig.specs(*WEBHOOK_PATH, "backfill")),
    ):
        lead = rig.make_leads(1)[0]
        stretch(rig, lead, rate, 3.0, beside=False)
        for pair in range(pairs):
            for name in runs:
                with console.status(f"{pair + 1} of {pairs}: {name}"):
                    runs[name].append(stretch(rig, lead, rate, seconds, beside=name == BESIDE))
    table = Table(title=f"{rate:g} live leads/s, webhook to row", title_justify="left")
    for heading in ("", *runs):
        table.add_column(heading, justify="left" if not heading else "right")

    def line(what: str, of: Any, digits: int, unit: str) -> None:
        spreads = (Spread.over(of(one) for one in stretches) for stretches in runs.values())
        table.add_row(what, *(spread.show(digits, unit) for spread in spreads))

    line("p50", lambda one: 1_000 * one.p50, 0, " ms")
    line("p99", lambda one: 1_000 * percentile(one.live, 0.99), 0, " ms")
    line("a direct read, p50", lambda one: 1_000 * one.direct_p50, 0, " ms")
    line("backfilled leads/s", lambda one: one.backfilled, 0, "")
    console.print(table)
    p50 = ratio([one.p50 for one in runs[BESIDE]], [one.p50 for one in runs[ALONE]])
    p99 = ratio(
        [percentile(one.live, 0.99) for one in runs[BESIDE]],
        [percentile(one.live, 0.99) for one in runs[ALONE]],
    )
    direct = ratio([one.direct_p50 for one in runs[BESIDE]], [one.direct_p50 for one in runs[ALONE]])
    goals = Table("beside a backfill, over alone", "seen", "goal")
    shown = p50.show(2)
    goals.add_row("p50 of live leads", shown if p50.median <= GOAL else f"[red]{shown}[/]", f"at most {GOAL}")
    goals.add_row("p99 of live leads", p99.show(2), "")
    goals.add_row("p50 of a direct read", direct.show(2), "")
    console.print(goals)
    spents = {name: [one.spent for one in stretches] for name, stretches in runs.items()}
    console.print(shares(spents))
    remark_full_machine(spents, console)
    figures = {
        name: [{**asdict(one), "spent": spent_as_json([one.spent])[0]} for one in stretches]
        for name, stretches in runs.items()
    }
    ratios = {"p50": asdict(p50), "p99": asdict(p99), "direct": asdict(direct)}
    write_json(json_path, "live_beside_backfill", about, {**figures, "ratios": ratios})


if __name__ == "__main__":
    main()
