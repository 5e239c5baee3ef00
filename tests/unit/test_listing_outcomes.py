"""What an error means for a slice: it waits, its Page is held, or it is given up for a reason that can be seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.backfills import after_now
from tests.fakes.time import NOW
from worker.errors import (
    GrantLapsed,
    GraphUnavailable,
    LeadMalformed,
    LeadSyncError,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    TokenRefused,
    TooMuchAsked,
)
from worker.outcomes import (
    LISTING_GONE_ATTEMPTS,
    LISTING_REFUSED_ATTEMPTS,
    DeadLetter,
    Park,
    Retry,
    RetryPolicy,
    listing_outcome_of,
)

POLICY = RetryPolicy()


def outcome(error: LeadSyncError, attempts: int = 0, dice: float = 0.5) -> Retry | Park | DeadLetter:
    return listing_outcome_of(error, attempts=attempts, now=NOW, policy=POLICY, dice=lambda: dice)


@pytest.mark.parametrize("error", [TokenRefused("told"), ProofRefused("told")])
@pytest.mark.parametrize("attempts", [0, 1_000])
def test_a_refused_token_is_the_page_s_trouble(error: LeadSyncError, attempts: int) -> None:
    """However often: it is held, and nothing is given up."""
    assert outcome(error, attempts) == Park(error.reason)


@pytest.mark.parametrize(
    ("error", "attempts", "pause"),
    [
        (PermissionRefused("told"), LISTING_REFUSED_ATTEMPTS, 3_600),
        (NotVisibleYet("told"), LISTING_GONE_ATTEMPTS, 600),
        (RequestRefused("told"), LISTING_GONE_ATTEMPTS, 600),
        (LeadMalformed("told"), LISTING_GONE_ATTEMPTS, 600),
    ],
)
def test_a_refused_listing_is_asked_for_again_a_few_times(
    error: LeadSyncError, attempts: int, pause: int
) -> None:
    """Each failure is counted, and the last one gives the slice up for its own reason."""
    for failed in range(attempts - 1):
        assert outcome(error, failed) == Retry(after_now(pause), error.reason, failed + 1)
    assert outcome(error, attempts - 1) == DeadLetter(error.reason)


@pytest.mark.parametrize("error", [GraphUnavailable("told"), TooMuchAsked("told"), GrantLapsed("told")])
def test_what_may_work_later_is_tried_for_long(error: LeadSyncError) -> None:
    """With growing pauses, as often as a reference."""
    last = POLICY.transient_attempts - 1
    pauses = []
    for failed in range(last):
        told = outcome(error, failed, 1.0)
        assert isinstance(told, Retry)
        assert told.attempts == failed + 1
        pauses.append((told.at - NOW).total_seconds())
    assert pauses == sorted(pauses)
    assert pauses[-1] == POLICY.transient_longest
    assert outcome(error, last) == DeadLetter(error.reason)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_slice_is_never_due_in_the_past(attempts: int, dice: float) -> None:
    """Whatever the dice."""
    told = outcome(GraphUnavailable("told"), attempts, dice)
    assert isinstance(told, DeadLetter) or told.at >= NOW  # type: ignore[union-attr]
