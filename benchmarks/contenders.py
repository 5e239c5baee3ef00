"""Who is given leads in turns: leadsync's worker, the plain Celery peer, the bare reader; and one turn of each.

    new leads of the sandbox -> offered to a contender whose worker is up -> rows -> compared with the sandbox's -> Turn

It chooses nothing and prints nothing. Invariant: a Turn is of a contender that stored every lead, each as the sandbox
holds it; Stuck else.
"""

import asyncio
import json
import select
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

import psycopg
import redis
from celery import Celery

from benchmarks import bare_reader
from benchmarks import plain_celery_peer as peer
from benchmarks.processes import Spent, Stopwatch
from benchmarks.rig import Rig, Stuck, free_port, wait_for_rows, wait_until
from worker.app import create_app, send
from worker.demo import differences
from worker.desks import open_store
from worker.doorbell import DRAIN_BELL, Doorbell
from worker.inbox import GROUP, STREAM, LeadReference

LEADSYNC: Final = "leadsync"
LEADSYNC_BY_ID: Final = "leadsync by id"
PATIENCE_SECONDS: Final = 60.0
ENTRIES_A_WRITE: Final = 1_000
LEADS_A_SECOND: Final = 10
"""How fast the leads of a turn have been created. All in one second they would be no backlog that ever was: whoever
listed a form would read the leads of all others too."""
STAGED: Final = f"{peer.QUEUE}-staged"

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
    """leadsync's live worker. `by_id`: what announces a lead does not say when it was created, so none is listed."""

    process = "worker"
    stored = "select count(*) from leadgen where state = 'stored'"

    def __init__(self, rig: Rig, *, by_id: bool = False) -> None:
        self.name = LEADSYNC_BY_ID if by_id else LEADSYNC
        self._by_id = by_id
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
                    reference = _reference(lead)
                    if self._by_id:
                        reference = replace(reference, created_time=None)
                    entry: dict[Any, Any] = {**reference.to_entry()}
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


class Bare:
    """The bare reader: no queue, no promise, the same batches."""

    name = "bare reader"
    process = "bare"
    stored = f"select count(*) from {bare_reader.TABLE}"

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._port = free_port()
        self._job: socket.socket | None = None

    def running(self) -> AbstractContextManager[None]:
        """Its process."""
        return self._rig.running([bare_reader.process(self._rig.env, self._port)])

    def prepare(self, leads: Sequence[Lead]) -> None:
        """Nothing."""

    def offer(self, leads: Sequence[Lead]) -> None:
        self._job = socket.create_connection(("127.0.0.1", self._port))
        job = [[lead["id"], lead["page_id"]] for lead in leads]
        self._job.sendall(json.dumps(job).encode() + b"\n")

    def is_done(self) -> bool:
        assert self._job is not None
        if not select.select([self._job], [], [], 0)[0]:
            return False
        answered = bool(self._job.recv(1))
        self._job.close()
        if not answered:
            raise Stuck("the bare reader did not end its job")
        return True

    def wrong(self, leads: Sequence[Lead]) -> int:
        with psycopg.connect(self._rig.database_url, autocommit=True) as connection:
            query = f"select leadgen_id, field_data from {bare_reader.TABLE}"
            rows = dict(connection.execute(query.encode()).fetchall())
        _empty(self._rig, bare_reader.TABLE)
        return sum(rows.get(lead["id"]) != lead["field_data"] for lead in leads)


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
    leads = rig.make_backlog(count, LEADS_A_SECOND)
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


def warm_up(rig: Rig, contender: Contender) -> None:
    """Enough leads that every child and thread has its connections and has loaded what it needs."""
    concurrency = contender.concurrency if isinstance(contender, Peer) else 4
    for _ in range(2):
        take_turn(rig, contender, 5 * concurrency)


def _reference(lead: Lead) -> LeadReference:
    """What a webhook would have said of this lead."""
    return LeadReference(
        leadgen_id=lead["id"],
        page_id=lead["page_id"],
        form_id=lead.get("form_id"),
        ad_id=lead.get("ad_id"),
        created_time=int(datetime.fromisoformat(lead["created_time"]).timestamp()),
        sent_time=None,
        received_at=time.time_ns() // 1_000_000,
    )


def _empty(rig: Rig, table: str) -> None:
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute(f"truncate {table}".encode())
