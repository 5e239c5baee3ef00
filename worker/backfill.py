"""Slices that are due -> walks side by side, until none is due; and backfills that are over -> closed.

It does the calls in the right order: leases, walks (walking.py), keeps leases alive, closes. It is handed its
neighbours and imports no I/O. Invariants: a slice is walked by its lease's holder only; a Page never has more walks in
a process than its share, so one Page's backfill holds up no other's.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from worker.errors import StoreUnavailable
from worker.walking import Leased

log = structlog.get_logger("backfill")

LOOK_SECONDS: Final = 1.0
"""How often a run looks for further slices while others are being walked."""
KEEP_PARTS: Final = 3
"""Leases are renewed so many times within their length."""
CLOSE_ALL_EVERY: Final = timedelta(minutes=1)
"""Whoever walked the last slice of a backfill may have died before ending it; looking through all takes its time where
thousands are running."""
ABANDON_SECONDS: Final = 8.0
"""How long the end of a run waits for walks to give their slices back."""


class PartOf(Leased, Protocol):
    """A leased slice and the backfill that it is a part of."""

    @property
    def backfill_id(self) -> int: ...


L = TypeVar("L", bound=PartOf)


class Store(Protocol[L]):
    """What this file needs of the rows."""

    async def lease(
        self, room: int, per_page: int, now: datetime, *, walked: Mapping[str, int]
    ) -> tuple[L, ...]: ...
    async def keep(self, held: Sequence[L], now: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class WalkLimits:
    """How many slices are walked at once by one process, and of one Page; the lease in seconds."""

    slices: int = 16
    per_page: int = 8
    lease_seconds: float = 120.0


class BackfillRun(Generic[L]):
    """One run: until no slice is due that this process may read, or `stop` says so. Used once.

    `close` ends those of the named backfills, or of all, that are over, and answers which.
    """

    def __init__(
        self,
        *,
        store: Store[L],
        close: Callable[[datetime, Sequence[int] | None], Awaitable[list[dict[str, Any]]]],
        walk: Callable[[L], Awaitable[str]],
        limits: WalkLimits,
        clock: Callable[[], datetime],
        stop: Callable[[], bool],
        alive: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._close_over = close
        self._walk = walk
        self._limits = limits
        self._clock = clock
        self._stop = stop
        self._alive = alive
        self._walks: dict[asyncio.Task[str], L] = {}
        self._kept_at: datetime | None = None
        self._closed_all_at: datetime | None = None
        self.counts: Counter[str] = Counter()

    async def run(self) -> Counter[str]:
        """Counts of slices by what became of them. Raises StoreUnavailable."""
        try:
            await self._close(())
            while not self._stop():
                await self._alive()
                await self._fill()
                if not self._walks:
                    break
                await asyncio.wait(self._walks, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                await self._reap()
                await self._keep()
        finally:
            await self._end()
        return self.counts

    async def _fill(self) -> None:
        room = self._limits.slices - len(self._walks)
        if room <= 0:
            return
        walked = Counter(one.page_id for one in self._walks.values())
        leased = await self._store.lease(room, self._limits.per_page, self._clock(), walked=walked)
        for one in leased:
            task = asyncio.ensure_future(self._walk(one))
            self._walks[task] = one

    async def _reap(self) -> None:
        """Count the walks that ended; whether a backfill ended with them is looked at at once."""
        ended = self._count_ended()
        if ended:
            await self._close(ended)

    def _count_ended(self) -> Sequence[int]:
        """The backfills of these walks."""
        backfill_ids: list[int] = []
        for task in [task for task in self._walks if task.done()]:
            leased = self._walks.pop(task)
            backfill_ids.append(leased.backfill_id)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, StoreUnavailable):
                raise error
            if error is not None:
                # A fault of ours; only its type is told, its text may quote a lead. The lease ends by itself.
                log.error(
                    "walk_crashed", slice=leased.slice_id, page_id=leased.page_id, error=type(error).__name__
                )
                self.counts["crashed"] += 1
            elif not task.cancelled():
                self.counts[task.result()] += 1
        return backfill_ids

    async def _close(self, backfill_ids: Sequence[int]) -> None:
        """End those of these backfills that are over, and of all others now and then."""
        now = self._clock()
        if self._closed_all_at is None or now - self._closed_all_at >= CLOSE_ALL_EVERY:
            ended = await self._close_over(now, None)
            self._closed_all_at = now
        else:
            ended = await self._close_over(now, backfill_ids)
        for row in ended:
            log.info("backfill_ended", **{name: value for name, value in row.items() if value is not None})

    async def _keep(self) -> None:
        now = self._clock()
        if self._kept_at is None:
            self._kept_at = now
        if (now - self._kept_at).total_seconds() >= self._limits.lease_seconds / KEEP_PARTS and self._walks:
            self._kept_at = now
            await self._store.keep(list(self._walks.values()), now)

    async def _end(self) -> None:
        """Let the walks give back what they hold; whoever does not in time leaves it to the lease."""
        if self._walks:
            await asyncio.wait(self._walks, timeout=ABANDON_SECONDS)
            with suppress(StoreUnavailable):
                await self._reap()
        for task in self._walks:
            task.cancel()
        await asyncio.gather(*self._walks, return_exceptions=True)
