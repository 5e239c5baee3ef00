"""Claim: a lead costs at most twice as much with a million rows, or with 10,000 Pages, as with 10,000 rows of one Page.

    a leadsync for each size, with its own Postgres, Redis and sandbox, its table filled beforehand
    -> as many new leads to each in turn
    -> WAL, buffers, Redis' CPU and commands, worker CPU a lead, beside the smallest

The table is filled by SQL through its real columns, spread over the Pages. New leads are of one Page, or of ten at
most, so that what is compared is the size and not how well leads fit into batches; `all of them busy` is the other
extreme, a lead a Page and so a request a lead, and has no goal (docs/decisions/0019 says why). Bytes of a waiting
reference are those of Redis' memory, in the stream and, more, once a worker holds it.

WAL is the log's own position before and after, checkpoints left as they come. Buffers are counted once over all turns,
since Postgres' processes report them seconds late. Redis' time is the CPU time of its process, its writing to disk
included. The times that it tells of its commands (`INFO commandstats`) are wall-clock: what else runs on the core
meanwhile is in them, on a busy machine ten times what Redis itself took. Commands are counted with those within
scripts and transactions; a few a second are ours, which look for the end.

What it does not show: receivers; backfills; a table that is larger than memory (--rows 10000000 takes 12 GB of disk and
a quarter of an hour). The sandbox's ids ascend, Meta's hop about: each then touches index pages of its own, and after a
checkpoint the log holds these whole.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import psycopg
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import PATIENCE_SECONDS, Leadsync
from benchmarks.processes import Spent, Stopwatch
from benchmarks.report import (
    Finding,
    Spread,
    as_help,
    json_option,
    judge,
    machine,
    print_machine,
    ratio,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import Rig, Stuck, build_rig, told_when_stuck, wait_until
from worker.inbox import GROUP, STREAM, LeadReference

GOAL: Final = 2.0
BUSY_PAGES: Final = 10
"""New leads are of so many Pages at most, where not all are to be busy."""
REPORTED_SECONDS: Final = 11.0
"""After this an idle process of Postgres has told all that it counted.

https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/activity/pgstat.c (PGSTAT_IDLE_INTERVAL)
"""
REFERENCES: Final = 50_000
ENTRIES_A_WRITE: Final = 1_000
POLL_SECONDS: Final = 0.4
"""To ask whether all is done costs Redis something, and a slower turn must not cost it more for that alone."""
MICROSECONDS: Final = 1_000_000

FILL: Final = """
insert into leadgen (
    leadgen_id, state, turn, first_seen_at, last_seen_at, page_id, form_id, ad_id, ad_name, adset_id, adset_name,
    campaign_id, campaign_name, created_time, is_organic, platform, field_data, source, received_at, announced,
    taken_ms, read_ms, stored_at, updated_at)
select
    (100000000000000 + n * 97)::text, 'stored', -1, at, at, page_id, page_id || '7', '23850000000' || n %% 40,
    'Ad ' || n %% 40, '23860000000' || n %% 20, 'Ad set ' || n %% 20, '23870000000' || n %% 5, 'Campaign ' || n %% 5,
    at - interval '2 seconds', false, case n %% 2 when 0 then 'fb' else 'ig' end,
    jsonb_build_array(
        jsonb_build_object('name', 'full_name', 'values', jsonb_build_array('Person ' || n)),
        jsonb_build_object('name', 'email', 'values', jsonb_build_array('person.' || n || '@example.com')),
        jsonb_build_object('name', 'phone_number', 'values', jsonb_build_array('+55119' || 10000000 + n)),
        jsonb_build_object('name', 'which_model?', 'values', jsonb_build_array('model_' || n %% 7))),
    'webhook', at, 1, 4, 160, at + interval '170 milliseconds', at + interval '170 milliseconds'
from (
    select n, (%(pages)s::text[])[1 + n %% cardinality(%(pages)s::text[])] as page_id,
        now() - interval '89 days' * (1 - n::float8 / %(rows)s) as at
    from generate_series(1, %(rows)s::bigint) as n) as made
order by 1
"""
KNOWN_PAGES: Final = """
insert into pages (page_id, updated_at) select unnest(%(pages)s::text[]), now() on conflict do nothing
"""
INDEXES: Final = """
select indexname, indexdef from pg_indexes where tablename = 'leadgen' and indexname <> 'leadgen_pkey'
"""
COUNTED: Final = """
select pg_current_wal_lsn() - '0/0'::pg_lsn, (select wal_fpi from pg_stat_wal), blks_hit + blks_read
from pg_stat_database where datname = current_database()
"""

STORED: Final = "select count(*) from leadgen where leadgen_id = any(%s) and state = 'stored'"
NAMED: Final = ("sandbox", "redis", "postgres", "worker")


@dataclass(frozen=True, slots=True)
class Size:
    """One leadsync to compare."""

    rows: int
    pages: int
    all_busy: bool = False

    @property
    def told(self) -> str:
        """In words."""
        busy = ", all of them busy" if self.all_busy else ""
        return f"{self.rows:,} rows, {self.pages:,} Page{'s' * (self.pages > 1)}{busy}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What so many leads cost; `redis` is microseconds of CPU, `wal` bytes."""

    leads: int
    wal: float
    redis: float
    commands: float
    spent: Spent

    @property
    def worker(self) -> float:
        """Microseconds of worker CPU."""
        return self.spent.by_name["worker"] * MICROSECONDS


COSTS: Final[Mapping[str, Callable[[Turn], float]]] = {
    "worker CPU us": lambda turn: turn.worker / turn.leads,
    "Redis CPU us": lambda turn: turn.redis / turn.leads,
    "Redis commands": lambda turn: turn.commands / turn.leads,
    "WAL bytes": lambda turn: turn.wal / turn.leads,
}


class Place:
    """One leadsync of a size, its worker running."""

    def __init__(self, rig: Rig, size: Size) -> None:
        self.rig, self.size = rig, size
        self._postgres = psycopg.connect(rig.database_url, autocommit=True)
        self._redis = redis.Redis.from_url(rig.redis_url)
        # By id each lead costs the same work at each size; a listing would bring leads of others along.
        self._ours = Leadsync(rig, by_id=True)
        self._pages = list(rig.get("/sandbox/tokens"))
        self._offered: list[str] = []

    def fill(self) -> None:
        """The table as it would be after so many leads, its statistics taken."""
        indexes = self._postgres.execute(INDEXES).fetchall()
        for name, _ in indexes:
            self._postgres.execute(f"drop index {name}".encode())
        self._postgres.execute(FILL, {"rows": self.size.rows, "pages": self._pages})
        self._postgres.execute(KNOWN_PAGES, {"pages": self._pages})
        for _, definition in indexes:
            self._postgres.execute(definition.encode())
        self._postgres.execute("vacuum analyze leadgen")
        self._postgres.execute("checkpoint")

    def turn(self, count: int) -> Turn:
        """`count` new leads, each a row at the end."""
        busy = self._pages if self.size.all_busy else self._pages[:BUSY_PAGES]
        leads = self.rig.make_leads(count, pages=busy)
        self._offered += [lead["id"] for lead in leads]
        pids = {name: pid for name, pid in self.rig.pids().items() if name in NAMED}
        wal, (micros, commands) = self.counted()[0], self._redis_used()
        watch = Stopwatch(pids)
        self._ours.offer(leads)
        wait_until(
            "the last acknowledgement", self._ours.is_done, patience=PATIENCE_SECONDS, poll=POLL_SECONDS
        )
        spent = watch.stop()
        micros_now, commands_now = self._redis_used()
        return Turn(count, self.counted()[0] - wal, micros_now - micros, commands_now - commands, spent)

    def prove(self) -> None:
        """Stuck where an offered lead is no row. It touches buffers, so it comes last."""
        row = self._postgres.execute(STORED, (self._offered,)).fetchone()
        assert row is not None
        if row[0] != len(self._offered):
            raise Stuck(f"{self.size.told}: {row[0]:,} of {len(self._offered):,} leads are rows")

    def counted(self) -> tuple[float, float, float]:
        """The log's position, page images in it, and buffers touched, so far."""
        row = self._postgres.execute(COUNTED).fetchone()
        assert row is not None
        return float(row[0]), float(row[1]), float(row[2])

    def _redis_used(self) -> tuple[float, float]:
        """Microseconds of CPU, and commands, so far."""
        told = self._redis.info()
        seconds = float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
        return seconds * MICROSECONDS, float(told["total_commands_processed"])


def waiting_bytes(rig: Rig) -> tuple[float, float]:
    """Redis' memory a reference that waits in the stream, and more once a worker holds it."""
    client = redis.Redis.from_url(rig.redis_url)
    reference = LeadReference(
        "1234567890123456", "102030405060708", "403020100090807", "120210987654321",
        1_700_000_000, 1_700_000_001, 1_700_000_002_000,
    )  # fmt: skip
    empty = _memory(client)
    for start in range(0, REFERENCES, ENTRIES_A_WRITE):
        with client.pipeline(transaction=False) as pipe:
            for number in range(start, start + ENTRIES_A_WRITE):
                entry: dict[Any, Any] = {**reference.to_entry(), "lead": str(10**15 + number)}
                pipe.xadd(STREAM, entry)
            pipe.execute()
    waiting = _memory(client)
    client.xgroup_create(STREAM, GROUP, "0")
    while client.xreadgroup(GROUP, "bench", {STREAM: ">"}, count=ENTRIES_A_WRITE):
        pass
    held = _memory(client)
    client.delete(STREAM)
    return (waiting - empty) / REFERENCES, (held - waiting) / REFERENCES


def _memory(client: "redis.Redis") -> float:
    return float(client.info("memory")["used_memory"])


def measure(
    places: Sequence[Place], leads: int, pairs: int, console: Console
) -> tuple[dict[Size, list[Turn]], dict[Size, tuple[float, float]]]:
    """`pairs` turns of each, interleaved; and of each the page images and buffers a lead over all of its turns."""
    turns: dict[Size, list[Turn]] = {place.size: [] for place in places}
    for place in places:
        with console.status(f"warming up: {place.size.told}"):
            place.turn(leads)
    time.sleep(REPORTED_SECONDS)
    before = {place.size: place.counted() for place in places}
    for number in range(pairs):
        for place in places if number % 2 == 0 else places[::-1]:
            with console.status(f"pair {number + 1} of {pairs}: {place.size.told}"):
                turns[place.size].append(place.turn(leads))
    time.sleep(REPORTED_SECONDS)
    late: dict[Size, tuple[float, float]] = {}
    for place in places:
        _, images, buffers = (
            now - then for now, then in zip(place.counted(), before[place.size], strict=True)
        )
        late[place.size] = images / (pairs * leads), buffers / (pairs * leads)
    return turns, late


def show(
    turns: Mapping[Size, Sequence[Turn]], late: Mapping[Size, tuple[float, float]], console: Console
) -> Iterator[Finding]:
    """Print the figures; what is to be told of them."""
    table = Table(title="a lead: median (lowest-highest)", title_justify="left")
    for heading in ("", *COSTS, "page images", "buffers"):
        table.add_column(heading, justify="right" if heading else "left")
    for size, of in turns.items():
        spreads = (Spread.over(map(cost, of)) for cost in COSTS.values())
        cells = (spread.show(0 if spread.median >= 10 else 2) for spread in spreads)
        table.add_row(size.told, *cells, f"{late[size][0]:.2f}", f"{late[size][1]:.0f}")
    console.print(table)
    smallest = next(iter(turns))
    for size, of in turns.items():
        if size == smallest:
            continue
        goal = None if size.all_busy else GOAL
        for name, cost in COSTS.items():
            costs = ratio([cost(turn) for turn in of], [cost(turn) for turn in turns[smallest]])
            yield Finding(f"{name} a lead, {size.told} : {smallest.told}", costs, goal=goal, at_least=False)
        buffers = Spread.over([late[size][1] / late[smallest][1]])
        yield Finding(f"buffers a lead, {size.told} : {smallest.told}", buffers, goal=goal, at_least=False)


@click.command(help=as_help(__doc__))
@click.option(
    "--rows", "rows", multiple=True, type=int, default=(10_000, 1_000_000), show_default=True,
    help="In the table, with one Page; the first is what the others stand beside; repeatable.",
)  # fmt: skip
@click.option(
    "--pages", "pages", multiple=True, type=int, default=(100, 10_000), show_default=True,
    help="With the first number of rows; repeatable.",
)  # fmt: skip
@click.option("--leads", default=1_000, show_default=True, help="New leads a turn.")
@click.option("--pairs", default=5, show_default=True, help="Turns of each.")
@json_option
def main(
    rows: tuple[int, ...], pages: tuple[int, ...], leads: int, pairs: int, json_path: Path | None
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    sizes = [*(Size(each, 1) for each in rows), *(Size(rows[0], each) for each in pages)]
    if pages:
        sizes.append(Size(rows[0], max(pages), all_busy=True))
    with ExitStack() as held:
        places: list[Place] = []
        for size in sizes:
            with console.status(f"filling: {size.told}"):
                rig = held.enter_context(
                    build_rig(latency=0, pages=size.pages, extra={"WORKER_CONCURRENCY": "1"})
                )
                held.enter_context(told_when_stuck(rig, console))
                if not places:
                    waiting, more = waiting_bytes(rig)
                place = Place(rig, size)
                place.fill()
                held.enter_context(rig.running(rig.specs("worker")))
            places.append(place)
        turns, late = measure(places, leads, pairs, console)
        for place in places:
            place.prove()
    found = list(show(turns, late, console))
    console.print(f"Redis: {waiting:.0f} bytes a waiting reference, {more:.0f} more once a worker holds it")
    found += [
        Finding("Redis' memory a waiting reference", Spread.over([waiting]), " bytes", 0),
        Finding("more once a worker holds it", Spread.over([more]), " bytes", 0),
    ]
    console.print(shares({size.told: [turn.spent for turn in of] for size, of in turns.items()}))
    judge(found, console)
    figures = {
        "options": {"leads": leads, "pairs": pairs},
        "findings": [finding.as_json() for finding in found],
        "turns": {
            size.told: [{name: cost(turn) for name, cost in COSTS.items()} for turn in of]
            for size, of in turns.items()
        },
        "spent": {size.told: spent_as_json(turn.spent for turn in of) for size, of in turns.items()},
    }
    write_json(json_path, "scale", about, figures)


if __name__ == "__main__":
    main()
