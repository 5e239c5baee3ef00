"""What a process whose clock jumped for one tick leaves behind, on a real Postgres: nothing stands still until then."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, a_lead, in_flight
from tests.fakes.time import NOW
from tests.integration.backfill_world import a_plan
from tests.integration.test_erasures import World, on_both
from worker.outcomes import IN_PART_AGAIN, Snooze, Stored
from worker.reconcile import Reconciler, ReconcileSettings
from worker.store import ahead as store
from worker.store.ahead import MARGIN, AheadStore
from worker.store.reconciliations import ReconciliationStore

__all__ = ["on_both"]

YEAR = timedelta(days=366)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)

Both = Callable[[Callable[[World], Awaitable[None]]], None]


def test_rows_that_a_wrong_clock_leased_are_leased_again(on_both: Both) -> None:
    """Whether it gave them back or died with them; what waits for long by right waits on."""

    async def scenario(world: World) -> None:
        await world.settle(
            (in_flight(1), Snooze(NOW, "page_slow")),
            (in_flight(2, OTHER_PAGE), Snooze(NOW, "page_slow")),
            (in_flight(3), Snooze(NOW + DAY, "budget")),
            (in_flight(4), Stored(a_lead(4, in_part=True))),
            (in_flight(5), Stored(a_lead(5, in_part=True))),
        )
        for leadgen_id, at in (("4", NOW + IN_PART_AGAIN[-1]), ("5", NOW + YEAR)):
            await world.sql("update leadgen set due_at = %s where leadgen_id = %s", at, leadgen_id)
        leased = await world.leads.lease_due(1, 1, NOW + DAY / 2 + YEAR)
        await world.leads.give_back(leased, NOW + YEAR)
        await world.leads.lease_due(10, 10, NOW + YEAR)
        await world.sql("update leadgen set due_at = %s where leadgen_id = '3'", NOW + DAY)
        await world.sql("update leadgen set due_at = %s where leadgen_id = '4'", NOW + IN_PART_AGAIN[-1])
        assert await world.leads.lease_due(10, 10, NOW) == ()
        assert await AheadStore(world.pool, DAY).bring_back(NOW) == 3
        assert {one.leadgen_id for one in await world.leads.lease_due(10, 10, NOW)} == {"1", "2", "5"}
        assert await AheadStore(world.pool, DAY).bring_back(NOW) == 0

    on_both(scenario)


def test_many_rows_are_brought_back_in_parts(on_both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement takes longer than one may."""
    monkeypatch.setattr(store, "AT_ONCE", 2)

    async def scenario(world: World) -> None:
        await world.settle(
            *((in_flight(n, PAGE if n % 2 else OTHER_PAGE), Snooze(NOW + YEAR, "x")) for n in range(5))
        )
        assert await AheadStore(world.pool, DAY).bring_back(NOW) == 5
        assert len(await world.leads.lease_due(10, 10, NOW)) == 5

    on_both(scenario)


def test_slices_held_pages_listings_limits_and_alerts_are_brought_back(on_both: Both) -> None:
    """All that is looked at once its moment has come."""

    async def scenario(world: World) -> None:
        wrong = NOW + YEAR
        await world.backfills.know_pages([PAGE, OTHER_PAGE], NOW)
        moments = "update pages set held_until = %s, forms_asked_at = %s, limit_at = %s where page_id = %s"
        await world.sql(moments, wrong, wrong, wrong, PAGE)
        await world.sql(moments, NOW + DAY, NOW, NOW, OTHER_PAGE)
        await world.backfills.open(a_plan(parts=3), wrong)
        await world.sql(
            "insert into health_events (at, page_id, aspect, became, due_at) values (%s, %s, 'page', 'open', %s)",
            NOW, PAGE, wrong,
        )  # fmt: skip
        assert await AheadStore(world.pool, DAY).bring_back(NOW) == 3 + 1 + 1
        pages = await world.sql(
            "select held_until, forms_asked_at, limit_at from pages order by page_id = %s", PAGE
        )
        assert [tuple(page.values()) for page in pages] == [(NOW + DAY, NOW, NOW), (None, None, None)]
        assert len(await world.slices.lease(5, 5, NOW, walked={})) == 3
        assert await world.sql("select became from health_events where due_at = %s", NOW) == [
            {"became": "open"}
        ]

    on_both(scenario)


@pytest.mark.parametrize("rest", [timedelta(minutes=30), DAY])
def test_forms_are_compared_after_a_clock_jumped_for_one_tick(on_both: Both, rest: timedelta) -> None:
    """By the schedule, on a webhook's wish and in full; and the watermark is what was read once more."""
    clock = [NOW]
    settings = ReconcileSettings()

    async def ended(world: World) -> None:
        for one in await world.slices.lease(50, 50, clock[0], walked={}):
            await world.slices.finish(one, clock[0])
        await world.backfills.close(clock[0])

    async def form_of(world: World) -> dict[str, Any]:
        (form,) = await world.sql("select * from forms where form_id = %s", FORM)
        return form

    def is_mended(form: dict[str, datetime]) -> bool:
        return all(form[name] <= clock[0] for name in ("watermark", "read_from", "deep_at"))

    async def scenario(world: World) -> None:
        await world.backfills.know_pages([PAGE], NOW)
        await world.sql(
            "insert into forms (form_id, page_id, watermark, found_at, reconcile_at, deep_at, read_from)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            FORM, PAGE, NOW - 10 * MINUTE, NOW - 9 * DAY, NOW, NOW - 2 * DAY, NOW - 9 * DAY,
        )  # fmt: skip
        reconciler = Reconciler(
            ReconciliationStore(world.pool), world.backfills.open, settings, lambda: clock[0]
        )
        clock[0] = NOW + YEAR
        assert (await reconciler.reconcile())["reconciled"] == 1
        assert await reconciler.reconcile_deep() == {"compared_in_full": 1}
        await ended(world)
        form = await form_of(world)
        assert min(form[name] for name in ("watermark", "reconcile_at", "deep_at")) > NOW + 300 * DAY
        await world.sql("update forms set read_from = %s", NOW + YEAR)
        clock[0] = NOW + rest
        assert (await reconciler.reconcile())["reconciled"] == 1
        await ended(world)
        form = await form_of(world)
        assert form["watermark"] == clock[0] - settings.lag
        assert form["reconcile_at"] <= clock[0] + DAY
        assert form["read_from"] == clock[0] - settings.lag - settings.overlap
        assert await reconciler.reconcile_deep() == {"compared_in_full": 1}, "what came meanwhile is found so"
        await ended(world)
        assert is_mended(await form_of(world))
        assert (await reconciler.reconcile((PAGE,)))["reconciled"] == 1
        assert await reconciler.reconcile_deep() == {"compared_in_full": 0}

    on_both(scenario)


def test_a_comparison_that_a_wrong_clock_began_moves_no_watermark(on_both: Both) -> None:
    """Its end lies in the future, and what was listed ends now."""

    async def scenario(world: World) -> None:
        await world.backfills.know_pages([PAGE], NOW)
        await world.sql(
            "insert into forms (form_id, page_id, watermark) values (%s, %s, %s)", FORM, PAGE, NOW - MINUTE
        )
        since, until = NOW.timestamp(), (NOW + YEAR).timestamp()
        await world.backfills.open(a_plan("reconcile", since=since, until=until), NOW)
        for one in await world.slices.lease(50, 50, NOW, walked={}):
            await world.slices.finish(one, NOW)
        await world.backfills.close(NOW)
        assert await world.sql("select watermark from forms") == [{"watermark": NOW - MINUTE}]

    on_both(scenario)


@pytest.mark.parametrize("purpose", ["reconcile", "deep", "backfill"])
def test_a_run_that_a_clock_a_little_ahead_began_is_believed_up_to_its_end(
    on_both: Both, purpose: str
) -> None:
    """What comes between its end and the end of its span is for the next one, however short the overlap is."""

    async def scenario(world: World) -> None:
        await world.backfills.know_pages([PAGE], NOW)
        before = None if purpose == "backfill" else NOW - MINUTE
        await world.sql(
            "insert into forms (form_id, page_id, watermark) values (%s, %s, %s)", FORM, PAGE, before
        )
        since, until = (NOW - 2 * MINUTE).timestamp(), (NOW + 3 * MINUTE).timestamp()
        await world.backfills.open(a_plan(purpose, since=since, until=until), NOW)
        for one in await world.slices.lease(50, 50, NOW, walked={}):
            await world.slices.finish(one, NOW)
        await world.backfills.close(NOW)
        assert await world.sql("select watermark from forms") == [{"watermark": NOW}]

    on_both(scenario)


def test_looking_for_what_lies_ahead_reads_no_row_that_does_not(database: str) -> None:
    """However many rows wait, of each Page it is an end of the index."""
    rows = """
        insert into leadgen (leadgen_id, state, reason, due_at, first_seen_at, last_seen_at, page_id, source,
            updated_at)
        select n::text, 'waiting', 'budget', timestamptz '2026-11-20' + n * interval '1 s', now(), now(),
            (n %% 50)::text, 'webhook', now() from generate_series(1, %s) as n"""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(rows, (20_000,))
        connection.execute("analyze leadgen")
        asked = {
            "now": NOW,
            "latest": NOW + YEAR,
            "latest_in_part": NOW + YEAR,
            "most": 5_000,
            "margin": NOW + MARGIN,
        }
        found = connection.execute("explain (analyze, buffers, format json) " + store.ROWS, asked).fetchone()
    assert found is not None
    plan = found[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1_000, plan
