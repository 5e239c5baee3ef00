"""What is to be read, cut by what is known of each form: everything that was asked for, and nothing twice."""

from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.backfills import DAY, SECOND
from tests.fakes.leads import PAGE
from tests.fakes.time import NOW
from worker.asks import RESULT_PAGE_LIMIT
from worker.plans import RETENTION, FormFacts, Plan, plan_ad, plan_forms, span_of, utc
from worker.slices import MOST_LEADS, Slice

LAG = timedelta(minutes=5)
MOMENTS = st.integers(SECOND - 400 * DAY, SECOND + 400 * DAY).map(
    lambda s: utc(s) + timedelta(milliseconds=s % 7)
)


@given(st.none() | MOMENTS, st.none() | MOMENTS)
def test_a_span_is_what_was_asked_for_of_what_meta_holds(
    since: datetime | None, until: datetime | None
) -> None:
    """Whole seconds, never newer than the lag, never more than a day older than Meta's oldest lead."""
    span = span_of(since, until, now=NOW, lag=LAG)
    oldest, newest = NOW - RETENTION - timedelta(days=1), NOW - LAG
    if span is None:
        begin, end = max(since or oldest, oldest), min(until or newest, newest)
        assert end - begin < timedelta(seconds=1)
        return
    assert span[0] < span[1]
    assert oldest.timestamp() - 1 < span[0]
    assert span[1] <= newest.timestamp()
    if since is not None:
        assert span[0] <= max(since, oldest).timestamp()
    if until is not None:
        assert span[1] <= until.timestamp()


FACTS = st.builds(
    lambda n, leads, created: FormFacts(str(n), leads, created),
    st.integers(1, 10**9),
    st.none() | st.integers(0, 10**6),
    st.none() | MOMENTS,
)


def planned(forms: list[FormFacts], span: tuple[int, int]) -> Plan:
    return plan_forms(
        forms, purpose="backfill", edge="page", object_id=PAGE, page_id=PAGE, span=span, now=NOW
    )


@given(
    st.lists(FACTS, min_size=1, max_size=8, unique_by=lambda f: f.form_id),
    st.integers(0, 92 * DAY),
    st.integers(1, 92 * DAY),
)
def test_every_form_is_read_over_the_whole_span(forms: list[FormFacts], ago: int, seconds: int) -> None:
    """Whatever is known of it: its slices touch and cover the plan's span exactly."""
    span = (SECOND - ago, SECOND - ago + seconds)
    plan = planned(forms, span)
    assert (plan.since, plan.until) == span
    for form in forms:
        parts = [part for edge, object_id, part in plan.slices if (edge, object_id) == ("form", form.form_id)]
        assert (parts[0].since, parts[-1].until) == span
        assert all(one.until == other.since for one, other in pairwise(parts))
    assert len({(object_id, part) for _, object_id, part in plan.slices}) == len(plan.slices)


@given(st.lists(FACTS, min_size=1, max_size=8, unique_by=lambda f: f.form_id))
def test_what_is_expected_is_told_only_where_all_forms_are_known(forms: list[FormFacts]) -> None:
    """One form of which nothing is told, and the sum would be a guess."""
    plan = planned(forms, (SECOND - 91 * DAY, SECOND - 300))
    assert (plan.expected_leads is None) == any(form.leads is None for form in forms)
    assert plan.calls >= len(forms)


@given(st.integers(0, 10**6))
def test_slices_are_about_as_many_as_the_leads_need(leads: int) -> None:
    """None holds more than a walk should, if the leads came evenly; and no more of them than pay."""
    plan = planned([FormFacts("1", leads, None)], (SECOND - 91 * DAY, SECOND))
    assert len(plan.slices) >= leads / MOST_LEADS - 1
    assert plan.calls >= leads // RESULT_PAGE_LIMIT
    assert len(plan.slices) <= max(1, leads / MOST_LEADS + 1, 17)


def test_time_before_a_form_existed_is_no_slice_of_its_own() -> None:
    """The leads of a young form are cut where they are."""
    young = FormFacts("1", 40_000, NOW - timedelta(days=1))
    plan = planned([young], (SECOND - 91 * DAY, SECOND))
    assert len(plan.slices) == 16
    assert plan.slices[1][2].since >= SECOND - DAY
    assert max(part.seconds for _, _, part in plan.slices[1:]) <= DAY // 16 + 1


def test_an_ad_is_one_slice() -> None:
    """Nobody tells how many leads it has."""
    plan = plan_ad("23", page_id=PAGE, span=(SECOND - DAY, SECOND), asked=(None, None))
    assert plan.slices == (("ad", "23", Slice(SECOND - DAY, SECOND)),)
    assert plan.calls == 1


@given(st.integers(0, 2**31))
def test_a_second_is_the_same_moment(second: int) -> None:
    """Seconds and moments tell the same."""
    assert utc(second).timestamp() == second
