"""Pages whose limit is due -> limits, in the rows and in the ledger.

It works no limit out itself (policy.py does) and asks Meta nothing: Meta's counts come with the listing of a Page's
forms (forms.py). Invariant: one Page's fault costs no other its limit.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from worker.budget.policy import Limit
from worker.errors import LedgerUnavailable, StoreUnavailable

log = structlog.get_logger("limits")

MOST_PAGES: Final = 500
"""Pages looked after in one run."""
AT_ONCE: Final = 8
"""Pages looked after at the same time."""


class Rows(Protocol):
    """What this file needs of the budget's rows."""

    async def stale_limits(self, *, before: datetime, most: int) -> tuple[str, ...]: ...


class LimitedBudget(Protocol):
    """A budget whose limits can be worked out anew."""

    async def refresh(self, page_id: str) -> Limit:
        """Work out and put in force."""


class LimitKeeper:
    """Keeps limits fresh. `age`: how old one may become; `clock` gives aware UTC."""

    def __init__(
        self, *, budget: LimitedBudget, rows: Rows, age: timedelta, clock: Callable[[], datetime]
    ) -> None:
        self._budget = budget
        self._rows = rows
        self._age = age
        self._clock = clock

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """Look after the Pages that are due, until `stop`; counts. Raises where Redis or Postgres is away."""
        due = await self._rows.stale_limits(before=self._clock() - self._age, most=MOST_PAGES)
        counts = {"limits": 0}
        pages = iter(due)

        async def look_after() -> None:
            for page_id in pages:
                if stop():
                    return
                try:
                    await self._budget.refresh(page_id)
                    counts["limits"] += 1
                except (LedgerUnavailable, StoreUnavailable):
                    raise
                except Exception as error:
                    # A fault of ours with one Page; only its type is told.
                    log.error("limit_failed", page_id=page_id, error=type(error).__name__)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(due))):
                group.create_task(look_after())
        return counts
