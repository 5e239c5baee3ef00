"""Lives of the ledger: whatever Redis forgot and however clocks jump, no call is free before its time."""

from collections.abc import Awaitable, Callable
from zlib import crc32

import pytest

from tests.contract.ledger_bench import (
    ALL,
    BACKFILL,
    LIVE,
    LONGEST_BLOCKED,
    MS,
    OTHER_PAGE,
    PAGE,
    WINDOW,
    Bench,
    Runner,
)
from worker.budget.ledger import (
    Granted,
    Unknown,
)
from worker.budget.policy import Limit, Spent


async def flushall(bench: Bench) -> None:
    await bench.client.flushall()


async def script_flush(bench: Bench) -> None:
    await bench.client.script_flush()


@pytest.mark.parametrize("lose", [flushall, script_flush])
def test_a_redis_that_may_have_forgotten_begins_a_new_life(
    on_ledger: Runner, lose: Callable[[Bench], Awaitable[None]]
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

    on_ledger(scenario)


def test_the_whole_of_redis_lost_twice_needs_two_seeds(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_a_second_seed_in_one_life_changes_nothing(on_ledger: Runner) -> None:
    """Of several that seed a Page at once the first is heard; the later ones, older, take back no grant."""

    async def scenario(bench: Bench) -> None:
        epoch = await bench.epoch()
        await bench.knows(PAGE, 100, Spent(0, LIVE, 20))
        await bench.got(30)
        assert await bench.ledger().seed(PAGE, epoch, Limit(1_000, 1_000, ""), [])
        assert await bench.ask(ALL) == Granted(50, 0, (), 100)

    on_ledger(scenario)


def test_what_is_seeded_leaves_by_its_age(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


@pytest.mark.parametrize("jump", [WINDOW.jump / 2 + 0.01, -WINDOW.jump / 2 - 0.01, 86_400, -86_400])
def test_a_clock_that_jumps_makes_every_page_unknown(on_ledger: Runner, jump: float) -> None:
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

    on_ledger(scenario)


@pytest.mark.parametrize("jump", [WINDOW.jump / 2 - 0.01, 0.01 - WINDOW.jump / 2])
def test_a_small_jump_is_no_new_life(on_ledger: Runner, jump: float) -> None:
    """Clocks drift: what `hold` allows for disturbs nobody."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        bench.clocks.redis_wrong += round(jump * 1000)
        assert await bench.got(4) == 4

    on_ledger(scenario)


@pytest.mark.parametrize("page", ["1", "2", "7001", "123456789"])
def test_jumps_back_and_forth_free_no_call_early(on_ledger: Runner, page: str) -> None:
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

    on_ledger(scenario)


def test_a_jump_that_one_machine_saw_and_that_was_undone_frees_no_call_early(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_a_machine_that_was_never_met_begins_a_new_life(on_ledger: Runner) -> None:
    """Whose clock was never compared cannot vouch for what lies in the ledger."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        assert isinstance(await bench.ask(1, machine="two"), Unknown)

    on_ledger(scenario)


def test_a_jump_costs_each_machine_one_life(on_ledger: Runner) -> None:
    """However many machines there are, once each has seen the jump a seeded Page stays known."""

    async def scenario(bench: Bench) -> None:
        machines = [f"m{number}" for number in range(20)]
        for _ in range(2):
            for machine in machines:
                await bench.epoch(machine=machine)
            await bench.knows(PAGE, 1_000)
            assert [await bench.got(1, machine=machine) for machine in machines] == [1] * 20
            bench.clocks.redis_wrong += 3_600_000

    on_ledger(scenario)
