"""When a form is compared and from where on: as often as its Page's budget leaves, and never too little."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.leads import FORM, PAGE
from tests.fakes.time import NOW, FrozenClock
from worker.budget.policy import Shares, Window, cadence
from worker.plans import RETENTION, Plan
from worker.reconcile import (
    ACTIVE_WITHIN,
    BACKFILL_AGAIN,
    CLOSED_EVERY,
    QUIET_PARTS,
    Reconciler,
    ReconcileSettings,
    deep_plan,
)

SETTINGS = ReconcileSettings()


def a_form(form_id: str = FORM, **changed: Any) -> dict[str, Any]:
    """A row of FORMS_DUE. `last_lead`: when its newest lead came."""
    return {
        "form_id": form_id,
        "page_id": PAGE,
        "status": "ACTIVE",
        "created_time": NOW - timedelta(days=30),
        "found_at": NOW - timedelta(days=30),
        "watermark": NOW - timedelta(minutes=20),
        "read_from": None,
        "deep_at": NOW,
        "leads": 1_000,
        "limit_calls": 4_000_000,
        "forms": 1,
        "reconcile_at": NOW,
        "last_lead": NOW - timedelta(hours=1),
        **changed,
    }


@dataclass
class FakeForms:
    """The forms' rows: due by their `reconcile_at`, active by their `last_lead`, as the store tells."""

    forms: list[dict[str, Any]] = field(default_factory=list)
    leads: int = 100
    running: set[tuple[str, str]] = field(default_factory=set)
    plans: list[Plan] = field(default_factory=list)
    turns: dict[str, datetime] = field(default_factory=dict)
    begins: dict[str, tuple[datetime | None, datetime | None]] = field(default_factory=dict)
    asked_of: list[str] = field(default_factory=list)

    async def forms_due(
        self,
        now: datetime,
        *,
        due_by: datetime,
        latest: datetime,
        active: timedelta,
        page_ids: Sequence[str] | None = None,
        most: int = 500,
    ) -> list[dict[str, Any]]:
        return [
            {**form, "is_active": form["last_lead"] > now - active}
            for form in self.forms
            if (form["reconcile_at"] <= due_by or form["reconcile_at"] > latest)
            and (page_ids is None or form["page_id"] in page_ids)
        ]

    async def deep_due(self, before: datetime, latest: datetime, most: int = 200) -> list[dict[str, Any]]:
        return [form for form in self.forms if form["deep_at"] < before or form["deep_at"] > latest]

    async def live_leads(self, page_id: str, now: datetime) -> int:
        self.asked_of.append(page_id)
        return self.leads

    async def open(self, plan: Plan, now: datetime) -> tuple[int, bool]:
        key = (plan.purpose, plan.object_id)
        self.plans.append(plan)
        is_new = key not in self.running
        self.running.add(key)
        return len(self.plans), is_new

    async def reconcile_at(
        self,
        form_id: str,
        at: datetime,
        *,
        watermark: datetime | None = None,
        read_from: datetime | None = None,
    ) -> None:
        self.turns[form_id] = at
        self.begins[form_id] = (watermark, read_from)


def reconcile(
    rows: FakeForms, settings: ReconcileSettings = SETTINGS, wanted: Sequence[str] = ()
) -> dict[str, int]:
    return asyncio.run(Reconciler(rows, rows.open, settings, FrozenClock()).reconcile(wanted))


def turn(settings: ReconcileSettings = SETTINGS, wanted: Sequence[str] = (), **changed: Any) -> timedelta:
    """In how long this form has its next turn."""
    rows = FakeForms([a_form(**changed)])
    reconcile(rows, settings, wanted)
    return rows.turns[FORM] - NOW


def test_an_active_form_is_compared_from_behind_its_watermark_to_the_lag() -> None:
    """With an overlap, in whole seconds, as a comparison of all that came since."""
    rows = FakeForms([a_form()])
    assert reconcile(rows) == {"reconciled": 1, "new_forms": 0}
    (plan,) = rows.plans
    assert (plan.purpose, plan.edge, plan.object_id) == ("reconcile", "form", FORM)
    assert plan.since == int((NOW - timedelta(minutes=20) - SETTINGS.overlap).timestamp())
    assert plan.until == int((NOW - SETTINGS.lag).timestamp())
    assert (plan.asked_since, plan.asked_until) == (None, None)


def test_an_active_form_has_its_turn_as_soon_as_the_settings_allow() -> None:
    """Where calls abound."""
    assert turn() == SETTINGS.soonest


def test_a_page_whose_limit_is_not_known_yet_is_compared_all_the_same() -> None:
    """Not knowing is no reason to wait."""
    assert turn(limit_calls=None) == SETTINGS.soonest


@pytest.mark.parametrize(("limit", "forms"), [(4_800, 400), (480, 300), (1, 5)])
def test_a_small_budget_makes_turns_rarer(limit: int, forms: int) -> None:
    """As often as what backfill may spend covers a call a form."""
    expected = cadence(
        calls_a_round=forms, limit=limit, live=100, window=Window(), shares=Shares(), soonest=SETTINGS.soonest
    )
    assert expected > SETTINGS.soonest
    assert turn(limit_calls=limit, forms=forms) == expected


def test_moments_in_the_future_hold_no_comparison_up() -> None:
    """A clock that was ahead noted them: the form is compared up to now, and has its next turn soon."""
    ahead = NOW + timedelta(days=366)
    rows = FakeForms([a_form(watermark=ahead, read_from=ahead, reconcile_at=ahead, deep_at=ahead)])
    assert reconcile(rows) == {"reconciled": 1, "new_forms": 0}
    (plan,) = rows.plans
    assert plan.since == int((NOW - SETTINGS.lag - SETTINGS.overlap).timestamp())
    assert plan.until == int((NOW - SETTINGS.lag).timestamp())
    assert rows.turns[FORM] == NOW + SETTINGS.soonest


@pytest.mark.parametrize(
    ("turn_in", "forms", "is_due"),
    [(1.1, 1, False), (2, 1, True), (20, 2_000, False), (200, 2_000, True)],
    ids=["an archived form's", "beyond any", "a poor Page's", "beyond even that"],
)
def test_a_turn_is_taken_for_a_wrong_clock_s_only_beyond_what_its_page_can_afford(
    turn_in: float, forms: int, is_due: bool
) -> None:
    """Or a Page with many forms and few calls would be compared again and again."""
    at = NOW + timedelta(days=turn_in) - timedelta(hours=2)
    rows = FakeForms([a_form(limit_calls=480, forms=forms, reconcile_at=at)])
    assert reconcile(rows) == {"reconciled": int(is_due), "new_forms": 0}
    assert rows.turns.keys() == ({FORM} if is_due else set())


def test_the_pace_is_worked_out_once_a_page() -> None:
    """It costs a look at the Page's leads."""
    rows = FakeForms([a_form(str(n)) for n in range(1, 20)])
    reconcile(rows)
    assert rows.asked_of == [PAGE]


def test_a_quiet_form_has_its_turn_more_seldom() -> None:
    """No lead for a week."""
    assert turn(last_lead=NOW - ACTIVE_WITHIN) == QUIET_PARTS * SETTINGS.soonest


@pytest.mark.parametrize(("quiet", "expected"), [(True, CLOSED_EVERY), (False, SETTINGS.soonest)])
def test_an_archived_form_is_compared_daily_once_it_is_quiet(quiet: bool, expected: timedelta) -> None:
    """Its leads may go on coming for a while."""
    last = NOW - ACTIVE_WITHIN if quiet else NOW
    assert turn(status="ARCHIVED", last_lead=last) == expected


def test_a_form_that_is_not_due_is_left_alone() -> None:
    """Its turn comes."""
    rows = FakeForms([a_form(reconcile_at=NOW + timedelta(seconds=1))])
    assert reconcile(rows) == {"reconciled": 0, "new_forms": 0}
    assert rows.turns == {}


def test_a_form_whose_comparison_still_runs_is_not_counted_again() -> None:
    """It has its next turn all the same."""
    rows = FakeForms([a_form()], running={("reconcile", FORM)})
    assert reconcile(rows)["reconciled"] == 0
    assert rows.turns[FORM] == NOW + SETTINGS.soonest


def test_a_new_form_is_read_from_its_beginning() -> None:
    """All that Meta holds of it; again later where that fails."""
    rows = FakeForms([a_form(watermark=None)])
    assert reconcile(rows) == {"reconciled": 0, "new_forms": 1}
    (plan,) = rows.plans
    assert (plan.purpose, plan.edge, plan.asked_since, plan.asked_until) == ("backfill", "form", None, None)
    assert plan.since <= int((NOW - RETENTION).timestamp())
    assert rows.turns[FORM] == NOW + BACKFILL_AGAIN


def test_a_new_form_begins_now_where_the_past_is_not_wanted() -> None:
    """Nothing is read; from here on it is compared."""
    rows = FakeForms([a_form(watermark=None)])
    settings = ReconcileSettings(read_new_forms=False)
    assert reconcile(rows, settings) == {"reconciled": 0, "new_forms": 0}
    assert rows.plans == []
    assert rows.begins[FORM] == (NOW, NOW)
    assert rows.turns[FORM] == NOW + settings.soonest


def test_what_was_before_a_form_s_beginning_here_is_not_compared() -> None:
    """The overlap does not reach behind read_from: leads of before were not wanted, and none of them is missing."""
    began = NOW - timedelta(minutes=15)
    rows = FakeForms([a_form(watermark=began, read_from=began)])
    reconcile(rows)
    assert rows.plans[0].since >= int(began.timestamp())


def test_a_form_that_began_here_just_now_has_nothing_to_compare_yet() -> None:
    """All since its beginning is younger than the lag: nothing is begun, and its next turn comes all the same."""
    rows = FakeForms([a_form(watermark=NOW, read_from=NOW, deep_at=NOW - timedelta(days=2))])
    assert reconcile(rows) == {"reconciled": 0, "new_forms": 0}
    assert rows.turns[FORM] == NOW + SETTINGS.soonest
    told = asyncio.run(Reconciler(rows, rows.open, SETTINGS, FrozenClock()).reconcile_deep())
    assert told == {"compared_in_full": 0}
    assert rows.plans == []


def test_a_lag_longer_than_meta_holds_leads_leaves_a_new_form_unread() -> None:
    """The settings allow it: nothing can be read then, and nothing is said to have been begun."""
    rows = FakeForms([a_form(watermark=None)])
    assert reconcile(rows, ReconcileSettings(lag=RETENTION + timedelta(days=2)))["new_forms"] == 0
    assert rows.plans == []


def test_the_forms_of_a_wanted_page_are_compared_at_once() -> None:
    """A webhook that came without its ids does not wait for their turns."""
    later = NOW + timedelta(hours=5)
    rows = FakeForms([a_form(reconcile_at=later), a_form("2", page_id="2", reconcile_at=later)])
    assert reconcile(rows, wanted=[PAGE])["reconciled"] == 1
    assert [plan.object_id for plan in rows.plans] == [FORM]


def test_a_wanted_form_that_is_due_is_compared_once() -> None:
    """Twice is no better."""
    rows = FakeForms([a_form()])
    assert reconcile(rows, wanted=[PAGE])["reconciled"] == 1
    assert len(rows.plans) == 1


@pytest.mark.parametrize("due", [NOW, NOW + timedelta(hours=5)])
def test_an_active_form_of_a_wanted_page_stays_active(due: datetime) -> None:
    """Whether it got a lead lately is a matter of now: its next turn is not put off to a quiet form's."""
    assert turn(wanted=[PAGE], reconcile_at=due) == SETTINGS.soonest


def test_full_comparisons_are_begun_daily() -> None:
    """Of the forms whose last one is a day old, over all that Meta holds."""
    rows = FakeForms([a_form(deep_at=NOW - timedelta(days=1, seconds=1)), a_form("2", deep_at=NOW)])
    told = asyncio.run(Reconciler(rows, rows.open, SETTINGS, FrozenClock()).reconcile_deep())
    assert told == {"compared_in_full": 1}
    (plan,) = rows.plans
    assert (plan.purpose, plan.object_id, plan.asked_since) == ("deep", FORM, None)
    assert plan.since <= int((NOW - RETENTION).timestamp())
    assert plan.until == int((NOW - SETTINGS.lag).timestamp())


def test_a_full_comparison_begins_where_the_form_does_here() -> None:
    """Not before read_from, unless a moment was asked for."""
    began = NOW - timedelta(days=10)
    form = a_form(read_from=began)
    plan = deep_plan(form, now=NOW, lag=SETTINGS.lag)
    assert plan is not None
    assert plan.since == int(began.timestamp())
    asked = NOW - timedelta(days=20)
    plan = deep_plan(form, now=NOW, lag=SETTINGS.lag, since=asked)
    assert plan is not None
    assert (plan.since, plan.asked_since) == (int(asked.timestamp()), asked)
