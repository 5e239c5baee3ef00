"""The ledger on the fake and on two real versions of Redis alike: what it counts, whom it refuses, when it forgets.

The clock is handed in, so nothing here waits for time to pass. What follows over whole windows, with many processes
and every misfortune, is test_ledger_windows.py's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from zlib import crc32

import fakeredis
import pytest
import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from tests.fakes.budget import Clocks, TimedLedger
from worker.budget.ledger import (
    APP_SCOPE,
    CALLS_PREFIX,
    LEDGER,
    PAGE_PREFIX,
    Answered,
    Granted,
    Ledger,
    Refused,
    Unknown,
    page_scope,
)
from worker.budget.policy import Lane, Limit, Shares, Spent, Window
from worker.errors import LedgerUnavailable

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


@pytest.fixture(params=["fake", "redis_6_url", "redis_7_url"])
def on_redis(request: pytest.FixtureRequest) -> Runner:
    """The neighbours that keep this contract."""
    if request.param == "fake":
        server = fakeredis.FakeServer()
        return Runner("fake", lambda: fakeredis.FakeAsyncRedis(server=server))
    return Runner(request.param, real(request.getfixturevalue(request.param)))


@pytest.fixture(params=["redis_6_url", "redis_7_url"])
def on_real_redis(request: pytest.FixtureRequest) -> Runner:
    """The neighbours that can be full."""
    return Runner(request.param, real(request.getfixturevalue(request.param)))


# What is granted


def test_grants_sum_up_to_the_limit_and_no_further(on_redis: Runner) -> None:
    """A request gets what is left when less is left than it asks for, and then nobody gets anything."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        assert [await bench.got(calls) for calls in (1, 59, 30, 60)] == [1, 59, 30, 10]
        assert [await bench.got(calls) for calls in (1, 60)] == [0, 0]

    on_redis(scenario)


def test_a_grant_says_what_is_left_of_which_limit(on_redis: Runner) -> None:
    """Callers learn how much more they could have had."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        assert await bench.ask(30) == Granted(30, 70, (), 100)
        assert await bench.ask(70) == Granted(70, 0, (), 100)

    on_redis(scenario)


def test_many_at_once_get_the_limit_together(on_redis: Runner) -> None:
    """However many connections ask in the same moment, the grants sum up to the limit exactly."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 500)

        async def work(number: int) -> int:
            async with bench.connect() as client:
                ledger, steady = bench.ledger(client=client), bench.clocks.steady("one")
                answers = [await ledger.request(PAGE, 1 + number % 9, LIVE, (), steady) for _ in range(25)]
            return sum(answer.calls for answer in answers if isinstance(answer, Granted))

        assert sum(await asyncio.gather(*(work(number) for number in range(8)))) == 500

    on_redis(scenario)


def test_one_page_spends_nothing_of_another(on_redis: Runner) -> None:
    """Each Page has a count of its own."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.knows(OTHER_PAGE, 20)
        assert await bench.got(ALL) == 10
        assert await bench.got(ALL, page=OTHER_PAGE) == 20

    on_redis(scenario)


def test_a_page_without_a_limit_gets_nothing(on_redis: Runner) -> None:
    """An operator's 0 is a refusal in every lane, with a moment that lies ahead."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 0)
        for lane in Lane:
            assert (await bench.refused(lane=lane)).seconds > 0

    on_redis(scenario)


# When calls leave


@pytest.mark.parametrize("page", ["1", "2", "7001", "123456789"])
@pytest.mark.parametrize("later", [0.0, 0.3, 0.9])
def test_the_moment_of_a_refusal_is_exact(on_redis: Runner, page: str, later: float) -> None:
    """One ms before it the answer is the same refusal, at it a grant."""

    async def scenario(bench: Bench) -> None:
        bench.clocks.move(later)
        await bench.knows(page, 5)
        await bench.got(5, page=page)
        bench.clocks.move(17.0)
        moment = (await bench.refused(page=page)).seconds
        bench.clocks.move(moment - MS)
        assert (await bench.refused(page=page)).seconds == pytest.approx(MS)
        bench.clocks.move(MS)
        assert await bench.got(60, page=page) == 5

    on_redis(scenario)


@pytest.mark.parametrize("page", ["1", "2", "7001", "123456789"])
def test_a_call_is_held_for_window_life_and_jump_and_at_most_a_bucket_more(
    on_redis: Runner, page: str
) -> None:
    """A call may be made a life after it was granted and counts at Meta for a window; a jump may go unnoticed."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(page, 5)
        await bench.got(5, page=page)
        bench.clocks.move(WINDOW.seconds + WINDOW.life + WINDOW.jump)
        assert await bench.got(1, page=page) == 0
        bench.clocks.move(WINDOW.bucket + MS)
        assert await bench.got(60, page=page) == 5

    on_redis(scenario)


def test_a_bucket_leaves_as_a_whole_at_its_end(on_redis: Runner) -> None:
    """Calls of one bucket leave together, `hold` after its end, and those of the next one a bucket later."""

    async def scenario(bench: Bench) -> None:
        bucket, hold = round(WINDOW.bucket * 1000), round(WINDOW.hold * 1000)
        phase = crc32(PAGE.encode()) % bucket
        bench.clocks.ms += bucket - (bench.clocks.redis_ms - phase) % bucket  # a bucket begins
        begins = bench.clocks.ms
        await bench.knows(PAGE, 7)
        await bench.got(1)
        bench.clocks.ms = begins + bucket - 1
        await bench.got(2)
        bench.clocks.ms = begins + bucket
        await bench.got(4)
        bench.clocks.ms = begins + bucket + hold - 1
        assert await bench.got(ALL) == 0
        bench.clocks.ms += 1
        assert await bench.got(ALL) == 3
        bench.clocks.ms += bucket - 1
        assert await bench.got(ALL) == 0
        bench.clocks.ms += 1
        assert await bench.got(ALL) == 4

    on_redis(scenario)


def test_a_large_request_is_told_when_a_bucketful_is_free(on_redis: Runner) -> None:
    """Who asks for many is not called back for one: `limit` x bucket / window calls are free at the moment told."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 2_880)
        for _ in range(8):
            await bench.got(1)
            bench.clocks.move(1.05)
        await bench.got(2_871)
        bench.clocks.move(1.05)
        await bench.got(1)
        one, many = await bench.refused(1), await bench.refused(60)
        assert one.seconds < many.seconds
        bench.clocks.move(many.seconds - MS)
        assert await bench.got(60) < 10
        bench.clocks.move(MS)
        assert await bench.got(60) >= 10

    on_redis(scenario)


def test_a_clock_that_went_back_a_little_keeps_calls_longer(on_redis: Runner) -> None:
    """Calls noted by a clock that went back count as long as the newest before, never less."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        bench.clocks.redis_wrong += 400
        await bench.got(5)
        bench.clocks.redis_wrong -= 400
        await bench.got(5)
        bench.clocks.move(WINDOW.hold)
        assert await bench.got(1) == 0
        bench.clocks.move(WINDOW.bucket + 0.4)
        assert await bench.got(ALL) == 10

    on_redis(scenario)


def test_a_lower_limit_holds_at_once_and_a_higher_one_too(on_redis: Runner) -> None:
    """What was spent before counts against the limit that is in force now."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.got(60)
        await bench.ledger().change_limit(PAGE, Limit(50, 50, ""))
        assert await bench.got(1) == 0
        await bench.ledger().change_limit(PAGE, Limit(70, 70, ""))
        assert await bench.ask(60) == Granted(10, 0, (), 70)

    on_redis(scenario)


def test_a_limit_alone_makes_no_page_known(on_redis: Runner) -> None:
    """A Page whose spending nobody told stays unknown, whatever its limit."""

    async def scenario(bench: Bench) -> None:
        await bench.ledger().change_limit(PAGE, Limit(50, 50, ""))
        await bench.ledger().saved(PAGE, 5)
        assert isinstance(await bench.ask(1), Unknown)
        assert await bench.client.keys(PAGE_PREFIX + "*") == []

    on_redis(scenario)


# Lanes


@pytest.mark.parametrize("lane", [BACKFILL, UPKEEP])
def test_backfill_and_upkeep_leave_the_live_reserve(on_redis: Runner, lane: Lane) -> None:
    """Whatever they ask for, a twentieth of the limit is left for leads that come."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        assert [await bench.got(ALL, lane), await bench.got(1, lane)] == [950, 0]
        assert await bench.got(ALL) == 50

    on_redis(scenario)


def test_backfill_and_upkeep_together_leave_the_live_reserve(on_redis: Runner) -> None:
    """One of them after the other they leave as much as either alone."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL, BACKFILL)
        await bench.got(ALL, UPKEEP)
        bench.clocks.move(WINDOW.recent + MS)  # what was refused is kept for nobody any more
        assert await bench.got(ALL) == 50

    on_redis(scenario)


def test_waiting_after_a_full_backfill_leaves_room_for_a_fresh_lead(on_redis: Runner) -> None:
    """What backfill had to leave for live leads is not all taken by waiting ones."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL, BACKFILL)
        await bench.got(ALL, WAITING)
        assert await bench.got(1) == 1

    on_redis(scenario)


def test_the_reserve_grows_with_the_recent_rate_of_live_leads(on_redis: Runner) -> None:
    """Four times what live leads took in the last 24th of the window is kept for them, up to nine tenths."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(100)
        assert await bench.got(ALL, BACKFILL) == 600
        await bench.knows(OTHER_PAGE, 1_000)
        await bench.got(300, page=OTHER_PAGE)
        assert await bench.got(ALL, BACKFILL, OTHER_PAGE) == 100

    on_redis(scenario)


def test_the_reserve_shrinks_when_live_leads_stop(on_redis: Runner) -> None:
    """Once they are no longer recent, a tenth more than what live leads took in the window is kept, no more."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(150)
        bench.clocks.move(WINDOW.recent + WINDOW.bucket + MS)
        assert await bench.got(ALL, BACKFILL) == 1_000 - 165

    on_redis(scenario)


@pytest.mark.parametrize(("limit", "kept"), [(1_000, 2), (4, 1)])
def test_waiting_leaves_room_for_a_fresh_lead(on_redis: Runner, limit: int, kept: int) -> None:
    """References that were refused once may take all but a little, so that a new lead does not queue behind them."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, limit)
        assert await bench.got(ALL, WAITING) == limit - kept
        assert await bench.got(1, WAITING) == 0
        assert await bench.got(1) == 1

    on_redis(scenario)


def test_waiting_leaves_room_for_a_fresh_lead_after_many_live_ones(on_redis: Runner) -> None:
    """However much live leads spent earlier in the window, waiting references leave something for the next one."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(500)
        bench.clocks.move(WINDOW.recent * 2)
        await bench.got(ALL, WAITING)
        assert await bench.got(1) == 1

    on_redis(scenario)


@pytest.mark.parametrize(("lane", "minimum"), [(WAITING, 50), (BACKFILL, 50), (UPKEEP, 20)])
def test_a_lane_that_was_refused_has_its_minimum_kept_for_it(
    on_redis: Runner, lane: Lane, minimum: int
) -> None:
    """What leaves is not all taken by live leads while another lane was refused lately."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(1, lane)
        bench.clocks.move(3)
        assert await bench.got(ALL) == 1_000 - minimum
        # Two of them are the next live lead's, whoever waits.
        assert await bench.got(minimum, lane) == minimum - (2 if lane is WAITING else 0)

    on_redis(scenario)


def test_a_minimum_is_kept_for_a_while_only(on_redis: Runner) -> None:
    """A lane that does not come back within a 24th of the window loses what was kept for it."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - WINDOW.recent - MS)
        await bench.refused(1, BACKFILL)
        bench.clocks.move(WINDOW.recent + MS)
        assert await bench.got(ALL) == 1_000

    on_redis(scenario)


def test_what_a_lane_got_in_full_is_kept_no_more(on_redis: Runner) -> None:
    """A lane whose request was met wants nothing, and its minimum goes to whoever asks."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(1, BACKFILL)
        bench.clocks.move(3)
        assert await bench.got(10, BACKFILL) == 10
        assert await bench.got(ALL) == 990

    on_redis(scenario)


def test_backfill_steps_back_while_announced_leads_wait(on_redis: Runner) -> None:
    """While references wait that were refused, backfill and upkeep have their minimum and no more."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(1, WAITING)
        bench.clocks.move(3)
        assert await bench.got(ALL, BACKFILL) == 50
        assert await bench.got(ALL, UPKEEP) == 20
        assert await bench.got(ALL, WAITING) > 800

    on_redis(scenario)


def test_waiting_goes_before_what_nobody_announced(on_redis: Runner) -> None:
    """A full backfill that is refused leaves waiting references all but its minimum."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(400, BACKFILL)
        assert await bench.got(ALL, WAITING) == 1_000 - 400 - 2

    on_redis(scenario)


# What Meta says


@pytest.mark.parametrize("scope", [page_scope(PAGE), APP_SCOPE, "ad_account:9", "user:3"])
def test_a_closed_scope_refuses_until_its_moment(on_redis: Runner, scope: str) -> None:
    """Until then nothing is granted in it, and the refusal says which scope and when."""

    async def scenario(bench: Bench) -> None:
        also = (scope,) if scope.startswith(("ad_account", "user")) else ()
        await bench.knows(PAGE, 100)
        assert await bench.throttle(scope, regain=timedelta(minutes=2)) == 120
        bench.clocks.move(120 - MS)
        for lane in Lane:
            assert await bench.ask(5, lane, also=also) == Refused(pytest.approx(MS), scope)
        bench.clocks.move(MS)
        assert await bench.ask(5, also=also) == Granted(1, 99, (scope,), 100)

    on_redis(scenario)


def test_a_closed_scope_stops_nobody_outside(on_redis: Runner) -> None:
    """One Page's throttle, or an account's, delays no Page that is not in it."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.knows(OTHER_PAGE, 100)
        await bench.throttle(page_scope(PAGE))
        await bench.throttle("ad_account:9")
        assert await bench.got(5, page=OTHER_PAGE) == 5

    on_redis(scenario)


def test_a_linked_account_closes_its_page_too(on_redis: Runner) -> None:
    """A Page whose reads met an ad account's throttle waits for it from then on, without being told again."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.knows(OTHER_PAGE, 100)
        seconds = await bench.throttle("ad_account:9", link_page=PAGE)
        assert await bench.refused() == Refused(seconds, "ad_account:9")
        assert await bench.got(1, page=OTHER_PAGE) == 1
        bench.clocks.move(seconds)
        assert await bench.ask(5) == Granted(1, 99, ("ad_account:9",), 100)

    on_redis(scenario)


def test_of_several_closed_scopes_the_longest_counts(on_redis: Runner) -> None:
    """The refusal's moment is when the last of the scopes opens."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.throttle(page_scope(PAGE), regain=timedelta(seconds=5))
        await bench.throttle(APP_SCOPE, regain=timedelta(seconds=20))
        await bench.throttle("ad_account:9", regain=timedelta(seconds=9), link_page=PAGE)
        assert await bench.refused() == Refused(20, APP_SCOPE)

    on_redis(scenario)


def test_one_call_tries_a_scope_after_it_was_closed(on_redis: Runner) -> None:
    """After a closing one call is granted; the others wait for its answer, and then all is open."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        scope = page_scope(PAGE)
        bench.clocks.move(await bench.throttle(scope))
        assert await bench.ask(50) == Granted(1, 99, (scope,), 100)
        assert await bench.refused() == Refused(WINDOW.trial, scope)
        await bench.tell(scope)
        assert await bench.ask(50) == Granted(50, 49, (), 100)

    on_redis(scenario)


def test_pages_of_a_scope_send_one_call_together(on_redis: Runner) -> None:
    """A shared scope is tried by one Page's call, not by one of each Page."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.knows(OTHER_PAGE, 100)
        bench.clocks.move(await bench.throttle(APP_SCOPE))
        assert [await bench.got(5), await bench.got(5, page=OTHER_PAGE)] == [1, 0]

    on_redis(scenario)


def test_a_trial_whose_answer_is_lost_is_made_again(on_redis: Runner) -> None:
    """A caller that died with the one call holds the scope for the time of a trial only."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        bench.clocks.move(await bench.throttle(page_scope(PAGE)))
        await bench.got(1)
        bench.clocks.move(WINDOW.trial)
        assert await bench.ask(9) == Granted(1, 98, (page_scope(PAGE),), 100)

    on_redis(scenario)


def test_a_refused_trial_leaves_the_scope_to_others(on_redis: Runner) -> None:
    """Where the budget has no call left for a trial, the scope is not held for an answer that cannot come."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.knows(OTHER_PAGE, 10)
        await bench.got(10)
        bench.clocks.move(await bench.throttle(APP_SCOPE))
        assert (await bench.refused()).why == "budget"
        assert await bench.ask(5, page=OTHER_PAGE) == Granted(1, 9, (APP_SCOPE,), 10)

    on_redis(scenario)


def test_each_strike_doubles_the_pause_up_to_the_longest(on_redis: Runner) -> None:
    """Where Meta names no time the pause begins at the first one and doubles; a success starts it anew."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        scope = page_scope(PAGE)
        pauses = []
        for _ in range(6):
            pauses.append(await bench.throttle(scope))
            bench.clocks.move(pauses[-1])
            assert await bench.got(1) == 1
        doubled = [min(WINDOW.first_pause * 2**n, WINDOW.longest_pause) for n in range(6)]
        assert pauses == pytest.approx(doubled, abs=0.02)
        assert doubled[-1] == WINDOW.longest_pause
        await bench.tell(scope)
        assert await bench.throttle(scope) == pytest.approx(WINDOW.first_pause, abs=0.02)

    on_redis(scenario)


def test_a_thousand_strikes_are_no_overflow(on_redis: Runner) -> None:
    """A scope that stays closed for ever is tried every longest pause, for ever."""

    async def scenario(bench: Bench) -> None:
        for _ in range(200):
            seconds = await bench.throttle(APP_SCOPE)
            bench.clocks.move(seconds)
        assert seconds == WINDOW.longest_pause

    on_redis(scenario)


def test_parallel_throttles_are_one_strike(on_redis: Runner) -> None:
    """Calls that were under way when the scope closed prolong nothing, unless Meta names a later moment."""

    async def scenario(bench: Bench) -> None:
        scope = page_scope(PAGE)
        first = await bench.throttle(scope)
        assert [await bench.throttle(scope) for _ in range(5)] == [first] * 5
        assert await bench.throttle(scope, regain=timedelta(seconds=60)) == 60
        assert await bench.throttle(scope, regain=timedelta(seconds=30)) == 60
        bench.clocks.move(60)
        assert await bench.throttle(scope) == pytest.approx(2 * first, abs=0.01)

    on_redis(scenario)


def test_a_late_success_does_not_open_a_closed_scope(on_redis: Runner) -> None:
    """An answer to a call from before the closing says nothing of the time after it."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        seconds = await bench.throttle(page_scope(PAGE))
        assert await bench.tell(page_scope(PAGE), 40) == seconds
        assert (await bench.refused()).seconds == seconds

    on_redis(scenario)


@pytest.mark.parametrize(("percent", "regain"), [(100, 0), (117.5, 0), (40, 90)])
def test_a_full_scope_closes_without_a_throttle(on_redis: Runner, percent: float, regain: int) -> None:
    """At 100% or with a time to regain access the next call would be throttled, so it is not made."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        seconds = await bench.tell(page_scope(PAGE), percent, regain=timedelta(seconds=regain))
        assert seconds == pytest.approx(regain or WINDOW.first_pause, abs=MS)
        assert (await bench.refused()).why == page_scope(PAGE)

    on_redis(scenario)


def test_metas_percentage_is_a_floor_of_what_meta_allows(on_redis: Runner) -> None:
    """Where Meta counts more than we do its count holds, less a percent for rounding; it is of Meta's limit."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 950, told=1_000)
        await bench.got(100)
        await bench.tell(page_scope(PAGE), 60)
        assert await bench.ask(1) == Granted(1, 950 - 590 - 1, (), 950)

    on_redis(scenario)


def test_a_newer_percentage_replaces_the_older(on_redis: Runner) -> None:
    """Percentages are never added to one another nor to our own count, and the newest one holds, higher or lower."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        lefts = []
        for percent in (60, 60, 80, 30):
            await bench.tell(page_scope(PAGE), percent)
            answer = await bench.ask(1)
            assert isinstance(answer, Granted)
            lefts.append(answer.left)
        assert lefts == [409, 409, 209, 709]
        await bench.got(496)
        assert await bench.ask(1) == Granted(1, 499, (), 1_000)

    on_redis(scenario)


def test_metas_percentage_grows_stale(on_redis: Runner) -> None:
    """After a 24th of the window what Meta said holds nobody up."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.tell(page_scope(PAGE), 99.9)
        bench.clocks.move(WINDOW.recent - MS)
        assert await bench.got(ALL) == 11
        bench.clocks.move(MS)
        assert await bench.got(ALL) == 989

    on_redis(scenario)


def test_a_shared_scopes_percentage_is_no_count_of_a_page(on_redis: Runner) -> None:
    """The app's calls are not this Page's, so its percentage takes nothing from the Page."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.tell(APP_SCOPE, 89)
        assert await bench.got(1_000) == 1_000

    on_redis(scenario)


def test_who_is_refused_by_a_percentage_waits_as_long_as_it_stands(on_redis: Runner) -> None:
    """Where others spent the limit and we nothing, the refusal's moment is when Meta's word has grown stale."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 950, told=1_000)
        await bench.tell(page_scope(PAGE), 96)
        assert (await bench.refused()).seconds == pytest.approx(WINDOW.recent, abs=MS)
        bench.clocks.move(WINDOW.recent)
        assert await bench.got(1) == 1

    on_redis(scenario)


def test_a_page_that_spent_little_is_not_held_a_window_by_a_percentage(on_redis: Runner) -> None:
    """Refused by Meta's percentage, nobody waits for the few calls of our own to leave."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 950, told=1_000)
        assert await bench.got(1) == 1
        await bench.tell(page_scope(PAGE), 96)
        assert (await bench.refused()).seconds == pytest.approx(WINDOW.recent, abs=MS)

    on_redis(scenario)


def test_a_page_is_not_held_a_window_by_what_is_kept_for_a_while(on_redis: Runner) -> None:
    """Refused because of other lanes' minimums, which are kept for a 24th of the window, nobody waits for longer."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(1, WAITING)
        bench.clocks.move(3)
        assert await bench.got(ALL) == 950
        refused = await bench.refused()
        bench.clocks.move(WINDOW.recent)
        assert await bench.got(1) == 1
        assert refused.seconds <= WINDOW.recent

    on_redis(scenario)


@pytest.mark.parametrize("scope", [page_scope(PAGE), APP_SCOPE])
@pytest.mark.parametrize("lane", [BACKFILL, UPKEEP])
def test_near_the_limit_backfill_slows(on_redis: Runner, scope: str, lane: Lane) -> None:
    """From 90% backfill and upkeep get a tenth of what is left, at intervals, while live and waiting go on."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10_000)
        await bench.tell(scope, 89.9)
        assert await bench.got(5, lane) == await bench.got(5, lane) == 5
        await bench.tell(scope, 90)
        answer = await bench.ask(ALL, lane)
        assert isinstance(answer, Granted)
        assert answer.calls == (answer.calls + answer.left) // 10
        refused = await bench.refused(5, lane)
        assert refused == Refused(pytest.approx(WINDOW.bucket / 10, abs=MS), "slow")
        assert [await bench.got(50), await bench.got(50, WAITING)] == [50, 50]
        bench.clocks.move(refused.seconds - MS)
        assert await bench.got(5, lane) == 0
        bench.clocks.move(MS)
        assert await bench.got(5, lane) == 5

    on_redis(scenario)


def test_near_a_small_limit_backfill_still_moves(on_redis: Runner) -> None:
    """A tenth of little is one call."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 9)
        await bench.tell(APP_SCOPE, 95)
        assert await bench.got(5, BACKFILL) == 1

    on_redis(scenario)


def test_a_percentage_of_a_hundred_beside_answers_is_no_strike(on_redis: Runner) -> None:
    """100% may have been rounded up: each time the pause is the first one."""

    async def scenario(bench: Bench) -> None:
        for _ in range(4):
            seconds = await bench.tell(page_scope(PAGE), 100)
            assert seconds == pytest.approx(WINDOW.first_pause, abs=0.01)
            bench.clocks.move(seconds)

    on_redis(scenario)


@pytest.mark.parametrize("lane", [WAITING, BACKFILL, UPKEEP])
def test_a_lane_that_must_step_back_asks_again_soon(on_redis: Runner, lane: Lane) -> None:
    """What is kept from it for others may be free much sooner: it waits for a 96th of the window at most."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        assert 0 < (await bench.refused(1, lane)).seconds <= WINDOW.recent / 4

    on_redis(scenario)


def test_live_leads_asked_for_in_vain_are_room_that_waiting_leaves(on_redis: Runner) -> None:
    """The rate of live leads is what came, granted or not: waiting ones leave four times as much."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(100)
        bench.clocks.move(3)
        assert await bench.got(ALL, WAITING) == 600
        assert await bench.got(ALL) == 400

    on_redis(scenario)


# Lives of the ledger


async def flushall(bench: Bench) -> None:
    await bench.client.flushall()


async def script_flush(bench: Bench) -> None:
    await bench.client.script_flush()


@pytest.mark.parametrize("lose", [flushall, script_flush])
def test_a_redis_that_may_have_forgotten_begins_a_new_life(
    on_redis: Runner, lose: Callable[[Bench], Awaitable[None]]
) -> None:
    """After FLUSHALL, or where the script is gone as after a restart, no Page is known and nothing is granted."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.knows(OTHER_PAGE, 10)
        await bench.got(5)
        before = await bench.epoch("unknown")
        await lose(bench)
        after = await bench.epoch()
        assert await bench.epoch(OTHER_PAGE) == after != before
        assert not await bench.ledger().seed(PAGE, before, Limit(10, 10, ""), [])
        await bench.knows(PAGE, 10, Spent(0, LIVE, 5))
        assert await bench.got(ALL) == 5

    on_redis(scenario)


def test_the_whole_of_redis_lost_twice_needs_two_seeds(on_redis: Runner) -> None:
    """A seed for a life that is over is refused, even by a ledger that is empty."""

    async def scenario(bench: Bench) -> None:
        epochs = []
        for _ in range(3):
            await bench.client.flushall()
            epochs.append(await bench.epoch())
        assert len(set(epochs)) == 3
        ledger = bench.ledger()
        assert [await ledger.seed(PAGE, epoch, Limit(5, 5, ""), []) for epoch in epochs] == [
            False,
            False,
            True,
        ]

    on_redis(scenario)


def test_a_second_seed_in_one_life_changes_nothing(on_redis: Runner) -> None:
    """Of several that seed a Page at once the first is heard; the later ones, older, take back no grant."""

    async def scenario(bench: Bench) -> None:
        epoch = await bench.epoch()
        await bench.knows(PAGE, 100, Spent(0, LIVE, 20))
        await bench.got(30)
        assert await bench.ledger().seed(PAGE, epoch, Limit(1_000, 1_000, ""), [])
        assert await bench.ask(ALL) == Granted(50, 0, (), 100)

    on_redis(scenario)


def test_what_is_seeded_leaves_by_its_age(on_redis: Runner) -> None:
    """Told calls count as if granted that long ago, each lane its own, and those that have left not at all."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(
            PAGE, 100, Spent(10, LIVE, 20), Spent(LONGEST_BLOCKED, LIVE, 50), Spent(100, BACKFILL, 30)
        )
        account = await bench.ledger().account(PAGE)
        assert account is not None
        assert account.spent == {"live": 20, "waiting": 0, "backfill": 30, "upkeep": 0}
        assert await bench.got(ALL) == 50
        for lane_calls, age in ((30, 100), (20, 10)):
            bench.clocks.ms = 0
            bench.clocks.move(WINDOW.hold - age)
            assert await bench.got(ALL) == 0
            bench.clocks.move(WINDOW.bucket + MS)
            assert await bench.got(ALL) == lane_calls

    on_redis(scenario)


@pytest.mark.parametrize("jump", [WINDOW.jump / 2 + 0.01, -WINDOW.jump / 2 - 0.01, 86_400, -86_400])
def test_a_clock_that_jumps_makes_every_page_unknown(on_redis: Runner, jump: float) -> None:
    """What the buckets say of time is void, for Redis' clock moved against a steady one."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.knows(OTHER_PAGE, 10)
        before = await bench.epoch("unknown")
        bench.clocks.redis_wrong += round(jump * 1000)
        after = await bench.epoch()
        assert await bench.epoch(OTHER_PAGE) == after != before
        assert not await bench.ledger().seed(PAGE, before, Limit(10, 10, ""), [])
        await bench.knows(PAGE, 10)
        assert await bench.got(ALL) == 10

    on_redis(scenario)


@pytest.mark.parametrize("jump", [WINDOW.jump / 2 - 0.01, 0.01 - WINDOW.jump / 2])
def test_a_small_jump_is_no_new_life(on_redis: Runner, jump: float) -> None:
    """Clocks drift: what `hold` allows for disturbs nobody."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        bench.clocks.redis_wrong += round(jump * 1000)
        assert await bench.got(4) == 4

    on_redis(scenario)


@pytest.mark.parametrize("page", ["1", "2", "7001", "123456789"])
def test_jumps_back_and_forth_free_no_call_early(on_redis: Runner, page: str) -> None:
    """A clock that goes back and then forward, never far enough to be noticed, frees nothing early."""

    async def scenario(bench: Bench) -> None:
        bucket = round(WINDOW.bucket * 1000)
        await bench.knows(page, 10)
        bench.clocks.redis_wrong = 10 - round(WINDOW.jump * 500)
        # The last ms of a bucket, so that the rest of the bucket hides nothing.
        bench.clocks.ms += bucket - 1 - (bench.clocks.redis_ms - crc32(page.encode()) % bucket) % bucket
        await bench.got(10, page=page)
        bench.clocks.redis_wrong = round(WINDOW.jump * 500) - 10
        # Used in the last ms of the grant's life, a call counts at Meta until just after this moment.
        bench.clocks.move(WINDOW.life + WINDOW.seconds - 2 * MS)
        assert await bench.got(1, page=page) == 0

    on_redis(scenario)


def test_a_jump_that_one_machine_saw_and_that_was_undone_frees_no_call_early(on_redis: Runner) -> None:
    """What was noted by a wrong clock is void for the machines too that saw the clock right before and after."""

    async def scenario(bench: Bench) -> None:
        await bench.epoch(machine="two")
        await bench.knows(PAGE, 10)
        assert await bench.got(1, machine="two") == 1
        bench.clocks.redis_wrong -= 200_000
        await bench.knows(PAGE, 10, Spent(0, LIVE, 1))
        assert await bench.got(ALL) == 9
        bench.clocks.redis_wrong += 200_000
        bench.clocks.move(150)
        answer = await bench.ask(5, machine="two")
        assert not isinstance(answer, Granted)

    on_redis(scenario)


def test_a_machine_that_was_never_met_begins_a_new_life(on_redis: Runner) -> None:
    """Whose clock was never compared cannot vouch for what lies in the ledger."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        assert isinstance(await bench.ask(1, machine="two"), Unknown)

    on_redis(scenario)


def test_a_jump_costs_each_machine_one_life(on_redis: Runner) -> None:
    """However many machines there are, once each has seen the jump a seeded Page stays known."""

    async def scenario(bench: Bench) -> None:
        machines = [f"m{number}" for number in range(20)]
        for _ in range(2):
            for machine in machines:
                await bench.epoch(machine=machine)
            await bench.knows(PAGE, 1_000)
            assert [await bench.got(1, machine=machine) for machine in machines] == [1] * 20
            bench.clocks.redis_wrong += 3_600_000

    on_redis(scenario)


# What Redis holds


def test_what_is_over_is_forgotten_by_itself(on_redis: Runner) -> None:
    """A Page's keys live as long as a call in them counts, and a Page without keys is unknown."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.got(10)
        for key in (PAGE_PREFIX + PAGE, CALLS_PREFIX + PAGE):
            left = await bench.client.pttl(key) / 1000
            assert WINDOW.hold + WINDOW.bucket < left <= WINDOW.hold + 2 * WINDOW.bucket + 0.01
        await bench.client.delete(PAGE_PREFIX + PAGE, CALLS_PREFIX + PAGE)
        assert isinstance(await bench.ask(1), Unknown)
        assert await bench.ledger().account(PAGE) is None

    on_redis(scenario)


def test_a_seeded_page_that_never_spends_is_forgotten_too(on_redis: Runner) -> None:
    """No key of a Page is left without an end."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 0)
        await bench.refused()
        assert await bench.client.pttl(PAGE_PREFIX + PAGE) > 0

    on_redis(scenario)


def test_a_pages_size_is_bounded(on_redis: Runner) -> None:
    """However long and fast a Page is asked for, it has at most 304 short texts."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 4_800_000)
        longest = 0
        for step in range(340):
            await bench.got(1 + step % 60, (LIVE, WAITING, BACKFILL, UPKEEP)[step % 4])
            longest = max(longest, await bench.client.llen(CALLS_PREFIX + PAGE))
            bench.clocks.move(WINDOW.bucket)
        assert 288 < longest <= 304
        entries = await bench.client.lrange(CALLS_PREFIX + PAGE, 0, -1)
        assert max(len(entry) for entry in entries) < 64

    on_redis(scenario)


def test_the_window_of_a_day_has_as_few_texts() -> None:
    """Seeded with a call every ten seconds of more than a day, a Page has at most 304 texts."""

    async def scenario() -> None:
        day = Window(86_400.0)
        clocks = Clocks()
        client = fakeredis.FakeAsyncRedis()
        ledger = TimedLedger(clocks, client, day, Shares(), machine="one")
        unknown = await ledger.request(PAGE, 1, LIVE, (), clocks.steady("one"))
        assert isinstance(unknown, Unknown)
        spent = [Spent(float(age), LIVE, 1) for age in range(0, 90_000, 50)]
        await ledger.seed(PAGE, unknown.epoch, Limit(10**6, 10**6, ""), spent)
        assert 288 < await client.llen(CALLS_PREFIX + PAGE) <= 304

    asyncio.run(scenario())


def test_the_sums_are_those_of_the_buckets(on_redis: Runner) -> None:
    """What the hash says of each lane is what the list holds, whatever came and left."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 300, Spent(295, UPKEEP, 9), Spent(200, LIVE, 7))
        for step in range(60):
            await bench.got(1 + step % 13, (LIVE, WAITING, BACKFILL, UPKEEP)[step % 4])
            await bench.ledger().saved(PAGE, step)
            bench.clocks.move(7.7)
        await bench.got(1)
        names = ("live", "waiting", "backfill", "upkeep", "saved", "refused")
        kept = [int(value or 0) for value in await bench.client.hmget(PAGE_PREFIX + PAGE, *names)]
        entries = await bench.client.lrange(CALLS_PREFIX + PAGE, 0, -1)
        columns = zip(*(map(int, entry.split()) for entry in entries), strict=True)
        assert kept == [sum(column) for column in list(columns)[1:]]

    on_redis(scenario)


def test_saved_calls_are_noted_and_cost_nothing(on_redis: Runner) -> None:
    """What a listing made unnecessary is told to the operator and counts against no limit."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.ledger().saved(PAGE, 40)
        assert await bench.got(10) == 10
        account = await bench.ledger().account(PAGE)
        assert account is not None
        assert (account.saved, account.spent["live"]) == (40, 10)

    on_redis(scenario)


def test_an_account_shows_what_still_counts(on_redis: Runner) -> None:
    """Calls that have left are in no account, though nobody has asked since."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100, told=105)
        await bench.got(3)
        await bench.got(2, BACKFILL)
        account = await bench.ledger().account(PAGE)
        assert account is not None
        assert account.limit == Limit(100, 105, "")
        assert account.spent == {"live": 3, "waiting": 0, "backfill": 2, "upkeep": 0}
        bench.clocks.move(LONGEST_BLOCKED)
        account = await bench.ledger().account(PAGE)
        assert account is not None
        assert sum(account.spent.values()) == 0

    on_redis(scenario)


def test_scopes_are_told_and_forgotten(on_redis: Runner) -> None:
    """An operator sees what Meta said; what it said long ago of open scopes is dropped, links and closings stay."""

    async def scenario(bench: Bench) -> None:
        ledger = bench.ledger()
        await bench.tell(page_scope(PAGE), 42.5)
        seconds = await bench.throttle("ad_account:9", link_page=PAGE)
        (account,) = await ledger.scopes(["ad_account:9", "user:1"])
        assert (account.scope, account.seconds, account.strikes) == ("ad_account:9", seconds, 1)
        (_, page) = await ledger.scopes()
        assert (page.scope, page.percent, page.seconds) == (page_scope(PAGE), 42.5, 0)
        assert await ledger.forget_scopes() == 0
        bench.clocks.move(WINDOW.seconds + 1)
        assert await ledger.forget_scopes() == 1
        assert [state.scope for state in await ledger.scopes()] == ["ad_account:9"]
        await bench.knows(PAGE, 10)
        assert await bench.ask(5) == Granted(1, 9, ("ad_account:9",), 10)

    on_redis(scenario)


def test_nothing_of_other_redis_users_is_touched(on_redis: Runner) -> None:
    """Every key of the ledger is under its own names."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.got(3)
        await bench.throttle(APP_SCOPE)
        await bench.ledger().saved(PAGE, 1)
        keys = await bench.client.keys("*")
        assert LEDGER.encode() in keys
        assert all(key.startswith(b"leadsync:budget:") for key in keys)

    on_redis(scenario)


def test_a_full_redis_still_grants(on_real_redis: Runner) -> None:
    """At maxmemory, where every other write is refused, the ledger goes on: grants, seeds, words of Meta."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        epoch = await bench.epoch(OTHER_PAGE)
        used = (await bench.client.info("memory"))["used_memory"]
        await bench.client.config_set("maxmemory-policy", "noeviction")
        await bench.client.config_set("maxmemory", used + 1)
        fill = bench.client.pipeline(transaction=False)
        for number in range(2_000):
            fill.set(f"filler:{number}", "x" * 1_000)
        with pytest.raises(ResponseError, match="maxmemory"):
            await fill.execute()
        assert await bench.got(60) == 60
        assert await bench.ledger().seed(OTHER_PAGE, epoch, Limit(10, 10, ""), [Spent(0, LIVE, 4)])
        assert await bench.got(ALL, page=OTHER_PAGE) == 6
        await bench.throttle(page_scope(PAGE))
        assert (await bench.refused()).why == page_scope(PAGE)
        await bench.client.script_flush()
        assert await bench.epoch() != epoch

    on_real_redis(scenario)


@pytest.mark.parametrize("what", ["request", "seed", "change_limit", "tell", "saved", "account", "scopes"])
def test_without_redis_there_is_one_error_that_tells_no_password(what: str, free_port: int) -> None:
    """Whatever is asked of a Redis that is away ends as LedgerUnavailable, with nothing of its URL."""

    async def scenario() -> None:
        url = f"redis://:hunter2@127.0.0.1:{free_port}/0"
        async with aioredis.Redis.from_url(url, protocol=2, retry=None) as client:
            ledger = Ledger(client, WINDOW, Shares(), machine="one")
            limit = Limit(1, 1, "")
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "request": lambda: ledger.request(PAGE, 1, LIVE, (), 0.0),
                "seed": lambda: ledger.seed(PAGE, "x", limit, []),
                "change_limit": lambda: ledger.change_limit(PAGE, limit),
                "tell": lambda: ledger.tell(APP_SCOPE, percent=1, regain=timedelta(0), throttled=True),
                "saved": lambda: ledger.saved(PAGE, 1),
                "account": lambda: ledger.account(PAGE),
                "scopes": ledger.scopes,
            }
            with pytest.raises(LedgerUnavailable) as told:
                await calls[what]()
            assert "hunter2" not in str(told.value)
            assert told.value.__suppress_context__

    asyncio.run(scenario())


def test_a_redis_that_refuses_is_unavailable(on_redis: Runner) -> None:
    """Another kind of key under the ledger's name is an error of the ledger's, told without what Redis said."""

    async def scenario(bench: Bench) -> None:
        await bench.client.set(LEDGER, "x")
        with pytest.raises(LedgerUnavailable) as told:
            await bench.ask(1)
        assert LEDGER not in str(told.value)

    on_redis(scenario)


def test_by_redis_own_clock_it_grants_too(on_redis: Runner) -> None:
    """Without a clock handed in Redis' own one is used: calls are held, and nothing is unknown the second time."""

    async def scenario(bench: Bench) -> None:
        ledger = Ledger(bench.client, WINDOW, Shares(), machine="one")
        steady = asyncio.get_running_loop().time
        unknown = await ledger.request(PAGE, 1, LIVE, (), steady())
        assert isinstance(unknown, Unknown)
        assert await ledger.seed(PAGE, unknown.epoch, Limit(10, 10, ""), [Spent(5, LIVE, 4)])
        assert await ledger.request(PAGE, 60, LIVE, (), steady()) == Granted(6, 0, (), 10)
        refused = await ledger.request(PAGE, 60, LIVE, (), steady())
        assert isinstance(refused, Refused)
        assert WINDOW.hold - 6 < refused.seconds < WINDOW.hold
        account = await ledger.account(PAGE)
        assert account is not None
        assert account.spent["live"] == 10

    on_redis(scenario)
