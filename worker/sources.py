"""Where a run takes its references from: the stream (live) or the rows that are due (resume).

It says when a run is over; what becomes of a reference is not its affair. Invariants: the bell is cleared before the
last look at the stream, so that what arrives in between is either seen or rung for; waiting rows are leased only
while no live reference waits to be taken, unless one has been overdue for PATIENCE.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from worker.batches import InFlight
from worker.inbox import LIVE_QUEUE, UPKEEP_QUEUE
from worker.store.leads import LeadStore
from worker.stream import LeadStream

CLAIM_EVERY_SECONDS: Final = 10.0
LISTEN_SECONDS: Final = 1.0
"""One blocking read; the time in which a stop is noticed."""
HUSH_EVERY_SECONDS: Final = 0.5
"""Between references that come one by one the bell is not hushed anew each time: that is a write to disk."""
HUSH_MARGIN_SECONDS: Final = 0.5
BUSY_AT_MOST_SECONDS: Final = 30.0
"""How long slow calls in flight may keep a run going beyond its time."""
PER_PAGE: Final = 100
"""Rows of one Page leased at once: two batches. A listing brings along what lies near them."""
WAIT_SECONDS: Final = 0.5
"""A run waits for rows that are due soon, and looks again so often."""
LOOKING_SHARE: Final = 0.1
"""Where many Pages wait a look takes its time; no more than this part of a run is spent on looking in vain."""
PATIENCE: Final = timedelta(minutes=10)
"""A row overdue for so long is read even though live references are waiting, one batch a run."""
PATIENT_BATCH: Final = 50


class StreamSource:
    """The live references: what dead workers left first, then new ones, until the stream stays empty."""

    def __init__(self, stream: LeadStream, *, drain_seconds: float, linger_seconds: float) -> None:
        self._stream = stream
        self._ends_at = monotonic() + drain_seconds
        self._linger_seconds = linger_seconds
        self._claims_at = 0.0
        self._hushes_at = 0.0
        self._empty_since: float | None = None

    async def take(self, room: int, *, busy: bool) -> tuple[InFlight, ...] | None:
        now = monotonic()
        late = now >= self._ends_at
        if late and not (busy and now < self._ends_at + BUSY_AT_MOST_SECONDS):
            return await self._last_look(room) if self._empty_since is not None else None
        if now >= self._claims_at:
            _, claimed = await asyncio.gather(self._stream.progress(LIVE_QUEUE), self._stream.claim(room))
            if claimed:
                return claimed
            self._claims_at = now + CLAIM_EVERY_SECONDS
        if self._empty_since is None:
            found = await self._stream.read(room, 0)
            if not found:
                self._empty_since = now
            return found
        if not busy and now - self._empty_since >= self._linger_seconds:
            return await self._last_look(room)
        return await self._listen(room)

    async def _listen(self, room: int) -> tuple[InFlight, ...]:
        if monotonic() >= self._hushes_at:
            self._hushes_at = monotonic() + HUSH_EVERY_SECONDS
            await self._stream.hush(LISTEN_SECONDS + HUSH_EVERY_SECONDS + HUSH_MARGIN_SECONDS)
        found = await self._stream.read(room, LISTEN_SECONDS)
        if found:
            self._empty_since = monotonic()
        return found

    async def _last_look(self, room: int) -> tuple[InFlight, ...] | None:
        self._hushes_at = 0.0
        await self._stream.unhush()
        found = await self._stream.read(room, 0)
        self._empty_since = None if found else self._empty_since
        return found or None

    async def done(self, references: Sequence[InFlight]) -> None:
        await self._stream.done(references)

    async def give_back(self, references: Sequence[InFlight]) -> None:
        await self._stream.give_back(references)

    async def keep(self, references: Sequence[InFlight]) -> None:
        await self._stream.progress(LIVE_QUEUE)
        await self._stream.keep(references)

    async def begin_alone(self, leadgen_id: str) -> int:
        return await self._stream.begin_alone(leadgen_id)

    async def end_alone(self, leadgen_id: str) -> None:
        await self._stream.end_alone(leadgen_id)

    async def reserve(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        return await self._stream.reserve(leadgen_ids)


class DueSource:
    """The waiting rows that are due, leased a Page at a time, behind live references."""

    def __init__(
        self, store: LeadStore, stream: LeadStream, clock: Callable[[], datetime], *, drain_seconds: float
    ) -> None:
        self._store = store
        self._stream = stream
        self._clock = clock
        self._ends_at = monotonic() + drain_seconds
        self._was_patient = False

    async def take(self, room: int, *, busy: bool) -> tuple[InFlight, ...] | None:
        if monotonic() >= self._ends_at:
            return None
        if await self._stream.backlog() > 0:
            room = PATIENT_BATCH if await self._may_not_wait() else 0
            self._was_patient = True
        if room == 0:
            return None
        began_at = monotonic()
        return await self._store.lease_due(room, PER_PAGE, self._clock()) or await self._wait(began_at)

    async def _wait(self, began_at: float) -> tuple[InFlight, ...] | None:
        """Nothing is due: wait a moment if something is within this run's time, or end it."""
        at = await self._store.next_due()
        if at is None or (at - self._clock()).total_seconds() > self._ends_at - monotonic():
            return None
        await asyncio.sleep(max(WAIT_SECONDS, (monotonic() - began_at) / LOOKING_SHARE))
        return ()

    async def _may_not_wait(self) -> bool:
        now = self._clock()
        oldest = None if self._was_patient else await self._store.oldest_overdue(now)
        return oldest is not None and now - oldest >= PATIENCE

    async def done(self, references: Sequence[InFlight]) -> None:
        """The verdict itself ended the lease."""

    async def give_back(self, references: Sequence[InFlight]) -> None:
        await self._store.give_back(references, self._clock())

    async def keep(self, references: Sequence[InFlight]) -> None:
        """A lease is longer than any read; one that runs out is harmless, since verdicts carry their turn."""
        await self._stream.progress(UPKEEP_QUEUE)

    async def begin_alone(self, leadgen_id: str) -> int:
        return await self._stream.begin_alone(leadgen_id)

    async def end_alone(self, leadgen_id: str) -> None:
        await self._stream.end_alone(leadgen_id)

    async def reserve(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        return frozenset(leadgen_ids)
