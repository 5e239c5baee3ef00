"""Usage headers: where a scope stands -> the headers that tell it, as Meta writes them.

Percentages are whole and rounded as asked, except that of an ad account, which has two decimals. Once the next
call cannot succeed they tell at least 100, and how long that lasts. What counts for whom is decided in graph.py,
when a call is refused in blocks.py.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting

Invariant: an answer has each header at most once.
"""

from functools import lru_cache
from math import ceil
from typing import Final, Literal, NamedTuple

from sandbox.blocks import Standing
from sandbox.wire import plain

CALLS_PER_LEAD: Final = 4_800
"""200 x 24, for each lead of the last 90 days, in any 24 hours.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting"""

Rounding = Literal["floor", "nearest", "ceil"]
ROUNDINGS: Final[tuple[Rounding, ...]] = ("floor", "nearest", "ceil")

_APP_HEADER: Final = "X-App-Usage"
_TIER: Final = "standard_access"
_OF_THE_APP: Final = frozenset({"app", "user"})


class Usage(NamedTuple):
    """How much of its limit a scope has used, as the headers tell it."""

    scope_id: str
    kind: str
    """Meta's `type`: leadgen, pages, ads_management; or user or app, which share a header of their own."""
    percent: int
    regain_minutes: int
    account_percent: float | None = None
    account_reset_seconds: int = 0
    """Of an ad account only: the same in two decimals and in seconds, for a header of its own."""


def usage_of(standing: Standing, *, scope_id: str, kind: str, rounding: Rounding) -> Usage:
    """The usage of one scope as the headers tell it."""
    # Sums of unix times are good to a quarter of a microsecond; the rest is no time that a caller waits.
    seconds = round(standing.regain_seconds, 6) if standing.regain_seconds > 0 else 0.0
    percent = _share(standing, 100, rounding)
    minutes = max(1, ceil(seconds / 60)) if standing.regain_seconds > 0 else 0
    if kind != "ads_management":
        return Usage(scope_id, kind, percent, minutes)
    hundredths = _share(standing, 10_000, rounding)
    return Usage(scope_id, kind, percent, minutes, hundredths / 100, ceil(seconds))


@lru_cache(maxsize=1_024)
def headers_of(usages: tuple[Usage, ...]) -> tuple[tuple[str, str], ...]:
    """All headers of an answer, names and values. User and app share one: the tighter of them is told."""
    # Cached, since a percentage stays the same over many calls.
    told = [usage for usage in usages if usage.kind not in _OF_THE_APP]
    shared = [usage for usage in usages if usage.kind in _OF_THE_APP]
    if shared:
        told.append(max(shared, key=lambda usage: usage.percent))
    return tuple([header for usage in told for header in _headers(usage)])


def _share(standing: Standing, whole: int, rounding: Rounding) -> int:
    """What is used of the limit, in `whole` parts; all of it at least while the next call cannot succeed."""
    used, limit = standing.used * whole, standing.limit
    if limit == 0:
        return whole
    match rounding:
        case "floor":
            share = used // limit
        case "nearest":
            share = (2 * used + limit) // (2 * limit)
        case "ceil":
            share = -(-used // limit)
    return max(share, whole) if standing.regain_seconds > 0 else share


def _headers(usage: Usage) -> tuple[tuple[str, str], ...]:
    figures = {
        "call_count": usage.percent,
        "total_cputime": usage.percent // 2,
        "total_time": usage.percent // 3,
    }
    if usage.kind in _OF_THE_APP:
        return ((_APP_HEADER, plain(figures)),)
    told: dict[str, object] = {"type": usage.kind, **figures}
    told["estimated_time_to_regain_access"] = usage.regain_minutes
    if usage.kind == "ads_management":
        told["ads_api_access_tier"] = _TIER
    business = ("X-Business-Use-Case-Usage", plain({usage.scope_id: [told]}))
    if usage.account_percent is None:
        return (business,)
    account = {
        "acc_id_util_pct": usage.account_percent,
        "reset_time_duration": usage.account_reset_seconds,
        "ads_api_access_tier": _TIER,
    }
    return business, ("X-Ad-Account-Usage", plain(account))
