"""The neighbours of the budget: clocks that are moved, the memory that Postgres is, and a Redis that loses replies.

    Clocks -> the true time, what each machine's steady clock, Redis and the database make of it
    FakeMemory -> worker/store/budget.py's rows in a list
    FakeLedger -> a ledger that answers what it is told to
    Doors -> every step to a neighbour waits before and after it for as long as a test says

It grants and refuses nothing, and opens no connection.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import floor
from typing import Any, TypeVar
from zlib import crc32

from redis.exceptions import ConnectionError as RedisGone

from worker.budget.ledger import Answered, Ledger
from worker.budget.policy import Lane, Limit, Spent
from worker.store.budget import LimitFacts

T = TypeVar("T")

BEGINNING = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@dataclass
class Clocks:
    """True time in ms since BEGINNING, which only moves on, and how wrong each clock is."""

    ms: int = 0
    redis_wrong: int = 0
    database_wrong: int = 0

    @property
    def redis_ms(self) -> int:
        return round(BEGINNING.timestamp() * 1000) + self.ms + self.redis_wrong

    @property
    def database(self) -> float:
        """Seconds."""
        return BEGINNING.timestamp() + (self.ms + self.database_wrong) / 1000

    @property
    def now(self) -> datetime:
        return BEGINNING + timedelta(milliseconds=self.ms)

    def steady(self, machine: str) -> float:
        """Seconds since that machine was started, which was at no round moment."""
        return crc32(machine.encode()) % 1_000_003 + self.ms / 1000

    def move(self, seconds: float) -> None:
        assert seconds >= 0
        self.ms += round(seconds * 1000)


class Doors:
    """Where steps to neighbours wait. Tasks that nobody holds pass."""

    def __init__(self) -> None:
        self.busy = 0
        self._held: set[asyncio.Task[Any]] = set()
        self._waiting: dict[asyncio.Task[Any], asyncio.Future[bool]] = {}

    def hold(self, task: "asyncio.Task[Any]") -> None:
        """From now on `task` waits at each door."""
        self._held.add(task)

    def waits(self, task: "asyncio.Task[Any]") -> bool:
        return task in self._waiting

    def open(self, task: "asyncio.Task[Any]", *, fails: bool = False) -> None:
        """Let `task` through the door it waits at; `fails`: what is behind it is not done, or its reply is lost."""
        self._waiting.pop(task).set_result(fails)

    def let_go(self, task: "asyncio.Task[Any]") -> None:
        """`task` waits at no door any more."""
        self._held.discard(task)
        if task in self._waiting:
            self.open(task)

    async def through(self, step: Callable[[], Awaitable[T]], lost: Callable[[], Exception]) -> T:
        """Wait, do `step`, wait; where the door fails, raise what `lost` gives instead."""
        if await self._wait():
            raise lost()
        self.busy += 1
        try:
            done = await step()
        finally:
            self.busy -= 1
        if await self._wait():
            raise lost()
        return done

    async def settle(self) -> None:
        """Until every task waits at a door, for a lock or for nothing any more."""
        quiet = 0
        while quiet < 12:
            await asyncio.sleep(0)
            quiet = 0 if self.busy else quiet + 1

    async def _wait(self) -> bool:
        task = asyncio.current_task()
        if task is None or task not in self._held:
            return False
        waiting = self._waiting[task] = asyncio.get_running_loop().create_future()
        try:
            return await waiting
        finally:
            self._waiting.pop(task, None)


class WatchedRedis:
    """A client whose scripts go through doors; what each script was told and answered is shown to `watch`.

    As Redis itself does, a script reads the clock when it runs, however long it was under way.
    """

    def __init__(
        self, client: Any, clocks: Clocks, doors: Doors, watch: Callable[[list[str], Any], None]
    ) -> None:
        self._client = client
        self._clocks = clocks
        self._doors = doors
        self._watch = watch

    async def evalsha(self, sha: str, keys: int, *told: str) -> Any:
        return await self._through(self._client.evalsha, sha, keys, *told)

    async def eval(self, source: str, keys: int, *told: str) -> Any:
        return await self._through(self._client.eval, source, keys, *told)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def _through(self, run: Callable[..., Awaitable[Any]], script: str, keys: int, *told: str) -> Any:
        async def step() -> Any:
            now = [*told[: keys + 1], str(self._clocks.redis_ms), *told[keys + 2 :]]
            answer = await run(script, keys, *now)
            self._watch(now, answer)
            return answer

        return await self._doors.through(step, lambda: RedisGone("told"))


class TimedLedger(Ledger):
    """The ledger by the clock of `clocks`."""

    def __init__(self, clocks: Clocks, client: Any, *told: Any, **named: Any) -> None:
        self._clocks = clocks
        super().__init__(client, *told, **named)

    @property
    def clock_ms(self) -> int | None:
        return self._clocks.redis_ms

    @clock_ms.setter
    def clock_ms(self, value: int | None) -> None:
        pass


@dataclass(frozen=True, slots=True)
class KeptBlock:
    """A row of budget_blocks; `reserved_at` as the database's clock had it, seconds."""

    block_id: int
    page_id: str
    lane: Lane
    calls: int
    machine: str
    steady: float
    reserved_at: float


@dataclass
class FakeMemory:
    """worker/store/budget.py in a list; `doors` stand between it and its callers. `facts` are each Page's, by id."""

    clocks: Clocks
    lost: Callable[[], Exception]
    doors: Doors = field(default_factory=Doors)
    facts: defaultdict[str, LimitFacts] = field(
        default_factory=lambda: defaultdict(lambda: LimitFacts(0, 0, None))
    )
    blocks: list[KeptBlock] = field(default_factory=list)
    limits: dict[str, Limit] = field(default_factory=dict)
    last_block: int = 0

    async def reserve(
        self, page_id: str, lane: Lane, calls: int, *, machine: str, steady: float,
        instead_of: tuple[int, int] | None = None,
    ) -> int:  # fmt: skip
        async def step() -> int:
            former, unspent = instead_of or (None, 0)
            self.blocks = [
                replace(block, calls=max(0, block.calls - unspent)) if block.block_id == former else block
                for block in self.blocks
            ]
            self.last_block += 1
            block = KeptBlock(self.last_block, page_id, lane, calls, machine, steady, self.clocks.database)
            self.blocks.append(block)
            return block.block_id

        return await self.doors.through(step, self.lost)

    async def give_back(self, block_id: int, unspent: int) -> None:
        async def step() -> None:
            self.blocks = [
                replace(block, calls=block.calls - unspent) if block.block_id == block_id else block
                for block in self.blocks
                if block.block_id != block_id or block.calls > unspent
            ]

        await self.doors.through(step, self.lost)

    async def spent(
        self, page_id: str, unspent: Mapping[int, int], *, machine: str, steady: float, window: float,
        life: float, bucket: float,
    ) -> tuple[Spent, ...]:  # fmt: skip
        async def step() -> tuple[Spent, ...]:
            sums: dict[tuple[Lane, int], tuple[int, float]] = {}
            for block in self.blocks:
                calls = block.calls - unspent.get(block.block_id, 0)
                age = self.clocks.database - block.reserved_at
                if block.machine == machine and block.steady <= steady:
                    age = min(age, steady - block.steady)
                age = max(0.0, age - life)
                if block.page_id == page_id and calls > 0 and age < window:
                    at = (block.lane, floor(age / bucket))
                    so_far, youngest = sums.get(at, (0, age))
                    sums[at] = (so_far + calls, min(youngest, age))
            return tuple(Spent(age, lane, calls) for (lane, _), (calls, age) in sums.items())

        return await self.doors.through(step, self.lost)

    async def forget_blocks(self, older: float, *, machine: str, steady: float) -> int:
        kept = [
            block
            for block in self.blocks
            if block.reserved_at >= self.clocks.database - older
            or (block.machine == machine and block.steady > steady - older)
        ]
        forgotten, self.blocks = len(self.blocks) - len(kept), kept
        return forgotten

    async def limit_facts(self, page_id: str, now: datetime) -> LimitFacts:
        async def step() -> LimitFacts:
            return self.facts[page_id]

        return await self.doors.through(step, self.lost)

    async def keep_limit(self, page_id: str, limit: Limit, now: datetime) -> None:
        async def step() -> None:
            self.limits[page_id] = limit

        await self.doors.through(step, self.lost)


@dataclass(frozen=True, slots=True)
class Told:
    """What a ledger was told of a scope."""

    scope: str
    percent: float | None
    regain: timedelta = timedelta(0)
    throttled: bool = False
    link_page: str | None = None


@dataclass
class FakeLedger:
    """Answers what it is told to, in order, and the last of it for ever; remembers what it was asked and told."""

    answers: list[Answered | Exception]
    asked: list[tuple[str, int, Lane, tuple[str, ...], float]] = field(default_factory=list)
    seeds: list[tuple[str, str, Limit, tuple[Spent, ...]]] = field(default_factory=list)
    limits: list[tuple[str, Limit]] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    saves: list[tuple[str, int]] = field(default_factory=list)
    closes_for: float = 0.0
    before: Callable[[], None] = lambda: None

    async def request(
        self, page_id: str, calls: int, lane: Lane, scopes: tuple[str, ...], steady: float
    ) -> Answered:
        self.before()
        self.asked.append((page_id, calls, lane, scopes, steady))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def seed(self, page_id: str, epoch: str, limit: Limit, spent: tuple[Spent, ...]) -> bool:
        self.seeds.append((page_id, epoch, limit, spent))
        return True

    async def change_limit(self, page_id: str, limit: Limit) -> None:
        self.limits.append((page_id, limit))

    async def tell(
        self,
        scope: str,
        *,
        percent: float | None,
        regain: timedelta,
        throttled: bool,
        link_page: str | None = None,
    ) -> float:
        self.told.append(Told(scope, percent, regain, throttled, link_page))
        return self.closes_for

    async def saved(self, page_id: str, calls: int) -> None:
        self.saves.append((page_id, calls))
