"""Claim: a backfill brings at least 8 times the leads a second of the official SDK's cursor, in about as many calls.

    one sandbox with historic leads, the same for all, in turns:
    leadsync:  `leadsync backfill --page P` for each Page -> schedule -> backfill worker -> every backfill is `done`
    the SDK:   form by form, all fields, to its end -> COPY, one process
    the limit: a bare reader of leadsync's own slices, as many side by side, that only reads and COPYs
    dlt:       its REST source, all forms side by side, into its Postgres destination; where `make peers` has been run

Printed: leads/s, calls as the sandbox counted them, leads per CPU second of whoever reads (leadsync's is the worker's
whole process tree), which cores were busy, and whether each brought exactly the leads that the sandbox has. Goals: 8
times the SDK's leads/s, 1.15 times its calls at most, half of the bare reader's leads per CPU second at least; beside
dlt there is no goal, only the figures.
leadsync is timed from the first backfill's beginning to the last one's end, so the wait for the schedule's bell is in
it; `while reading` is without that wait. No start of a process is measured, neither of a command nor of a peer. Then
the same once more where Graph answers an empty result page now and then.

The sandbox keeps the leads' JSON once it was listed (`kept_leads`), and an unmeasured reading goes before, so that as
little as possible of what is measured is the sandbox. On few cores it is a part of it all the same: see the table.

What it does not show: a second worker process, or a machine whose cores are not shared with Graph and Postgres.
"""

import dataclasses
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import psycopg
import redis
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from benchmarks.backfill_peers import DROPS, IDS, Done, has_dlt, peer
from benchmarks.processes import Spent, Stopwatch
from benchmarks.report import (
    Spread,
    as_help,
    json_option,
    machine,
    print_machine,
    ratio,
    remark_full_machine,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import Rig, build_rig, told_when_stuck, wait_until
from worker.cli import main as leadsync
from worker.graph.wire import FULL_FIELDS, appsecret_proof
from worker.inbox import BACKFILL_QUEUE, PROGRESS

GOAL_SPEED: Final = 8.0
GOAL_CALLS: Final = 1.15
GOAL_EFFICIENCY: Final = 0.5
PAGES: Final = 4
PATIENCE_SECONDS: Final = 1_800.0
BACKFILL_PATH: Final = ("backfill", "schedule")
EXTRA: Final = {
    "RECONCILE_LAG_SECONDS": "1",
    "BACKFILL_NEW_FORMS": "false",
    # Nothing but what was asked for is to be read.
    "RECONCILE_EVERY_SECONDS": "86400",
    "RECONCILE_DEEP_SECONDS": "8640000",
}
EMPTY_PAGES: Final = 0.05
EMPTY_LATENCY: Final = 0.01
"""With empty result pages it is counted who brought what, not how fast."""
EMPTY_PART: Final = 4
"""So a part of the forms is enough for that, with as many leads each."""
OURS, SDK, BARE, DLT = "leadsync", "the SDK", "bare reader", "dlt"


@dataclass(frozen=True, slots=True)
class Measured:
    """One reading of everything: `leads` are rows, `missing` those that the sandbox has and no row has."""

    leads: int
    missing: int
    seconds: float
    reading: float
    cpu: float
    calls: Mapping[str, int]
    spent: Spent

    @property
    def all_calls(self) -> int:
        """Calls of every kind."""
        return sum(self.calls.values())

    @property
    def speed(self) -> float:
        """Leads a second."""
        return self.leads / self.seconds

    @property
    def efficiency(self) -> float:
        """Leads per CPU second of who reads."""
        return self.leads / self.cpu


class Readers:
    """Runs each of them once, from nothing."""

    def __init__(self, rig: Rig, limit_of_sdk: int) -> None:
        self._rig = rig
        self._limit_of_sdk = limit_of_sdk
        told = rig.get("/sandbox/pages")
        self._app_id = told["app_id"]
        self._pages = told["pages"]
        self._token_of = {form["form_id"]: page["token"] for page in self._pages for form in page["forms"]}
        self._truth = {lead["id"] for lead in rig.lines("/sandbox/truth?origin=historic")}

    @property
    def leads(self) -> int:
        """How many the sandbox has."""
        return len(self._truth)

    def leadsync(self) -> Measured:
        """A backfill of each Page; the worker and the schedule run already."""
        with psycopg.connect(self._rig.database_url, autocommit=True) as connection:
            connection.execute("truncate leadgen, backfills, slices, findings")
            _clear(self._rig)
            watch = Stopwatch(self._rig.pids())
            for page in self._pages:
                _begin_here(self._rig, "--page", page["page_id"])
            wait_for_backfills(connection)
            spent = watch.stop()
            row = connection.execute(
                "select extract(epoch from min(requested_at))::float, extract(epoch from max(finished_at))::float"
                " from backfills"
            ).fetchone()
            assert row is not None
            began, ended = row
            found = connection.execute("select leadgen_id from leads")
            ids = {leadgen_id for (leadgen_id,) in found}
        log = self._rig.lines(f"/sandbox/calls/log?since={began}")
        first = min((at for at, _, kind, _ in log if kind == "form_leads"), default=began)
        return self._measured(ids, ended - began, ended - first, spent.by_name["backfill"], spent)

    def slices(self) -> list[tuple[str, int, int]]:
        """What leadsync read last, as (form, since, until)."""
        with psycopg.connect(self._rig.database_url, autocommit=True) as connection:
            query = "select object_id, since, until from slices where state = 'done' order by slice_id"
            return [(form_id, since, until) for form_id, since, until in connection.execute(query)]

    def sdk(self) -> Measured:
        """Form by form."""
        pages = [(page["token"], [form["form_id"] for form in page["forms"]]) for page in self._pages]
        return self._peer("sdk", {"pages": pages, "app_id": self._app_id, "limit": self._limit_of_sdk})

    def dlt(self) -> Measured:
        """All forms side by side."""
        secret = self._rig.env["META_APP_SECRET"]
        pages = [
            (
                page["token"],
                appsecret_proof(secret, page["token"]),
                [form["form_id"] for form in page["forms"]],
            )
            for page in self._pages
        ]
        return self._peer("dlt", {"pages": pages, "fields": FULL_FIELDS, "limit": self._limit_of_sdk})

    def bare(self, slices: Sequence[tuple[str, int, int]], in_flight: int) -> Measured:
        """These slices."""
        listed = [(form_id, since, until, self._token_of[form_id]) for form_id, since, until in slices]
        return self._peer("bare", {"slices": listed, "in_flight": in_flight, "limit": 500})

    def whole(self) -> list[tuple[str, int, int]]:
        """Every form in one slice."""
        return [(form_id, 0, int(time.time()) + 1) for form_id in self._token_of]

    def _peer(self, kind: str, job: Mapping[str, object]) -> Measured:
        env = self._rig.env
        where = {"graph_url": self._rig.graph_url, "version": env["GRAPH_VERSION"]}
        with peer(kind, env, {**where, **job}) as running:
            _clear(self._rig)
            watch = Stopwatch({**self._rig.pids(), "peer": running.pid})
            done: Done = running.work()
            spent = watch.stop()
        with psycopg.connect(self._rig.database_url, autocommit=True) as connection:
            ids = {leadgen_id for (leadgen_id,) in connection.execute(IDS[kind].encode())}
            connection.execute(DROPS[kind].encode())
        return self._measured(ids, done.seconds, done.seconds, done.cpu, spent)

    def _measured(self, ids: set[str], seconds: float, reading: float, cpu: float, spent: Spent) -> Measured:
        calls: dict[str, int] = {}
        for told in self._rig.get("/sandbox/calls")["pages"].values():
            for kind, count in told["kinds"].items():
                calls[kind] = calls.get(kind, 0) + count
        assert ids <= self._truth, "rows of leads that the sandbox never had"
        return Measured(len(ids), len(self._truth - ids), seconds, reading, cpu, calls, spent)


def _clear(rig: Rig) -> None:
    """Forget the calls so far, and let Postgres write out what lies there."""
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute("checkpoint")
    request = urllib.request.Request(f"{rig.graph_url}/sandbox/calls", method="DELETE")
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()


def begin_backfill(rig: Rig, *words: str) -> None:
    """As an operator does it."""
    subprocess.run(
        (sys.executable, "-m", "worker", "backfill", *words, "--no-follow"), env=dict(rig.env), check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _begin_here(rig: Rig, *words: str) -> None:
    """The same in this process: to start Python costs the processors that leadsync works on, and of the peers it is not
    measured either.
    """
    done = CliRunner().invoke(
        leadsync, ("backfill", *words, "--no-follow"), env=dict(rig.env), catch_exceptions=False
    )
    assert done.exit_code == 0, done.output


def wait_for_backfills(connection: "psycopg.Connection[Any]") -> None:
    """Until none runs."""

    def ended() -> bool:
        row = connection.execute("select count(*) from backfills where state = 'running'").fetchone()
        return row is not None and row[0] == 0

    wait_until("the end of all backfills", ended, patience=PATIENCE_SECONDS, poll=0.1)


def wait_for_a_look(rig: Rig) -> None:
    """Until the backfill worker has looked for work once, so that all it needs is open."""
    client = redis.Redis.from_url(rig.redis_url)
    wait_until(
        "a look of the backfill worker", lambda: bool(client.hget(PROGRESS, BACKFILL_QUEUE)), patience=60
    )
    client.close()


@click.command(help=as_help(__doc__))
@click.option("--leads", default=200_000, show_default=True, help="Historic leads of the sandbox.")
@click.option("--forms", default=40, show_default=True, help=f"Over {PAGES} Pages.")
@click.option("--latency", default=0.1, show_default=True, help="Graph's, in seconds.")
@click.option(
    "--limit-of-sdk", default=500, show_default=True, type=click.IntRange(1, 500),
    help="Leads that the SDK and dlt ask for at once.",
)  # fmt: skip
@click.option("--pairs", default=2, show_default=True, help="How often each reads everything.")
@click.option("--processes", default=2, show_default=True, help="Children of the backfill worker.")
@click.option(
    "--with-empties/--without-empties", default=True, show_default=True, help="Empty result pages too."
)
@json_option
def main(
    leads: int, forms: int, latency: float, limit_of_sdk: int, pairs: int, processes: int, with_empties: bool,
    json_path: Path | None,
) -> None:  # fmt: skip
    console = Console()
    about = machine()
    print_machine(about, console)
    world = {"leads": leads, "forms_per_page": max(1, forms // PAGES), "kept_leads": leads}
    runs: dict[str, list[Measured]] = {OURS: [], SDK: [], BARE: []}
    if has_dlt():
        runs[DLT] = []
    else:
        console.print("dlt is not measured beside: its environment is not there, `make peers` makes it")
    with (
        build_rig(latency=latency, pages=PAGES, extra=EXTRA, sandbox=world) as rig,
        told_when_stuck(rig, console),
    ):
        in_flight = rig.settings.backfill_slices_per_process
        readers = Readers(rig, limit_of_sdk)
        with console.status("an unmeasured reading"):
            readers.bare(readers.whole(), in_flight)
        with rig.running(_specs(rig, processes)):
            wait_for_a_look(rig)
            for pair in range(pairs):
                with console.status(f"{pair + 1} of {pairs}: {OURS}"):
                    runs[OURS].append(readers.leadsync())
                slices = readers.slices()
                with console.status(f"{pair + 1} of {pairs}: {BARE}"):
                    runs[BARE].append(readers.bare(slices, in_flight))
                with console.status(f"{pair + 1} of {pairs}: {SDK}"):
                    runs[SDK].append(readers.sdk())
                if DLT in runs:
                    with console.status(f"{pair + 1} of {pairs}: {DLT}"):
                        runs[DLT].append(readers.dlt())
    _print(runs, leads, len(slices), console)
    spents = {name: [one.spent for one in measured] for name, measured in runs.items()}
    console.print(shares(spents))
    remark_full_machine(spents, console)
    figures: dict[str, Any] = {
        name: [{**asdict(one), "spent": spent_as_json([one.spent])[0]} for one in measured]
        for name, measured in runs.items()
    }
    empties: dict[str, Measured] = {}
    if with_empties:
        empties = _with_empties(leads, forms, limit_of_sdk, processes, console)
        figures["empties"] = {
            name: {"leads": one.leads, "missing": one.missing} for name, one in empties.items()
        }
    write_json(json_path, "backfill_speed", about, figures)
    if any(one.missing for one in (*runs[OURS], *(one for name, one in empties.items() if name == OURS))):
        raise click.ClickException("leadsync did not bring every lead")


def _specs(rig: Rig, processes: int) -> Any:
    return [
        dataclasses.replace(spec, argv=(*spec.argv, "--concurrency", str(processes)))
        if spec.name == "backfill"
        else spec
        for spec in rig.specs(*BACKFILL_PATH)
    ]


def _with_empties(
    leads: int, forms: int, limit_of_sdk: int, processes: int, console: Console
) -> dict[str, Measured]:
    forms_per_page = max(1, forms // PAGES // EMPTY_PART)
    leads = leads * forms_per_page * PAGES // max(forms, PAGES)
    world = {"leads": leads, "forms_per_page": forms_per_page, "empty_pages": EMPTY_PAGES}
    with (
        build_rig(latency=EMPTY_LATENCY, pages=PAGES, extra=EXTRA, sandbox=world) as rig,
        told_when_stuck(rig, console),
        rig.running(_specs(rig, processes)),
        console.status("with empty result pages"),
    ):
        readers = Readers(rig, limit_of_sdk)
        found = {OURS: readers.leadsync(), SDK: readers.sdk()}
        if has_dlt():
            found[DLT] = readers.dlt()
    table = Table(
        f"one result page in {1 / EMPTY_PAGES:.0f} is empty", "leads", "missing",
        title="Empty result pages in between", title_justify="left",
    )  # fmt: skip
    for name, one in found.items():
        missing = f"[red]{one.missing:,}[/]" if one.missing else "0"
        table.add_row(name, f"{one.leads:,} of {leads:,}", missing)
    console.print(table)
    return found


def _print(runs: Mapping[str, Sequence[Measured]], leads: int, slices: int, console: Console) -> None:
    table = Table(title=f"{leads:,} leads, {slices:,} slices", title_justify="left")
    for heading in ("", *runs):
        table.add_column(heading, justify="left" if not heading else "right")

    def line(what: str, show: Any) -> None:
        table.add_row(what, *(show(measured) for measured in runs.values()))

    def spread(of: Any, digits: int = 0) -> Any:
        return lambda measured: Spread.over(of(one) for one in measured).show(digits)

    line("leads/s", spread(lambda one: one.speed))
    line("leads/s while reading", spread(lambda one: one.leads / one.reading))
    line("seconds", spread(lambda one: one.seconds, 1))
    line("calls", spread(lambda one: one.all_calls))
    line("of them listings of leads", spread(lambda one: one.calls.get("form_leads", 0)))
    line("leads per CPU second", spread(lambda one: one.efficiency))
    line("CPU microseconds a lead", spread(lambda one: 1e6 * one.cpu / one.leads))
    line("missing leads", spread(lambda one: one.missing))
    console.print(table)
    ours, sdk, bare = (runs[name] for name in (OURS, SDK, BARE))
    goals = Table("", "seen", "goal")

    def goal(what: str, seen: Spread, word: str, wanted: float, *, least: bool) -> None:
        is_met = seen.median >= wanted if least else seen.median <= wanted
        shown = seen.show(2)
        goals.add_row(what, shown if is_met else f"[red]{shown}[/]", f"{word} {wanted:g}")

    def over(of: Any, theirs: Sequence[Measured]) -> Spread:
        return ratio([of(one) for one in ours], [of(one) for one in theirs])

    goal("leads/s, over the SDK's", over(lambda one: one.speed, sdk), "at least", GOAL_SPEED, least=True)
    goals.add_row("the same, while reading", over(lambda one: one.leads / one.reading, sdk).show(2), "")
    goal("calls, over the SDK's", over(lambda one: one.all_calls, sdk), "at most", GOAL_CALLS, least=False)
    goal(
        "leads per CPU second, over the bare reader's", over(lambda one: one.efficiency, bare), "at least",
        GOAL_EFFICIENCY, least=True,
    )  # fmt: skip
    goals.add_row("leads/s, over the bare reader's", over(lambda one: one.speed, bare).show(2), "")
    if DLT in runs:
        dlt = runs[DLT]
        goals.add_row("leads/s, over dlt's", over(lambda one: one.speed, dlt).show(2), "")
        goals.add_row("the same, while reading", over(lambda one: one.leads / one.reading, dlt).show(2), "")
        goals.add_row("calls, over dlt's", over(lambda one: one.all_calls, dlt).show(2), "")
        goals.add_row("leads per CPU second, over dlt's", over(lambda one: one.efficiency, dlt).show(2), "")
    console.print(goals)


if __name__ == "__main__":
    main()
