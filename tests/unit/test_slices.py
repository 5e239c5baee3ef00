"""Time cut into slices: nothing left out, nothing twice, and few calls for whatever the listing's order is."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.backfills import DAY, SECOND
from worker.slices import EVIDENCE, LEAST_LEADS, MOST_LEADS, Slice, cover, divide, parted, slice_size

SINCES = st.integers(0, 2_000_000_000)
LENGTHS = st.one_of(st.integers(1, 50), st.integers(1, 100 * DAY))
NINETY_DAYS = Slice(SECOND - 90 * DAY, SECOND)
FEW = 8
"""Calls beside the result pages that a walk may take."""


def touch(parts: tuple[Slice, ...], since: int, until: int) -> bool:
    """Whether the parts are whole seconds that cover [since, until) exactly, in order."""
    whole = all(isinstance(edge, int) for part in parts for edge in (part.since, part.until))
    return (
        whole
        and (parts[0].since, parts[-1].until) == (since, until)
        and all(one.until == other.since for one, other in pairwise(parts))
        and all(part.seconds >= 1 for part in parts)
    )


@given(SINCES, LENGTHS, st.integers(0, 10**7), st.integers(1, 10**5), st.none() | st.integers(-100, 2**31))
def test_a_cover_is_exact(since: int, seconds: int, leads: int, size: int, begins: int | None) -> None:
    """However many leads there are and whenever the form began, slices touch and cover the whole span."""
    until = since + seconds
    parts = cover(since, until, leads=leads, size=size, begins=begins)
    assert touch(parts, since, until)
    assert len(parts) <= max(1, math.ceil(leads / size))


@given(SINCES, LENGTHS, st.integers(-3, 10_000))
def test_a_division_is_exact(since: int, seconds: int, parts: int) -> None:
    """The parts of a slice touch, cover it and differ by a second in length; none is empty."""
    dense = Slice(since, since + seconds)
    divided = divide(dense, parts)
    assert touch(divided, dense.since, dense.until)
    assert max(p.seconds for p in divided) - min(p.seconds for p in divided) <= 1
    assert len(divided) == max(1, min(parts, seconds))


def test_a_slice_has_at_least_one_second() -> None:
    """An empty slice is none."""
    with pytest.raises(ValueError, match="at least one second"):
        Slice(5, 5)


@given(st.integers(0, 10**9))
def test_slices_hold_neither_too_few_nor_too_many(leads: int) -> None:
    """The size of a slice stays within its bounds whatever the size of the backfill."""
    assert LEAST_LEADS <= slice_size(leads) <= MOST_LEADS


@given(SINCES, st.lists(st.integers(0, 2_000_000_000), max_size=300), st.integers(0, 30_000))
def test_a_single_second_is_never_divided(since: int, times: list[int], new: int) -> None:
    """There is nothing smaller than a second."""
    assert parted(Slice(since, since + 1), times * 100, new=min(new, 100 * len(times))) == ()


@given(
    LENGTHS,
    st.lists(st.integers(0, 100 * DAY), max_size=300),
    st.integers(1, 200),
    st.integers(0, 60_000),
    st.sampled_from(["as they are", "newest", "oldest"]),
)
def test_parts_take_the_place_of_their_slice(
    seconds: int, times: list[int], again: int, new: int, order: str
) -> None:
    """Whatever came, and in whichever order, the parts cover what they stand for, and are at least two."""
    read = Slice(SECOND, SECOND + seconds)
    came = [SECOND + at % seconds for at in times] * again
    if order != "as they are":
        came.sort(reverse=order == "newest")
    parts = parted(read, came, new=min(new, len(came)))
    assert parts == () or (len(parts) > 1 and touch(parts, read.since, read.until))


@given(st.lists(st.integers(0, DAY), min_size=EVIDENCE, max_size=EVIDENCE + 50))
def test_an_order_is_believed_only_where_it_held_throughout(times: list[int]) -> None:
    """One lead out of its place, and nothing is foreseen of the first leads."""
    falls = any(one > other for one, other in pairwise(times))
    rises = any(one < other for one, other in pairwise(times))
    if falls and rises:
        assert parted(Slice(0, 90 * DAY), times, new=len(times)) == ()


def walk_all(
    leads: list[int], span: Slice, page: list[int], order: str, dice: random.Random, most_calls: int
) -> tuple[int, list[Slice]]:
    """Calls, and the slices that were read to their end, of a walk through `leads` and all its divisions."""
    calls, done, todo = 0, [], [span]
    while todo:
        one = todo.pop()
        inside = sorted(at for at in leads if one.since <= at < one.until)
        if order == "newest":
            inside.reverse()
        elif order == "shuffled":
            dice.shuffle(inside)
        got: list[int] = []
        while True:
            calls += 1
            assert calls <= most_calls, f"{calls} calls for {len(leads)} leads"
            known = len(got)
            got += inside[len(got) : len(got) + page[calls % len(page)]]
            if len(got) == len(inside):
                done.append(one)
                break
            parts = parted(one, got, new=len(got) - known)
            if parts:
                todo += parts
                break
    return calls, done


def shaped(shape: str, count: int, dice: random.Random) -> list[int]:
    """Seconds of creation within NINETY_DAYS."""
    since, seconds = NINETY_DAYS.since, NINETY_DAYS.seconds
    match shape:
        case "even":
            places = [dice.random() for _ in range(count)]
        case "growing":
            places = [1 - dice.random() ** 4 for _ in range(count)]
        case "shrinking":
            places = [dice.random() ** 4 for _ in range(count)]
        case "just begun":
            places = [1 - dice.random() * 3_600 / seconds for _ in range(count)]
        case _:
            places = [0.3 + dice.random() * DAY / seconds for _ in range(count)]
    return [since + min(seconds - 1, int(place * seconds)) for place in places]


SHAPES = ["even", "growing", "shrinking", "just begun", "one day"]


@pytest.mark.parametrize("count", [600, 12_000, 60_000])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_listing_in_order_costs_hardly_more_than_its_result_pages(
    order: str, shape: str, count: int
) -> None:
    """At most 1.3 times the result pages that the leads fill and a few, however unevenly they came."""
    dice = random.Random(7)
    most = int(1.3 * math.ceil(count / 500)) + FEW
    calls, done = walk_all(shaped(shape, count, dice), NINETY_DAYS, [500], order, dice, most)
    assert calls <= most
    assert touch(tuple(sorted(done, key=lambda s: s.since)), NINETY_DAYS.since, NINETY_DAYS.until)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_listing_in_no_order_costs_at_most_four_times_its_result_pages(shape: str) -> None:
    """Nothing tells where a shuffled listing is dense, so finding out costs more, but within bounds."""
    dice = random.Random(7)
    _, done = walk_all(shaped(shape, 60_000, dice), NINETY_DAYS, [500], "shuffled", dice, 4 * 120 + FEW)
    assert touch(tuple(sorted(done, key=lambda s: s.since)), NINETY_DAYS.since, NINETY_DAYS.until)


def test_a_short_first_result_page_says_nothing_of_density() -> None:
    """Two leads of the last minute on a short result page are no reason to cut 90 days into a thousand slices."""
    assert parted(NINETY_DAYS, [SECOND - 2, SECOND - 12], new=2) == ()


def test_a_burst_at_the_listing_s_edge_does_not_cut_a_slice_to_pieces() -> None:
    """500 leads in ten minutes may be all there are: dividing costs a call a part, so parts are few."""
    assert len(parted(NINETY_DAYS, [SECOND - 1 - n for n in range(500)], new=500)) == 2


def test_leads_outside_of_what_was_asked_for_divide_nothing() -> None:
    """Where Graph does not keep to the filter, dividing cannot help."""
    assert parted(NINETY_DAYS, [SECOND - 100 * DAY - n for n in range(500)], new=500) == ()


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_walk_that_has_passed_through_its_slice_is_not_cut(order: str) -> None:
    """However much one result page brought: where its last lead is at the far edge, no rest is left to cut off."""
    times = [SECOND + n // 40 for n in range(3 * MOST_LEADS)]
    span = Slice(times[0], times[-1] + 1)
    came = times if order == "oldest" else times[::-1]
    assert parted(span, came, new=len(came)) == ()


@settings(max_examples=60)
@given(st.data())
def test_every_second_is_read_exactly_once_at_the_end(data: st.DataObject) -> None:
    """Over any divisions of any listing in any order, slices that were read to their end cover the span exactly."""
    seconds = data.draw(st.sampled_from([1, 2, 60, 5_000]))
    span = Slice(SECOND, SECOND + seconds)
    dice = random.Random(data.draw(st.integers(0, 2**32)))
    dense = data.draw(st.integers(1, seconds))
    count = data.draw(st.sampled_from([0, 1, 30, 2_000, 25_000]))
    leads = [SECOND + dice.randrange(dense) for _ in range(count)]
    page = data.draw(st.lists(st.integers(0, 500), min_size=1, max_size=5).filter(lambda p: sum(p) > 200))
    order = data.draw(st.sampled_from(["newest", "oldest", "shuffled"]))
    _, done = walk_all(leads, span, page, order, dice, 200_000)
    assert touch(tuple(sorted(done, key=lambda s: s.since)), span.since, span.until)
