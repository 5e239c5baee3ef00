"""The ledger on the fake and on two real versions of Redis alike: what it grants, when calls leave, what it keeps.

The clock is handed in, so nothing here waits for time to pass. What follows over whole windows, with many processes
and every misfortune, is test_ledger_windows.py's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from zlib import crc32

import fakeredis
import pytest
import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from tests.contract.ledger_bench import (
    ALL,
    BACKFILL,
    LIVE,
    LONGEST_BLOCKED,
    MS,
    OTHER_PAGE,
    PAGE,
    UPKEEP,
    WAITING,
    WINDOW,
    Bench,
    Runner,
)
from tests.fakes.budget import Clocks, TimedLedger
from worker.budget.ledger import (
    APP_SCOPE,
    CALLS_PREFIX,
    LEDGER,
    PAGE_PREFIX,
    Granted,
    Ledger,
    Refused,
    Unknown,
    page_scope,
)
from worker.budget.policy import Lane, Limit, Shares, Spent, Window
from worker.errors import LedgerUnavailable


def test_grants_sum_up_to_the_limit_and_no_further(on_ledger: Runner) -> None:
    """A request gets what is left when less is left than it asks for, and then nobody gets anything."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        assert [await bench.got(calls) for calls in (1, 59, 30, 60)] == [1, 59, 30, 10]
        assert [await bench.got(calls) for calls in (1, 60)] == [0, 0]

    on_ledger(scenario)


def test_a_grant_says_what_is_left_of_which_limit(on_ledger: Runner) -> None:
    """Callers learn how much more they could have had."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        assert await bench.ask(30) == Granted(30, 70, (), 100)
        assert await bench.ask(70) == Granted(70, 0, (), 100)

    on_ledger(scenario)


def test_many_at_once_get_the_limit_together(on_ledger: Runner) -> None:
    """However many connections ask in the same moment, the grants sum up to the limit exactly."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 500)

        async def work(number: int) -> int:
            async with bench.connect() as client:
                ledger, steady = bench.ledger(client=client), bench.clocks.steady("one")
                answers = [await ledger.request(PAGE, 1 + number % 9, LIVE, (), steady) for _ in range(25)]
            return sum(answer.calls for answer in answers if isinstance(answer, Granted))

        assert sum(await asyncio.gather(*(work(number) for number in range(8)))) == 500

    on_ledger(scenario)


def test_one_page_spends_nothing_of_another(on_ledger: Runner) -> None:
    """Each Page has a count of its own."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.knows(OTHER_PAGE, 20)
        assert await bench.got(ALL) == 10
        assert await bench.got(ALL, page=OTHER_PAGE) == 20

    on_ledger(scenario)


def test_a_page_without_a_limit_gets_nothing(on_ledger: Runner) -> None:
    """An operator's 0 is a refusal in every lane, with a moment that lies ahead."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 0)
        for lane in Lane:
            assert (await bench.refused(lane=lane)).seconds > 0

    on_ledger(scenario)


@pytest.mark.parametrize("page", ["1", "2", "7001", "123456789"])
@pytest.mark.parametrize("later", [0.0, 0.3, 0.9])
def test_the_moment_of_a_refusal_is_exact(on_ledger: Runner, page: str, later: float) -> None:
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

    on_ledger(scenario)


@pytest.mark.parametrize("page", ["1", "2", "7001", "123456789"])
def test_a_call_is_held_for_window_life_and_jump_and_at_most_a_bucket_more(
    on_ledger: Runner, page: str
) -> None:
    """A call may be made a life after it was granted and counts at Meta for a window; a jump may go unnoticed."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(page, 5)
        await bench.got(5, page=page)
        bench.clocks.move(WINDOW.seconds + WINDOW.life + WINDOW.jump)
        assert await bench.got(1, page=page) == 0
        bench.clocks.move(WINDOW.bucket + MS)
        assert await bench.got(60, page=page) == 5

    on_ledger(scenario)


def test_a_bucket_leaves_as_a_whole_at_its_end(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_a_large_request_is_told_when_a_bucketful_is_free(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_a_clock_that_went_back_a_little_keeps_calls_longer(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_a_lower_limit_holds_at_once_and_a_higher_one_too(on_ledger: Runner) -> None:
    """What was spent before counts against the limit that is in force now."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.got(60)
        await bench.ledger().change_limit(PAGE, Limit(50, 50, ""))
        assert await bench.got(1) == 0
        await bench.ledger().change_limit(PAGE, Limit(70, 70, ""))
        assert await bench.ask(60) == Granted(10, 0, (), 70)

    on_ledger(scenario)


def test_a_limit_alone_makes_no_page_known(on_ledger: Runner) -> None:
    """A Page whose spending nobody told stays unknown, whatever its limit."""

    async def scenario(bench: Bench) -> None:
        await bench.ledger().change_limit(PAGE, Limit(50, 50, ""))
        await bench.ledger().saved(PAGE, 5)
        assert isinstance(await bench.ask(1), Unknown)
        assert await bench.client.keys(PAGE_PREFIX + "*") == []

    on_ledger(scenario)


def test_what_is_over_is_forgotten_by_itself(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_a_seeded_page_that_never_spends_is_forgotten_too(on_ledger: Runner) -> None:
    """No key of a Page is left without an end."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 0)
        await bench.refused()
        assert await bench.client.pttl(PAGE_PREFIX + PAGE) > 0

    on_ledger(scenario)


def test_a_pages_size_is_bounded(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


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


def test_the_sums_are_those_of_the_buckets(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_saved_calls_are_noted_and_cost_nothing(on_ledger: Runner) -> None:
    """What a listing made unnecessary is told to the operator and counts against no limit."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.ledger().saved(PAGE, 40)
        assert await bench.got(10) == 10
        account = await bench.ledger().account(PAGE)
        assert account is not None
        assert (account.saved, account.spent["live"]) == (40, 10)

    on_ledger(scenario)


def test_an_account_shows_what_still_counts(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_nothing_of_other_redis_users_is_touched(on_ledger: Runner) -> None:
    """Every key of the ledger is under its own names."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.got(3)
        await bench.throttle(APP_SCOPE)
        await bench.ledger().saved(PAGE, 1)
        keys = await bench.client.keys("*")
        assert LEDGER.encode() in keys
        assert all(key.startswith(b"leadsync:budget:") for key in keys)

    on_ledger(scenario)


def test_a_full_redis_still_grants(on_real_ledger: Runner) -> None:
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

    on_real_ledger(scenario)


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


def test_a_redis_that_refuses_is_unavailable(on_ledger: Runner) -> None:
    """Another kind of key under the ledger's name is an error of the ledger's, told without what Redis said."""

    async def scenario(bench: Bench) -> None:
        await bench.client.set(LEDGER, "x")
        with pytest.raises(LedgerUnavailable) as told:
            await bench.ask(1)
        assert LEDGER not in str(told.value)

    on_ledger(scenario)


def test_by_redis_own_clock_it_grants_too(on_ledger: Runner) -> None:
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

    on_ledger(scenario)
