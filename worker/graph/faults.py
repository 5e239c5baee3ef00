"""One table: what an error answer of Graph means -> the error of errors.py to raise. Pure.

Codes decide, HTTP statuses do not: Graph answers throttles with 400 and refused requests with 500. It decides what
an answer is, not what becomes of a reference (outcomes.py does). Invariant: every answer that is not a success gives
exactly one error, and its message holds codes only: Meta's own text may echo a token.
https://developers.facebook.com/docs/graph-api/guides/error-handling
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.errors import (
    CallbackRefused,
    GraphUnavailable,
    LeadSyncError,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    Throttled,
    TokenRefused,
    TooMuchAsked,
)
from worker.graph.usage import Usage

THROTTLE_SCOPES: Final = {
    4: "app",
    17: "user",
    32: "page",
    341: "app",
    368: "page",
    613: "page",
    80000: "ad_account",
    80001: "page",
    80002: "page",
    80003: "ad_account",
    80004: "ad_account",
    80005: "page",
    80006: "page",
    80008: "page",
    80009: "page",
    80014: "page",
}
"""Which scope a throttle code closes."""
UNTOLD_REGAIN: Final = timedelta(minutes=5)
"""How long a scope stays closed where Meta names no time."""

_TOKEN_CODES: Final = frozenset({102, 104, 190})
_PERMISSION_CODES: Final = frozenset({3, 10, 103, *range(200, 300)})
_UNAVAILABLE_CODES: Final = frozenset({1, 2})
_CALLBACK_CODE: Final = 2200
"""https://developers.facebook.com/docs/graph-api/webhooks/getting-started"""
_REDUCE_SUBCODE: Final = 99
_LARGEST_CODE: Final = 10**9
"""A number beyond this is no code, and an error that quoted it could not be read."""
# Two cases have no code of their own and are told by Meta's fixed English words.
_REDUCE_TEXT: Final = "reduce the amount of data"
_PROOF_TEXT: Final = "appsecret_proof"


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The `error` object of an answer, in so far as it decides anything."""

    status: int
    code: int | None
    subcode: int | None
    is_transient: bool
    asks_for_less: bool = False
    names_proof: bool = False


def read_error(status: int, body: object) -> ErrorAnswer | None:
    """The error that a deciphered `body` carries, or None where it carries none. A 200 may carry one too."""
    error = body.get("error") if isinstance(body, dict) else None
    if error is None:
        return ErrorAnswer(status, None, None, False) if status != 200 else None
    if not isinstance(error, dict):
        return ErrorAnswer(status, None, None, False)
    words = (error.get("message"), error.get("error_user_msg"))
    text = " ".join(word for word in words if isinstance(word, str)).lower()
    return ErrorAnswer(
        status=status,
        code=_code(error.get("code")),
        subcode=_code(error.get("error_subcode")),
        is_transient=error.get("is_transient") is True,
        asks_for_less=_REDUCE_TEXT in text,
        names_proof=_PROOF_TEXT in text,
    )


def fault_of(answer: ErrorAnswer, usages: Iterable[Usage], now: datetime) -> LeadSyncError:
    """The error that `answer` means; `usages` are those of the same answer and tell when access is regained."""
    code, subcode = answer.code, answer.subcode
    named = (("code", code), ("subcode", subcode), ("HTTP", answer.status))
    told = "Graph answered " + ", ".join(f"{name} {value}" for name, value in named if value is not None)
    if code in THROTTLE_SCOPES:
        scope = THROTTLE_SCOPES[code]
        regain = _regain(usages, scope)
        return Throttled(
            f"{told}: too many calls ({scope})",
            until=now + (regain or UNTOLD_REGAIN),
            scope=scope,
            regain=regain,
        )
    if code in _TOKEN_CODES:
        return TokenRefused(f"{told}: the Page token is refused; connect the Page again")
    if code in _PERMISSION_CODES:
        return PermissionRefused(f"{told}: a permission is missing; grant leads_retrieval and lead access")
    if code in _UNAVAILABLE_CODES and (subcode == _REDUCE_SUBCODE or answer.asks_for_less):
        return TooMuchAsked(f"{told}: asks for less data at once")
    if code == 100 and answer.names_proof:
        return ProofRefused(
            f"{told}: appsecret_proof is refused; META_APP_SECRET is not that of the token's app"
        )
    if code == 100 and subcode == 33:
        return NotVisibleYet(f"{told}: the object is unknown, not yet visible or not permitted")
    if code == _CALLBACK_CODE:
        return CallbackRefused(f"{told}: the webhook's callback did not answer with the challenge")
    if code in _UNAVAILABLE_CODES or answer.is_transient:
        return GraphUnavailable(f"{told}: temporarily unavailable")
    if code is not None:
        return RequestRefused(f"{told}: the request itself is refused")
    return GraphUnavailable(f"{told}: no readable error")


def _regain(usages: Iterable[Usage], scope: str) -> timedelta | None:
    """The longest wait that the scope's own usages name; those of all where none is its own."""
    waits = [(usage.scope, usage.regain_minutes) for usage in usages if usage.regain_minutes > 0]
    minutes = max((m for s, m in waits if s == scope), default=max((m for _, m in waits), default=0.0))
    return timedelta(minutes=minutes) if minutes > 0 else None


def _code(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < _LARGEST_CODE else None
    return (
        int(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
        else None
    )
