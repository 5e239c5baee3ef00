"""One scrape: Redis and Postgres asked side by side, in bounded time -> facts; kept for a moment. Then the series.

    Prometheus -> HTTP (prometheus_client, a thread each) -> Exporter.collect -> the loop: gather -> exposition.py

Invariants: one scrape is under way at a time, and whoever asks meanwhile gets its result; a neighbour that is away
or slow costs its own series and at most SCRAPE_SECONDS, and `leadsync_up` says so.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.budget.ledger import Ledger
from worker.errors import LeadSyncError, Transient
from worker.exposition import PREFIX, Budgets, Facts, series_of
from worker.redis_facts import RedisFacts
from worker.store.metrics import RowFacts

T = TypeVar("T")

log = structlog.get_logger("metrics")

SCRAPE_SECONDS: Final = 4.0
"""How long a neighbour has to answer: less than the 10 s that Prometheus waits by default."""
KEPT_SECONDS: Final = 1.0
"""A scrape's facts serve whoever asks within this."""
REDIS: Final = "redis"
POSTGRES: Final = "postgres"


class NoAnswer(Transient):
    """A neighbour took too long."""

    reason = "no_answer"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Whom a scrape asks. Raises LedgerUnavailable and StoreUnavailable."""

    redis: Callable[[], Coroutine[Any, Any, RedisFacts]]
    rows: Callable[[], Coroutine[Any, Any, RowFacts]]
    ledger: Ledger


class Scraper:
    """Asks the neighbours, in one event loop. `errors` counts those that could not be asked."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._budgeted: tuple[str, ...] = ()
        self._late: dict[str, asyncio.Task[Any]] = {}
        self.errors: Counter[str] = Counter({REDIS: 0, POSTGRES: 0})

    async def gather(self) -> Facts:
        """The facts of now."""
        rows, redis = await asyncio.gather(
            self._asked(POSTGRES, self._neighbours.rows), self._asked(REDIS, self._neighbours.redis)
        )
        if rows is not None:
            self._budgeted = rows.budgeted
        budgets = None if redis is None else await self._asked(REDIS, self._budgets)
        return Facts(redis if budgets is not None else None, rows, budgets)

    async def _budgets(self) -> Budgets:
        ledger = self._neighbours.ledger
        return Budgets(await ledger.accounts(self._budgeted), await ledger.scopes())

    async def _asked(self, neighbour: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        try:
            return await self._in_time(neighbour, ask)
        except LeadSyncError as error:
            self.errors[neighbour] += 1
            log.warning("scrape_incomplete", neighbour=neighbour, error=str(error))
            return None

    async def _in_time(self, neighbour: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer. A statement that hangs takes its time to be cancelled too, so nobody waits for that."""
        late = self._late.get(neighbour)
        if late is not None and not late.done():
            raise NoAnswer("an earlier scrape is still without an answer")
        asking = asyncio.create_task(ask())
        done, _ = await asyncio.wait({asking}, timeout=SCRAPE_SECONDS)
        if done:
            return asking.result()
        asking.cancel()
        asking.add_done_callback(_forget)
        self._late[neighbour] = asking
        raise NoAnswer(f"no answer in {SCRAPE_SECONDS:g} s")


def _forget(asked: "asyncio.Task[Any]") -> None:
    """An error that comes too late interests nobody, and asyncio would say that nobody looked."""
    if not asked.cancelled():
        asked.exception()


class Exporter(Collector):
    """What prometheus_client asks for series, from any thread; `loop` runs in another one."""

    def __init__(
        self,
        scraper: Scraper,
        loop: asyncio.AbstractEventLoop,
        *,
        version: str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._scraper = scraper
        self._loop = loop
        self._version = version
        self._clock = clock
        self._scraping = threading.Lock()
        self._kept: list[Metric] = []
        self._kept_until = float("-inf")

    def describe(self) -> Iterator[Metric]:
        """Nothing: to register it costs no scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The series of now, or of a moment ago."""
        with self._scraping:
            if self._clock() >= self._kept_until:
                self._kept = list(self._scrape())
                self._kept_until = self._clock() + KEPT_SECONDS
            return iter(self._kept)

    def _scrape(self) -> Iterator[Metric]:
        began_at = self._clock()
        facts = asyncio.run_coroutine_threadsafe(self._scraper.gather(), self._loop).result()
        yield from series_of(facts, version=self._version)
        up = GaugeMetricFamily(
            f"{PREFIX}up", "Whether a neighbour could be asked by this scrape.", labels=("neighbour",)
        )
        errors = CounterMetricFamily(
            f"{PREFIX}scrape_errors", "Scrapes that could not ask a neighbour.", labels=("neighbour",)
        )
        for neighbour, told in ((REDIS, facts.redis), (POSTGRES, facts.rows)):
            up.add_metric((neighbour,), float(told is not None))
            errors.add_metric((neighbour,), self._scraper.errors[neighbour])
        yield up
        yield errors
        took = self._clock() - began_at
        yield GaugeMetricFamily(f"{PREFIX}scrape_seconds", "How long this scrape took.", value=took)
