"""How many leads a result page is asked for, once its form could not give as many."""

from tests.fakes.leads import FORM
from tests.fakes.time import FrozenClock
from worker.asks import RESULT_PAGE_LIMIT
from worker.result_pages import SMALLER_FOR, ResultPageLimits


def test_too_much_is_halved_down_to_one_lead() -> None:
    """One lead is asked for however often that is too much."""
    limits, asked = ResultPageLimits(FrozenClock()), []
    for _ in range(12):
        asked.append(limits.of(FORM))
        limits.was_too_much(FORM, asked[-1])
    assert asked == [500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1]


def test_who_list_a_form_side_by_side_halve_it_once() -> None:
    """Each tells what it had asked for; the second of them asks for no less than the first."""
    limits = ResultPageLimits(FrozenClock())
    for _ in range(2):
        limits.was_too_much(FORM, RESULT_PAGE_LIMIT)
    assert limits.of(FORM) == RESULT_PAGE_LIMIT // 2


def test_a_refusal_of_a_larger_page_makes_none_larger() -> None:
    """One that was asked for before the others had halved theirs."""
    limits = ResultPageLimits(FrozenClock())
    limits.was_too_much(FORM, 100)
    limits.was_too_much(FORM, RESULT_PAGE_LIMIT)
    assert limits.of(FORM) == 50


def test_smaller_pages_are_for_that_form_and_for_an_hour() -> None:
    """Another form is asked for all, and so is this one afterwards."""
    limits = ResultPageLimits(clock := FrozenClock())
    limits.was_too_much(FORM, RESULT_PAGE_LIMIT)
    assert limits.of("555") == RESULT_PAGE_LIMIT
    clock.move(SMALLER_FOR.total_seconds() - 1)
    assert limits.of(FORM) == RESULT_PAGE_LIMIT // 2
    clock.move(1)
    assert limits.of(FORM) == RESULT_PAGE_LIMIT
