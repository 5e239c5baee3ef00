"""The running stack, looked at every few seconds from outside -> samples: memory, connections, sizes, ages.

It judges nothing (leaks.py does) and asks the servers directly. Invariant: what cannot be asked at a moment is left out
of that sample, so an outage is no figure.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis

from tests.system.whole import Whole
from worker.inbox import GROUP, QUEUES, SET_ASIDE, STREAM

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATE_OF_ROWS = """
select l.page_id, extract(epoch from now() - min(l.first_seen_at))::float8,
    p.parked_at is null and coalesce(p.held_until, now()) <= now()
from leadgen l left join pages p using (page_id) where l.state = 'waiting' group by p.page_id, l.page_id
"""
_TABLES = """
select relname, n_live_tup from pg_stat_user_tables where schemaname = 'public'
"""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment; `name` is the supervisor's, with `child` behind it where it is one."""

    name: str
    pid: int
    rss: int
    descriptors: int


@dataclass(slots=True)
class Sample:
    """One look; `at` in seconds since the start. Sizes by name: keys of Redis, tables of Postgres."""

    at: float
    processes: list[Process] = field(default_factory=list)
    sizes: dict[str, float] = field(default_factory=dict)


class OpenSince:
    """How long rows wait that could be read: not since they came, where their Page was closed after that."""

    def __init__(self) -> None:
        self._closed_at: dict[str, float] = {}

    def oldest(self, rows: Iterable[tuple[str, float, bool]], at: float) -> float:
        """Seconds, of (Page, age of its oldest waiting row, whether it is open) as seen `at`."""
        ages = [0.0]
        for page_id, age, is_open in rows:
            if is_open:
                ages.append(min(age, at - self._closed_at.get(page_id, at - age)))
            else:
                self._closed_at[page_id] = at
        return max(ages)


class Watcher:
    """Takes samples in a thread of its own from `start` to `stop`."""

    def __init__(self, stack: Whole, every: float) -> None:
        self.samples: list[Sample] = []
        self._stack, self._every = stack, every
        self._began = time.monotonic()
        self._open_since = OpenSince()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """No more samples."""
        self._ending.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._ending.wait(self._every):
            self.samples.append(self.look())

    def look(self) -> Sample:
        """One sample."""
        sample = Sample(time.monotonic() - self._began, list(_processes(self._stack)))
        with contextlib.suppress(redis.RedisError, OSError):
            sample.sizes |= self._redis()
        with contextlib.suppress(psycopg.Error):
            sample.sizes |= self._postgres()
        return sample

    def _redis(self) -> dict[str, float]:
        with redis.Redis.from_url(
            self._stack.settings.redis_url, protocol=2, socket_timeout=3, retry=None
        ) as client:
            it: Any = client
            oldest = it.xrange(STREAM, count=1)
            seconds, micros = it.time()
            told = {
                "Redis connections": it.info("clients")["connected_clients"],
                "Redis bytes": it.info("memory")["used_memory"],
                "Redis keys": it.dbsize(),
                "stream entries": it.xlen(STREAM),
                "bodies set aside": it.xlen(SET_ASIDE),
                "doorbells": sum(it.llen(queue) for queue in QUEUES),
                "oldest entry, seconds": 0.0,
            }
            if oldest:
                told["oldest entry, seconds"] = (
                    seconds + micros / 1e6 - int(oldest[0][0].split(b"-")[0]) / 1000
                )
            with contextlib.suppress(redis.ResponseError):
                told["consumers"] = len(it.xinfo_consumers(STREAM, GROUP))
            return told

    def _postgres(self) -> dict[str, float]:
        url = self._stack.settings.database_url
        with psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
            connection.execute("set statement_timeout = 5000")
            tables = connection.execute(_TABLES).fetchall()
            told = {f"table {name}": float(rows) for name, rows in tables}
            ours = "select count(*) from pg_stat_activity where application_name = 'leadsync'"
            row = connection.execute(ours).fetchone()
            told["Postgres connections"] = float(row[0]) if row else 0.0
            waiting = connection.execute(_STATE_OF_ROWS).fetchall()
            told["oldest waiting row, seconds"] = self._open_since.oldest(waiting, time.monotonic())
            return told


def _processes(stack: Whole) -> Iterator[Process]:
    for name, pid in stack.supervisor.pids().items():
        for label, each in ((name, pid), *((f"{name} child", child) for child in stack.children(name))):
            # A server's children are as many as it has connections.
            if label in ("postgres child", "redis child"):
                continue
            with contextlib.suppress(OSError, ValueError):
                pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
                yield Process(label, each, pages * PAGE_BYTES, len(os.listdir(f"/proc/{each}/fd")))
