"""Reconciliations on a real Postgres: how far each form is compared, and what is told of each day."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.backfills import DAY, SECOND, SpanGraph, after_now
from tests.fakes.graph import FakeBudget, FakeTokens
from tests.fakes.leads import FORM, PAGE, a_lead, in_flight
from tests.fakes.time import NOW, FrozenClock
from tests.integration.backfill_world import SPAN, TODAY, World, a_plan, stored
from worker.giving_way import Turns
from worker.outcomes import DeadLetter, RetryPolicy, Snooze, Stored
from worker.plans import Plan, utc
from worker.reconcile import ReconcileSettings
from worker.store.slices import LeasedSlice, SliceStore
from worker.walking import SliceWalker

W = SPAN.since + 3_600


@pytest.mark.parametrize(
    ("plan", "watermark", "fails", "expected"),
    [
        (a_plan("reconcile"), W, False, SPAN.until),
        (a_plan("reconcile"), W, True, W),
        (a_plan("reconcile"), SPAN.until + 50, False, SPAN.until + 50),
        (a_plan("reconcile"), SPAN.since, False, SPAN.until),
        (a_plan("deep", asked_since=utc(SPAN.since)), SPAN.since - 1, False, SPAN.since - 1),
        (a_plan("deep", asked_since=utc(SPAN.since)), W, False, SPAN.until),
        (a_plan(asked_until=utc(SPAN.until)), W, False, W),
        (a_plan(asked_since=utc(SPAN.since), asked_until=utc(SPAN.until)), W, False, W),
        # What it brought beyond the watermark is yet to be counted by a comparison.
        (a_plan(asked_since=utc(SPAN.since)), W, False, W),
        (a_plan(), None, False, SPAN.until),
        (a_plan(), None, True, None),
        (a_plan(asked_since=utc(SPAN.since)), None, False, None),
        (a_plan(asked_until=utc(SPAN.until)), None, False, None),
    ],
)
def test_a_watermark_is_moved_by_what_lacks_nothing(
    on_backfills: Any, plan: Plan, watermark: int | None, fails: bool, expected: int | None
) -> None:
    """Only with no failed slice, never back, only if the run began at or before it, never by an end asked for."""

    async def scenario(world: World) -> None:
        await world.form(watermark=None if watermark is None else utc(watermark))
        one = await world.leased(plan)
        await (world.slices.fail(one, "told", calls=1, now=NOW) if fails else world.slices.finish(one, NOW))
        await world.backfills.close(NOW)
        told = (await world.form_row())["watermark"]
        assert told == (None if expected is None else utc(expected))

    on_backfills(scenario)


def test_a_watermark_that_is_older_than_what_meta_keeps_moves_again(on_backfills: Any) -> None:
    """A form that could not be compared for 100 days is read over all that there is, and then it is up to date."""

    async def scenario(world: World) -> None:
        await world.form(watermark=NOW - timedelta(days=100), leads_count=5, expired_leads_count=0)
        await world.reconciler(ReconcileSettings(), FrozenClock()).reconcile()
        (one,) = await world.lease()
        await world.slices.finish(one, NOW)
        await world.backfills.close(NOW)
        assert (await world.form_row())["watermark"] == utc(one.span.until)

    on_backfills(scenario)


def test_a_backfill_of_a_part_narrows_no_comparison(on_backfills: Any) -> None:
    """A form of which all is compared stays so, though somebody reads its last day once more."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(W), read_from=None)
        await world.run(a_plan(asked_since=utc(SPAN.since)), stored(1))
        assert (await world.form_row())["read_from"] is None

    on_backfills(scenario)


def test_a_backfill_of_more_widens_the_comparison(on_backfills: Any) -> None:
    """What was brought from before read_from is compared from then on; what came with an earlier end alone is not."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SPAN.until), read_from=utc(SPAN.until))
        await world.run(a_plan(asked_since=utc(SPAN.since)), stored(1))
        assert (await world.form_row())["read_from"] == utc(SPAN.since)

    on_backfills(scenario)


def test_a_new_form_is_compared_soon_after_its_first_reading(on_backfills: Any) -> None:
    """Hours later is for readings that failed."""

    async def scenario(world: World) -> None:
        await world.form()
        reconciler = world.reconciler(ReconcileSettings(), clock := FrozenClock())
        assert (await reconciler.reconcile())["new_forms"] == 1
        (one,) = await world.lease()
        await world.slices.finish(one, NOW)
        await world.backfills.close(NOW)
        clock.move(ReconcileSettings().soonest.total_seconds())
        assert (await reconciler.reconcile())["reconciled"] == 1

    on_backfills(scenario)


def hours(n: float) -> int:
    return SECOND - int(n * 3_600)


def test_quick_runs_add_up_and_count_overlaps_once(on_backfills: Any) -> None:
    """Each adds what came since the watermark, and what came late before it."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(hours(6)))
        leads = [stored(n, hours(6 - n)) for n in range(6)]
        await world.run(a_plan("reconcile", since=hours(7), until=hours(3)), *leads[:3])
        assert await world.metas() == {TODAY: 3}
        late = stored(50, hours(3.5))
        await world.run(
            a_plan("reconcile", since=hours(4), until=hours(0)), leads[2], late, *leads[3:], now=after_now(9)
        )
        assert await world.metas() == {TODAY: 7}
        report = await world.report()
        assert (report["missing"], report["repaired"], report["unexplained"]) == (7, 7, 0)
        assert (report["ours"], report["latest"]) == (7, timedelta(hours=6))

    on_backfills(scenario)


def test_a_deep_run_tells_a_day_exactly(on_backfills: Any) -> None:
    """Days that are over are replaced, whatever was counted before; the last ones never shrink."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SECOND))
        since = SECOND - 10 * DAY
        old = [stored(n, SECOND - 5 * DAY + n) for n in range(4)]
        await world.run(a_plan("deep", since=since), *old, stored(99))
        assert await world.metas() == {TODAY - timedelta(days=5): 4, TODAY: 1}
        await world.run(a_plan("deep", since=since), *old[:2], now=after_now(9))
        assert await world.metas() == {TODAY - timedelta(days=5): 2, TODAY: 1}

    on_backfills(scenario)


@pytest.mark.parametrize("asked", [True, False])
def test_a_deep_run_that_saw_a_part_of_a_day_does_not_make_it_smaller(on_backfills: Any, asked: bool) -> None:
    """Not where it was asked to begin within the day, nor where Meta has begun to forget the day's leads."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SECOND))
        day = [stored(n, SECOND - 5 * DAY + n - 7_200) for n in range(4)]
        await world.run(a_plan("deep", since=SECOND - 10 * DAY), *day)
        half = SECOND - 5 * DAY - 7_200 + 2
        began = {"since": half, "asked_since": utc(half) if asked else None}
        await world.run(a_plan("deep", **began), *day[2:], now=after_now(9))
        assert await world.metas() == {TODAY - timedelta(days=5): 4}

    on_backfills(scenario)


def test_a_quick_run_that_failed_is_not_counted_twice(on_backfills: Any) -> None:
    """What it saw is seen again by the next one, since the watermark stayed."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(hours(6)))
        await world.backfills.open(a_plan("reconcile", since=hours(7), until=hours(3), parts=2), NOW)
        one, two = await world.lease()
        await world.slices.write_leads(one, [stored(1, hours(5.5))], calls=1, now=NOW)
        await world.slices.finish(one, NOW)
        await world.slices.fail(two, "told", calls=1, now=NOW)
        await world.backfills.close(NOW)
        await world.run(a_plan("reconcile", since=hours(7)), stored(1, hours(5.5)), now=after_now(9))
        assert await world.metas() == {TODAY: 1}

    on_backfills(scenario)


@pytest.mark.parametrize("first", ["deep", "reconcile"])
def test_a_quick_run_beside_a_deep_one_counts_nothing_twice(on_backfills: Any, first: str) -> None:
    """Both are being read at the same time, and whichever of them ends first."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(hours(6)))
        await world.backfills.open(a_plan("reconcile", since=hours(7)), NOW)
        await world.backfills.open(a_plan("deep", since=hours(100)), NOW)
        for one in sorted(await world.lease(), key=lambda one: one.purpose != first):
            await world.slices.write_leads(one, [stored(1, hours(5)), stored(2, hours(4))], calls=1, now=NOW)
            await world.slices.finish(one, NOW)
            await world.backfills.close(NOW)
        assert await world.metas() == {TODAY: 2}

    on_backfills(scenario)


def test_a_deep_comparison_that_failed_is_not_begun_again_at_once(on_backfills: Any) -> None:
    """90 days are not read again every ten minutes because one slice cannot be read."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(hours(1)), found_at=NOW - timedelta(days=9))
        clock = FrozenClock()
        reconciler = world.reconciler(ReconcileSettings(), clock)
        assert await reconciler.reconcile_deep() == {"compared_in_full": 1}
        (one,) = await world.lease()
        await world.slices.fail(one, "not_visible", calls=1, now=NOW)
        await world.backfills.close(NOW)
        clock.move(600)
        assert await reconciler.reconcile_deep() == {"compared_in_full": 0}

    on_backfills(scenario)


def test_the_pages_of_a_form_and_what_is_forgotten(on_backfills: Any) -> None:
    """Runs that ended long ago go with their slices; what they found stays."""

    async def scenario(world: World) -> None:
        await world.form(watermark=utc(SPAN.since))
        await world.run(a_plan("reconcile"), stored(1))
        await world.run(a_plan("deep"), stored(1))
        assert await world.backfills.pages_of("form", FORM) == (PAGE,)
        week, day = timedelta(days=7), timedelta(days=1)
        await world.backfills.forget(NOW + timedelta(days=2), quick=day, others=week)
        assert [row["purpose"] for row in await world.backfills.progress()] == ["deep"]
        await world.backfills.forget(NOW + timedelta(days=8), quick=day, others=week)
        assert await world.backfills.progress() == []
        assert await world.states() == {}
        assert await world.repaired() == {"1": "missing"}
        assert len(await world.reconciliations.report([FORM], NOW)) == 1

    on_backfills(scenario)


class Crash(BaseException):
    """The process is killed."""


@dataclass
class Mortal:
    """A store whose caller dies at some calls, before or after they are done."""

    store: SliceStore
    dice: random.Random
    chance: float

    def __getattr__(self, name: str) -> Any:
        done = getattr(self.store, name)

        async def call(*told: Any, **named: Any) -> Any:
            if self.dice.random() < self.chance / 2:
                raise Crash
            answer = await done(*told, **named)
            if self.dice.random() < self.chance / 2:
                raise Crash
            return answer

        return call


@dataclass
class Days:
    """Leads come, webhooks are dropped or left waiting, and comparisons run, crash and run again."""

    world: World
    dice: random.Random
    chance: float
    clock: FrozenClock = field(default_factory=FrozenClock)
    graph: SpanGraph = field(default_factory=SpanGraph)
    lost: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mortal: Any = Mortal(self.world.slices, self.dice, self.chance)
        self.graph.sizes = lambda: self.dice.choice([0, 3, 10, 500])
        self.graph.order = self.dice.choice(["newest", "oldest", "shuffled"])
        self.walker: SliceWalker[LeasedSlice] = SliceWalker(
            graph=self.graph, budget=FakeBudget(), store=mortal, tokens=FakeTokens(), policy=RetryPolicy(),
            clock=self.clock, dice=lambda: 0.5, stop=lambda: self.dice.random() < self.chance / 4,
            turns=Turns(1, time.monotonic),
        )  # fmt: skip
        self.reconciler = self.world.reconciler(ReconcileSettings(read_new_forms=False), self.clock)

    async def pass_time(self, seconds: int) -> None:
        """Leads come meanwhile, most of them announced."""
        began = int(self.clock().timestamp())
        for at in sorted(self.dice.randrange(began, began + seconds) for _ in range(self.dice.randrange(15))):
            leadgen_id = str(len(self.graph.leads) + 1)
            self.graph.leads[leadgen_id] = at
            fate = self.dice.random()
            if fate < 0.6:
                await self._settle(
                    leadgen_id, at, Stored(a_lead(leadgen_id, created_time=utc(at).isoformat()))
                )
            elif fate < 0.75:
                self.lost[leadgen_id] = "waiting"
                await self._settle(leadgen_id, at, Snooze(utc(at + 10**7), "budget"))
            elif fate < 0.85:
                self.lost[leadgen_id] = "dead"
                await self._settle(leadgen_id, at, DeadLetter("told"))
            else:
                self.lost[leadgen_id] = "missing"
        self.clock.now = utc(began + seconds)

    async def _settle(self, leadgen_id: str, at: int, outcome: Any) -> None:
        await self.world.leads.settle([(in_flight(leadgen_id), outcome)], utc(at))

    async def walk(self, most: int = 1_000) -> None:
        """Walk what is due until nothing waits, or `most` slices; whoever dies leaves its slice to its lease."""
        for _ in range(most):
            leased = await self.world.lease(self.clock(), room=1)
            if not leased:
                left = await self.world.sql("select min(due_at) as at from slices where due_at is not null")
                if left[0]["at"] is None:
                    break
                self.clock.now = max(self.clock.now, left[0]["at"])
                continue
            try:
                await self.walker.walk(leased[0])
            except Crash:
                continue
            await self.world.backfills.close(self.clock())
        await self.world.backfills.close(self.clock())

    async def check(self, until: int, *, side_by_side: bool) -> None:
        told = {i: at for i, at in self.graph.leads.items() if at < until}
        rows = await self.world.sql("select leadgen_id from leadgen where state = 'stored'")
        assert set(told) <= {row["leadgen_id"] for row in rows}
        repaired = await self.world.repaired()
        assert repaired == {i: was for i, was in self.lost.items() if i in told}
        metas, truth = await self.world.metas(), Counter(utc(at).date() for at in told.values())
        late = Counter(utc(told[i]).date() for i in repaired)
        assert metas.keys() == truth.keys()
        # Quick and deep runs at the same time may count a late lead twice.
        assert all(
            truth[day] <= metas[day] <= truth[day] + (late[day] if side_by_side else 0) for day in truth
        )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("together", [False, True], ids=["one after the other", "side by side"])
def test_comparing_brings_every_lead_and_counts_each_once(
    on_backfills: Any, seed: int, together: bool
) -> None:
    """Over days of lost webhooks, crashes, quick and deep comparisons: all stored, the missing named, days exact."""

    async def scenario(world: World) -> None:
        dice = random.Random(seed)
        days = Days(world, dice, chance=0.1 if seed % 3 else 0.0)
        await world.form()
        await world.reconciliations.reconcile_at(FORM, NOW, watermark=NOW, read_from=NOW)
        for _ in range(10):
            await days.pass_time(dice.choice([900, 3_600, 10_000, 40_000, DAY]))
            if dice.random() < 0.4:
                await days.reconciler.reconcile_deep()
                if not together:
                    await days.walk()
            days.clock.move(1)
            await days.reconciler.reconcile()
            await days.walk(dice.randrange(3) if together else 1_000)
        await days.walk()
        await days.pass_time(2 * DAY)
        await days.reconciler.reconcile()
        await days.walk()
        watermark = (await world.form_row())["watermark"]
        assert days.clock() - watermark < timedelta(days=1)
        await days.check(int(watermark.timestamp()), side_by_side=together)

    on_backfills(scenario)


def test_parts_of_a_plan_of_many_forms_move_each_form_s_watermark(on_backfills: Any) -> None:
    """One failed slice holds all of them up, since the run as a whole lacks something."""

    async def scenario(world: World) -> None:
        for form_id in ("1", "2"):
            await world.form(form_id)
        for fails in (True, False):
            await world.backfills.open(a_plan(forms=["1", "2"], edge="page", object_id=PAGE), NOW)
            one, two = await world.lease()
            await world.slices.finish(one, NOW)
            await (
                world.slices.fail(two, "told", calls=1, now=NOW) if fails else world.slices.finish(two, NOW)
            )
            await world.backfills.close(NOW)
            expected = None if fails else utc(SPAN.until)
            assert [(await world.form_row(f))["watermark"] for f in ("1", "2")] == [expected] * 2

    on_backfills(scenario)
