"""Which waiting rows are leased, by whom and in what order, and what becomes of those that are given back."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from tests.fakes.leads import OTHER_PAGE, PAGE, a_lead, at, in_flight
from tests.fakes.time import NOW
from tests.integration.lead_world import LEASE, TOUCHED, World, held, ids, some
from worker.lead import Lead
from worker.outcomes import DeadLetter, Snooze, Stored
from worker.store.sql import LEASE_DUE


def test_two_leases_never_take_the_same_row(on_leads: Any) -> None:
    """Workers that lease at the same moment share out what is due, and nobody waits for another's lock."""

    async def scenario(world: World) -> None:
        await world.wait(some(400))
        parts = await asyncio.gather(*(world.lease(room=100) for _ in range(8)))
        taken = Counter(i for part in parts for i in ids(part))
        assert max(taken.values()) == 1
        while rest := await world.lease(room=100):
            taken.update(ids(rest))
        assert (len(taken), max(taken.values())) == (400, 1)

    on_leads(scenario)


def test_a_row_that_is_being_written_is_not_waited_for(on_leads: Any) -> None:
    """A locked row is passed over by whoever leases."""

    async def scenario(world: World) -> None:
        await world.wait(some(3))
        async with world.pool.connection() as connection, connection.transaction():
            await connection.execute("select 1 from leadgen where leadgen_id = '2' for update")
            assert sorted(ids(await asyncio.wait_for(world.lease(), 10))) == ["1", "3"]

    on_leads(scenario)


def test_only_what_is_due_is_leased_and_comes_back_when_its_holder_dies(on_leads: Any) -> None:
    """Before its moment a row is left alone; a lease hides it until it runs out, and counts the holder's death."""

    async def scenario(world: World) -> None:
        await world.wait(some(1), due=at(10))
        assert await world.lease(at(9)) == ()
        (first,) = await world.lease(at(10))
        assert await world.lease(at(10 + LEASE - 1)) == ()
        (second,) = await world.lease(at(10 + LEASE))
        assert second.turn == (first.turn or 0) + 1
        assert (first.crashes, second.crashes) == (0, 1)

    on_leads(scenario)


def test_an_old_backlog_does_not_go_before_another_page(on_leads: Any) -> None:
    """Pages take turns: however much of several Pages has been due for long, a fresh row of another is leased."""

    async def scenario(world: World) -> None:
        for n in range(4):
            await world.wait(some(300, f"7{n}", 1 + 1_000 * n), due=at(-3_600))
        await world.wait(some(2, OTHER_PAGE, 90_000))
        leased = await world.lease(room=100, per_page=200)
        shares = Counter(r.page_id for r in leased)
        assert shares[OTHER_PAGE] == 2
        assert all(shares[f"7{n}"] in (24, 25) for n in range(4))

    on_leads(scenario)


def test_a_page_has_no_more_leases_than_its_share(on_leads: Any) -> None:
    """A single Page gets at most `per_page` rows at once, the longest due first, and `room` bounds the whole."""

    async def scenario(world: World) -> None:
        for n in range(1, 31):
            await world.wait([in_flight(n)], due=at(-n))
        await world.wait(some(30, OTHER_PAGE, 100), due=at(-5))
        leased = await world.lease(room=25, per_page=20)
        assert len(leased) == 25
        mine = [int(r.leadgen_id) for r in leased if r.page_id == PAGE]
        assert sorted(mine) == list(range(31 - len(mine), 31))
        rest = await world.lease(room=1_000, per_page=20)
        assert max(Counter(r.page_id for r in rest).values()) <= 20

    on_leads(scenario)


def test_leasing_locks_only_what_it_leases(on_leads: Any) -> None:
    """A lock is a write: however many rows of however many Pages are due, those left alone are not written to."""

    async def scenario(world: World) -> None:
        for page in range(20):
            await world.wait(some(10, f"7{page}", 1 + 100 * page), due=at(-9))
        before = {row["leadgen_id"] for row in await world.sql(TOUCHED)}
        leased = await world.lease(room=12, per_page=10)
        assert Counter(r.page_id for r in leased).most_common(1)[0][1] == 1
        assert {row["leadgen_id"] for row in await world.sql(TOUCHED)} - before == set(ids(leased))
        assert len(leased) == 12

    on_leads(scenario)


def test_two_who_lease_at_once_both_find_something(on_leads: Any) -> None:
    """What one is leasing at this moment, the other passes over, and takes what comes next."""

    async def scenario(world: World) -> None:
        for page in range(5):
            await world.wait(some(5, f"7{page}", 1 + 100 * page), due=at(-9))
        asked = {"now": NOW, "lease": timedelta(seconds=9), "per_page": 5, "room": 3}
        async with world.pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(LEASE_DUE, asked)
            first = {row[0] for row in await cursor.fetchall()}
            second = set(ids(await asyncio.wait_for(world.lease(room=3, per_page=5), 10)))
        assert (len(first), len(second), first & second) == (3, 3, set())

    on_leads(scenario)


def test_rows_given_back_are_due_at_once_and_blameless(on_leads: Any) -> None:
    """An orderly stop ends its leases without an attempt or a crash; a lease that is another's by now it leaves."""

    async def scenario(world: World) -> None:
        await world.wait(some(2))
        held = await world.lease()
        await world.store.give_back([*held, in_flight(5)], at(1))
        again = await world.lease(at(1))
        assert sorted(ids(again)) == ["1", "2"]
        assert {(r.attempts, r.crashes) for r in again} == {(0, 0)}
        await world.store.give_back(held, at(2))
        assert await world.lease(at(2)) == ()

    on_leads(scenario)


def test_one_question_tells_what_is_known_and_who_is_parked(on_leads: Any) -> None:
    """Of all that is named it says what the two questions say that it stands for, and of nothing else."""

    async def scenario(world: World) -> None:
        part = Stored(Lead.from_graph({"id": "3"}, leadgen_id="3", in_part=True))
        await world.settle(
            (in_flight(1), Stored(a_lead(1))),
            (in_flight(2), DeadLetter("lead_gone")),
            (in_flight(3), part),
            (in_flight(5), Stored(a_lead(5))),
        )
        await world.wait([in_flight(6, OTHER_PAGE)])
        assert await world.store.park(PAGE, "token_refused", NOW)
        leads, pages = ["1", "2", "3", "4", "6"], [PAGE, OTHER_PAGE, "77"]
        known, parked = await world.store.known_and_parked(leads, pages)
        assert known == {"1": "stored", "2": "dead", "3": "in_part", "6": "waiting"}
        assert known == await world.store.known(leads)
        assert parked == {PAGE} == await world.store.parked(pages)
        assert await world.store.known_and_parked(["4"], [OTHER_PAGE]) == ({}, frozenset())

    on_leads(scenario)


def test_nothing_of_a_parked_page_is_leased(on_leads: Any) -> None:
    """While a Page is held its rows wait, however long; they were due all along once it is taken up."""

    async def scenario(world: World) -> None:
        await world.wait([*some(50), *some(5, OTHER_PAGE, 100)])
        assert await world.store.park(PAGE, "token_refused", NOW)
        assert await world.store.parked([PAGE, OTHER_PAGE]) == {PAGE}
        assert {r.page_id for r in await world.lease()} == {OTHER_PAGE}
        assert [r for r in await world.lease(at(10**6)) if r.page_id == PAGE] == []
        assert await world.store.unpark([PAGE], at(10**6)) == (PAGE,)
        assert len([r for r in await world.lease(at(10**6)) if r.page_id == PAGE]) == 50

    on_leads(scenario)


def test_the_longest_overdue_row_is_known_but_not_a_parked_page_s(on_leads: Any) -> None:
    """How long somebody has waited counts only where waiting can be ended."""

    async def scenario(world: World) -> None:
        assert await world.store.oldest_overdue(NOW) is None
        await world.wait(some(1), due=at(-500))
        await world.wait(some(1, OTHER_PAGE, 9), due=at(-20))
        assert await world.store.oldest_overdue(NOW) == at(-500)
        await world.store.park(PAGE, "token_refused", NOW)
        assert await world.store.oldest_overdue(NOW) == at(-20)
        assert await world.store.oldest_overdue(at(-100)) is None

    on_leads(scenario)


def test_rows_due_at_the_same_moment_go_by_when_they_were_first_seen(on_leads: Any) -> None:
    """What a refusal made due at once is read in the order in which it was announced."""

    async def scenario(world: World) -> None:
        order = [3, 1, 5, 2, 4]
        await world.settle(
            *((in_flight(n, first_seen_at=at(10 * i - 100)), held(at(60))) for i, n in enumerate(order))
        )
        in_turn = [int((await world.lease(at(60), per_page=1))[0].leadgen_id) for _ in order]
        assert in_turn == order

    on_leads(scenario)


def test_a_live_reference_that_is_refused_is_due_in_its_place(on_leads: Any) -> None:
    """A hold is the Page's: the row of a live reference begins due now, one that is snoozed alone due later."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), held(at(600))), (in_flight(2), Snooze(at(600), "page_slow")))
        assert [(await world.row(n))["due_at"] for n in (1, 2)] == [NOW, at(600)]
        assert [(await world.row(n))["reason"] for n in (1, 2)] == ["budget", "page_slow"]

    on_leads(scenario)


def test_when_the_next_row_may_be_read_is_known(on_leads: Any) -> None:
    """The earliest row of a Page that is neither parked nor held, or the end of a hold where that comes first."""

    async def scenario(world: World) -> None:
        assert await world.store.next_due() is None
        await world.wait(some(2), due=at(-500))
        assert await world.store.next_due() == at(-500)
        await world.settle((in_flight(9), held(at(300))))
        assert await world.store.next_due() == at(300)
        await world.wait(some(1, OTHER_PAGE, 100), due=at(400))
        assert await world.store.next_due() == at(300)
        await world.wait(some(1, OTHER_PAGE, 101), due=at(200))
        assert await world.store.next_due() == at(200)
        await world.store.park(OTHER_PAGE, "token_refused", NOW)
        assert await world.store.next_due() == at(300)
        await world.store.park(PAGE, "token_refused", NOW)
        assert await world.store.next_due() is None

    on_leads(scenario)
