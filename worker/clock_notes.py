"""What was noted of a machine's clocks <-> Redis, a key a machine, for all its processes.

It judges nothing (believed.py does). Invariant: a note expires, so a machine that is gone leaves nothing behind; a
Redis that is emptied only makes clocks be watched anew.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from worker.believed import Agreement
from worker.errors import LedgerUnavailable
from worker.inbox import CLOCK

KEPT_SECONDS: Final = 86_400
"""Without a look; the schedule looks every minute."""


class ClockNotes:
    """The notes in Redis. `client` belongs to this process' event loop."""

    def __init__(self, client: "aioredis.Redis") -> None:
        self._client = client

    async def noted(self, machine: str) -> Agreement | None:
        """What was noted of a machine, if anything that can be read."""
        async with self._redis():
            told: Any = await self._client.get(CLOCK + machine)
        try:
            ahead, since = map(float, told.split())
        except (AttributeError, ValueError):
            return None
        return Agreement(ahead, since)

    async def note(self, machine: str, agreement: Agreement) -> None:
        """Note it, for a day."""
        async with self._redis():
            told = f"{agreement.ahead!r} {agreement.since!r}"
            await self._client.set(CLOCK + machine, told, ex=KEPT_SECONDS)

    async def keep(self, machine: str) -> None:
        """Keep what is noted for another day; a full Redis does this too."""
        async with self._redis():
            await self._client.expire(CLOCK + machine, KEPT_SECONDS)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(f"Redis cannot do this now: {type(error).__name__}") from None
