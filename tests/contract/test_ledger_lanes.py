"""Who goes before whom at the ledger: what one lane leaves to another, and for how long."""

import pytest

from tests.contract.ledger_bench import (
    ALL,
    BACKFILL,
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
from worker.budget.policy import Lane


@pytest.mark.parametrize("lane", [BACKFILL, UPKEEP])
def test_backfill_and_upkeep_leave_the_live_reserve(on_ledger: Runner, lane: Lane) -> None:
    """Whatever they ask for, a twentieth of the limit is left for leads that come."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        assert [await bench.got(ALL, lane), await bench.got(1, lane)] == [950, 0]
        assert await bench.got(ALL) == 50

    on_ledger(scenario)


def test_backfill_and_upkeep_together_leave_the_live_reserve(on_ledger: Runner) -> None:
    """One of them after the other they leave as much as either alone."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL, BACKFILL)
        await bench.got(ALL, UPKEEP)
        bench.clocks.move(WINDOW.recent + MS)  # what was refused is kept for nobody any more
        assert await bench.got(ALL) == 50

    on_ledger(scenario)


def test_waiting_after_a_full_backfill_leaves_room_for_a_fresh_lead(on_ledger: Runner) -> None:
    """What backfill had to leave for live leads is not all taken by waiting ones."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL, BACKFILL)
        await bench.got(ALL, WAITING)
        assert await bench.got(1) == 1

    on_ledger(scenario)


def test_the_reserve_grows_with_the_recent_rate_of_live_leads(on_ledger: Runner) -> None:
    """Four times what live leads took in the last 24th of the window is kept for them, up to nine tenths."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(100)
        assert await bench.got(ALL, BACKFILL) == 600
        await bench.knows(OTHER_PAGE, 1_000)
        await bench.got(300, page=OTHER_PAGE)
        assert await bench.got(ALL, BACKFILL, OTHER_PAGE) == 100

    on_ledger(scenario)


def test_the_reserve_shrinks_when_live_leads_stop(on_ledger: Runner) -> None:
    """Once they are no longer recent, a tenth more than what live leads took in the window is kept, no more."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(150)
        bench.clocks.move(WINDOW.recent + WINDOW.bucket + MS)
        assert await bench.got(ALL, BACKFILL) == 1_000 - 165

    on_ledger(scenario)


@pytest.mark.parametrize(("limit", "kept"), [(1_000, 2), (4, 1)])
def test_waiting_leaves_room_for_a_fresh_lead(on_ledger: Runner, limit: int, kept: int) -> None:
    """References that were refused once may take all but a little, so that a new lead does not queue behind them."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, limit)
        assert await bench.got(ALL, WAITING) == limit - kept
        assert await bench.got(1, WAITING) == 0
        assert await bench.got(1) == 1

    on_ledger(scenario)


def test_waiting_leaves_room_for_a_fresh_lead_after_many_live_ones(on_ledger: Runner) -> None:
    """However much live leads spent earlier in the window, waiting references leave something for the next one."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(500)
        bench.clocks.move(WINDOW.recent * 2)
        await bench.got(ALL, WAITING)
        assert await bench.got(1) == 1

    on_ledger(scenario)


@pytest.mark.parametrize(("lane", "minimum"), [(WAITING, 50), (BACKFILL, 50), (UPKEEP, 20)])
def test_a_lane_that_was_refused_has_its_minimum_kept_for_it(
    on_ledger: Runner, lane: Lane, minimum: int
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

    on_ledger(scenario)


def test_a_minimum_is_kept_for_a_while_only(on_ledger: Runner) -> None:
    """A lane that does not come back within a 24th of the window loses what was kept for it."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - WINDOW.recent - MS)
        await bench.refused(1, BACKFILL)
        bench.clocks.move(WINDOW.recent + MS)
        assert await bench.got(ALL) == 1_000

    on_ledger(scenario)


def test_what_a_lane_got_in_full_is_kept_no_more(on_ledger: Runner) -> None:
    """A lane whose request was met wants nothing, and its minimum goes to whoever asks."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(1, BACKFILL)
        bench.clocks.move(3)
        assert await bench.got(10, BACKFILL) == 10
        assert await bench.got(ALL) == 990

    on_ledger(scenario)


def test_backfill_steps_back_while_announced_leads_wait(on_ledger: Runner) -> None:
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

    on_ledger(scenario)


def test_waiting_goes_before_what_nobody_announced(on_ledger: Runner) -> None:
    """A full backfill that is refused leaves waiting references all but its minimum."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(400, BACKFILL)
        assert await bench.got(ALL, WAITING) == 1_000 - 400 - 2

    on_ledger(scenario)


@pytest.mark.parametrize("lane", [WAITING, BACKFILL, UPKEEP])
def test_a_lane_that_must_step_back_asks_again_soon(on_ledger: Runner, lane: Lane) -> None:
    """What is kept from it for others may be free much sooner: it waits for a 96th of the window at most."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        assert 0 < (await bench.refused(1, lane)).seconds <= WINDOW.recent / 4

    on_ledger(scenario)


def test_live_leads_asked_for_in_vain_are_room_that_waiting_leaves(on_ledger: Runner) -> None:
    """The rate of live leads is what came, granted or not: waiting ones leave four times as much."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(100)
        bench.clocks.move(3)
        assert await bench.got(ALL, WAITING) == 600
        assert await bench.got(ALL) == 400

    on_ledger(scenario)
