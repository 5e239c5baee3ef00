"""Whole windows of the budget, with many processes and every misfortune: never a call more than the limit.

    Granter x Ledger x Redis, over FakeMemory and clocks that are moved -> grants -> calls -> an exact log of them

The log is in true time and knows nothing of buckets, blocks or lives of the ledger. What happens is drawn from a seed
before it happens, so that a failure can be played again and shortened. Every run of the tests plays the same few
hundred plays; LEADSYNC_DEEP=n plays n times as many others:
`LEADSYNC_DEEP=50 pytest tests/contract/test_ledger_windows.py -k misfortune`.
"""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, TypeVar

import fakeredis
import pytest
import redis.asyncio as aioredis

from tests.fakes.budget import Clocks, Doors, FakeMemory, TimedLedger, WatchedRedis
from worker.budget.granting import Granter, LimitSettings
from worker.budget.ledger import CALLS_PREFIX, PAGE_PREFIX
from worker.budget.policy import Grant, Lane, Refusal, Shares, Window
from worker.errors import LedgerUnavailable, StoreUnavailable
from worker.store.budget import LimitFacts

T = TypeVar("T")
Connect = Callable[[], Any]
DEEP = float(os.environ.get("LEADSYNC_DEEP", "0"))
MINUTES, DAY = Window(300.0), Window(86_400.0)
CALLS = CALLS_PREFIX.encode()
PAGES = ("7001", "123456789")
DRIFTS = (-0.499, 0.499)
"""Redis' clock wanders unnoticed between these parts of Window.jump."""


@dataclass(frozen=True, slots=True)
class Held:
    """A grant that its caller has not used yet; `turn`: the how manieth that Redis gave, under which `limit`."""

    page: str
    owner: "Process"
    grant: Grant
    turn: int
    limit: int


@dataclass(frozen=True, slots=True)
class Made:
    """Calls made at a true moment, in ms."""

    ms: int
    calls: int
    turn: int
    limit: int


class TooManyCalls(AssertionError):
    """More calls in a window than its limit."""


@dataclass
class CallLog:
    """Every call in true time: what Meta would count."""

    window: Window
    made: defaultdict[str, list[Made]] = field(default_factory=lambda: defaultdict(list))

    def make(self, held: Held, ms: int) -> None:
        """Note calls, and see that the window that ends with them holds no more than its newest grant's limit."""
        log = self.made[held.page]
        log.append(Made(ms, held.grant.calls, held.turn, held.limit))
        recent = self.within(held.page, ms)
        limit = max(recent, key=lambda made: made.turn).limit
        calls = sum(made.calls for made in recent)
        if calls > limit:
            raise TooManyCalls(f"{calls} calls in the window that ends at {ms} ms, the limit being {limit}")

    def within(self, page: str, ms: int) -> list[Made]:
        since = ms - round(self.window.seconds * 1000)
        return [made for made in self.made[page] if since < made.ms <= ms]

    def total(self, page: str) -> int:
        return sum(made.calls for made in self.made[page])


@dataclass(eq=False)
class Process:
    """One process: a granter and its ledger, on a machine."""

    machine: str
    granter: Granter


class World:
    """Processes, one Redis, one memory, and grants that nobody has used yet, on a loop of its own."""

    def __init__(self, connect: Connect, window: Window, machines: int = 1, limits: int = 100) -> None:
        self.window = window
        self.loop = asyncio.new_event_loop()
        self.clocks = Clocks()
        self.doors = Doors()
        self.log = CallLog(window)
        self.memory = FakeMemory(self.clocks, lambda: StoreUnavailable("told"), self.doors)
        self.client = connect()
        self.turns = 0
        self.granted: dict[Any, tuple[int, int]] = {}
        self.touched: dict[str, int] = {}
        self.held: list[Held] = []
        self.flying: list[asyncio.Task[None]] = []
        self.refused_until: dict[str, int] = {}
        self.reserved: defaultdict[str, int] = defaultdict(int)
        self.on_disk: dict[bytes, Any] = {}
        self.drifted = 0
        self.went_back = 0
        for page in PAGES:
            self.memory.facts[page] = LimitFacts(0, 0, limits + 1)
        self.run(self.client.flushall())
        self.run(self.client.script_flush())
        self.processes = [self.start(f"machine{number % machines}") for number in range(3)]

    def start(self, machine: str) -> Process:
        """A process that has just begun."""
        client = WatchedRedis(self.client, self.clocks, self.doors, self.watch)
        ledger = TimedLedger(self.clocks, client, self.window, Shares(), machine=machine)
        return Process(
            machine,
            Granter(
                ledger,
                self.memory,
                window=self.window,
                limits=LimitSettings(),
                machine=machine,
                clock=lambda: self.clocks.now,
                steady=lambda: self.clocks.steady(machine),
            ),
        )

    def watch(self, told: list[str], answer: Any) -> None:
        """Redis ran a script: note the order of its grants, and when a Page's keys were given how long to live."""
        self.touched[told[0].removeprefix(PAGE_PREFIX)] = self.clocks.redis_ms
        if told[4] == "request" and answer[0] == b"granted":
            self.turns += 1
            self.granted[asyncio.current_task()] = (self.turns, int(answer[4]))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        for task in self.flying:
            task.cancel()
        self.run(self.doors.settle())
        self.run(self.client.aclose())
        self.loop.close()

    # Asking

    def request(self, process: Process, page: str, calls: int, lane: Lane, *, gated: bool = False) -> None:
        """A request, as far as it gets: to its end, to a door, or to a lock that another request holds."""
        task = self.loop.create_task(self._requested(process, page, calls, lane))
        if gated:
            self.doors.hold(task)
        self.flying.append(task)
        self.settle()

    def settle(self) -> None:
        self.run(self.doors.settle())
        for task in [task for task in self.flying if task.done()]:
            self.flying.remove(task)
            if not task.cancelled():
                task.result()

    async def _requested(self, process: Process, page: str, calls: int, lane: Lane) -> None:
        try:
            answer = await process.granter.request(page, calls, lane)
        except (LedgerUnavailable, StoreUnavailable):
            return
        if isinstance(answer, Refusal):
            self.refused_until[page] = ceil((answer.not_before - self.clocks.now).total_seconds() * 1000)
            self.refused_until[page] += self.clocks.ms
            return
        assert 1 <= answer.calls <= calls
        if process in self.processes:  # else it has crashed
            turn, limit = self.granted.pop(asyncio.current_task())
            self.held.append(Held(page, process, answer, turn, limit))

    # Calling

    def use(self, held: Held) -> bool:
        """Make the calls of a grant, unless its time is over."""
        self.held.remove(held)
        if self.clocks.steady(held.owner.machine) >= held.grant.deadline:
            return False
        self.log.make(held, self.clocks.ms)
        reserved = sum(block.calls for block in self.memory.blocks if block.page_id == held.page)
        assert self.log.total(held.page) <= reserved + self.reserved[held.page]
        return True

    def last_ms(self, held: Held) -> int:
        """The last moment at which a grant can be used."""
        behind = self.clocks.steady(held.owner.machine) - self.clocks.ms / 1000
        ms = ceil(round((held.grant.deadline - behind) * 1000, 3)) - 1
        return max(ms, self.clocks.ms)

    # Time and misfortunes

    def move_to(self, ms: int) -> None:
        self.clocks.ms = max(self.clocks.ms, ms)
        self.expire()

    def expire(self) -> None:
        """Redis' keys expire by its own clock, which is not the one that was handed in."""
        ends = round((self.window.hold + 2 * self.window.bucket) * 1000)
        for page in [page for page, at in self.touched.items() if self.clocks.redis_ms - at >= ends]:
            del self.touched[page]
            self.run(self.client.delete(PAGE_PREFIX + page, CALLS_PREFIX + page))

    def tidy(self, number: int) -> None:
        """What the worker's schedule does: forget blocks of two windows ago."""
        before = {page: self._blocks(page) for page in PAGES}
        process = self.processes[number]
        older, steady = 2 * self.window.seconds, self.clocks.steady(process.machine)
        self.run(self.memory.forget_blocks(older, machine=process.machine, steady=steady))
        for page, calls in before.items():
            self.reserved[page] += calls - self._blocks(page)

    def _blocks(self, page: str) -> int:
        return sum(block.calls for block in self.memory.blocks if block.page_id == page)

    def check_sums(self) -> None:
        """The sums in a Page's hash are those of its buckets."""
        for page in PAGES:
            entries = self.run(self.client.lrange(CALLS_PREFIX + page, 0, -1))
            kept = self.run(self.client.hmget(PAGE_PREFIX + page, *(lane.value for lane in Lane)))
            columns = list(zip(*(map(int, entry.split()) for entry in entries), strict=True))[1:5]
            assert [int(value or 0) for value in kept] == [sum(c) for c in columns or [()] * 4]
            assert len(entries) <= 304

    def expected_to_recover(self) -> None:
        """Whatever happened: when all of it is over, every Page with a limit gets a call."""
        for task in list(self.flying):
            self.doors.let_go(task)
            self.settle()
        for held in list(self.held):
            self.use(held)
        longest = self.window.hold + self.window.bucket + self.window.block_life
        # A database whose clock went back takes blocks for younger than they are, until it has caught up.
        self.move_to(self.clocks.ms + round(1000 * longest) + self.went_back)
        for page in PAGES:
            for process in self.processes * 2:  # each machine may yet have to meet Redis' clock
                self.run(process.granter.refresh(page))
                self.request(process, page, 1, Lane.LIVE)
        assert {held.page for held in self.held} == set(PAGES)
        assert not self.flying
        self.check_sums()


Step = tuple[str, tuple[Any, ...]]


class Misfortunes(World):
    """What may happen in a play. Every step is possible at any time, so that a play without some of them is one too."""

    # Work

    def ask(self, number: int, page: str, lane: Lane, calls: int, at_once: bool) -> None:
        had = len(self.held)
        self.request(self.processes[number], page, calls, lane)
        if at_once and len(self.held) > had:
            self.use(self.held[-1])

    def drain(self, first: int, page: str, calls: int, at_once: bool, alone: bool) -> None:
        """One process or all ask for live leads, up to a dozen times, until there is nothing left."""
        for turn in range(first, first + 12):
            had = len(self.held)
            self.request(self.processes[first if alone else turn % 3], page, calls, Lane.LIVE)
            if len(self.held) == had:
                break
            if at_once:
                self.use(self.held[-1])

    def call(self, pick: int) -> None:
        if self.held:
            self.use(self.held[pick % len(self.held)])

    def call_all(self) -> None:
        for held in list(self.held):
            self.use(held)

    def call_at_the_last_moment(self) -> None:
        """Sleepers wake in the last ms of their grants."""
        for held in sorted(self.held, key=self.last_ms):
            self.move_to(self.last_ms(held))
            self.use(held)

    def call_too_late(self, pick: int) -> None:
        if self.held:
            held = self.held[pick % len(self.held)]
            self.move_to(self.last_ms(held) + 1)
            assert not self.use(held)

    # Time

    def move(self, ms: int) -> None:
        self.move_to(self.clocks.ms + ms)

    def move_a_part(self, part: float) -> None:
        self.move_to(self.clocks.ms + round(part * self.window.seconds * 1000))

    def move_to_the_end_of_a_refusal(self, page: str, ms: int) -> None:
        self.move_to(self.refused_until.get(page, 0) + ms)

    def move_to_where_calls_leave(self, page: str, newest: bool, earlier: int) -> None:
        """Just before Meta forgets the oldest, or the newest, of the calls made."""
        recent = self.log.within(page, self.clocks.ms)
        if recent:
            self.move_to(recent[-newest].ms + round(self.window.seconds * 1000) - earlier)

    # Misfortunes

    def redis_forgets(self, keys: bool, script: bool) -> None:
        if keys:
            self.run(self.client.flushall())
        if script:
            self.run(self.client.script_flush())

    def save(self) -> None:
        """Redis writes to its disk what a later restart brings back."""
        client = self.client
        self.on_disk = {
            key: self.run(client.lrange(key, 0, -1) if key.startswith(CALLS) else client.hgetall(key))
            for key in self.run(client.keys("*"))
        }

    def restart(self) -> None:
        """Redis comes back with what it had on disk, and has forgotten what came later."""
        self.redis_forgets(True, True)
        for key, value in self.on_disk.items():
            if key.startswith(CALLS):
                self.run(self.client.rpush(key, *value))
            else:
                self.run(self.client.hset(key, mapping=value))

    def crash(self, number: int) -> None:
        """A process dies with all that it knew and held, and another one starts in its place."""
        died = self.processes[number]
        self.processes[number] = self.start(died.machine)
        self.held = [held for held in self.held if held.owner is not died]

    def drift(self, part: float) -> None:
        """Redis' clock goes wrong by too little to be noticed."""
        self.clocks.redis_wrong -= self.drifted
        self.drifted = int(part * self.window.jump * 1000)
        self.clocks.redis_wrong += self.drifted
        self.expire()

    def jump(self, part: float) -> None:
        """Redis' clock jumps by so many windows, and the database's with it where all is on one machine."""
        ms = round(part * self.window.seconds * 1000)
        self.clocks.redis_wrong += ms
        if len({process.machine for process in self.processes}) == 1:
            self.clocks.database_wrong += ms
            self.went_back += max(0, -ms)
        self.expire()

    def set_right(self) -> None:
        """Whoever made the clocks jump sees it, and sets them right again."""
        self.went_back += max(0, self.clocks.database_wrong)
        self.clocks.redis_wrong, self.clocks.database_wrong = self.drifted, 0
        self.expire()

    def change_limit(self, page: str, limit: int, put: bool) -> None:
        self.memory.facts[page] = LimitFacts(0, 0, limit)
        if put:
            self.run(self.processes[0].granter.refresh(page))

    # Requests under way

    def ask_slowly(self, number: int, page: str, lane: Lane, calls: int, doors: int) -> None:
        """A request that stops before and after each of its steps, for as long as nobody lets it go on."""
        self.request(self.processes[number], page, calls, lane, gated=True)
        self.go_on(-1, doors)

    def go_on(self, pick: int, doors: int) -> None:
        if self.flying:
            task = self.flying[pick % len(self.flying)]
            for _ in range(doors):
                if self.doors.waits(task):
                    self.doors.open(task)
                    self.settle()

    def finish_all(self) -> None:
        for task in list(self.flying):
            self.doors.let_go(task)
            self.settle()

    def lose(self, pick: int) -> None:
        """The next step is not done, or is done and its reply does not come."""
        if self.flying and self.doors.waits(task := self.flying[pick % len(self.flying)]):
            self.doors.open(task, fails=True)
            self.settle()

    def cancel(self, pick: int) -> None:
        if self.flying:
            self.flying[pick % len(self.flying)].cancel()
            self.settle()


@dataclass(frozen=True, slots=True)
class Play:
    """A world and what happens in it, all of it drawn before it happens."""

    window: Window
    machines: int
    limit: int
    steps: tuple[Step, ...]

    def run(self, connect: Connect) -> None:
        world = Misfortunes(connect, self.window, self.machines, self.limit)
        try:
            for name, told in self.steps:
                getattr(world, name)(*told)
            world.expected_to_recover()
        finally:
            world.close()

    def __str__(self) -> str:
        steps = "\n".join(f"    {name}{told}" for name, told in self.steps)
        return f"{self.window}, {self.machines} machines, limit {self.limit}:\n{steps}"


def a_play(seed: int, window: Window, steps: int = 60) -> Play:
    """Each play has likings of its own: what never happens in one happens all the time in another."""
    draw = random.Random(seed)
    page = PAGES[0]
    some_page = lambda: draw.choice((page, page, page, PAGES[1]))  # noqa: E731
    calls = lambda: draw.choice((1, draw.randint(1, 60), 60))  # noqa: E731
    process, pick = (lambda: draw.randrange(3)), (lambda: draw.randrange(100))
    lane = lambda: draw.choice((Lane.LIVE, *Lane))  # noqa: E731
    coin = lambda: draw.random() < 0.5  # noqa: E731
    parts = (1 / 288, 1 / 96, 1 / 24, 0.1, 0.5, 0.9, 0.999, 1.0, 1.01, 2.5)
    jumps = (-3.0, -1.01, -0.5, -0.1, 0.1, 0.5, 1.01, 3.0)
    steps_and_weights: dict[str, tuple[int, Callable[[], tuple[Any, ...]]]] = {
        "ask": (6, lambda: (process(), some_page(), lane(), calls(), coin())),
        "drain": (12, lambda: (process(), some_page(), calls(), coin(), coin())),
        "call": (2, lambda: (pick(),)),
        "call_all": (3, lambda: ()),
        "call_at_the_last_moment": (6, lambda: ()),
        "call_too_late": (1, lambda: (pick(),)),
        "move": (4, lambda: (draw.choice((1, draw.randint(1, 50), draw.randint(50, 5_000))),)),
        "move_a_part": (3, lambda: (draw.choice(parts),)),
        "move_to_the_end_of_a_refusal": (8, lambda: (some_page(), draw.choice((-1, 0, 0, 0, 1)))),
        "move_to_where_calls_leave": (
            6,
            lambda: (some_page(), coin(), draw.choice((1, draw.randint(1, 1_500)))),
        ),
        "redis_forgets": (4, lambda: draw.choice(((True, False), (False, True), (True, True)))),
        "save": (2, lambda: ()),
        "restart": (3, lambda: ()),
        "crash": (1, lambda: (process(),)),
        "drift": (2, lambda: (draw.choice((DRIFTS[0], draw.uniform(*DRIFTS), DRIFTS[1])),)),
        "jump": (2, lambda: (draw.choice(jumps),)),
        "set_right": (2, lambda: ()),
        "change_limit": (1, lambda: (some_page(), draw.choice((1, 2, 20, 61, 150)), coin())),
        "tidy": (1, lambda: (process(),)),
        "ask_slowly": (6, lambda: (process(), some_page(), lane(), calls(), draw.randint(0, 13))),
        "go_on": (4, lambda: (pick(), draw.randint(1, 13))),
        "finish_all": (3, lambda: ()),
        "lose": (1, lambda: (pick(),)),
        "cancel": (1, lambda: (pick(),)),
    }
    names = list(steps_and_weights)
    weights = [weight * draw.choice((0, 1, 1, 3)) for weight, _ in steps_and_weights.values()]
    weights[names.index("drain")] = steps_and_weights["drain"][0]
    drawn = draw.choices(names, weights, k=steps)
    return Play(
        window,
        draw.choice((1, 1, 2, 3)),
        draw.choice((3, 20, 60, 150)),
        tuple((name, steps_and_weights[name][1]()) for name in drawn),
    )


def shortened(play: Play, connect: Connect) -> Play:
    """The play without the steps that its failure does not need."""

    def fails(steps: tuple[Step, ...]) -> bool:
        try:
            replace(play, steps=steps).run(connect)
        except AssertionError:
            return True
        return False

    steps, size = play.steps, len(play.steps) // 2
    while size:
        at, before = 0, len(steps)
        while at < len(steps):
            without = steps[:at] + steps[at + size :]
            if fails(without):
                steps = without
            else:
                at += 1 if size < 4 else size
        if size > 3 or len(steps) == before:
            size = size // 2 if size > 3 else size - 1
    return replace(play, steps=steps)


def run_plays(connect: Connect, window: Window, plays: int) -> None:
    """Play the first so many plays, or others where LEADSYNC_DEEP asks for more; the first that fails, shortened."""
    first = random.randrange(10**9) if DEEP else 0
    for seed in range(first, first + ceil(plays * max(1.0, DEEP))):
        play = a_play(seed, window)
        try:
            play.run(connect)
        except AssertionError:
            short = shortened(play, connect)
            print(f"seed {seed}, shortened to {short}")  # noqa: T201  pytest shows it under the failure
            short.run(connect)
            raise


def fake_redis() -> Connect:
    server = fakeredis.FakeServer()
    return lambda: fakeredis.FakeAsyncRedis(server=server)


def real_redis(url: str) -> Connect:
    return lambda: aioredis.Redis.from_url(url, protocol=2)


@pytest.mark.parametrize("window", [MINUTES, DAY], ids=["minutes", "day"])
def test_no_misfortune_makes_a_call_too_many(window: Window) -> None:
    """In no window are there more calls than the limit, whatever is lost, late, forgotten or jumps."""
    run_plays(fake_redis(), window, 10)


@pytest.mark.parametrize("window", [MINUTES, DAY], ids=["minutes", "day"])
@pytest.mark.parametrize("server", ["redis_6_url", "redis_7_url"])
def test_no_misfortune_makes_a_call_too_many_on_a_real_redis(
    server: str, window: Window, request: pytest.FixtureRequest
) -> None:
    """The same on the real neighbours, which answer faster than the fake."""
    url = request.getfixturevalue(server)
    run_plays(real_redis(url), window, 25)


def spent_of_the_limit(
    connect: Connect, window: Window, limit: int, lanes: tuple[Lane, ...], *, emptied: bool = False
) -> float:
    """Which part of three windows' limits is spent where work always waits and nobody dies; `emptied`: once in each."""
    draw = random.Random(7)
    world = World(connect, window, limits=limit)
    whole = round(window.seconds * 1000)
    page = PAGES[0]
    try:
        for _ in range(200):  # the first window at a steady pace, so that later ones have no bursts
            world.request(draw.choice(world.processes), page, limit // 200, lanes[0])
            world.use(world.held[-1])
            world.move_to(world.clocks.ms + whole // 200)
        begun, before, emptyings = world.clocks.ms, world.log.total(page), 0
        while world.clocks.ms < begun + 3 * whole:
            if emptied and world.clocks.ms >= begun + emptyings * whole:
                emptyings += 1
                world.run(world.client.flushall())
            world.request(draw.choice(world.processes), page, draw.randint(1, 60), draw.choice(lanes))
            if world.held:
                world.use(world.held[-1])
            else:
                world.move_to(max(world.refused_until[page], world.clocks.ms + 1))
        return (world.log.total(page) - before) / (3 * limit)
    finally:
        world.close()


@pytest.mark.parametrize("window", [MINUTES, DAY], ids=["minutes", "day"])
@pytest.mark.parametrize(
    "lanes", [(Lane.LIVE,), (Lane.LIVE, Lane.WAITING, Lane.BACKFILL)], ids=["live", "all"]
)
def test_work_that_waits_gets_nearly_the_whole_limit(
    window: Window, lanes: tuple[Lane, ...], redis_6_url: str
) -> None:
    """Safety is not bought by waste: over several days 98% of what Meta allows is spent, of minutes a bit less."""
    # A grant's life and a clock's jump are a second each at least, 0.7% of five minutes.
    least = 0.98 if window is DAY else 0.973
    assert spent_of_the_limit(real_redis(redis_6_url), window, 400, lanes) >= least


def test_a_redis_that_is_emptied_costs_little(redis_6_url: str) -> None:
    """A seed takes blocks for whole and for made at their end: emptied every day, Redis costs little."""
    assert spent_of_the_limit(real_redis(redis_6_url), DAY, 4_000, (Lane.LIVE,), emptied=True) >= 0.95
