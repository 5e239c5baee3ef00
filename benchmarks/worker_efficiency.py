"""Claim: leadsync's worker stores at least 10 times as many leads a CPU second as a plain Celery worker does.

    leadsync:  references into the stream   -> worker -> batches of 50     -> table leadgen
    the peer:  one Celery message a lead    -> worker -> one GET a lead    -> table peer_leads

Both workers are up and warm, in one run on one machine, with the same Redis, Postgres and simulated Graph API, and
take turns with the same number of leads. The peer's pool and concurrency are those that did best in a sweep just
before: the leanest (leads a CPU second) and, where that is another one, the fastest (leads a second).
Worker CPU is the worker's main process and all of its children, from the first lead offered to the last one
acknowledged. Rows are compared with what the sandbox holds after every turn; a turn that lacks a row is no figure.

What it does not show: the receiver (neither side has one here), what Redis and Postgres spend for each side (told
in the table of cores), latency at low load (webhook_latency.py), what happens when something breaks. leads/s
means little where sandbox, servers and workers share two cores; CPU seconds a lead is what carries over to other
machines.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import click
import psycopg
import redis
from celery import Celery
from rich.console import Console
from rich.table import Table

from benchmarks import plain_celery_peer as peer
from benchmarks.processes import Spent, Stopwatch
from benchmarks.report import (
    Spread,
    as_help,
    machine,
    print_machine,
    ratio,
    remark_full_machine,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import Rig, Stuck, build_rig, told_when_stuck, wait_for_rows, wait_until
from worker.app import create_app, send
from worker.demo import differences
from worker.doorbell import DRAIN_BELL, Doorbell
from worker.inbox import GROUP, STREAM, LeadReference
from worker.runtime import open_store

GOAL: Final = 10.0
LEADSYNC: Final = "leadsync"
SWEEP: Final = "prefork:8,prefork:16,prefork:32,threads:32,threads:64,threads:80"
"""Postgres takes 100 connections as it comes, and each thread of the peer has its own."""
PATIENCE_SECONDS: Final = 60.0
ENTRIES_A_WRITE: Final = 1_000
STAGED: Final = f"{peer.QUEUE}-staged"
TICKS_WORTH_READING: Final = 0.5
"""CPU seconds; less than that is a few dozen ticks of the kernel's clock."""

Lead = Mapping[str, Any]


class Contender(Protocol):
    """One of the two, its worker running."""

    name: str
    process: str
    stored: str
    """A statement that counts its rows."""

    def prepare(self, leads: Sequence[Lead]) -> None:
        """What may be done before the clock starts."""

    def offer(self, leads: Sequence[Lead]) -> None:
        """Give it all of these leads."""

    def is_done(self) -> bool:
        """Whether it has acknowledged everything."""

    def wrong(self, leads: Sequence[Lead]) -> int:
        """How many of these leads are no row or another one than the sandbox holds. Empties the table."""


class Leadsync:
    """leadsync's live worker."""

    name = LEADSYNC
    process = "worker"
    stored = "select count(*) from leadgen where state = 'stored'"

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._redis = redis.Redis.from_url(rig.redis_url, protocol=2)
        app = create_app(rig.settings)
        self._bell = Doorbell(self._redis, lambda task, queue: send(app, task, queue))

    def prepare(self, leads: Sequence[Lead]) -> None:
        """Nothing: the stream takes them within the measured time."""

    def offer(self, leads: Sequence[Lead]) -> None:
        for start in range(0, len(leads), ENTRIES_A_WRITE):
            with self._redis.pipeline(transaction=True) as pipe:
                for lead in leads[start : start + ENTRIES_A_WRITE]:
                    entry: dict[Any, Any] = {**_reference(lead).to_entry()}
                    pipe.xadd(STREAM, entry)
                pipe.execute()
            self._bell.ring(DRAIN_BELL)

    def is_done(self) -> bool:
        return self._redis.xlen(STREAM) == 0 and self._redis.xpending(STREAM, GROUP)["pending"] == 0

    def wrong(self, leads: Sequence[Lead]) -> int:
        rows = asyncio.run(self._rows([lead["id"] for lead in leads]))
        right = sum(1 for lead in leads if (row := rows.get(lead["id"])) and not differences(lead, row))
        _empty(self._rig, "leadgen")
        return len(leads) - right

    async def _rows(self, ids: Sequence[str]) -> dict[str, Any]:
        async with open_store(self._rig.settings) as store:
            return {row["leadgen_id"]: row for row in await store.stored(ids)}


class Peer:
    """The plain Celery worker, with one pool and concurrency."""

    process = "peer"
    stored = "select count(*) from peer_leads"

    def __init__(self, rig: Rig, pool: str, concurrency: int, prefetch: int) -> None:
        self.name = f"Celery {pool} -c {concurrency}"
        self.pool, self.concurrency, self.prefetch = pool, concurrency, prefetch
        self._rig = rig
        # A database of its own, so that its queues and acknowledgements are its own.
        self._broker = rig.redis_url.rpartition("/")[0] + "/1"
        self._redis = redis.Redis.from_url(self._broker)
        self._app = Celery(broker=self._broker, set_as_current=False)

    def running(self) -> AbstractContextManager[None]:
        """Its worker."""
        spec = peer.process(
            self._rig.env,
            self._broker,
            pool=self.pool,
            concurrency=self.concurrency,
            prefetch=self.prefetch,
        )
        return self._rig.running([spec])

    def prepare(self, leads: Sequence[Lead]) -> None:
        """Making a message costs about as much as working on it, so the messages lie ready."""
        with self._app.producer_or_acquire() as producer:
            for lead in leads:
                arguments = [lead["id"], lead["page_id"]]
                self._app.send_task(peer.TASK, arguments, queue=STAGED, producer=producer, ignore_result=True)

    def offer(self, leads: Sequence[Lead]) -> None:
        self._redis.rename(STAGED, peer.QUEUE)

    def send_one(self, lead: Lead) -> None:
        """One message, now."""
        with self._app.producer_or_acquire() as producer:
            arguments = [lead["id"], lead["page_id"]]
            self._app.send_task(peer.TASK, arguments, queue=peer.QUEUE, producer=producer, ignore_result=True)

    def is_done(self) -> bool:
        return self._redis.llen(peer.QUEUE) == 0 and self._redis.hlen("unacked") == 0

    def wrong(self, leads: Sequence[Lead]) -> int:
        with psycopg.connect(self._rig.database_url, autocommit=True) as connection:
            found = connection.execute("select leadgen_id, page_id, field_data from peer_leads").fetchall()
        rows = {leadgen_id: (page_id, field_data) for leadgen_id, page_id, field_data in found}
        _empty(self._rig, "peer_leads")
        return sum(rows.get(lead["id"]) != (lead["page_id"], lead["field_data"]) for lead in leads)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contender did with a number of leads."""

    leads: int
    spent: Spent
    worker_seconds: float

    @property
    def per_cpu_second(self) -> float:
        return self.leads / self.worker_seconds

    @property
    def per_second(self) -> float:
        return self.leads / self.spent.seconds


def take_turn(rig: Rig, contender: Contender, count: int) -> Turn:
    """`count` new leads for this contender; Stuck where one of them is no row or a wrong one."""
    leads = rig.make_leads(count)
    contender.prepare(leads)
    roots = {
        name: pid
        for name, pid in rig.pids().items()
        if name in ("sandbox", "redis", "postgres", contender.process)
    }
    watch = Stopwatch(roots)
    contender.offer(leads)
    wait_for_rows(contender.stored, count, rig.database_url, patience=PATIENCE_SECONDS)
    wait_until("the last acknowledgement", contender.is_done, patience=PATIENCE_SECONDS)
    spent = watch.stop()
    wrong = contender.wrong(leads)
    if wrong:
        raise Stuck(f"{contender.name}: {wrong} of {count} rows are not what the sandbox holds")
    return Turn(count, spent, spent.by_name[contender.process])


def sweep(
    rig: Rig, candidates: Sequence[Peer], leads: int, console: Console
) -> tuple[list[Peer], dict[str, Turn]]:
    """The leanest and, if it is another one, the fastest of these."""
    turns: dict[str, Turn] = {}
    table = Table(title="The peer's pool and concurrency", title_justify="left")
    for heading in ("", "leads per worker CPU second", "leads/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for candidate in candidates:
        with console.status(f"sweep: {candidate.name}"), candidate.running():
            warm_up(rig, candidate)
            turn = turns[candidate.name] = take_turn(rig, candidate, leads)
        table.add_row(candidate.name, f"{turn.per_cpu_second:,.0f}", f"{turn.per_second:,.0f}")
    console.print(table)
    leanest = max(candidates, key=lambda c: turns[c.name].per_cpu_second)
    fastest = max(candidates, key=lambda c: turns[c.name].per_second)
    return list(dict.fromkeys((leanest, fastest))), turns


def warm_up(rig: Rig, contender: Contender) -> None:
    """Enough leads that every child and thread has its connections and has loaded what it needs."""
    concurrency = contender.concurrency if isinstance(contender, Peer) else 4
    for _ in range(2):
        take_turn(rig, contender, 5 * concurrency)


def measure(
    rig: Rig, contenders: Sequence[Contender], leads: int, pairs: int, console: Console
) -> dict[str, list[Turn]]:
    """`pairs` turns of each, interleaved; the order is turned round every time."""
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for number in range(pairs):
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            with console.status(f"pair {number + 1} of {pairs}: {contender.name}"):
                turns[contender.name].append(take_turn(rig, contender, leads))
                time.sleep(0.5)
    return turns


def show(turns: Mapping[str, Sequence[Turn]], latency: float, console: Console) -> dict[str, Spread]:
    """Print the figures; the ratios of leads a CPU second, by peer."""
    title = f"Graph at {latency * 1000:.0f} ms, {turns[LEADSYNC][0].leads:,} leads a turn: median (lowest-highest)"
    table = Table(title=title, title_justify="left")
    for heading in ("", "leads per worker CPU second", "CPU ms a lead", "leads/s"):
        table.add_column(heading, justify="right" if heading else "left")

    def row(label: str, value: Callable[[Turn], float], of: Sequence[Turn], digits: int = 0) -> str:
        return Spread.over(map(value, of)).show(digits)

    for name, of in turns.items():
        table.add_row(
            name,
            row(name, lambda t: t.per_cpu_second, of),
            row(name, lambda t: 1_000 / t.per_cpu_second, of, 3),
            row(name, lambda t: t.per_second, of),
        )
    ratios: dict[str, Spread] = {}
    ours = turns[LEADSYNC]
    for name in [name for name in turns if name != LEADSYNC]:
        lean = ratios[name] = ratio([t.per_cpu_second for t in ours], [t.per_cpu_second for t in turns[name]])
        fast = ratio([t.per_second for t in ours], [t.per_second for t in turns[name]])
        table.add_row(
            f"[bold]leadsync : {name}", f"[bold]{lean.show(1, ' x')}", "", f"[bold]{fast.show(1, ' x')}"
        )
    console.print(table)
    return ratios


def verdict(ratios: Mapping[str, Spread], console: Console) -> bool:
    """Say whether the goal was met beside every peer; nothing depends on it."""
    worst = min(ratios.values(), key=lambda spread: spread.median)
    met = worst.median >= GOAL
    colour, word = ("green", "met") if met else ("red", "not met")
    console.print(
        f"goal {GOAL:.0f} x the leads per worker CPU second: [{colour}]{word}[/], {worst.show(1, ' x')}"
    )
    return met


def _reference(lead: Lead) -> LeadReference:
    """What a webhook would have said of this lead."""
    return LeadReference(
        leadgen_id=lead["id"],
        page_id=lead["page_id"],
        form_id=lead.get("form_id"),
        ad_id=lead.get("ad_id"),
        created_time=None,
        sent_time=None,
        received_at=time.time_ns() // 1_000_000,
    )


def _empty(rig: Rig, table: str) -> None:
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute(f"truncate {table}".encode())


def _candidates(rig: Rig, words: str, prefetch: int) -> list[Peer]:
    split = (word.partition(":") for word in words.split(","))
    return [Peer(rig, pool.strip(), int(concurrency), prefetch) for pool, _, concurrency in split]


@click.command(help=as_help(__doc__))
@click.option("--latency", default=0.15, show_default=True, help="Graph's, in seconds.")
@click.option("--leads", default=4_000, show_default=True, help="Leads a turn.")
@click.option("--pairs", default=5, show_default=True, help="Turns of each.")
@click.option("--processes", default=2, show_default=True, help="Processes of leadsync's worker.")
@click.option(
    "--peers", default=SWEEP, show_default=True, help="Pools and concurrencies to try for the peer."
)
@click.option("--prefetch", default=4, show_default=True, help="The peer's prefetch multiplier.")
@click.option("--sweep-leads", default=1_500, show_default=True, help="Leads a candidate of the sweep.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here too.")
def main(
    latency: float,
    leads: int,
    pairs: int,
    processes: int,
    peers: str,
    prefetch: int,
    sweep_leads: int,
    json_path: Path | None,
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    with ExitStack() as held:
        with console.status("starting Redis, Postgres and sandbox"):
            rig = held.enter_context(build_rig(latency=latency, extra={"WORKER_CONCURRENCY": str(processes)}))
        held.enter_context(told_when_stuck(rig, console))
        with psycopg.connect(rig.database_url, autocommit=True) as connection:
            connection.execute(peer.TABLE)
        candidates = _candidates(rig, peers, prefetch)
        swept: dict[str, Turn] = {}
        if len(candidates) > 1:
            candidates, swept = sweep(rig, candidates, sweep_leads, console)
        held.enter_context(rig.running(rig.specs("worker")))
        contenders: list[Contender] = [Leadsync(rig), *candidates]
        for contender in contenders:
            held.enter_context(contender.running() if isinstance(contender, Peer) else nullcontext())
            warm_up(rig, contender)
        turns = measure(rig, contenders, leads, pairs, console)
    ratios = show(turns, latency, console)
    spents = {name: [turn.spent for turn in of] for name, of in turns.items()}
    console.print(shares(spents))
    remark_full_machine(spents, console)
    least = min(turn.worker_seconds for of in turns.values() for turn in of)
    if least < TICKS_WORTH_READING:
        console.print(f"[yellow]a turn took only {least:.2f} CPU s of its worker: too few leads for a figure")
    met = verdict(ratios, console)
    figures = {
        "options": {
            "latency": latency,
            "leads": leads,
            "pairs": pairs,
            "processes": processes,
            "prefetch": prefetch,
        },
        "sweep": {
            name: {"per_cpu_second": t.per_cpu_second, "per_second": t.per_second}
            for name, t in swept.items()
        },
        "turns": {
            name: [{"per_cpu_second": t.per_cpu_second, "per_second": t.per_second} for t in of]
            for name, of in turns.items()
        },
        "spent": {name: spent_as_json(of) for name, of in spents.items()},
        "ratios": {name: asdict(spread) for name, spread in ratios.items()},
        "goal": GOAL,
        "goal_met": met,
    }
    write_json(json_path, "worker_efficiency", about, figures)


if __name__ == "__main__":
    main()
