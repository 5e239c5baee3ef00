"""What to ask Graph for references of one Page: each in one ask, by the cheapest way."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.leads import FORM, in_flight
from tests.fakes.time import NOW
from worker.asks import RESULT_PAGE_LIMIT, Ask, ById, ByListing, listing_calls, plan
from worker.batches import InFlight
from worker.graph.wire import BATCH_LIMIT

SECOND = int(NOW.timestamp())
OTHER_FORM = "555"
RARE = 1e-6
"""Leads a second of a form with so few others that only those asked for count."""


def created(number: int, seconds: float = 0.0, **changed: Any) -> InFlight:
    return in_flight(number, created_time=NOW + timedelta(seconds=seconds), **changed)


def some(count: int, first: int = 1, every: float = 1.0, **changed: Any) -> list[InFlight]:
    """So many references of one form, one created `every` so many seconds."""
    return [created(n, every * (n - first), **changed) for n in range(first, first + count)]


def planned(
    references: list[InFlight], *, rate: float = RARE, tight: bool = False, **more: Any
) -> tuple[Ask, ...]:
    return plan(references, rate_of=lambda _: rate, tight=tight, **more)


def kinds(asks: tuple[Ask, ...]) -> list[tuple[type, int]]:
    return [(type(ask), len(ask.references)) for ask in asks]


def test_nothing_is_no_ask() -> None:
    """Where no reference is, nothing is asked."""
    assert planned([]) == planned([], tight=True) == ()


def test_ids_are_asked_for_fifty_at_once_in_their_order() -> None:
    """What is read by id is cut into as few batches as Graph takes, the longest-waiting first."""
    references = [in_flight(n) for n in range(1, 121)]
    asks = planned(references)
    assert kinds(asks) == [(ById, 50), (ById, 50), (ById, 20)]
    assert [r for ask in asks for r in ask.references] == references


def test_a_form_s_leads_are_listed_from_the_first_second_to_the_end_of_the_last() -> None:
    """A listing asks for the whole seconds of its references, the last one included, and for no other."""
    references = [created(n, s) for n, s in enumerate([7.9, 0.0, 3.5, *range(4, 100)], 1)]
    (ask,) = planned(references)
    assert isinstance(ask, ByListing)
    assert (ask.form_id, ask.since, ask.until) == (FORM, SECOND, SECOND + 100)
    assert ask.references == tuple(sorted(references, key=lambda r: (r.created_time, r.leadgen_id)))


@pytest.mark.parametrize(
    ("count", "tight", "kind"),
    [
        (1, True, ById),
        (2, True, ByListing),
        (2, False, ById),
        (BATCH_LIMIT, False, ById),
        (BATCH_LIMIT + 1, False, ByListing),
    ],
)
def test_where_calls_are_scarce_every_call_saved_counts(count: int, tight: bool, kind: type) -> None:
    """With calls to spare one batch is quicker than a listing; when they are scarce two leads are listed."""
    assert kinds(planned(some(count), tight=tight)) == [(kind, count)]


@pytest.mark.parametrize(
    ("rate", "calls", "tight", "kind"),
    [
        (0.49, 10, False, ByListing),
        (0.50, 11, False, ById),
        (0.50, 11, True, ByListing),
        (4.95, 99, True, ByListing),
        (4.99, 100, True, ById),
    ],
)
def test_a_listing_that_brings_many_others_must_still_be_worth_it(
    rate: float, calls: int, tight: bool, kind: type
) -> None:
    """A listing of a hundred leads may cost a tenth of a hundred calls; where calls are scarce, all but the last."""
    references = some(100, every=100)
    listing = ByListing(FORM, SECOND, SECOND + 9_901, tuple(references))
    assert listing_calls(listing, rate) == calls
    assert type(planned(references, rate=rate, tight=tight)[0]) is kind


@pytest.mark.parametrize(
    ("count", "seconds", "rate", "calls"),
    [(1, 1, 1e6, 1), (500, 1, 1e6, 1), (501, 1, 0, 2), (100, 101, 4, 1), (100, 102, 4, 2), (1, 3_601, 1, 8)],
)
def test_a_listing_s_result_pages_hold_the_asked_for_and_the_others(
    count: int, seconds: int, rate: float, calls: int
) -> None:
    """A result page holds 500 leads; in the one second that is asked for nobody else is expected."""
    assert listing_calls(ByListing(FORM, SECOND, SECOND + seconds, tuple(some(count))), rate) == calls


@pytest.mark.parametrize(("gap", "listings"), [(1_000, 1), (1_001, 2)])
def test_a_stretch_is_cut_where_its_gap_costs_more_than_a_call(gap: int, listings: int) -> None:
    """At a lead in two seconds 1000 seconds of others fill a result page: beyond that a new listing is cheaper."""
    references = [*some(60, every=0), *(created(n, gap) for n in range(61, 121))]
    asks = planned(references, rate=0.5, tight=True)
    assert kinds(asks) == [(ByListing, 120 // listings)] * listings
    assert [(a.since - SECOND, a.until - SECOND) for a in asks if isinstance(a, ByListing)] == (
        [(0, gap + 1)] if listings == 1 else [(0, 1), (gap, gap + 1)]
    )


def test_a_stray_lead_far_away_does_not_spoil_a_listing() -> None:
    """One lead of yesterday beside sixty of this minute is read by id, and the sixty are listed."""
    asks = planned([created(99, -86_400), *some(60)], rate=1.0)
    assert kinds(asks) == [(ByListing, 60), (ById, 1)]


def test_forms_are_listed_apart_the_largest_first() -> None:
    """A listing is of one form; what brings most leads is asked for first, and ids last."""
    references = [*some(60, form_id="1"), *some(3, 500, form_id="2"), *some(90, 1_000, form_id="3")]
    asks = planned(references)
    assert kinds(asks) == [(ByListing, 90), (ByListing, 60), (ById, 3)]
    assert [a.form_id for a in asks if isinstance(a, ByListing)] == ["3", "1"]


@pytest.mark.parametrize("lacks", [{"form_id": None}, {"created_time": None}, {"in_part": True}])
def test_what_no_listing_could_bring_is_read_by_id(lacks: dict[str, Any]) -> None:
    """Without form or moment of creation, or for its ad fields alone, a lead is not looked for in a listing."""
    listed = some(60)
    others = [in_flight(n, **{"created_time": NOW, **lacks}) for n in range(900, 960)]
    asks = planned([*others, *listed])
    assert kinds(asks) == [(ByListing, 60), (ById, 50), (ById, 10)]
    assert asks[0].references == tuple(listed)


def test_references_of_a_form_under_way_are_in_no_ask() -> None:
    """What a listing may be bringing at this moment is asked for by nobody, listed or not."""
    theirs = [*some(60), in_flight(900)]
    mine = some(60, 1_000, form_id=OTHER_FORM)
    asks = planned([*theirs, *mine], listing={FORM})
    assert [r for ask in asks for r in ask.references] == mine


def test_a_form_whose_listing_does_not_pay_is_read_by_id() -> None:
    """For the forms in `by_id_only` no listing is asked for, and nobody is left out."""
    asks = planned(some(120), by_id_only={FORM}, tight=True)
    assert kinds(asks) == [(ById, 50), (ById, 50), (ById, 20)]


REFERENCES = st.lists(
    st.tuples(
        st.sampled_from(["1", "1", "2", None]),
        st.one_of(st.none(), st.floats(-3_000, 3_000), st.floats(-90 * 86_400, 0), st.integers(0, 3)),
        st.sampled_from([False] * 9 + [True]),
        st.sampled_from([1, 1, 1, 60]),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(
    REFERENCES,
    st.floats(1e-4, 20),
    st.booleans(),
    st.sets(st.sampled_from("12"), max_size=1),
    st.sets(st.sampled_from("12"), max_size=1),
)
def test_every_reference_is_in_exactly_one_ask(
    told: list[tuple[str | None, float | None, bool, int]],
    rate: float,
    tight: bool,
    under_way: set[str],
    by_id_only: set[str],
) -> None:
    """Whatever is to be read, each is asked for once, in time and form of its listing, for fewer calls than by id."""
    each = [(form_id, seconds, in_part) for form_id, seconds, in_part, copies in told for _ in range(copies)]
    references = [
        in_flight(
            n,
            form_id=form_id,
            created_time=None if seconds is None else NOW + timedelta(seconds=seconds),
            in_part=in_part,
        )
        for n, (form_id, seconds, in_part) in enumerate(each, 1)
    ]
    asks = planned(references, rate=rate, tight=tight, listing=under_way, by_id_only=by_id_only)
    asked = Counter(r.leadgen_id for ask in asks for r in ask.references)
    assert asked == Counter(r.leadgen_id for r in references if r.form_id not in under_way)
    by_id = [len(ask.references) for ask in asks if isinstance(ask, ById)]
    assert all(size == BATCH_LIMIT for size in by_id[:-1])
    assert all(0 < size <= BATCH_LIMIT for size in by_id)
    listings = [ask for ask in asks if isinstance(ask, ByListing)]
    for ask in listings:
        check_listing(ask, rate, tight, by_id_only)
    for form_id in "12":
        stretches = sorted((ask.since, ask.until) for ask in listings if ask.form_id == form_id)
        for (_, until), (since, _) in pairwise(stretches):
            assert rate * (since - (until - 1)) > RESULT_PAGE_LIMIT


def check_listing(ask: ByListing, rate: float, tight: bool, by_id_only: set[str]) -> None:
    seconds = [int(r.created_time.timestamp()) for r in ask.references if r.created_time]
    assert len(seconds) == len(ask.references)
    assert {r.form_id for r in ask.references} == {ask.form_id}
    assert ask.form_id not in by_id_only
    assert not any(r.in_part for r in ask.references)
    assert (min(seconds), max(seconds) + 1) == (ask.since, ask.until)
    assert all(rate * (b - a) <= RESULT_PAGE_LIMIT for a, b in pairwise(seconds))
    calls = listing_calls(ask, rate)
    assert calls < len(seconds) if tight else (len(seconds) > BATCH_LIMIT and 10 * calls <= len(seconds))
