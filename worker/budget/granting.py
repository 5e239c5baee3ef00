"""A request for calls -> a block reserved in Postgres -> the ledger -> a grant or a refusal: the budget of a process.

    take from a block (reserved before anything is asked) -> ask the ledger -> unknown? seed it, ask again
                                                                            -> refused by an old limit? work it out anew

The sums are policy.py's and spend.lua's. Invariants: no call is granted that was not reserved in Postgres first, so a
seed read after the ledger was found empty covers every call made before; a grant's deadline is never later than that
of its block, by a clock that does not jump.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from zlib import crc32

import structlog

from worker.budget.ledger import APP_SCOPE, Granted, Ledger, Refused, Unknown, page_scope
from worker.budget.policy import Answer, Grant, Lane, Limit, Refusal, Spent, Window, block_of, limit_of
from worker.errors import LedgerUnavailable, StoreUnavailable
from worker.graph.usage import Usage

log = structlog.get_logger("budget")

SEEDS: Final = 4
"""So often in a row the ledger is told what it does not know before the request is given up."""
SPREAD_SECONDS: Final = 60.0
"""Pages that wait for a scope they share come back over at most so long."""
TOLD_AGAIN: Final = 0.5
"""A percentage that did not change is told again after this part of the time for which it stands."""


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """`floor`: calls of a Page of which no lead is known; `share`: what we take of a limit that was worked out."""

    floor: int = 4_800
    share: float = 0.95


class LimitFacts(Protocol):
    """What a limit follows from."""

    @property
    def ours(self) -> int: ...
    @property
    def metas(self) -> int: ...
    @property
    def override(self) -> int | None: ...


class Memory(Protocol):
    """What this file needs of the budget's rows."""

    async def reserve(
        self, page_id: str, lane: Lane, calls: int, *, machine: str, steady: float,
        instead_of: tuple[int, int] | None = None,
    ) -> int: ...  # fmt: skip
    async def give_back(self, block_id: int, unspent: int) -> None: ...
    async def spent(
        self, page_id: str, unspent: Mapping[int, int], *, machine: str, steady: float, window: float,
        life: float, bucket: float,
    ) -> tuple[Spent, ...]: ...  # fmt: skip
    async def limit_facts(self, page_id: str, now: datetime) -> LimitFacts: ...
    async def keep_limit(self, page_id: str, limit: Limit, now: datetime) -> None: ...


@dataclass(slots=True)
class _Block:
    """Calls reserved in Postgres and not yet granted; void after `good_until` of the steady clock."""

    block_id: int
    left: int
    good_until: float


class Granter:
    """Keeps the Budget protocol over ledger and memory, for one process' loop.

    `clock` gives aware UTC and `steady` seconds that never jump, on this `machine`.
    """

    def __init__(
        self,
        ledger: Ledger,
        memory: Memory,
        *,
        window: Window,
        limits: LimitSettings,
        machine: str,
        clock: Callable[[], datetime],
        steady: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._memory = memory
        self._window = window
        self._limits = limits
        self._machine = machine
        self._clock = clock
        self._steady = steady
        self._blocks: dict[tuple[str, Lane], _Block] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._limit_of: dict[str, Limit] = {}
        self._limit_at: dict[str, float] = {}
        self._told: dict[str, tuple[float, float]] = {}

    async def request(self, page_id: str, calls: int, lane: Lane, *, also: tuple[str, ...] = ()) -> Answer:
        for _ in range(SEEDS):
            block = await self._take(page_id, lane, calls)
            asked_at = self._steady()
            granted = 0
            try:
                answer = await self._ledger.request(page_id, calls, lane, also, asked_at)
                granted = answer.calls if isinstance(answer, Granted) else 0
            except LedgerUnavailable:
                granted = calls  # it may have been granted before the answer was lost
                raise
            finally:
                block.left += calls - granted
            match answer:
                case Unknown(epoch):
                    await self._seed(page_id, epoch)
                case Granted(_, left, on_trial, limit):
                    if page_id not in self._limit_of:
                        self._limit_of[page_id] = Limit(limit, limit, "")
                    if granted < calls:
                        await self._give_back(page_id, lane, block)
                    deadline = min(asked_at + self._window.life, block.good_until)
                    return Grant(granted, deadline, left, on_trial)
                case Refused(seconds, why):
                    if why != "budget":
                        return self._refusal(page_id, seconds, why)
                    if not await self._grew(page_id):
                        await self._give_back(page_id, lane, block)
                        return self._refusal(page_id, seconds, why)
        raise LedgerUnavailable("the ledger forgot the Page again and again; ask again")

    async def heard(
        self, page_id: str, grant: Grant, usages: tuple[Usage, ...], *, also: tuple[str, ...] = ()
    ) -> None:
        told = {name: usage for usage in usages if (name := _scope_of(usage, also))}
        now = self._steady()
        for scope, usage in told.items():
            last = self._told.get(scope)
            stale = last is None or now - last[1] > self._window.recent * TOLD_AGAIN
            closes = usage.percent >= 100 or usage.regain_minutes > 0
            if closes or stale or (last and last[0] != usage.percent) or scope in grant.on_trial:
                await self._tell(scope, usage, page_id)
                self._told[scope] = (usage.percent, now)
        for scope in grant.on_trial:
            if scope not in told:
                await self._ledger.tell(scope, percent=None, regain=timedelta(0), throttled=False)

    async def throttled(
        self,
        page_id: str,
        scope: str,
        usages: tuple[Usage, ...],
        regain: timedelta | None,
        *,
        also: tuple[str, ...] = (),
    ) -> datetime:
        name = _closed_scope(page_id, scope, usages, also)
        percents = [usage.percent for usage in usages if _scope_of(usage, also) == name]
        seconds = await self._ledger.tell(
            name,
            percent=max(percents, default=None),
            regain=regain or timedelta(0),
            throttled=True,
            link_page=page_id if name.startswith("ad_account:") else None,
        )
        log.warning("scope_closed", scope=name, seconds=round(seconds))
        return self._refusal(page_id, seconds, name).not_before

    async def saved(self, page_id: str, calls: int) -> None:
        await self._ledger.saved(page_id, calls)

    async def refresh(self, page_id: str) -> Limit:
        """Work the Page's limit out anew and put it in force; on schedule, and after a backfill."""
        limit = await self._work_out(page_id)
        # In force before it is noted: what is then let go must not be refused by the old one.
        await self._ledger.change_limit(page_id, limit)
        await self._memory.keep_limit(page_id, limit, self._clock())
        return limit

    async def _take(self, page_id: str, lane: Lane, calls: int) -> _Block:
        """Calls out of a block that is good for as long as a grant lives."""
        async with self._locks[page_id]:
            block = self._blocks.get((page_id, lane))
            now = self._steady()
            if block is None or block.left < calls or block.good_until < now + self._window.life:
                known = self._limit_of.get(page_id)
                size = block_of(calls, known.calls if known else 0)
                instead_of = None
                if block is not None and block.left > 0:
                    # Given up before it is given back, or a request under way could spend it after all.
                    instead_of, block.left = (block.block_id, block.left), 0
                block_id = await self._memory.reserve(
                    page_id, lane, size, machine=self._machine, steady=now, instead_of=instead_of
                )
                block = self._blocks[page_id, lane] = _Block(block_id, size, now + self._window.block_life)
            block.left -= calls
            return block

    async def _give_back(self, page_id: str, lane: Lane, block: _Block) -> None:
        """Nothing is left for this lane, so what its block holds is no longer reserved.

        Else each process that waits would keep a block, and a seed takes what others keep for spent.
        """
        async with self._locks[page_id]:  # a seed under way has counted these calls as unspent already
            if self._blocks.get((page_id, lane)) is block:
                del self._blocks[page_id, lane]
            unspent, block.left = block.left, 0
            if unspent > 0:
                # Where the memory cannot be told, the answer stands all the same; a seed counts these calls as spent.
                with suppress(StoreUnavailable):
                    await self._memory.give_back(block.block_id, unspent)

    async def _seed(self, page_id: str, epoch: str) -> None:
        async with self._locks[page_id]:
            own = [block for (owner, _), block in self._blocks.items() if owner == page_id]
            spent = await self._memory.spent(
                page_id,
                {block.block_id: block.left for block in own},
                machine=self._machine,
                steady=self._steady(),
                window=self._window.hold + self._window.bucket,
                life=self._window.block_life,
                bucket=self._window.bucket,
            )
            limit = await self._work_out(page_id)
            await self._ledger.seed(page_id, epoch, limit, spent)
            await self._memory.keep_limit(page_id, limit, self._clock())

    async def _work_out(self, page_id: str) -> Limit:
        facts = await self._memory.limit_facts(page_id, self._clock())
        limit = limit_of(
            ours=facts.ours,
            metas=facts.metas,
            override=facts.override,
            floor=self._limits.floor,
            share=self._limits.share,
        )
        self._limit_of[page_id], self._limit_at[page_id] = limit, self._steady()
        return limit

    async def _grew(self, page_id: str) -> bool:
        """Whether the limit that refused was old and is larger by now: leads that came since may have raised it."""
        known = self._limit_of.get(page_id)
        if self._steady() - self._limit_at.get(page_id, float("-inf")) < min(60.0, self._window.bucket):
            return False
        return (await self.refresh(page_id)).calls > (known.calls if known else 0)

    async def _tell(self, scope: str, usage: Usage, page_id: str) -> None:
        seconds = await self._ledger.tell(
            scope,
            percent=usage.percent,
            regain=timedelta(minutes=usage.regain_minutes),
            throttled=False,
            link_page=page_id if scope.startswith("ad_account:") and usage.percent >= 90 else None,
        )
        if seconds > 0:
            log.warning("scope_closed", scope=scope, seconds=round(seconds))

    def _refusal(self, page_id: str, seconds: float, why: str) -> Refusal:
        kind = why.partition(":")[0]
        is_ours = kind in ("budget", "slow")
        if not is_ours and kind != "page":
            seconds += crc32(page_id.encode()) % 1_000 / 1_000 * min(SPREAD_SECONDS, self._window.bucket)
        return Refusal(
            self._clock() + timedelta(seconds=seconds), "budget" if is_ours else f"throttled_{kind}"
        )


def _scope_of(usage: Usage, also: tuple[str, ...]) -> str:
    """The ledger's name of the scope that a usage header tells of; nothing for scopes that no call of ours is in."""
    if usage.scope == "app":
        return APP_SCOPE
    if usage.scope_id is None:
        return next((name for name in also if name.startswith(f"{usage.scope}:")), "")
    return f"{usage.scope}:{usage.scope_id}" if usage.scope and usage.scope_id else ""


def _closed_scope(page_id: str, scope: str, usages: tuple[Usage, ...], also: tuple[str, ...]) -> str:
    """The ledger's name of the scope that a throttle code closes: the Page itself where nothing says whose it is."""
    if scope == "app":
        return APP_SCOPE
    # A batch may tell of several accounts; the fullest is the one that closed.
    told = (_scope_of(usage, also) for usage in sorted(usages, key=lambda usage: -usage.percent))
    named = [name for name in (*told, *also) if name.startswith(f"{scope}:")]
    return page_scope(page_id) if scope == "page" or not named else named[0]
