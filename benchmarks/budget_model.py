"""Pages that want Graph calls, worker processes that ask the real ledger for them, an exact log of what was called.

    demand -> events in the order of time -> Granter -> ledger, a real Redis -> calls made at once, late or never -> log

Ledger, spend.lua and Granter are the product's own; Redis' clock and the machines' steady clocks are handed in, so a
day lasts seconds. Everything random of a Page comes from the run's seed and the Page's number, and no Page sees
another, so a run can be repeated. Invariant: the log knows nothing of buckets; each call is in it with its own time.
"""

import asyncio
from array import array
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from heapq import heappop, heappush
from random import Random
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

import hiredis
import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, ResponseError

from worker.budget.granting import Granter, LimitSettings
from worker.budget.ledger import Ledger
from worker.budget.policy import CALLS_PER_LEAD, Grant, Lane, Limit, Refusal, Shares, Spent, Window
from worker.graph.usage import Usage

EPOCH: Final = 1_790_000_000.0
"""Where simulated time begins, in unix seconds."""
MACHINES: Final = {"one": 5_000.0, "two": 900_000.0}
"""How long each machine has been up by then."""
PROCESSES: Final = 8
STREAMS: Final = 3
"""Every third Page shares a queue of events, so that Redis works on one's requests while others are prepared."""
AT_ONCE: Final = 24
"""Pages of a queue whose requests are under way together."""
MOST: Final = 50
"""Calls of one batch request."""
REFRESH_SECONDS: Final = 900.0
CRASHES: Final = 0.001
"""Grants that are never used, since the process dies; another one begins without its blocks."""
LATE: Final = 0.1
"""Grants that are used at any moment up to the deadline, a tenth of them a millisecond before it."""
SKEW_STEPS: Final = 7_200.0
"""The ledger's clock is put right or wrong so often."""

NOW: ContextVar[float] = ContextVar("NOW")
"""The simulated moment in which this task asks; unix seconds by no clock but the true one."""

Rounding = Literal["floor", "nearest", "ceil"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a Page is and wants. Times are seconds since the beginning, calls a window where nothing else is said."""

    name: str
    role: str
    leads: int
    live: float
    """Live calls a day, on average, in a daily rhythm."""
    live_together: int
    bursts: tuple[tuple[float, int, float], ...]
    """Live calls beyond the rhythm: from when, how many, within so many seconds."""
    backfill_from: float | None
    backfill: float
    upkeep_every: float
    override: bool
    hears: Rounding | None
    """How Meta rounds the percentages that this Page's answers bring; none are brought without."""
    ages_out: tuple[float, ...] = ()
    """When leads of these turn 90 days old: the limit moves."""


class Log:
    """The calls of one Page and lane, each with its time; times only move on."""

    __slots__ = ("times", "totals")

    def __init__(self) -> None:
        self.times = array("d")
        self.totals = array("q")

    def add(self, now: float, calls: int) -> None:
        self.times.append(now)
        self.totals.append((self.totals[-1] if self.totals else 0) + calls)

    def up_to(self, moment: float) -> int:
        """Calls until `moment`, itself included."""
        at = bisect_right(self.times, moment)
        return self.totals[at - 1] if at else 0

    def within(self, since: float, until: float) -> int:
        """Calls in `(since, until]`."""
        return self.up_to(until) - self.up_to(since)


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A batch of leads that have just come: when, how many, how many of them were refused, and who waited already."""

    at: float
    calls: int
    refused: int
    backlog: int


class Page:
    """One Page: its plan, what waits, its exact log."""

    def __init__(self, number: int, plan: Plan, seed: int, window: float) -> None:
        self.plan = plan
        self.page_id = str(10**14 + number)
        self.dice = Random(f"{seed}:{plan.name}:{number}")
        self.window = window
        self.limit = 0
        """The largest limit that was in force."""
        self.backlog = 0
        self.waiting_since: list[tuple[float, float]] = []
        """From when to when waiting references waited, without a break."""
        self.waits_from = 0.0
        self.backfill_left = plan.backfill
        self.backfilled_until = float("inf")
        self.upkeep_left = 0
        self.made = Log()
        self.lanes: Mapping[Lane, Log] = {lane: Log() for lane in Lane}
        self.granted = Log()
        self.lost = Log()
        self.wanted = Log()
        self.live: list[LiveRequest] = []
        self.heard_at = array("d")
        self.heard = array("d")
        """Meta's percentages, as they came."""
        self.came: list[float] = []
        """When leads came, where the limit moves with them."""
        self.above_told = self.above_limit = 0
        self.most = 0.0
        """The fullest window, as a part of what Meta allows."""
        self._first, self._used = 0, 0

    def told(self, now: float) -> int:
        """Calls a window that Meta allows now."""
        return CALLS_PER_LEAD * max(1, self.leads(now, 0.0))

    def leads(self, now: float, early: float) -> int:
        """Leads of 90 days, less `early` seconds."""
        gone = sum(1 for ends in self.plan.ages_out if EPOCH + ends <= now + early)
        return self.plan.leads - gone + len(self.came)

    def call(self, now: float, calls: int, lane: Lane) -> int:
        """Calls are made; how many the window that ends now holds, its first moment included."""
        self.made.add(now, calls)
        self.lanes[lane].add(now, calls)
        times, totals = self.made.times, self.made.totals
        while times[self._first] < now - self.window:
            self._first += 1
        used = totals[-1] - (totals[self._first - 1] if self._first else 0)
        told = self.told(now)
        self.above_told += used > told
        self.above_limit += used > self.limit
        self.most = max(self.most, used / told)
        return used

    def wait_for(self, calls: int, now: float) -> bool:
        """Put references into the waiting room; whether there were none before."""
        begins = self.backlog == 0
        self.backlog += calls
        if begins:
            self.waits_from = now
        return begins

    def no_longer_wait_for(self, calls: int, now: float) -> None:
        self.backlog -= calls
        if self.backlog == 0:
            self.waiting_since.append((self.waits_from, now))


class PipedRedis:
    """As much of a Redis client as the ledger's steps need; requests of one turn of the loop share a packet.

    redis-py spends more time on a request than ledger and Redis together; nothing of it is judged here.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, url: str) -> "PipedRedis":
        parts = urlsplit(url)
        client = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        await client.execute("AUTH", parts.password or "")
        # Nothing is promised to anybody here, so nothing has to reach a disk.
        await client.execute("CONFIG", "SET", "appendonly", "no")
        return client

    async def execute(self, *words: str | int) -> Any:
        """One command; raises what Redis raises."""
        return await self._send(words)

    def evalsha(self, *words: str | int) -> Awaitable[Any]:
        return self._send(("EVALSHA", *words))

    def eval(self, *words: str | int) -> Awaitable[Any]:
        return self._send(("EVAL", *words))

    async def close(self) -> None:
        self._listening.cancel()
        self._writer.close()
        await self._writer.wait_closed()

    def _send(self, words: Sequence[str | int]) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        if not self._unsent:
            loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(cast("Any", tuple(words))))
        reply: asyncio.Future[Any] = loop.create_future()
        self._replies.append(reply)
        return reply

    def _flush(self) -> None:
        self._writer.write(b"".join(self._unsent))
        self._unsent.clear()

    async def _listen(self) -> None:
        parser = hiredis.Reader()
        while data := await self._reader.read(1 << 16):
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                self._answer(self._replies.popleft(), reply)
        for waiting in self._replies:
            waiting.set_exception(ConnectionError("Redis has gone"))

    @staticmethod
    def _answer(waiting: "asyncio.Future[Any]", reply: object) -> None:
        if not isinstance(reply, hiredis.ReplyError):
            waiting.set_result(reply)
        elif str(reply).startswith("NOSCRIPT"):
            waiting.set_exception(NoScriptError(str(reply)))
        else:
            waiting.set_exception(ResponseError(str(reply)))


class SimulatedLedger(Ledger):
    """The ledger by a clock that is put wrong now and then: `skew` says by how many seconds."""

    def __init__(
        self, client: PipedRedis, window: Window, machine: str, skew: Callable[[float], float]
    ) -> None:
        self._skew = skew
        super().__init__(cast("aioredis.Redis", client), window, Shares(), machine=machine)

    @property
    def clock_ms(self) -> int | None:
        now = NOW.get()
        return round((now + self._skew(now)) * 1000)

    @clock_ms.setter
    def clock_ms(self, value: int | None) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Facts:
    """What a limit follows from."""

    ours: int
    metas: int
    override: int | None


class CheapMemory:
    """The budget's rows, in memory, by the same rules as worker/store/budget.py."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._blocks: defaultdict[str, deque[tuple[int, Lane, int, str, float, float]]] = defaultdict(deque)
        self._page_of: dict[int, str] = {}
        self._last = 0

    async def reserve(
        self, page_id: str, lane: Lane, calls: int, *, machine: str, steady: float,
        instead_of: tuple[int, int] | None = None,
    ) -> int:  # fmt: skip
        now, blocks = NOW.get(), self._blocks[page_id]
        if instead_of is not None:
            former, unspent = instead_of
            for place, block in enumerate(blocks):
                if block[0] == former:
                    blocks[place] = (former, block[1], block[2] - unspent, *block[3:])
        while blocks and blocks[0][5] < now - 2 * self._pages[page_id].window:
            del self._page_of[blocks.popleft()[0]]
        self._last += 1
        self._page_of[self._last] = page_id
        blocks.append((self._last, lane, calls, machine, steady, now))
        return self._last

    async def give_back(self, block_id: int, unspent: int) -> None:
        page_id = self._page_of.get(block_id)
        if page_id is None:
            return
        blocks = self._blocks[page_id]
        for place, block in enumerate(blocks):
            if block[0] == block_id:
                blocks[place] = (block_id, block[1], block[2] - unspent, *block[3:])
                return

    async def spent(
        self, page_id: str, unspent: Mapping[int, int], *, machine: str, steady: float, window: float,
        life: float, bucket: float,
    ) -> tuple[Spent, ...]:  # fmt: skip
        now = NOW.get()
        sums: dict[tuple[Lane, int], tuple[float, int]] = {}
        for block_id, lane, reserved, owner, at_steady, at in self._blocks[page_id]:
            calls, age = reserved - unspent.get(block_id, 0), now - at
            if owner == machine and at_steady <= steady:
                age = min(age, steady - at_steady)
            age = max(0.0, age - life)
            if calls > 0 and age < window:
                least, total = sums.get((lane, int(age // bucket)), (age, 0))
                sums[lane, int(age // bucket)] = (min(least, age), total + calls)
        return tuple(Spent(age, lane, calls) for (lane, _), (age, calls) in sums.items())

    async def limit_facts(self, page_id: str, now: datetime) -> Facts:
        page = self._pages[page_id]
        override = CALLS_PER_LEAD * page.plan.leads if page.plan.override else None
        return Facts(page.leads(now.timestamp(), 86_400.0), 0, override)

    async def keep_limit(self, page_id: str, limit: Limit, now: datetime) -> None:
        self._pages[page_id].limit = max(self._pages[page_id].limit, limit.calls)


class Process:
    """A worker process: a Granter, until it crashes and another begins."""

    def __init__(self, ledger: Ledger, memory: CheapMemory, window: Window, machine: str) -> None:
        self.uptime = MACHINES[machine] - EPOCH
        self._begin: Callable[[], Granter] = lambda: Granter(
            ledger,
            memory,
            window=window,
            limits=LimitSettings(),
            machine=machine,
            clock=lambda: datetime.fromtimestamp(NOW.get(), UTC),
            steady=lambda: NOW.get() + self.uptime,
        )
        self.crash()

    def crash(self) -> None:
        self.granter = self._begin()


class Kind(Enum):
    """What happens to a Page."""

    RHYTHM = auto()
    BURST = auto()
    WAITING = auto()
    BACKFILL = auto()
    UPKEEP_DUE = auto()
    UPKEEP = auto()
    USE = auto()
    REFRESH = auto()


@dataclass(frozen=True, slots=True)
class Use:
    """Calls that will be made."""

    process: Process
    grant: Grant
    lane: Lane


Event: TypeAlias = tuple[float, int, int, Kind, int | Use]
"""When, in which order, to which Page, what."""


@dataclass(slots=True)
class Counts:
    """How often the ledger was asked and told."""

    requests: int = 0
    granted: int = 0
    calls: int = 0
    heard: int = 0
    closed: int = 0
    """Percentages of 100: the ledger closes the Page."""
    crashes: int = 0


@dataclass(slots=True)
class Simulation:
    """Pages and processes over one Redis; `skew`: the most that the ledger's clock is wrong, in seconds."""

    client: PipedRedis
    plans: Sequence[Plan]
    window: Window
    seed: int
    skew: float
    counts: Counts = field(default_factory=Counts)
    pages: list[Page] = field(init=False)
    _processes: list[Process] = field(init=False)
    _events: list[list[Event]] = field(default_factory=lambda: [[] for _ in range(STREAMS)])
    _order: int = 0
    _skews: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        window = self.window.seconds
        self.pages = [Page(number, plan, self.seed, window) for number, plan in enumerate(self.plans)]
        memory = CheapMemory({page.page_id: page for page in self.pages})
        self._processes = [
            Process(SimulatedLedger(self.client, self.window, name, self._skewed), memory, self.window, name)
            for name, _ in zip(list(MACHINES) * PROCESSES, range(PROCESSES), strict=False)
        ]
        for number, page in enumerate(self.pages):
            self._plan(number, page)

    async def run(self, seconds: float, forget: Sequence[float], tick: Callable[[float], object]) -> None:
        """Let so many seconds pass. At `forget` the ledger loses all that it knows."""
        until, reached = EPOCH + seconds, [0.0] * STREAMS

        async def stream(number: int) -> None:
            events, losses = self._events[number], sorted(forget) if number == 0 else []
            while events and events[0][0] < until:
                while losses and events[0][0] >= EPOCH + losses[0]:
                    losses.pop(0)
                    # A server without the script may have lost anything: the ledger begins a new life.
                    await self.client.execute("SCRIPT", "FLUSH")
                await asyncio.gather(*(self._happen(*event) for event in self._next(events, until)))
                reached[number] = (events[0][0] if events else until) - EPOCH
                tick(min(seconds, min(reached)))

        await asyncio.gather(*map(stream, range(STREAMS)))
        for page in self.pages:
            if page.backlog:
                page.waiting_since.append((page.waits_from, until))

    def _next(self, events: list[Event], until: float) -> list[tuple[float, int, Kind, int | Use]]:
        """The next events of as many Pages, one a Page; calls of which nobody is told are made right here."""
        batch: list[tuple[float, int, Kind, int | Use]] = []
        held: list[Event] = []
        busy: set[int] = set()
        while events and max(len(batch), len(held)) < AT_ONCE and events[0][0] < until:
            event = heappop(events)
            at, _, number, kind, what = event
            if number in busy:
                held.append(event)
            elif isinstance(what, Use) and not self.pages[number].plan.hears:
                self._call(self.pages[number], at, what)
            else:
                busy.add(number)
                batch.append((at, number, kind, what))
        for event in held:
            heappush(events, event)
        return batch

    def _at(self, when: float, number: int, kind: Kind, what: int | Use = 0) -> None:
        self._order += 1
        heappush(self._events[number % STREAMS], (when, self._order, number, kind, what))

    def _skewed(self, now: float) -> float:
        step = int(now // SKEW_STEPS)
        if step not in self._skews:
            self._skews[step] = Random(f"{self.seed}:{step}").uniform(-self.skew, self.skew)
        return self._skews[step]

    def _plan(self, number: int, page: Page) -> None:
        plan, dice = page.plan, page.dice
        if plan.live:
            self._next_of_rhythm(EPOCH, number, page)
        for starts, calls, lasts in plan.bursts:
            for first in range(0, calls, MOST):
                at = EPOCH + starts + lasts * dice.random()
                self._at(at, number, Kind.BURST, min(MOST, calls - first))
        if plan.backfill_from is not None:
            self._at(EPOCH + plan.backfill_from, number, Kind.BACKFILL)
        self._at(EPOCH + plan.upkeep_every * dice.random(), number, Kind.UPKEEP_DUE)
        if plan.ages_out:
            self._at(EPOCH + REFRESH_SECONDS * dice.random(), number, Kind.REFRESH)

    def _next_of_rhythm(self, now: float, number: int, page: Page) -> None:
        """The next leads: at night a fifth of what comes at the height of the day."""
        plan, dice = page.plan, page.dice
        peak = plan.live / 86_400 / plan.live_together / 0.6
        while True:
            now += dice.expovariate(peak)
            hour = (now / 86_400 + number / 24) % 1
            if dice.random() < 0.2 + 0.8 * (1 - abs(2 * hour - 1)):
                break
        self._at(now, number, Kind.RHYTHM, dice.randint(1, 2 * plan.live_together - 1))

    async def _happen(self, now: float, number: int, kind: Kind, what: int | Use) -> None:
        NOW.set(now)
        page = self.pages[number]
        if isinstance(what, Use):
            await self._call_and_hear(page, now, what)
            return
        match kind:
            case Kind.RHYTHM:
                self._next_of_rhythm(now, number, page)
                await self._live(now, number, page, what)
            case Kind.BURST:
                await self._live(now, number, page, what)
            case Kind.WAITING:
                await self._waiting(now, number, page)
            case Kind.BACKFILL:
                await self._backfill(now, number, page)
            case Kind.UPKEEP_DUE:
                self._at(now + page.plan.upkeep_every, number, Kind.UPKEEP_DUE)
                idle, page.upkeep_left = page.upkeep_left == 0, page.dice.randint(1, 3)
                if idle:
                    await self._upkeep(now, number, page)
            case Kind.UPKEEP:
                await self._upkeep(now, number, page)
            case Kind.REFRESH:
                self._at(now + REFRESH_SECONDS, number, Kind.REFRESH)
                page.limit = 0
                await page.dice.choice(self._processes).granter.refresh(page.page_id)
            case Kind.USE:
                raise AssertionError("a use says what is used")

    async def _live(self, now: float, number: int, page: Page, calls: int) -> None:
        page.wanted.add(now, calls)
        backlog, left = page.backlog, calls
        again = now
        while left:
            answer = await self._ask(now, number, page, left, Lane.LIVE)
            if isinstance(answer, float):
                again = answer
                break
            left -= answer
        page.live.append(LiveRequest(now, calls, left, backlog))
        if left and page.wait_for(left, now):
            self._at(again, number, Kind.WAITING)
        if page.plan.ages_out:
            page.came.append(now)

    async def _waiting(self, now: float, number: int, page: Page) -> None:
        answer = await self._ask(now, number, page, min(MOST, page.backlog), Lane.WAITING)
        if isinstance(answer, int):
            page.no_longer_wait_for(answer, now)
            answer = now + page.dice.uniform(0.05, 0.5)
        if page.backlog:
            self._at(answer, number, Kind.WAITING)

    async def _backfill(self, now: float, number: int, page: Page) -> None:
        asked = MOST if page.dice.random() < 0.9 else page.dice.randint(1, MOST)
        answer = await self._ask(now, number, page, int(min(asked, page.backfill_left)), Lane.BACKFILL)
        if isinstance(answer, int):
            page.backfill_left -= answer
            answer = now + page.dice.uniform(0.1, 0.9)
        if page.backfill_left > 0:
            self._at(answer, number, Kind.BACKFILL)
        else:
            page.backfilled_until = now

    async def _upkeep(self, now: float, number: int, page: Page) -> None:
        answer = await self._ask(now, number, page, page.upkeep_left, Lane.UPKEEP)
        if isinstance(answer, int):
            page.upkeep_left -= answer
            answer = now + page.dice.uniform(0.1, 0.9)
        if page.upkeep_left:
            self._at(answer, number, Kind.UPKEEP)

    async def _ask(self, now: float, number: int, page: Page, calls: int, lane: Lane) -> int | float:
        """Calls granted, as an int, or the moment to ask again, as a float."""
        dice = page.dice
        process = dice.choice(self._processes)
        answer = await process.granter.request(page.page_id, calls, lane)
        self.counts.requests += 1
        if isinstance(answer, Refusal):
            return max(now + 0.001, answer.not_before.timestamp()) + dice.random()
        self.counts.granted += 1
        self.counts.calls += answer.calls
        page.granted.add(now, answer.calls)
        fate, ends = dice.random(), answer.deadline - process.uptime
        if fate < CRASHES:
            page.lost.add(now, answer.calls)
            process.crash()
            self.counts.crashes += 1
            return answer.calls
        if fate < CRASHES + LATE / 10:
            at = ends - 0.001
        elif fate < CRASHES + LATE:
            at = dice.uniform(now, ends - 0.001)
        else:
            at = min(now + dice.uniform(0.05, 0.6), ends - 0.001)
        self._at(at, number, Kind.USE, Use(process, answer, lane))
        return answer.calls

    def _call(self, page: Page, now: float, use: Use) -> int:
        return page.call(now, use.grant.calls, use.lane)

    async def _call_and_hear(self, page: Page, now: float, use: Use) -> None:
        """The calls are made, and Meta tells how much of its limit is used."""
        used, told = self._call(page, now, use), page.told(now)
        match page.plan.hears:
            case "floor":
                percent = 100 * used // told
            case "nearest":
                percent = (200 * used + told) // (2 * told)
            case _:
                percent = -(-100 * used // told)
        self.counts.heard += 1
        self.counts.closed += percent >= 100
        page.heard_at.append(now)
        page.heard.append(percent)
        usage = Usage(page.page_id, "leadgen", percent, 0, 0, 0)
        await use.process.granter.heard(page.page_id, use.grant, (usage,))
