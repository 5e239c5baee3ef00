"""Reports of one look after another -> how much came and was stored a second, and the series of the last minutes. Pure.

It asks nobody. Invariant: a look that could not be made leaves a hole in the series, never a zero.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

Reading: TypeAlias = tuple[float, int] | None
"""Seconds, and how many came in them; None where that is not known."""

KEPT: Final = 300
"""Looks that are remembered: ten minutes of a look every two seconds."""
SMOOTH: Final = 5
"""Looks over which the rate of this moment is taken: the receiver hands its counts on about once a second."""


class Flow:
    """What the looks so far have seen."""

    def __init__(self) -> None:
        self.stored_until: datetime | None = None
        """Up to here rows have been counted."""
        self._seen: tuple[datetime, int] | None = None
        self._announced: deque[Reading] = deque(maxlen=KEPT)
        self._stored: deque[Reading] = deque(maxlen=KEPT)

    def note(self, report: Mapping[str, Any]) -> None:
        """Take in one more report of status.py, later than the last."""
        self._announced.append(self._announced_since(report))
        flow = report["flow"]
        if "error" in flow:
            self._stored.append(None)
            return
        span = (flow["until"] - flow["since"]).total_seconds()
        self._stored.append((span, flow["stored"]) if span > 0 else None)
        self.stored_until = flow["until"]

    def _announced_since(self, report: Mapping[str, Any]) -> Reading:
        stream, before = report["stream"], self._seen
        if "error" in stream:
            return None
        self._seen = report["at"], stream["deliveries"].get("references", 0)
        if before is None or self._seen[0] <= before[0]:
            return None
        # An emptied Redis counts from nothing again.
        return (self._seen[0] - before[0]).total_seconds(), max(0, self._seen[1] - before[1])

    def announced(self) -> float | None:
        """References a second that came lately; None where that is not known."""
        return _rate(self._announced)

    def stored(self) -> float | None:
        """Rows a second that were stored lately; None where that is not known."""
        return _rate(self._stored)

    def announced_series(self) -> list[float | None]:
        """References a second, one number a look, the latest last."""
        return [_a_second(reading) for reading in self._announced]

    def stored_series(self) -> list[float | None]:
        """Rows a second, one number a look, the latest last."""
        return [_a_second(reading) for reading in self._stored]


def _rate(readings: Sequence[Reading]) -> float | None:
    if not readings or readings[-1] is None:
        return None
    lately = [reading for reading in list(readings)[-SMOOTH:] if reading is not None]
    return sum(number for _, number in lately) / sum(seconds for seconds, _ in lately)


def _a_second(reading: Reading) -> float | None:
    return None if reading is None else reading[1] / reading[0]
