"""A fixed, generous budget kept in one process: grants what is asked, except into a scope that Meta has closed.

It does not count against Meta's limit and other processes do not see its closed scopes; each of them learns of a
throttle by its own first refused call.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from worker.budget.policy import Answer, Grant, Lane, Refusal

GRANT_LIFE: Final = timedelta(seconds=60)
_EVERY_PAGE: Final = frozenset({"app"})


class FixedBudget:
    """Keeps the Budget protocol without a ledger. `clock` gives aware UTC."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._closed: dict[str, datetime] = {}

    async def request(self, page_id: str, calls: int, lane: Lane) -> Answer:
        now = self._clock()
        until = max((self._closed.get(scope, now) for scope in ("app", page_id)), default=now)
        if until > now:
            return Refusal(until, "throttled")
        self._closed.pop(page_id, None)
        return Grant(calls, now + GRANT_LIFE)

    async def close(self, page_id: str, scope: str, until: datetime) -> None:
        key = scope if scope in _EVERY_PAGE else page_id
        self._closed[key] = max(until, self._closed.get(key, until))
