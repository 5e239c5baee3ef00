"""What the receiver saw -> counts in memory, until somebody takes them to Redis; and log lines, kept few.

A stranger can send what is refused as fast as the line allows, so a refusal must cost neither a write nor a
line of its own. This file knows neither Redis nor HTTP. It is weak where a process is killed: counts not yet
taken are gone.

Invariant: what `take` returned and `put_back` did not return is never returned again.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import structlog

LINE_EVERY_SECONDS: Final = 60.0
"""No event of a kind is logged more often than this; the next line says how many there were."""


class Verdict(StrEnum):
    """The fields of worker.inbox.COUNTERS: the closed set of what the receiver counts."""

    DELIVERIES = "deliveries"
    REFERENCES = "references"
    DUPLICATES = "duplicates"
    TESTS = "tests"
    UPDATES = "updates"
    IGNORED = "ignored"
    LACKING_VALUES = "lacking_values"
    SET_ASIDE = "set_aside"
    SET_ASIDE_DROPPED = "set_aside_dropped"
    UNSIGNED = "unsigned"
    TOO_LARGE = "too_large"
    HANDSHAKE_REFUSED = "handshake_refused"
    QUEUE_UNAVAILABLE = "queue_unavailable"
    BELLS_RUNG = "bells_rung"
    BELLS_FAILED = "bells_failed"


class Tally:
    """Counts by verdict; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Verdict] = Counter()

    def add(self, verdict: Verdict, count: int = 1) -> None:
        with self._lock:
            self._counts[verdict] += count

    def take(self) -> dict[Verdict, int]:
        """All counts since the last time; they are the caller's now."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return dict(taken)

    def put_back(self, counts: Mapping[Verdict, int]) -> None:
        """Return what could not be written."""
        with self._lock:
            self._counts.update(counts)


class Quietly:
    """Log lines, at most one a minute of each event; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        self._log = structlog.get_logger()

    def warning(self, event: str, **ids: object) -> None:
        """Log `event`, unless it was logged within the last minute; `times` counts those that were not."""
        times = self._due(event)
        if times:
            self._log.warning(event, times=times, **ids)

    def _due(self, event: str) -> int:
        with self._lock:
            now = self._clock()
            self._unlogged[event] += 1
            if now - self._logged_at.get(event, float("-inf")) < LINE_EVERY_SECONDS:
                return 0
            self._logged_at[event] = now
            return self._unlogged.pop(event)
