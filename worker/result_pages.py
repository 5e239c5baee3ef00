"""What forms and ads could not give at once -> how many leads a result page of each is asked for.

It asks nothing (listing.py and walking.py do) and forgets with its process. Invariant: at least one lead is asked for,
and never more than RESULT_PAGE_LIMIT.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from worker.asks import RESULT_PAGE_LIMIT

SMALLER_FOR: Final = timedelta(hours=1)
"""How long a form or an ad that asked for smaller result pages gets them."""


class ResultPageLimits:
    """Leads a result page by form or ad. `clock` gives aware UTC."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._smaller: dict[str, tuple[int, datetime]] = {}

    def of(self, object_id: str) -> int:
        """So many are to be asked for now."""
        limit, until = self._smaller.get(object_id, (RESULT_PAGE_LIMIT, None))
        return limit if until is not None and until > self._clock() else RESULT_PAGE_LIMIT

    def was_too_much(self, object_id: str, asked: int) -> None:
        """So many were too much: half of them, for a while."""
        # Walks side by side learn it at the same time: half of what was asked for, not of what is left by now.
        self._smaller[object_id] = (min(self.of(object_id), max(1, asked // 2)), self._clock() + SMALLER_FOR)

    def was_one_lead(self, object_id: str) -> None:
        """It was a single lead that was too much, and not how many were asked for: as many as ever."""
        self._smaller.pop(object_id, None)
