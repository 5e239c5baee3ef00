"""What an error means for a reference: one outcome each, waiting times within their bounds, dice handed in."""

from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.leads import at
from tests.fakes.time import NOW
from worker import errors
from worker.errors import (
    Blocked,
    GraphUnavailable,
    LeadSyncError,
    NotVisibleYet,
    Throttled,
    TooMuchAsked,
    Transient,
    Unreadable,
)
from worker.outcomes import (
    TOO_LARGE_ATTEMPTS,
    DeadLetter,
    Outcome,
    Park,
    Retry,
    RetryPolicy,
    Snooze,
    Stored,
    backoff,
    full_reading,
    outcome_of,
)

POLICY = RetryPolicy()
LONGEST_ROLL = 0.999_999
NO_REFERENCE = {"LeadSyncError", "ConfigurationError"}


def every_error() -> list[LeadSyncError]:
    """One of each class of the tree that a reference can meet."""
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, LeadSyncError) and kind.__name__ not in NO_REFERENCE
    }
    return [
        kind("told", until=at(60), scope="page") if kind is Throttled else kind("told")
        for kind in sorted(kinds, key=lambda kind: kind.__name__)
    ]


def judged(
    error: LeadSyncError,
    *,
    attempts: int = 0,
    last_reason: str | None = None,
    waited: float = 0,
    roll: float = 0.5,
) -> Outcome:
    return outcome_of(
        error,
        attempts=attempts,
        last_reason=last_reason,
        waiting_since=at(-waited),
        now=NOW,
        policy=POLICY,
        dice=lambda: roll,
    )


def test_outcomes_are_a_closed_set() -> None:
    """There are five things that can become of a reference."""
    assert set(get_args(Outcome)) == {Stored, Snooze, Retry, Park, DeadLetter}


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_each_error_of_the_tree_has_one_outcome(error: LeadSyncError) -> None:
    """The tree says what to do next, so a new error under it is judged by its branch."""
    branch: dict[type, type] = {
        Throttled: Snooze,
        Blocked: Park,
        NotVisibleYet: Retry,
        Unreadable: DeadLetter,
        Transient: Retry,
        TooMuchAsked: Retry,
    }
    (expected,) = {outcome for kind, outcome in branch.items() if isinstance(error, kind)}
    outcome = judged(error)
    assert type(outcome) is expected
    assert outcome.reason.startswith(error.reason)  # type: ignore[union-attr]


def test_a_lead_that_is_too_large_alone_is_given_up_soon() -> None:
    """It does not shrink: a few tries, in case something on the way had swollen it, then it says why."""
    for failed in range(TOO_LARGE_ATTEMPTS - 1):
        told = judged(errors.AnswerTooLarge("told"), attempts=failed, last_reason="answer_too_large")
        assert isinstance(told, Retry)
        assert told.attempts == failed + 1
    last = judged(
        errors.AnswerTooLarge("told"), attempts=TOO_LARGE_ATTEMPTS - 1, last_reason="answer_too_large"
    )
    assert last == DeadLetter("answer_too_large")


@pytest.mark.parametrize("error", [LeadSyncError("?"), errors.ConfigurationError("?")])
def test_an_error_that_says_nothing_of_a_reference_is_refused(error: LeadSyncError) -> None:
    """No reference is judged by an error that is not about one."""
    with pytest.raises(TypeError, match=type(error).__name__):
        judged(error)


def test_reasons_are_fixed_words_of_their_own() -> None:
    """A reason on a row tells which error it was, and is fit for a metric's label."""
    told = [type(error).reason for error in every_error()]
    assert all(word.replace("_", "").isalpha() and word.islower() for word in told)
    shared = {"graph_unavailable"}  # an unanswered item is an unavailable Graph
    assert {word for word in told if told.count(word) > 1} == shared


@pytest.mark.parametrize(("until", "expected"), [(60, 60), (0, 0), (-60, 0)])
def test_a_throttle_waits_until_meta_said_and_never_in_the_past(until: float, expected: float) -> None:
    """A snooze ends when Meta lets us in again, at once where that is over."""
    outcome = judged(Throttled("told", until=at(until), scope="app"), attempts=10_000)
    assert outcome == Snooze(at(expected), "throttled_app", whole_page=True)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_full_jitter_within_its_bound(attempts: int, roll: float) -> None:
    """A wait is anything from nothing to the doubled first one, and never more than the longest."""
    told: list[float] = []
    wait = backoff(2.0, 900.0, attempts, lambda: told.append(roll) or roll)
    assert timedelta(0) <= wait <= timedelta(seconds=min(900.0, 2.0 * 2 ** min(attempts, 60)))
    assert wait == timedelta(seconds=roll * min(900.0, 2.0 * 2 ** min(attempts, 60)))
    assert told == [roll]


@pytest.mark.parametrize(
    ("error", "first", "longest"),
    [(GraphUnavailable("told"), 2.0, 900.0), (NotVisibleYet("told"), 5.0, 600.0)],
)
def test_each_kind_of_failure_has_its_own_pace(error: LeadSyncError, first: float, longest: float) -> None:
    """Transient failures wait 2 s doubling to 15 min, a lead not yet visible 5 s doubling to 10 min."""
    outcomes = [judged(error, attempts=n, roll=LONGEST_ROLL) for n in range(20)]
    waits = [(outcome.at - NOW).total_seconds() for outcome in outcomes]  # type: ignore[union-attr]
    assert waits == pytest.approx([min(longest, first * 2**n) for n in range(20)], rel=1e-5)


def test_the_twenty_fifth_transient_failure_is_the_last() -> None:
    """24 transient failures are tried again; the 25th ends in a dead letter that names the last of them."""
    assert type(judged(GraphUnavailable("told"), attempts=23)) is Retry
    assert judged(GraphUnavailable("told"), attempts=24) == DeadLetter("graph_unavailable")


@pytest.mark.parametrize("error", [GraphUnavailable("told"), NotVisibleYet("told")])
def test_a_retry_counts_failures_of_one_reason(error: LeadSyncError) -> None:
    """Each retry counts one; a failure of another reason begins anew."""
    assert judged(error, attempts=7, last_reason=error.reason, roll=0) == Retry(NOW, error.reason, 8)
    assert judged(error, attempts=7, last_reason="another", roll=0) == Retry(NOW, error.reason, 1)


def test_an_hour_of_waiting_for_visibility_does_not_add_to_an_outage() -> None:
    """A lead asked for 40 times while it was not visible survives the first time-out after that."""
    outcome = judged(
        GraphUnavailable("told"), attempts=40, last_reason=NotVisibleYet.reason, roll=LONGEST_ROLL
    )
    assert type(outcome) is Retry
    assert outcome.attempts == 1
    assert outcome.at - NOW < timedelta(seconds=2)


def test_a_reading_in_part_is_completed_later_and_not_for_ever() -> None:
    """Refused ad fields are asked for again at growing distances, a few times."""
    pauses = [full_reading(attempts, NOW) for attempts in range(10)]
    told = [pause - NOW for pause in pauses if pause is not None]
    assert told == sorted(told)
    assert len(told) < 10
    assert pauses[len(told) :] == [None] * (10 - len(told))
    assert told[0] >= timedelta(hours=1)


def test_waiting_alone_never_kills_a_transient_failure() -> None:
    """An outage of a week is no failure of the lead: attempts count, time does not."""
    assert type(judged(GraphUnavailable("told"), waited=7 * 86_400)) is Retry


def test_a_long_outage_is_not_held_against_a_lead_that_was_never_asked_for() -> None:
    """However long it waited, a lead is not dead before Graph has denied it a few times."""
    outcome = judged(NotVisibleYet("told"), attempts=20, last_reason="graph_unavailable", waited=100_000)
    assert isinstance(outcome, Retry)
    assert outcome.attempts == 1


@pytest.mark.parametrize("attempts", [2, 25, 500])
def test_a_lead_not_yet_visible_has_two_hours_however_often_it_is_asked_for(attempts: int) -> None:
    """100/33 is asked again for two hours from the first sight of the reference, and is then dead."""
    assert type(judged(NotVisibleYet("told"), attempts=attempts, waited=7_199.9)) is Retry
    assert judged(NotVisibleYet("told"), attempts=attempts, waited=7_200) == DeadLetter("not_visible")


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_nothing_but_a_failure_that_may_pass_is_ever_ended_by_counting(error: LeadSyncError) -> None:
    """A throttle or a parked Page never turns into a dead letter, however long it lasts."""
    outcome: Any = judged(error, attempts=10_000, waited=10**6)
    if isinstance(error, Throttled | Blocked):
        assert type(outcome) in (Snooze, Park)
    else:
        assert type(outcome) is DeadLetter
