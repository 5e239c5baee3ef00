"""Backfills on a real Postgres: when one begins, ends and is cancelled, and what a result page changes.

All moments are handed in; nothing here waits for time to pass.
"""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.backfills import after_now
from tests.fakes.leads import PAGE, a_lead, in_flight
from tests.fakes.time import NOW
from tests.integration.backfill_world import LEASE, LEASE_TIME, SPAN, TODAY, World, a_plan, reference, stored
from worker.batches import InFlight
from worker.errors import StoreUnavailable
from worker.outcomes import DeadLetter, Retry, Snooze, Stored
from worker.plans import utc
from worker.slices import Slice
from worker.store.lead_rows import json_of
from worker.store.slices import DIVIDE, WRITE, WRITE_PLAN


def test_the_same_backfill_asked_twice_is_one(on_backfills: Any) -> None:
    """Also by twenty at the same moment; another purpose, object or stretch is another."""

    async def scenario(world: World) -> None:
        begun = await asyncio.gather(*(world.backfills.open(a_plan(parts=3), NOW) for _ in range(20)))
        assert len({backfill_id for backfill_id, _ in begun}) == 1
        assert Counter(is_new for _, is_new in begun) == {True: 1, False: 19}
        assert await world.states() == {"waiting": 3}
        others = [a_plan("deep"), a_plan(object_id="5"), a_plan(asked_since=NOW), a_plan(asked_until=NOW)]
        assert [is_new for plan in others for _, is_new in [await world.backfills.open(plan, NOW)]] == [
            True
        ] * 4

    on_backfills(scenario)


def test_a_backfill_that_ended_can_be_begun_again(on_backfills: Any) -> None:
    """Only what runs is the same."""

    async def scenario(world: World) -> None:
        await world.run(a_plan(), stored(1))
        assert (await world.backfills.open(a_plan(), NOW))[1]

    on_backfills(scenario)


def test_a_lead_beats_what_is_not_stored_and_leaves_the_rest_alone(on_backfills: Any) -> None:
    """Waiting and dead become stored, in part is completed; stored and erased are left alone, in part beats nothing."""

    async def scenario(world: World) -> None:
        await world.leads.settle(
            [
                (in_flight(1), Snooze(NOW, "budget")),
                (in_flight(2), DeadLetter("told")),
                (in_flight(3), Stored(a_lead(3, in_part=True))),
                (in_flight(4), Stored(a_lead(4, ad_name="old"))),
                (in_flight(5), Stored(a_lead(5))),
                (in_flight(6), Stored(a_lead(6, in_part=True))),
            ],
            NOW,
        )
        await world.sql("update leadgen set state = 'erased', field_data = null where leadgen_id = '5'")
        kept = {n: await world.row(n) for n in (4, 5, 6)}
        one = await world.leased(a_plan("reconcile"))
        later = after_now(9)
        leads = [stored(n, ad_name="new") for n in (1, 2, 3, 4, 5)]
        leads += [stored(6, in_part=True), stored(7), (reference(8), DeadLetter("lead_malformed"))]
        leads += [stored(9, in_part=True)]
        assert await world.slices.write_leads(one, leads, calls=1, now=later)
        states = {n: (await world.row(n))["state"] for n in range(1, 10)}
        assert states == {n: {5: "erased", 8: "dead"}.get(n, "stored") for n in range(1, 10)}
        third = await world.row(3)
        assert (third["in_part"], third["ad_name"], third["due_at"]) == (False, "new", None)
        assert {n: await world.row(n) for n in (4, 5, 6)} == kept
        assert (await world.row(9))["due_at"] is None
        row = await world.slice_row(one)
        assert (row["leads"], row["stored"], row["calls"]) == (9, 4, 1)
        assert await world.repaired() == {"1": "waiting", "2": "dead", "7": "missing", "9": "missing"}

    on_backfills(scenario)


def test_a_dead_letter_of_a_listing_changes_no_row_that_is_there(on_backfills: Any) -> None:
    """Whatever its state; a reading that was leased meanwhile goes on."""

    async def scenario(world: World) -> None:
        await world.leads.settle(
            [
                (in_flight(1), Retry(NOW, "not_visible", 2)),
                (in_flight(2), Stored(a_lead(2, in_part=True))),
                (in_flight(3), DeadLetter("told")),
            ],
            NOW,
        )
        before = await world.sql("select * from leadgen order by 1")
        one = await world.leased(a_plan("deep"))
        leads = [(reference(n), DeadLetter("lead_malformed")) for n in (1, 2, 3)]
        await world.slices.write_leads(one, leads, calls=1, now=after_now(1))
        assert await world.sql("select * from leadgen order by 1") == before

    on_backfills(scenario)


@pytest.mark.parametrize("purpose", ["backfill", "reconcile", "deep"])
def test_what_a_backfill_brings_is_no_repair(on_backfills: Any, purpose: str) -> None:
    """Only a comparison names what was missing, and counts days."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SPAN.since))
        await world.run(a_plan(purpose), stored(1))
        assert await world.repaired() == ({} if purpose == "backfill" else {"1": "missing"})
        assert await world.metas() == ({} if purpose == "backfill" else {TODAY: 1})

    on_backfills(scenario)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: dict[str, dict[str, Any]] = {
    "refused by a check": {"ad_name": "hostile"},
    "nested too deeply": {"field_data": nested(100_000)},
    "form id too long for an index": {
        "form_id": "".join(random.Random(1).choices("abcdefghij0123456789", k=20_000))
    },
}


@pytest.mark.parametrize("hostile", list(HOSTILE))
def test_a_row_that_postgres_refuses_is_a_dead_letter_and_costs_no_other(
    on_backfills: Any, hostile: str
) -> None:
    """The others of its result page are stored, counted once, and the walk goes on."""

    async def scenario(world: World) -> None:
        await world.sql("alter table leadgen add check (ad_name is distinct from 'hostile')")
        one = await world.leased(a_plan("reconcile"))
        leads: list[tuple[InFlight, Stored | DeadLetter]] = [stored(n) for n in range(1, 12)]
        leads[6] = (reference(7), Stored(replace(a_lead(7), **HOSTILE[hostile])))
        assert await world.slices.write_leads(one, leads, calls=2, now=NOW)
        row = await world.row(7)
        assert row["state"] == "dead"
        assert row["reason"].startswith("row_refused_")
        assert row["field_data"] is None
        assert len(await world.sql("select 1 from leadgen where state = 'stored'")) == 10
        told = await world.slice_row(one)
        assert (told["leads"], told["stored"], told["calls"]) == (11, 10, 2)
        await world.slices.finish(one, NOW)
        await world.backfills.close(NOW)
        assert (await world.report())["unexplained"] == 1

    on_backfills(scenario)


def test_a_plan_from_when_the_table_was_small_reads_no_large_one_through(on_backfills: Any) -> None:
    """A connection keeps the plan of its first write: made for an empty table, it still finds rows by the index."""

    async def scenario(world: World) -> None:
        told = {"rows": json_of([]), "listed": 0, "calls": 1, "purpose": "backfill", "page_id": PAGE}
        held = {
            "backfill_id": 1,
            "watermark": None,
            "slice_id": 1,
            "turn": 1,
            "now": NOW,
            "lease": LEASE_TIME,
        }
        async with world.pool.connection() as connection:
            await connection.execute("analyze leadgen")
            await connection.execute(WRITE_PLAN)
            found = await connection.execute(f"explain {WRITE}".encode(), told | held)
            plan = "\n".join(line for (line,) in await found.fetchall())
        assert "Seq Scan on leadgen" not in plan
        assert "leadgen_pkey" in plan

    on_backfills(scenario)


def test_a_second_reading_forgets_what_the_first_had_found(on_backfills: Any) -> None:
    """Whether the process died between writing and finishing or the walk began anew: nothing is counted twice."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SPAN.since))
        one = await world.leased(a_plan("reconcile"))
        await world.slices.write_leads(one, [stored(1), stored(2)], calls=1, now=NOW)
        (two,) = await world.lease(after_now(LEASE))
        await world.slices.write_leads(two, [stored(1)], calls=1, now=after_now(LEASE))
        await world.slices.restart(two, calls=1, now=after_now(LEASE))
        for n in (1, 2, 3):
            await world.slices.write_leads(two, [stored(n)], calls=1, now=after_now(LEASE))
        await world.slices.finish(two, after_now(LEASE))
        await world.backfills.close(after_now(LEASE))
        assert await world.metas() == {TODAY: 3}
        assert await world.repaired() == {str(n): "missing" for n in (1, 2, 3)}
        assert (await world.slice_row(two))["leads"] == 3

    on_backfills(scenario)


def test_a_run_ends_once_nothing_of_it_waits(on_backfills: Any) -> None:
    """Done where all was read, failed where something was not; once, however many look."""

    async def scenario(world: World) -> None:
        await world.backfills.open(a_plan(parts=2), NOW)
        one, two = await world.lease()
        await world.slices.finish(one, NOW)
        assert await world.backfills.close(NOW) == []
        await world.slices.fail(two, "permission_refused", calls=1, now=NOW)
        ended = [
            row
            for rows in await asyncio.gather(*(world.backfills.close(NOW) for _ in range(8)))
            for row in rows
        ]
        assert [(row["failed"], row["failure"]) for row in ended] == [(1, "permission_refused")]
        (told,) = await world.backfills.progress()
        assert (told["state"], told["reason"], told["slices_failed"]) == ("failed", "permission_refused", 1)
        await world.run(a_plan(), stored(1))
        assert (await world.backfills.progress())[0]["state"] == "done"

    on_backfills(scenario)


def test_only_the_backfills_that_are_asked_about_are_ended(on_backfills: Any) -> None:
    """Looking through all of thousands for each slice that ends would cost more than reading it."""

    async def scenario(world: World) -> None:
        backfill_ids = [(await world.backfills.open(a_plan(object_id=str(n)), NOW))[0] for n in (1, 2, 3)]
        for one in await world.lease():
            await world.slices.finish(one, NOW)
        ended = await world.backfills.close(NOW, backfill_ids[1:2])
        assert [row["backfill_id"] for row in ended] == backfill_ids[1:2]
        assert await world.backfills.close(NOW, backfill_ids[1:2]) == []
        assert {row["backfill_id"] for row in await world.backfills.close(NOW)} == {
            backfill_ids[0],
            backfill_ids[2],
        }

    on_backfills(scenario)


def test_a_cancelled_backfill_is_read_no_more(on_backfills: Any) -> None:
    """Waiting slices are not leased, and whoever reads one hears that it is gone; what was stored stays."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SPAN.since))
        backfill_id, _ = await world.backfills.open(a_plan("reconcile", parts=3), NOW)
        (one,) = await world.lease(room=1)
        assert await world.backfills.cancel([backfill_id, 999], NOW) == {backfill_id}
        assert await world.lease(after_now(9 * LEASE)) == ()
        assert not await world.slices.write_leads(one, [stored(1)], calls=1, now=NOW)
        await world.slices.divide(one, (Slice(SPAN.since, SPAN.until),), calls=1, now=NOW)
        assert await world.states() == {"cancelled": 3}
        assert await world.backfills.close(NOW) == []
        assert (await world.form_row())["watermark"] == utc(SPAN.since)
        assert (await world.row(1))["state"] == "stored"
        assert await world.backfills.cancel([backfill_id], NOW) == frozenset()

    on_backfills(scenario)


def test_a_slice_that_is_divided_as_its_backfill_is_cancelled_leaves_nothing_to_read(
    on_backfills: Any,
) -> None:
    """The parts go with it, though the order could not see them yet."""

    async def scenario(world: World) -> None:
        backfill_id, _ = await world.backfills.open(a_plan(), NOW)
        (one,) = await world.lease()
        told = {
            "slice_id": one.slice_id,
            "turn": one.turn,
            "now": NOW,
            "lease": timedelta(seconds=LEASE),
            "calls": 1,
        }
        told |= {"sinces": [SPAN.since, SPAN.since + 5], "untils": [SPAN.since + 5, SPAN.until]}
        async with world.pool.connection() as connection:
            await connection.execute(DIVIDE, told)
            cancelling = asyncio.create_task(world.backfills.cancel([backfill_id], NOW))
            while not await world.sql("select 1 from pg_locks where not granted"):  # noqa: ASYNC110
                await asyncio.sleep(0)
        await cancelling
        assert await world.lease(after_now(1)) == ()

    on_backfills(scenario)


def test_a_database_that_is_away_is_told(on_backfills: Any) -> None:
    """As StoreUnavailable, whatever is asked."""

    async def scenario(world: World) -> None:
        one = await world.leased(a_plan())
        await world.pool.close()
        with pytest.raises(StoreUnavailable):
            await world.slices.write_leads(one, [stored(1)], calls=1, now=NOW)
        with pytest.raises(StoreUnavailable):
            await world.lease()

    on_backfills(scenario)
