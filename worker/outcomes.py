"""An error that met a lead reference -> what becomes of the reference. Pure: the clock and the dice are handed in.

This file decides and does nothing; sync.py carries the outcomes out. Invariant: every error of errors.py gives
exactly one outcome, and only Retry counts an attempt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from worker.errors import (
    Blocked,
    LeadSyncError,
    NotVisibleYet,
    Throttled,
    TooMuchAsked,
    Transient,
    Unreadable,
)
from worker.lead import Lead


@dataclass(frozen=True, slots=True)
class Stored:
    """The lead is there and becomes a row."""

    lead: Lead


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not before `until`; counts nothing."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed, again at `at`; counts an attempt."""

    at: datetime
    reason: str


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
    waiting_since: datetime,
    now: datetime,
    policy: RetryPolicy,
    dice: Callable[[], float],
) -> Outcome:
    """What `error` means for a reference that has failed `attempts` times and was first seen at `waiting_since`."""
    match error:
        case Throttled():
            return Snooze(max(error.until, now), f"{error.reason}_{error.scope}")
        case Blocked():
            return Park(error.reason)
        case NotVisibleYet():
            if now - waiting_since >= timedelta(seconds=policy.not_visible_for):
                return DeadLetter(error.reason)
            return Retry(
                now + backoff(policy.not_visible_first, policy.not_visible_longest, attempts, dice),
                error.reason,
            )
        case Unreadable():
            return DeadLetter(error.reason)
        case Transient() | TooMuchAsked():
            if attempts + 1 >= policy.transient_attempts:
                return DeadLetter(error.reason)
            return Retry(
                now + backoff(policy.transient_first, policy.transient_longest, attempts, dice), error.reason
            )
    raise TypeError(f"{type(error).__name__} says nothing about a reference")
