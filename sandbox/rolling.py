"""Calls of one scope with their times -> how many the rolling window holds, and when enough have left it.

Nothing is rounded and nothing is put into buckets: every call is kept with its own time until it leaves the
window, and calls of one instant (a batch's) share an entry. What the limit is and what follows from it is
decided in blocks.py.

Time only moves on: calls dated before the last one are taken as made at the last one's time.
Invariant: `used(now)` is the number of calls with `now - window_seconds < time`, never more and never less.
"""

from array import array
from bisect import bisect_left
from typing import Final

_DEAD_ENTRIES: Final = 1_024
"""Entries that have left are taken out of the arrays once they are so many and at least half of all: that
keeps a call at constant cost on average."""


class Meter:
    """Calls of one scope in a rolling window."""

    __slots__ = ("_first", "_left", "_times", "_totals", "most", "window_seconds")

    def __init__(self, window_seconds: float) -> None:
        self.window_seconds = window_seconds
        self._times = array("d")
        # Calls ever made up to and with this entry; sorted, so that the n-th newest call is found by bisection.
        self._totals = array("q")
        self._first = 0
        """Index of the oldest entry in the window."""
        self._left = 0
        """Calls that have left the window."""
        self.most = 0
        """The most calls that the window held at any call counted."""

    def count(self, now: float, calls: int = 1) -> int:
        """Log calls made now; how many the window holds with them."""
        times, totals = self._times, self._totals
        if self._first < len(times) and now <= times[-1]:
            totals[-1] += calls
        else:
            totals.append((totals[-1] if totals else 0) + calls)
            times.append(now)
        used = self.used(now)
        self.most = max(self.most, used)
        return used

    def used(self, now: float) -> int:
        """Calls in the window that ends now; one made exactly a window ago has left."""
        times, totals, first = self._times, self._totals, self._first
        if not times:
            return 0
        end, window = len(times), self.window_seconds
        while first < end and times[first] + window <= now:
            self._left = totals[first]
            first += 1
        self._first = first
        # The newest entry stays even when it has left, since later totals build on it.
        if first > _DEAD_ENTRIES and 2 * first > end:
            dead = min(first, end - 1)
            del times[:dead], totals[:dead]
            self._first = first - dead
        return totals[-1] - self._left

    def regained_in(self, limit: int, now: float) -> float:
        """Seconds until fewer than `limit` calls are in the window if no more are made; 0 if that is so now.

        With a limit of 0 that never comes; a whole window is told.
        """
        if self.used(now) < limit:
            return 0.0
        if limit < 1:
            return float(self.window_seconds)
        # Fewer than `limit` are left once the limit-th newest call has gone.
        entry = bisect_left(self._totals, self._totals[-1] - limit + 1, lo=self._first)
        return self._times[entry] + self.window_seconds - now
