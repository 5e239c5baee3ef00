"""A ledger on one kind of Redis, by a clock that is moved, as the tests of its contract ask it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import redis.asyncio as aioredis

from tests.fakes.budget import Clocks, TimedLedger
from worker.budget.ledger import Answered, Granted, Refused, Unknown
from worker.budget.policy import Lane, Limit, Shares, Spent, Window

T = TypeVar("T")
WINDOW = Window(300.0)
PAGE, OTHER_PAGE = "7001", "7002"
LIVE, WAITING, BACKFILL, UPKEEP = Lane.LIVE, Lane.WAITING, Lane.BACKFILL, Lane.UPKEEP
ALL = 1_000_000
MS = 0.001
LONGEST_BLOCKED = WINDOW.seconds + WINDOW.life + WINDOW.jump + WINDOW.bucket


@dataclass
class Bench:
    """A Redis, a clock that is moved, and ledgers on them."""

    client: Any
    connect: Callable[[], Any]
    clocks: Clocks = field(default_factory=Clocks)
    machine: str = "one"

    def ledger(self, machine: str = "one", client: Any = None) -> TimedLedger:
        return TimedLedger(self.clocks, client or self.client, WINDOW, Shares(), machine=machine)

    async def ask(
        self,
        calls: int,
        lane: Lane = LIVE,
        page: str = PAGE,
        also: tuple[str, ...] = (),
        machine: str = "one",
    ) -> Answered:
        return await self.ledger(machine).request(page, calls, lane, also, self.clocks.steady(machine))

    async def got(self, calls: int, lane: Lane = LIVE, page: str = PAGE, **named: Any) -> int:
        """How many calls are granted at once, 0 for a refusal."""
        answer = await self.ask(calls, lane, page, **named)
        assert not isinstance(answer, Unknown)
        return answer.calls if isinstance(answer, Granted) else 0

    async def refused(self, calls: int = 1, lane: Lane = LIVE, page: str = PAGE, **named: Any) -> Refused:
        answer = await self.ask(calls, lane, page, **named)
        assert isinstance(answer, Refused)
        return answer

    async def epoch(self, page: str = PAGE, machine: str = "one") -> str:
        """The life of the ledger, asked with a Page that it does not know."""
        answer = await self.ask(1, page=page, machine=machine)
        assert isinstance(answer, Unknown)
        return answer.epoch

    async def knows(self, page: str, limit: int, *spent: Spent, told: int | None = None) -> None:
        epoch = await self.epoch(page)
        assert await self.ledger().seed(page, epoch, Limit(limit, told or limit, ""), spent)

    async def tell(self, scope: str, percent: float | None = None, **named: Any) -> float:
        told = {"regain": timedelta(0), "throttled": False, **named}
        return await self.ledger().tell(scope, percent=percent, **told)

    async def throttle(self, scope: str, **named: Any) -> float:
        return await self.tell(scope, throttled=True, **named)


@dataclass
class Runner:
    """Runs a scenario on one kind of Redis."""

    kind: str
    connect: Callable[[], Any]

    def __call__(self, scenario: Callable[[Bench], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self.connect() as client:
                return await scenario(Bench(client, self.connect))

        return asyncio.run(run())


def real(url: str) -> Callable[[], Any]:
    return lambda: aioredis.Redis.from_url(url, protocol=2)
