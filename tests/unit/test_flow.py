"""Reports of looks -> rates and series of the last minutes."""

from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.time import NOW
from worker.flow import KEPT, SMOOTH, Flow


def a_look(number: int, *, references: int | None = 0, stored: int | None = 0) -> dict[str, Any]:
    """The part of a report that Flow reads, of a look every two seconds; None: that neighbour was away."""
    at = NOW + timedelta(seconds=2 * number)
    away = {"error": "away"}
    return {
        "at": at,
        "stream": away if references is None else {"deliveries": {"references": references}},
        "flow": away
        if stored is None
        else {"since": at - timedelta(seconds=2), "until": at, "stored": stored},
    }


def test_the_first_look_knows_what_was_stored_but_not_what_was_announced() -> None:
    """Redis has a sum since ever; a rate takes two of them."""
    flow = Flow()
    flow.note(a_look(0, references=1_000, stored=6))
    assert (flow.announced(), flow.stored()) == (None, 3.0)
    flow.note(a_look(1, references=1_010, stored=2))
    assert (flow.announced(), flow.stored()) == (5.0, 2.0)


def test_the_rate_of_this_moment_forgets_old_looks() -> None:
    """It is taken over the last few looks only."""
    flow = Flow()
    flow.note(a_look(0, stored=1_000_000))
    for number in range(1, SMOOTH + 1):
        flow.note(a_look(number, stored=4))
    assert flow.stored() == 2.0


def test_a_neighbour_that_was_away_leaves_a_hole_and_loses_nothing() -> None:
    """What came meanwhile is spread over the time since the last look that could be made."""
    flow = Flow()
    flow.note(a_look(0, references=0))
    flow.note(a_look(1, references=None, stored=None))
    assert (flow.announced(), flow.stored()) == (None, None)
    assert flow.stored_until == NOW
    flow.note(a_look(2, references=8))
    assert flow.announced_series() == [None, None, 2.0]
    assert flow.stored_series() == [0.0, None, 0.0]


def test_an_emptied_redis_is_no_negative_flow() -> None:
    """Its counters begin at zero again."""
    flow = Flow()
    flow.note(a_look(0, references=500))
    flow.note(a_look(1, references=3))
    assert flow.announced() == 0.0


@pytest.mark.parametrize("looks", [KEPT + 50])
def test_the_series_does_not_grow_without_end(looks: int) -> None:
    """Somebody may leave it on for months."""
    flow = Flow()
    for number in range(looks):
        flow.note(a_look(number))
    assert len(flow.stored_series()) == len(flow.announced_series()) == KEPT
