"""An error that met a lead reference -> what becomes of the reference. Pure: the clock and the dice are handed in.

This file decides and does nothing; sync.py carries the outcomes out. Invariant: every error of errors.py gives
exactly one outcome, and only Retry counts an attempt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from worker.errors import (
    AnswerTooLarge,
    Blocked,
    LeadSyncError,
    NotVisibleYet,
    PermissionRefused,
    Throttled,
    TooMuchAsked,
    Transient,
    Unreadable,
)
from worker.lead import Lead
from worker.quick_dataclass import quick_dataclass


@quick_dataclass(frozen=True, slots=True)
class Stored:
    """The lead is there and becomes a row. `read_at`: when Graph's answer had come, where somebody wants to know."""

    lead: Lead
    read_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not before `until`; counts nothing. `whole_page`: nor anything else that waits for its Page."""

    until: datetime
    reason: str
    whole_page: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed, again at `at`; `attempts` counts this failure and those of the same reason right before it."""

    at: datetime
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Park:
    """The Page is held until its token or permission is mended; the reference waits with it and counts nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Kept with its reason, never retried by itself."""

    reason: str


Outcome: TypeAlias = Stored | Snooze | Retry | Park | DeadLetter


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often to ask again. Times in seconds."""

    transient_first: float = 2.0
    transient_longest: float = 900.0
    transient_attempts: int = 25
    not_visible_first: float = 5.0
    not_visible_longest: float = 600.0
    not_visible_for: float = 7_200.0


NOT_VISIBLE_LEAST: Final = 3
"""So often in a row, too: after a long outage the time alone is over before Graph was asked once."""
TOO_LARGE_ATTEMPTS: Final = 3
"""A lead whose answer is too large stays so, unless something on the way had swollen it."""
IN_PART_AGAIN: Final = tuple(timedelta(hours=hours) for hours in (6, 24, 48, 96))
"""When a lead that was read without its ad fields is asked for again, each time they are refused once more."""


def full_reading(attempts: int, now: datetime) -> datetime | None:
    """When to ask in full again for a lead whose ad fields were refused `attempts` times before; None: no more."""
    return now + IN_PART_AGAIN[attempts] if attempts < len(IN_PART_AGAIN) else None


def backoff(first: float, longest: float, attempts: int, dice: Callable[[], float]) -> timedelta:
    """Exponential with full jitter: between nothing and `first` doubled `attempts` times, at most `longest` seconds.

    `dice` gives numbers in [0, 1). https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    # 2.0**attempts overflows beyond 1023; 64 doublings already exceed any `longest`.
    return timedelta(seconds=dice() * min(longest, first * 2.0 ** min(attempts, 64)))


def outcome_of(
    error: LeadSyncError,
    *,
    attempts: int,
    last_reason: str | None,
    waiting_since: datetime,
    now: datetime,
    policy: RetryPolicy,
    dice: Callable[[], float],
) -> Outcome:
    """What `error` means for a reference that was first seen at `waiting_since`.

    It has failed `attempts` times in a row for `last_reason`; a failure of another reason counts from one again, or
    a lead that was invisible for an hour would die of the first time-out.
    """
    failed = attempts if last_reason in (None, error.reason) else 0
    match error:
        case Throttled():
            return Snooze(max(error.until, now), f"{error.reason}_{error.scope}", whole_page=True)
        case Blocked():
            return Park(error.reason)
        case NotVisibleYet():
            overdue = now - waiting_since >= timedelta(seconds=policy.not_visible_for)
            if overdue and failed + 1 >= NOT_VISIBLE_LEAST:
                return DeadLetter(error.reason)
            pause = backoff(policy.not_visible_first, policy.not_visible_longest, failed, dice)
            return Retry(now + pause, error.reason, failed + 1)
        case Unreadable():
            return DeadLetter(error.reason)
        case Transient() | TooMuchAsked():
            most = TOO_LARGE_ATTEMPTS if isinstance(error, AnswerTooLarge) else policy.transient_attempts
            if failed + 1 >= most:
                return DeadLetter(error.reason)
            pause = backoff(policy.transient_first, policy.transient_longest, failed, dice)
            return Retry(now + pause, error.reason, failed + 1)
    raise TypeError(f"{type(error).__name__} says nothing about a reference")


LISTING_REFUSED_AGAIN: Final = timedelta(hours=1)
"""Lead access is granted by people."""
LISTING_REFUSED_ATTEMPTS: Final = 5
LISTING_GONE_AGAIN: Final = timedelta(minutes=10)
LISTING_GONE_ATTEMPTS: Final = 3


def listing_outcome_of(
    error: LeadSyncError, *, attempts: int, now: datetime, policy: RetryPolicy, dice: Callable[[], float]
) -> Retry | Park | DeadLetter:
    """What `error` means for a slice whose listing failed `attempts` times in a row before; it is no throttle.

    A refused permission is that of the form or the ad, perhaps: unlike a refused token it holds up its slice alone.
    """
    again = attempts + 1
    match error:
        case PermissionRefused():
            if again >= LISTING_REFUSED_ATTEMPTS:
                return DeadLetter(error.reason)
            return Retry(now + LISTING_REFUSED_AGAIN, error.reason, again)
        case Blocked():
            return Park(error.reason)
        case NotVisibleYet() | Unreadable():
            if again >= LISTING_GONE_ATTEMPTS:
                return DeadLetter(error.reason)
            return Retry(now + LISTING_GONE_AGAIN, error.reason, again)
        case _:
            if again >= policy.transient_attempts:
                return DeadLetter(error.reason)
            pause = backoff(policy.transient_first, policy.transient_longest, attempts, dice)
            return Retry(now + pause, error.reason, again)
