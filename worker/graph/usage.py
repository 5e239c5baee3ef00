"""Meta's usage headers -> Usage values. Pure; it draws no conclusion about our own budget.

Invariant: a header that is missing, broken or of an unknown shape gives no Usage and never an error, since a lead
must not fail by the header beside it.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BUSINESS_HEADER: Final = "x-business-use-case-usage"
APP_HEADER: Final = "x-app-usage"


@dataclass(frozen=True, slots=True)
class Usage:
    """What Meta says is used of one limit, in percent; `regain_minutes` is positive while the scope is closed.

    `scope_id` is the business object that the limit belongs to (a Page, an ad account), or None for the app.
    """

    scope_id: str | None
    kind: str
    call_count: float
    total_cputime: float
    total_time: float
    regain_minutes: float

    @property
    def percent(self) -> float:
        """The tightest of the three percentages; at 100 Meta throttles."""
        return max(self.call_count, self.total_cputime, self.total_time)


def read_usage(headers: Mapping[str, str]) -> tuple[Usage, ...]:
    """The usages in an answer's headers, whose names are in lower case."""
    usages: list[Usage] = []
    for scope_id, entries in _object(headers.get(BUSINESS_HEADER)).items():
        listed = entries if isinstance(entries, list) else []
        usages += [_usage(scope_id, str(e.get("type", "")), e) for e in listed if isinstance(e, dict)]
    if app := _object(headers.get(APP_HEADER)):
        usages.append(_usage(None, "app", app))
    return tuple(usages)


def _object(header: str | None) -> dict[str, object]:
    try:
        value = json.loads(header) if header else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _usage(scope_id: str | None, kind: str, entry: Mapping[str, object]) -> Usage:
    return Usage(
        scope_id=scope_id,
        kind=kind,
        call_count=_number(entry.get("call_count")),
        total_cputime=_number(entry.get("total_cputime")),
        total_time=_number(entry.get("total_time")),
        regain_minutes=_number(entry.get("estimated_time_to_regain_access")),
    )


def _number(value: object) -> float:
    # 1e400 reads as infinity; a year of minutes is more than any block.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 525_600:
        return float(value)
    return 0.0
