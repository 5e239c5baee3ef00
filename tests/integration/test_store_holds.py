"""The hold of a Page: nothing of it is leased until its moment, and each of its rows keeps its place."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.leads import OTHER_PAGE, PAGE, a_lead, at, in_flight
from tests.fakes.time import NOW
from tests.integration.lead_world import World, held, ids, some
from worker.budget.policy import Limit
from worker.outcomes import Retry, Snooze, Stored
from worker.store.budget import BudgetStore


def test_nothing_of_a_held_page_is_leased_until_its_moment(on_leads: Any) -> None:
    """One refusal holds everything that waits for its Page, and nothing that waits for another."""

    async def scenario(world: World) -> None:
        await world.wait([*some(20), *some(20, OTHER_PAGE, 100)])
        await world.settle((in_flight(50), held(at(60))))
        assert {r.page_id for r in await world.lease(at(59))} == {OTHER_PAGE}
        assert await world.lease(at(59)) == ()
        assert sorted(ids(await world.lease(at(60))), key=int) == [*map(str, range(1, 21)), "50"]

    on_leads(scenario)


def test_who_meets_the_hold_of_its_page_keeps_its_place(on_leads: Any) -> None:
    """A refused row is as long overdue as before, so that after the hold the oldest go first."""

    async def scenario(world: World) -> None:
        for n, ago in ((1, 30), (2, 500), (3, 90)):
            await world.wait([in_flight(n)], due=at(-ago))
        leased = await world.lease()
        assert {r.leadgen_id: r.due_at for r in leased} == {"1": at(-30), "2": at(-500), "3": at(-90)}
        await world.settle(*((r, held(at(60))) for r in leased), now=at(5))
        await world.settle((in_flight(4), held(at(60))), now=at(6))
        assert [(await world.row(n))["due_at"] for n in (1, 2, 3, 4)] == [at(-30), at(-500), at(-90), at(6)]
        in_turn = [(await world.lease(at(60), room=1))[0].leadgen_id for _ in range(4)]
        assert in_turn == ["2", "3", "1", "4"]

    on_leads(scenario)


def test_a_snooze_of_one_reference_holds_nobody_else(on_leads: Any) -> None:
    """Whoever waits alone, for a slow Page or an absent ledger, leaves the rest of its Page free to be read."""

    async def scenario(world: World) -> None:
        await world.wait(some(3))
        await world.settle((in_flight(9), Snooze(at(600), "page_slow")))
        assert sorted(ids(await world.lease())) == ["1", "2", "3"]

    on_leads(scenario)


def test_a_row_that_is_due_after_its_page_s_hold_is_next_due_then(on_leads: Any) -> None:
    """A hold that ends first does not make a row due before its own moment."""

    async def scenario(world: World) -> None:
        leased = await world.leased(in_flight(1))
        await world.settle((leased, Retry(at(300), "graph_unavailable", 1)))
        await world.settle((in_flight(2), held(at(60))))
        await world.sql("delete from leadgen where leadgen_id = '2'")
        assert await world.store.next_due() == at(300)
        assert await world.lease(at(299)) == ()

    on_leads(scenario)


@pytest.mark.parametrize("until", [at(30), at(3_600)])
def test_a_newer_hold_replaces_an_older_one(on_leads: Any, until: datetime) -> None:
    """The budget's last word counts, be it sooner or later than the one before."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), held(at(60))))
        await world.settle((in_flight(2), held(until, "throttled_page")))
        (page,) = await world.sql("select held_until, held_reason from pages")
        assert (page["held_until"], page["held_reason"]) == (until, "throttled_page")
        before = min(59.0, (until - NOW).total_seconds() - 1)
        assert await world.lease(at(before)) == ()
        assert len(await world.lease(until)) == 2

    on_leads(scenario)


@pytest.mark.parametrize(("minutes", "held_for"), [(0, 120), (1, 120), (3, 3_600)])
def test_a_hold_by_the_limit_before_a_raise_is_short(on_leads: Any, minutes: int, held_for: int) -> None:
    """A limit that has just been worked out may not be the one that refused: it is asked again soon."""

    async def scenario(world: World) -> None:
        worked_out = NOW - timedelta(minutes=minutes)
        await BudgetStore(world.pool).keep_limit(PAGE, Limit(4_560, 4_800, "our rows"), worked_out)
        await world.settle((in_flight(1), held(at(3_600))))
        assert await world.lease(at(held_for - 1)) == ()
        assert len(await world.lease(at(held_for))) == 1

    on_leads(scenario)


def test_a_lead_that_arrives_meanwhile_does_not_end_a_hold(on_leads: Any) -> None:
    """A hold is about calls, so what a call still brought says nothing against it."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), held(at(60))), (in_flight(2), Stored(a_lead(2))))
        assert await world.lease(at(59)) == ()
        assert ids(await world.lease(at(60))) == ["1"]

    on_leads(scenario)


def test_how_long_a_held_page_s_rows_could_have_been_read_counts_from_the_hold_s_end(on_leads: Any) -> None:
    """A row under a hold is not overdue, and after it only since the hold was over."""

    async def scenario(world: World) -> None:
        await world.wait(some(1), due=at(-500))
        await world.wait(some(1, OTHER_PAGE, 9), due=at(-20))
        await world.settle((in_flight(2), held(at(60))))
        assert await world.store.oldest_overdue(at(59)) == at(-20)
        await world.store.park(OTHER_PAGE, "token_refused", NOW)
        assert await world.store.oldest_overdue(at(59)) is None
        assert await world.store.oldest_overdue(at(100)) == at(60)

    on_leads(scenario)


def test_a_lead_read_in_part_keeps_its_place_under_a_hold(on_leads: Any) -> None:
    """The next full reading of a stored lead waits with its Page and stays due."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1, in_part=True))))
        due = (await world.row(1))["due_at"]
        (leased,) = await world.lease(due)
        assert leased.in_part
        await world.settle((leased, held(due.replace(microsecond=7))), now=due)
        row = await world.row(1)
        assert (row["state"], row["in_part"], row["due_at"]) == ("stored", True, due)

    on_leads(scenario)


def test_people_see_until_when_a_row_waits(on_leads: Any) -> None:
    """The view of what waits shows the later of a row's own moment and the end of its Page's hold."""

    async def scenario(world: World) -> None:
        await world.wait([in_flight(1)], due=at(10))
        await world.wait([in_flight(2)], due=at(900))
        await world.wait([in_flight(3, OTHER_PAGE)], due=at(10))
        await world.settle((in_flight(4), held(at(60))))
        rows = await world.sql("select leadgen_id, due_at from waiting order by 1")
        assert [row["due_at"] for row in rows] == [at(60), at(900), at(10), at(60)]

    on_leads(scenario)
