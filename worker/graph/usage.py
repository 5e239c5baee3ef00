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
ACCOUNT_HEADER: Final = "x-ad-account-usage"
USAGE_HEADERS: Final = (BUSINESS_HEADER, APP_HEADER, ACCOUNT_HEADER)
_LONGEST_ID: Final = 64
_SCOPES: Final = {
    "leadgen": "page",
    "pages": "page",
    "ads_management": "ad_account",
    "ads_insights": "ad_account",
    "custom_audience": "ad_account",
    "ad_account": "ad_account",
    "app": "app",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What Meta says is used of one limit, in percent; `regain_minutes` is positive while the scope is closed.

    `scope_id` is the business object that the limit belongs to (a Page, an ad account), or None where the header names
    none: for the app, and for the ad account that the call was about. `kind` is Meta's type, `app` or `ad_account`.
    """

    scope_id: str | None
    kind: str
    call_count: float
    total_cputime: float
    total_time: float
    regain_minutes: float

    @property
    def scope(self) -> str:
        """What kind of thing the limit belongs to: page, ad_account, app, or nothing that a call of ours falls in."""
        return _SCOPES.get(self.kind, "")

    @property
    def percent(self) -> float:
        """The tightest of the three percentages; at 100 Meta throttles."""
        return max(self.call_count, self.total_cputime, self.total_time)


def read_usage(headers: Mapping[str, str]) -> tuple[Usage, ...]:
    """The usages in an answer's headers, whose names are in lower case."""
    usages: list[Usage] = []
    for scope_id, entries in _object(headers.get(BUSINESS_HEADER)).items():
        listed = entries if isinstance(entries, list) and _is_name(scope_id) else []
        usages += [_usage(scope_id, _word(e.get("type")), e) for e in listed if isinstance(e, dict)]
    if app := _object(headers.get(APP_HEADER)):
        usages.append(_usage(None, "app", app))
    if account := _object(headers.get(ACCOUNT_HEADER)):
        usages.append(_account_usage(account))
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


def _account_usage(entry: Mapping[str, object]) -> Usage:
    """X-Ad-Account-Usage: one percentage, and the seconds until it starts anew, which are a wait only at 100."""
    percent = _number(entry.get("acc_id_util_pct"))
    wait = _number(entry.get("reset_time_duration")) / 60 if percent >= 100 else 0.0
    return Usage(None, "ad_account", percent, 0.0, 0.0, wait)


def _is_name(scope_id: str) -> bool:
    """Whether it can be a key of the ledger, which is not to fail an answer nor to hold whatever is sent."""
    return scope_id.isascii() and scope_id.isprintable() and 0 < len(scope_id) <= _LONGEST_ID


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float:
    # 1e400 reads as infinity; a year of minutes is more than any block.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 525_600:
        return float(value)
    return 0.0
