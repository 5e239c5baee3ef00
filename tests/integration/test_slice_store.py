"""Who holds a slice of a backfill on a real Postgres, for how long, and which of them goes first."""

import asyncio
from collections import Counter
from typing import Any

from tests.fakes.backfills import after_now
from tests.fakes.leads import OTHER_PAGE, PAGE
from tests.fakes.time import NOW
from tests.integration.backfill_world import LEASE, SPAN, TODAY, World, a_plan, stored
from worker.plans import utc
from worker.slices import Slice
from worker.store.backfills import LEASES


def test_slices_are_leased_pages_in_turns_and_each_to_one(on_backfills: Any) -> None:
    """Ten at once get different slices, of all Pages, within their bounds."""

    async def scenario(world: World) -> None:
        for page in range(1, 4):
            await world.backfills.open(a_plan(page_id=str(page), object_id=str(page), parts=20), NOW)
        first = await world.lease(room=6, per_page=4)
        assert Counter(one.page_id for one in first) == {"1": 2, "2": 2, "3": 2}
        asked = (world.lease(room=9, per_page=3) for _ in range(10))
        leased = [one for some in await asyncio.gather(*asked) for one in some] + list(first)
        assert len({one.slice_id for one in leased}) == len(leased)
        assert all(one.turn == 1 for one in leased)

    on_backfills(scenario)


def test_leasing_slices_locks_only_those_that_it_leases(on_backfills: Any) -> None:
    """A lock is a write: however many slices of however many Pages are due, those left alone are not written to."""

    async def scenario(world: World) -> None:
        for page in range(1, 21):
            await world.backfills.open(a_plan(page_id=str(page), object_id=str(page), parts=8), NOW)
        leased = await world.lease(room=6, per_page=8)
        assert sorted(Counter(one.page_id for one in leased).values()) == [1] * 6
        touched = await world.sql("select slice_id from slices where xmax <> 0 or turn > 0")
        assert {row["slice_id"] for row in touched} == {one.slice_id for one in leased}

    on_backfills(scenario)


def test_the_page_that_is_walked_least_goes_first(on_backfills: Any) -> None:
    """Many others that are due as long do not keep it from catching up."""

    async def scenario(world: World) -> None:
        walked = {str(page): 4 for page in range(1, 21)}
        for page in range(1, 22):
            await world.backfills.open(a_plan(page_id=str(page), object_id=str(page), parts=8), NOW)
        leased = await world.slices.lease(4, 8, NOW, walked=walked)
        assert [one.page_id for one in leased] == ["21"] * 4

    on_backfills(scenario)


def test_a_page_gets_no_more_walks_than_its_share(on_backfills: Any) -> None:
    """What is walked already counts; another Page's walks do not."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=20), NOW)
        assert len(await world.slices.lease(9, 5, NOW, walked={PAGE: 3, "7": 9})) == 2
        assert await world.slices.lease(9, 5, NOW, walked={PAGE: 5}) == ()
        assert await world.slices.lease(9, 5, NOW, walked={PAGE: 8}) == ()

    on_backfills(scenario)


def test_a_lease_that_ended_is_taken_again_and_the_older_turn_changes_nothing(on_backfills: Any) -> None:
    """Whatever the former holder says of the slice; what it stored stays stored."""

    async def scenario(world: World) -> None:
        old = await world.leased(a_plan("reconcile"))
        assert await world.lease(after_now(LEASE - 1)) == ()
        (new,) = await world.lease(after_now(LEASE))
        assert (new.slice_id, new.turn) == (old.slice_id, old.turn + 1)
        before = await world.slice_row(new)
        later = after_now(LEASE + 1)
        assert not await world.slices.write_leads(old, [stored(1)], calls=1, now=later)
        assert not await world.slices.finish(old, later)
        await world.slices.fail(old, "told", calls=1, now=later)
        await world.slices.put_off(old, later, "told", attempts=9, failed_for="told", calls=1)
        await world.slices.divide(old, (Slice(SPAN.since, SPAN.since + 1),), calls=1, now=later)
        await world.slices.restart(old, calls=1, now=later)
        await world.slices.keep([old], later)
        assert await world.slice_row(new) == before
        assert await world.states() == {"waiting": 1}
        assert await world.sql("select * from findings") == []
        assert (await world.row(1))["state"] == "stored"

    on_backfills(scenario)


def test_a_lease_that_is_kept_lasts(on_backfills: Any) -> None:
    """Keeping and writing both renew it."""

    async def scenario(world: World) -> None:
        one = await world.leased(a_plan())
        await world.slices.keep([one], after_now(100))
        assert await world.lease(after_now(100 + LEASE - 1)) == ()
        await world.slices.write_leads(one, [], calls=1, now=after_now(200))
        assert await world.lease(after_now(200 + LEASE - 1)) == ()
        assert len(await world.lease(after_now(200 + LEASE))) == 1

    on_backfills(scenario)


def test_a_slice_that_no_walk_survives_is_given_up(on_backfills: Any) -> None:
    """Leases that end without a word are counted: a slice whose walks crash is not read for ever."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(), NOW)
        leases = []
        for n in range(LEASES + 1):
            leases.append(await world.lease(after_now(n * LEASE)))
            await world.backfills.close(after_now((n + 1) * LEASE))
        assert [len(leased) for leased in leases] == [1] * LEASES + [0]
        assert (await world.sql("select state, reason from backfills"))[0] == {
            "state": "failed",
            "reason": "crashed",
        }

    on_backfills(scenario)


def test_a_divided_slice_gives_way_to_its_parts(on_backfills: Any) -> None:
    """They are due at once, cover it, and count anew."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SPAN.since))
        one = await world.leased(a_plan("reconcile"))
        middle = SPAN.since + 9
        await world.slices.write_leads(one, [stored(1)], calls=1, now=NOW)
        parts = (Slice(SPAN.since, middle), Slice(middle, SPAN.until))
        await world.slices.divide(one, parts, calls=0, now=NOW)
        assert await world.states() == {"divided": 1, "waiting": 2}
        found = await world.lease()
        assert {part.span for part in found} == set(parts)
        await world.slices.write_leads(found[1], [stored(1)], calls=1, now=NOW)
        for part in found:
            await world.slices.finish(part, NOW)
        await world.backfills.close(NOW)
        assert await world.metas() == {TODAY: 1}
        (told,) = await world.backfills.progress()
        assert (told["slices"], told["slices_done"], told["leads"], told["calls"]) == (2, 2, 1, 2)

    on_backfills(scenario)


def test_a_page_is_put_off_but_for_what_is_being_read(on_backfills: Any) -> None:
    """Slices that are due wait; one that waits for longer, another Page's and leased ones stay as they are."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=4), NOW)
        held, later = await world.lease(room=2)
        await world.backfills.open(a_plan(page_id=OTHER_PAGE, object_id="5"), NOW)
        await world.slices.put_off(
            later, after_now(900), "graph_unavailable", attempts=2, failed_for="graph_unavailable", calls=1
        )
        await world.slices.put_off_page(PAGE, after_now(50), "budget", NOW)
        assert [one.page_id for one in await world.lease()] == [OTHER_PAGE]
        assert len(await world.lease(after_now(50))) == 2
        assert (await world.slice_row(later))["due_at"] == after_now(900)
        assert (await world.slice_row(held))["turn"] == held.turn
        assert await world.slices.finish(held, NOW)

    on_backfills(scenario)


def test_no_slice_of_a_parked_page_is_leased(on_backfills: Any) -> None:
    """However long it is held; once it is taken up all its slices are due."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=5), NOW)
        await world.slices.park(PAGE, "token_refused", NOW)
        assert await world.lease(after_now(10**6)) == ()
        assert await world.leads.unpark([PAGE], after_now(10**6)) == (PAGE,)
        assert len(await world.lease(after_now(10**6))) == 5

    on_backfills(scenario)


def test_a_slice_that_was_refused_is_due_once_its_page_is_taken_up(on_backfills: Any) -> None:
    """What it waited an hour for has come; one that somebody reads stays with them, another Page's waits on."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=2), NOW)
        refused, held = await world.lease()
        await world.backfills.open(a_plan(page_id=OTHER_PAGE, object_id="5"), NOW)
        (others,) = await world.lease()
        for one in (refused, others):
            reason = "permission_refused"
            await world.slices.put_off(one, after_now(3_600), reason, attempts=1, failed_for=reason, calls=1)
        await world.slices.park(PAGE, "permission_refused", NOW)
        await world.leads.unpark([PAGE], after_now(30))
        assert [one.slice_id for one in await world.lease(after_now(30))] == [refused.slice_id]
        assert await world.slices.finish(held, after_now(30))

    on_backfills(scenario)


def test_a_walk_ends_where_its_page_is_parked(on_backfills: Any) -> None:
    """What its result page brought is stored, and the slice is read from its beginning once the Page is taken up."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=1), NOW)
        (held,) = await world.lease()
        await world.leads.park(PAGE, "by_hand", NOW)
        assert not await world.slices.write_leads(held, [], calls=1, now=NOW)
        assert await world.lease(after_now(10**6)) == ()
        await world.leads.unpark([PAGE], after_now(10**6))
        assert len(await world.lease(after_now(10**6))) == 1

    on_backfills(scenario)


def test_a_page_of_which_slices_are_walked_already_lets_another_go_first(on_backfills: Any) -> None:
    """Places come free one by one; the Page that was there first does not take each of them."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=4), NOW)
        await world.backfills.open(a_plan(page_id=OTHER_PAGE, object_id="5", forms=("5",)), after_now(1))
        (one,) = await world.slices.lease(1, 8, after_now(2), walked={PAGE: 2})
        assert one.page_id == OTHER_PAGE

    on_backfills(scenario)
