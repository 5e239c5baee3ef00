"""How Graph's calls for each Page went lately -> how many may be in flight for it now. Pure; the clock is handed in.

A slow Page is left to the waiting room, so that it holds up no other. Invariant: a Page whose calls end quickly is
never slow, whatever single call of it hangs.
"""

from typing import Final

SLOW_CALL_SECONDS: Final = 5.0
"""A Page is slow once a call took so long and none of its calls ended in less for as long."""
SLOW_FOR_SECONDS: Final = 30.0
"""How long a slow Page is left to the waiting room before one call tries whether it has recovered."""


class PageSpeeds:
    """Remembers slow Pages; `now` is a monotonic clock in seconds."""

    def __init__(self) -> None:
        self._slow_until: dict[str, float] = {}
        self._quick_at: dict[str, float] = {}

    def call_ended(self, page_id: str, seconds: float, now: float) -> None:
        """A call took so long; a quick one clears its Page."""
        if seconds < SLOW_CALL_SECONDS:
            self._quick_at[page_id] = now
            self._slow_until.pop(page_id, None)

    def call_hangs(self, page_id: str, now: float) -> bool:
        """A call has been under way for SLOW_CALL_SECONDS; whether that makes its Page slow."""
        if now - self._quick_at.get(page_id, float("-inf")) < SLOW_CALL_SECONDS:
            return False
        self._slow_until[page_id] = now + SLOW_FOR_SECONDS
        return True

    def is_slow(self, page_id: str, now: float) -> bool:
        """Whether the Page is to be left alone but for what the limits spare for slow ones."""
        return self._slow_until.get(page_id, float("-inf")) > now

    def is_on_trial(self, page_id: str, now: float) -> bool:
        """Whether the Page was slow and no quick call has shown yet that it recovered: one call tries."""
        return page_id in self._slow_until and not self.is_slow(page_id, now)
