"""Live leads coming in -> result pages of the past are taken one at a time, with a rest after each.

Niceness reaches only this process; Postgres, Redis and the cores are shared with whoever brings live leads. So a
backfill takes a part of its time only while live leads come in, and all of it else. Whether they do is told to it.

Invariants: never more turns at once than there are places; whoever waits for a turn gets one, however live leads come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

PLACES: Final = 3
"""Result pages taken apart and written at the same time: fewer than the process has connections."""
LONGEST_REST_SECONDS: Final = 2.0
"""A write that hung says nothing of how busy it is here."""
LIVE_SECONDS: Final = 30.0
"""Live leads come in where the last delivery is no older."""


class Turns:
    """Turns at a result page. `share` is the part of the time that they take while live leads come in, above 0 to 1."""

    def __init__(self, share: float, monotonic: Callable[[], float]) -> None:
        self._share = share
        self._monotonic = monotonic
        self._places = asyncio.Semaphore(PLACES)
        self._alone = asyncio.Lock()
        self.beside_live = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and rest after it where that is due: the rest is part of the turn."""
        async with self._places:
            if not self.beside_live or self._share >= 1:
                yield
                return
            async with self._alone:
                began = self._monotonic()
                yield
                await asyncio.sleep(self._rest(self._monotonic() - began))

    def _rest(self, seconds: float) -> float:
        return min(LONGEST_REST_SECONDS, max(0.0, seconds) * (1 - self._share) / self._share)
