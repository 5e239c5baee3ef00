"""The trail through the real statements: what befell a lead is kept, merged, bounded, and nothing of a smooth one."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.leads import FORM, PAGE, a_lead, at, in_flight
from tests.fakes.time import NOW
from tests.integration.lead_world import DEATHS, World
from worker.outcomes import DeadLetter, Outcome, Park, Retry, Snooze, Stored
from worker.plans import FormFacts, plan_forms, span_of
from worker.store.backfills import BackfillStore
from worker.store.imports import ImportStore
from worker.store.slices import SliceStore
from worker.store.trace import TraceStore
from worker.trail import MOST_ENTRIES, MOST_MS, Entry, calls_of


async def trail(world: World, leadgen_id: object = 1) -> list[tuple[str, str | None, int, float, float]]:
    """Word, reason, times, and seconds after NOW of the first and the last."""
    entries = [Entry.from_text(text) for text in (await world.row(leadgen_id))["trail"] or ()]
    assert [entry.to_text() for entry in entries] == ((await world.row(leadgen_id))["trail"] or [])
    return [
        (e.word, e.reason, e.times, (e.first_at - NOW).total_seconds(), (e.last_at - NOW).total_seconds())
        for e in entries
    ]


async def verdict(world: World, outcome: Outcome, when: float) -> None:
    """Lease lead 1, whenever it is due, and judge it."""
    await world.sql("update leadgen set due_at = %s, leases = 0 where leadgen_id = '1'", at(when))
    (held,) = await world.lease(at(when))
    await world.settle((held, outcome), now=at(when))


def test_a_lead_that_goes_straight_through_has_no_trail(on_leads: Any) -> None:
    """Three numbers are all that a smooth lead costs."""

    async def scenario(world: World) -> None:
        reference = in_flight(1, taken_ms=12)
        await world.settle((reference, Stored(a_lead(1), at(1.5))), now=at(2))
        row = await world.row(1)
        assert (row["announced"], row["taken_ms"], row["read_ms"], row["trail"]) == (1, 12, 1500, None)

    on_leads(scenario)


def test_what_no_webhook_announced_has_nothing_at_all(on_leads: Any) -> None:
    """A listing's own find was never announced, nor taken up, and has no time from a webhook on."""

    async def scenario(world: World) -> None:
        found = in_flight(1, entry_id=None, received_at=None, source="listing", unasked=True)
        await world.settle((found, Stored(a_lead(1), at(1))))
        row = await world.row(1)
        assert (row["announced"], row["taken_ms"], row["read_ms"], row["trail"]) == (0, None, None, None)

    on_leads(scenario)


def test_each_announcement_is_counted_and_a_repeated_commit_is_not(on_leads: Any) -> None:
    """The first is the row's own, later ones are added as often as they are named."""

    async def scenario(world: World) -> None:
        for _ in range(2):
            await world.settle((in_flight(1), Stored(a_lead(1))))
        await world.store.seen_again(["1", "1", "1", "2"], at(7))
        row = await world.row(1)
        assert (row["announced"], row["last_seen_at"]) == (4, at(7))

    on_leads(scenario)


def test_what_befalls_a_lead_is_kept_in_order(on_leads: Any) -> None:
    """Each kind of verdict has its word; the times of the first reading stay."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1, taken_ms=3), Retry(at(5), "not_visible", 1)), now=at(1))
        await verdict(world, Snooze(at(20), "throttled_page"), 10)
        await verdict(world, Park("token_refused"), 20)
        await world.store.unpark([PAGE], at(25))
        await verdict(world, DeadLetter("request_refused"), 30)
        await world.store.replay(at(40), ids=["1"], reason=None, page_id=None)
        await verdict(world, Stored(a_lead(1), at(50)), 50)
        assert await trail(world) == [
            ("failed", "not_visible", 1, 1, 1),
            ("waited", "throttled_page", 1, 10, 10),
            ("refused", "token_refused", 1, 20, 20),
            ("died", "request_refused", 1, 30, 30),
            ("replayed", "request_refused", 1, 40, 40),
        ]
        row = await world.row(1)
        assert (row["announced"], row["taken_ms"], row["read_ms"]) == (1, 3, 50_000)
        assert calls_of(map(Entry.from_text, row["trail"])) == 4

    on_leads(scenario)


def test_the_same_again_is_one_entry(on_leads: Any) -> None:
    """A Page that is throttled for hours is one entry of each of its rows, however often they were looked at."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Snooze(at(60), "throttled_page", whole_page=True)))
        for minute in range(1, 100):
            await verdict(world, Snooze(at(60 * minute + 60), "throttled_page", whole_page=True), 60 * minute)
        assert await trail(world) == [("waited", "throttled_page", 100, 0, 5_940)]
        assert len((await world.row(1))["trail"][0]) < 50

    on_leads(scenario)


def test_a_trail_is_bounded_and_keeps_its_ends(on_leads: Any) -> None:
    """What does not fit is counted in the middle; what came first and last is all there."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Retry(at(0), "reason_0", 1)))
        for n in range(1, 100):
            await verdict(world, Retry(at(n), f"reason_{n}", 1), n)
        found = await trail(world)
        assert len(found) == MOST_ENTRIES
        assert [reason for _, reason, *_ in found[:12]] == [f"reason_{n}" for n in range(12)]
        assert [reason for _, reason, *_ in found[13:]] == [f"reason_{n}" for n in range(89, 100)]
        assert found[12] == ("others", None, 77, 12, 88)

    on_leads(scenario)


def test_a_verdict_applied_twice_is_one_entry(on_leads: Any) -> None:
    """A commit whose answer was lost is repeated, and nobody can see it in the trail."""

    async def scenario(world: World) -> None:
        held = await world.leased(in_flight(1))
        before = await trail(world)
        for _ in range(2):
            await world.settle((held, Retry(at(5), "not_visible", 1)), now=at(2))
        assert await trail(world) == [*before, ("failed", "not_visible", 1, 2, 2)]

    on_leads(scenario)


def test_who_is_woken_from_a_mass_death_is_told(on_leads: Any) -> None:
    """Leads that died since their Page was at fault, and wait again, say so."""

    async def scenario(world: World) -> None:
        for n in range(1, DEATHS + 1):
            await world.settle((in_flight(n), DeadLetter("lead_gone")), now=at(n))
        assert [entry[:2] for entry in await trail(world)] == [("died", "lead_gone"), ("woken", "lead_gone")]

    on_leads(scenario)


@pytest.mark.parametrize("purpose", ["reconcile", "backfill"])
def test_a_listing_that_brings_what_waited_is_told(on_leads: Any, purpose: str) -> None:
    """What was dead or waiting and came by a listing says by which; what is new by it has no trail."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), DeadLetter("not_visible")), now=at(1))
        slices = SliceStore(world.pool, world.store, lease_seconds=90)
        span = span_of(None, None, now=NOW, lag=timedelta())
        assert span is not None
        plan = plan_forms(
            [FormFacts(FORM, 2, None)], purpose=purpose, edge="form", object_id=FORM, page_id=PAGE, span=span, now=NOW
        )  # fmt: skip
        await BackfillStore(world.pool).open(plan, NOW)
        (leased, *_) = await slices.lease(1, 1, NOW, walked={})
        listed = [in_flight(n, entry_id=None, received_at=None, source=purpose, unasked=True) for n in (1, 2)]
        found = [(r, Stored(a_lead(r.leadgen_id))) for r in listed]
        assert await slices.write_leads(leased, found, calls=1, now=at(60))
        assert await trail(world) == [("died", "not_visible", 1, 1, 1), ("stored", purpose, 1, 60, 60)]
        assert await trail(world, 2) == []
        assert ((await world.row(1))["announced"], (await world.row(2))["announced"]) == (1, 0)

    on_leads(scenario)


def test_what_was_stored_in_part_and_is_completed_is_told(on_leads: Any) -> None:
    """By its own second reading, or by a file."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1, in_part=True), at(1))))
        await verdict(world, Stored(a_lead(1), at(100)), 100)
        assert (await world.row(1))["read_ms"] == 1_000, "that of the first answer"
        assert await trail(world) == [("completed", "reading", 1, 100, 100)]
        await world.settle((in_flight(2), DeadLetter("lead_gone")))
        imported = replace(a_lead(2), in_part=True)
        await ImportStore(world.pool).write([(imported, PAGE)], at(9), dry_run=False)
        assert await trail(world, 2) == [("died", "lead_gone", 1, 0, 0), ("stored", "import", 1, 9, 9)]
        await world.settle((in_flight(3), Stored(a_lead(3, in_part=True, ad_name=None))))
        await ImportStore(world.pool).write([(a_lead(3, ad_name="Ad"), PAGE)], at(9), dry_run=False)
        assert (await world.row(3))["in_part"], "a file does not tell all"
        assert await trail(world, 3) == [("filled", "import", 1, 9, 9)]

    on_leads(scenario)


def test_an_erased_lead_s_trail_does_not_grow(on_leads: Any) -> None:
    """Whatever is announced, listed or imported of it afterwards."""

    async def scenario(world: World) -> None:
        held = await world.leased(in_flight(1))
        await world.sql("update leadgen set state = 'erased', due_at = null, trail = null")
        await world.settle((held, Retry(at(5), "not_visible", 1)), (in_flight(1), Stored(a_lead(1))))
        await world.store.replay(at(40), ids=["1"], reason=None, page_id=None)
        await ImportStore(world.pool).write([(a_lead(1), PAGE)], at(9), dry_run=False)
        assert await trail(world) == []

    on_leads(scenario)


def test_a_lead_that_waited_for_months_has_a_time_all_the_same(on_leads: Any) -> None:
    """Milliseconds beyond what the column holds are the most that it holds, or the row would be refused."""

    async def scenario(world: World) -> None:
        read_at: datetime = at(80 * 86_400)
        await world.settle((in_flight(1), Stored(a_lead(1), read_at)))
        assert (await world.row(1))["read_ms"] == MOST_MS

    on_leads(scenario)


def test_an_erased_lead_is_told_by_which_kind_of_order(on_leads: Any) -> None:
    """The order of the same moment, that of its own Page and form first; of a lead that is not erased, none."""

    async def scenario(world: World) -> None:
        rows = TraceStore(world.pool)
        await world.settle((in_flight(1), Stored(a_lead(1))), (in_flight(2), Stored(a_lead(2))))
        await world.sql("update leadgen set state = 'erased', updated_at = %s where leadgen_id = '1'", at(9))
        assert await rows.erasure("1") is None
        for page, form, order in (("77", "78", "retention"), (PAGE, FORM, "answer"), (PAGE, None, "id")):
            await world.sql(
                "insert into erasures (at, by_order_of, page_id, form_id, leads) values (%s, %s, %s, %s, 1)",
                at(9), order, page, form,
            )  # fmt: skip
        assert await rows.erasure("1") == {"by_order_of": "answer", "at": at(9)}
        assert await rows.erasure("2") is None

    on_leads(scenario)


def test_a_form_tells_how_far_it_is_reconciled(on_leads: Any) -> None:
    """Its watermark, when it was last compared, the day of a lead, and a reading that is under way."""

    async def scenario(world: World) -> None:
        rows = TraceStore(world.pool)
        assert await rows.form(FORM) is None
        await world.sql(
            "insert into forms (form_id, page_id, status, watermark) values (%s, %s, 'ACTIVE', %s)",
            FORM,
            PAGE,
            at(-60),
        )
        await world.sql(
            "insert into reconciliations"
            " (form_id, day, page_id, metas, ours, missing, repaired, unexplained, checked_at)"
            " values (%s, %s, %s, 5, 4, 2, 1, 1, %s)",
            FORM, NOW.date(), PAGE, at(-5),
        )  # fmt: skip
        form = await rows.form(FORM)
        assert form is not None
        assert (form["watermark"], form["compared_at"], form["reading"]) == (at(-60), at(-5), None)
        day = await rows.day(FORM, NOW)
        assert day is not None
        assert (day["metas"], day["repaired"], day["unexplained"]) == (5, 1, 1)
        assert await rows.day(FORM, NOW - timedelta(days=1)) is None
        assert [row["form_id"] for row in await rows.active_forms()] == [FORM]

    on_leads(scenario)
