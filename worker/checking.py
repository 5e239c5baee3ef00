"""Pages whose check is due -> looked at, judged -> health, events, parking and healing.

    Page -> facts (probing.py) -> health (health.py) -> parked or taken up -> kept -> when it is checked next

It asks Graph nothing itself, and is handed whoever does, rows and clock. Invariants: a Page parked by order is never
taken up here; one Page's trouble, or its hanging calls, hold up no other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import structlog

from worker.errors import LedgerUnavailable, StoreUnavailable
from worker.health import ASPECTS, BY_ORDER, OK, Change, Facts, Health, changes, has_healed, judge, parks_for
from worker.sealing import KeysUnreadable

log = structlog.get_logger("health")

AT_ONCE: Final = 8
"""Pages checked at the same time."""
CHECK_SECONDS: Final = 90.0
"""What takes longer is given up, and tried again as a parked Page is."""
LEASE: Final = timedelta(seconds=120)
LOOK_SECONDS: Final = 1.0
"""While a slow Page is being checked it is looked so often whether others are due."""


class Leased(Protocol):
    """A Page that is to be checked."""

    @property
    def page_id(self) -> str: ...
    @property
    def parked_reason(self) -> str | None: ...


L = TypeVar("L", bound=Leased)


class Rows(Protocol[L]):
    """What this file needs of the rows of health."""

    async def lease_checks(
        self, now: datetime, until: datetime, *, most: int, latest: datetime
    ) -> Sequence[L]: ...
    async def next_check(self, leased: L, at: datetime) -> None: ...
    async def known(self, page_id: str) -> tuple[datetime | None, dict[str, str]]: ...
    async def keep(
        self,
        page_id: str,
        found: dict[str, Any],
        changes: Sequence[dict[str, Any]],
        now: datetime,
        *,
        known_at: datetime | None,
    ) -> list[dict[str, Any]]: ...


class Prober(Protocol):
    """Whoever finds out how a Page is."""

    async def facts(self, page_id: str, parked_reason: str | None) -> Facts: ...


class Pages(Protocol):
    """Who parks Pages and takes them up again."""

    async def park(self, page_id: str, reason: str, now: datetime, *, by_check: bool = False) -> bool: ...
    async def unpark(
        self, page_ids: Sequence[str], now: datetime, *, but: Sequence[str] = ()
    ) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How often a Page is checked, and a parked one."""

    every: timedelta = timedelta(hours=1)
    parked_every: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check."""

    health: Health
    news: int
    was_parked: bool
    is_parked: bool


class PageChecker:
    """Checks. `clock` gives aware UTC; `ring` lets the workers look at once at what waits."""

    def __init__(
        self,
        *,
        prober: Prober,
        rows: Rows[L],
        pages: Pages,
        settings: CheckSettings,
        clock: Callable[[], datetime],
        ring: Callable[[], Awaitable[None]],
    ) -> None:
        self._prober = prober
        self._rows: Any = rows
        self._pages = pages
        self._settings = settings
        self._clock = clock
        self._ring = ring
        self._broken_off: list[Any] = []

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """Check the Pages that are due, until `stop`; counts. Raises where Redis or Postgres is away."""
        counts = {"checked": 0, "parked": 0, "healed": 0, "news": 0}
        running: set[asyncio.Task[None]] = set()
        await self._give_back()
        try:
            while not stop():
                if room := AT_ONCE - len(running):
                    for leased in await self._due(room):
                        running.add(asyncio.create_task(self._check(leased, counts)))
                if not running:
                    break
                ended, running = await asyncio.wait(
                    running, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in ended:
                    task.result()
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return counts

    async def _give_back(self) -> None:
        """Checks that an outage broke off are due now, or a healed Page would wait for their leases to end."""
        while self._broken_off:
            await self._rows.next_check(self._broken_off[-1], self._clock())
            self._broken_off.pop()

    async def _due(self, most: int) -> Sequence[Leased]:
        now = self._clock()
        latest = now + 2 * max(self._settings.every, self._settings.parked_every, LEASE)
        leased: Sequence[Leased] = await self._rows.lease_checks(now, now + LEASE, most=most, latest=latest)
        return leased

    async def _check(self, leased: Any, counts: dict[str, int]) -> None:
        try:
            await self._rows.next_check(leased, await self._looked_at(leased, counts))
        except (LedgerUnavailable, StoreUnavailable, asyncio.CancelledError):
            self._broken_off.append(leased)
            raise

    async def _looked_at(self, leased: Any, counts: dict[str, int]) -> datetime:
        """Check one Page; when to check it next."""
        again = self._settings.parked_every
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                checked = await self.check(leased.page_id, leased.parked_reason)
        except KeysUnreadable as error:
            # Other Pages' tokens may be open already, or under a key that is known.
            log.error("check_failed", page_id=leased.page_id, error=type(error).__name__)
        except (LedgerUnavailable, StoreUnavailable):
            raise
        except Exception as error:
            # A fault of ours, or a Page that hangs; only its type is told.
            log.error("check_failed", page_id=leased.page_id, error=type(error).__name__)
        else:
            again = again if checked.is_parked else self._settings.every
            counts["checked"] += 1
            counts["parked"] += checked.is_parked and not checked.was_parked
            counts["healed"] += checked.was_parked and not checked.is_parked
            counts["news"] += checked.news
        return self._clock() + again

    async def check(self, page_id: str, parked_reason: str | None) -> Checked:
        """Look at one Page, which is parked for `parked_reason` (None: it is not), and do what follows from it.

        Raises where Redis or Postgres is away.
        """
        facts = await self._prober.facts(page_id, parked_reason)
        health = judge(facts)
        was_parked = is_parked = parked_reason is not None
        now, reason = self._clock(), parks_for(health)
        if parked_reason is None and reason is not None:
            await self._pages.park(page_id, reason, now, by_check=True)
            is_parked = True
        elif parked_reason not in (None, *BY_ORDER) and has_healed(facts, health, str(parked_reason)):
            is_parked = not await self._pages.unpark([page_id], now, but=BY_ORDER)
        news = await self._keep(page_id, health, parked=was_parked or is_parked)
        if was_parked and not is_parked:
            await self._ring()
        return Checked(health, news, was_parked, is_parked)

    async def _keep(self, page_id: str, health: Health, *, parked: bool) -> int:
        known_at, known = await self._rows.known(page_id)
        news = changes(known, health, parked=parked)
        kept = await self._rows.keep(
            page_id, _columns(health), [_object(each) for each in news], self._clock(), known_at=known_at
        )
        for row in kept:
            if row["became"] == OK:
                log.info("page_health", page_id=page_id, **row)
            else:
                log.warning("page_health", page_id=page_id, **row)
        return len(kept)


def _columns(health: Health) -> dict[str, Any]:
    """As page_health has them."""
    columns: dict[str, Any] = {
        "token_expires_at": health.token_expires_at,
        "data_access_expires_at": health.data_access_expires_at,
        "missing_scopes": list(health.missing_scopes),
    }
    for aspect in ASPECTS:
        verdict = health.aspect(aspect)
        columns |= {aspect: verdict.word, f"{aspect}_reason": verdict.reason}
    return columns


def _object(change: Change) -> dict[str, Any]:
    return {
        "aspect": change.aspect,
        "was": change.was,
        "became": change.became,
        "reason": change.reason,
        "is_told": change.is_told,
    }
