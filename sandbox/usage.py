"""What a Page, an ad account or a user has used up: calls in a rolling window -> usage headers and refusals.

Meta's rule for leads is 4800 calls x leads of the last 90 days in any 24 hours, per Page; every id and
every batch item counts, and so do calls that are refused. The headers tell whole percentages and, once
over, the minutes until the next call can succeed. Which call counts for whom is decided in graph.py.

Weakness: calls are counted in buckets of a 1440th of the window (a minute of a day), so they leave it up to
that much too late.
Invariant: `used` is never less than the calls of the last window.
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sandbox.wire import plain

CALLS_PER_LEAD: Final = 4_800
"""200 x 24. https://developers.facebook.com/docs/graph-api/overview/rate-limiting"""
_BUCKETS: Final = 1_440


class Meter:
    """Calls of one scope in a rolling window."""

    __slots__ = ("_buckets", "_used", "_width", "window_seconds")

    def __init__(self, window_seconds: int) -> None:
        self.window_seconds = window_seconds
        self._width = window_seconds / _BUCKETS
        self._buckets: deque[list[float]] = deque()
        self._used = 0

    def count(self, now: float, calls: int = 1) -> None:
        """Add calls made now."""
        start = now - now % self._width
        if self._buckets and self._buckets[-1][0] == start:
            self._buckets[-1][1] += calls
        else:
            self._buckets.append([start, calls])
        self._used += calls

    def used(self, now: float) -> int:
        """Calls in the window that ends now."""
        while self._buckets and self._buckets[0][0] + self._width + self.window_seconds <= now:
            self._used -= int(self._buckets.popleft()[1])
        return self._used

    def regained_in(self, limit: int, now: float) -> float:
        """Seconds until fewer than `limit` calls are in the window; 0 if that is so now."""
        over = self.used(now) - limit
        for start, calls in self._buckets:
            if over < 0:
                return 0.0
            over -= int(calls)
            if over < 0:
                return start + self._width + self.window_seconds - now
        return 0.0 if over < 0 else float(self.window_seconds)


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of its limit a scope has used."""

    scope_id: str
    kind: str
    """Meta's `type`: leadgen, ads_management, or user (which has a header of its own)."""
    percent: int
    regain_minutes: int
    over: bool = False
    """More calls were made than the limit allows: the last one is refused."""

    def header(self) -> tuple[str, str]:
        """The header's name and value."""
        return _header(self)


@lru_cache(maxsize=1_024)
def _header(usage: Usage) -> tuple[str, str]:
    # Cached, since a percentage stays the same over many calls.
    figures = {
        "call_count": usage.percent,
        "total_cputime": usage.percent // 2,
        "total_time": usage.percent // 3,
    }
    if usage.kind == "user":
        return "X-App-Usage", plain(figures)
    told: dict[str, object] = {"type": usage.kind, **figures}
    told["estimated_time_to_regain_access"] = usage.regain_minutes
    if usage.kind == "ads_management":
        told["ads_api_access_tier"] = "standard_access"
    return "X-Business-Use-Case-Usage", plain({usage.scope_id: [told]})


def usage_of(meter: Meter, limit: int, *, scope_id: str, kind: str, now: float) -> Usage:
    """The usage of one scope as the header tells it."""
    used = meter.used(now)
    if used < limit:
        return Usage(scope_id, kind, 100 * used // limit, 0)
    minutes = -(-int(meter.regained_in(limit, now)) // 60)
    return Usage(scope_id, kind, 100 if limit == 0 else 100 * used // limit, max(1, minutes), used > limit)
