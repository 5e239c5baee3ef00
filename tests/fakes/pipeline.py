"""The neighbours of a Run: a source, a reader and a store that obey, fail or hang as they are told.

They check what must never happen as it happens: `done` before the store has committed, a call beyond its bounds.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tests.fakes.leads import a_lead
from worker.asks import Ask, ById
from worker.batches import InFlight
from worker.budget.policy import Lane
from worker.errors import LedgerUnavailable, StoreUnavailable
from worker.graph.wire import BATCH_LIMIT
from worker.outcomes import Outcome, Park, Stored


@dataclass
class FakeStore:
    """Rows by leadgen_id, as states; each commit is remembered. Fails as long as `fails` says so."""

    rows: dict[str, str] = field(default_factory=dict)
    parked_pages: set[str] = field(default_factory=set)
    fails: Callable[[], bool] = lambda: False
    faults: deque[Exception] = field(default_factory=deque)
    takes: float = 0.0
    settled: list[tuple[InFlight, Outcome]] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    refused: int = 0

    async def known(self, leadgen_ids: Sequence[str]) -> dict[str, str]:
        await self._answer()
        return {i: self.rows[i] for i in leadgen_ids if i in self.rows}

    async def seen_again(self, leadgen_ids: Sequence[str], now: datetime) -> None:
        await self._answer()
        self.again += leadgen_ids

    async def known_and_parked(
        self, leadgen_ids: Sequence[str], page_ids: Sequence[str]
    ) -> tuple[dict[str, str], frozenset[str]]:
        return await self.known(leadgen_ids), frozenset(self.parked_pages & set(page_ids))

    async def settle(self, settled: Sequence[tuple[InFlight, Outcome]], now: datetime) -> None:
        await self._answer()
        if self.faults:
            raise self.faults.popleft()
        self.settled += settled
        self.commits.append(len(settled))
        for reference, outcome in settled:
            self.rows[reference.leadgen_id] = "stored" if isinstance(outcome, Stored) else "waiting"
            if isinstance(outcome, Park):
                self.parked_pages.add(reference.page_id)

    async def _answer(self) -> None:
        await asyncio.sleep(self.takes)
        if self.fails():
            self.refused += 1
            raise StoreUnavailable("told")

    def committed(self) -> set[str]:
        return {reference.leadgen_id for reference, _ in self.settled} | set(self.again)


@dataclass
class FakeSource:
    """Gives out batches in order, then answers that there is no more; watches that nothing is done too early."""

    batches: deque[tuple[InFlight, ...]]
    store: FakeStore
    elsewhere: Counter[str] = field(default_factory=Counter)
    fails: dict[str, Callable[[], bool]] = field(default_factory=dict)
    endless: bool = False
    taken: list[InFlight] = field(default_factory=list)
    finished: list[InFlight] = field(default_factory=list)
    returned: list[InFlight] = field(default_factory=list)
    kept: list[tuple[InFlight, ...]] = field(default_factory=list)
    alone: Counter[str] = field(default_factory=Counter)
    asked_while_busy: list[bool] = field(default_factory=list)
    reserving: float = 0.0
    deaf: int = 0
    """So often `keep` swallows that it is cancelled, as asyncio.wait_for of Python 3.11 does at times, and so whatever
    asks Redis or Postgres there: https://github.com/python/cpython/issues/86296"""
    takes: dict[int, float] = field(default_factory=dict)
    """Seconds that the take of that number takes, from 0 on."""

    async def take(self, room: int, *, busy: bool) -> tuple[InFlight, ...] | None:
        assert room > 0
        self._may_fail("take")
        await asyncio.sleep(self.takes.get(len(self.asked_while_busy), 0))
        self.asked_while_busy.append(busy)
        await asyncio.sleep(0 if self.batches else 0.1)
        if not self.batches:
            return () if self.endless else None
        batch = self.batches.popleft()
        if len(batch) > room:
            self.batches.appendleft(batch[room:])
        self.taken += batch[:room]
        return batch[:room]

    async def done(self, references: Sequence[InFlight]) -> None:
        early = {r.leadgen_id for r in references} - self.store.committed()
        assert not early, f"acknowledged before the store had committed: {early}"
        self._may_fail("done")
        self.finished += references

    async def give_back(self, references: Sequence[InFlight]) -> None:
        self._may_fail("give_back")
        self.returned += references

    async def keep(self, references: Sequence[InFlight]) -> None:
        self._may_fail("keep")
        self.kept.append(tuple(references))
        if self.deaf:
            try:
                await asyncio.sleep(3.0)
            except asyncio.CancelledError:
                self.deaf -= 1

    async def begin_alone(self, leadgen_id: str) -> int:
        self._may_fail("begin_alone")
        self.alone[leadgen_id] += 1
        return self.alone[leadgen_id] - 1

    async def end_alone(self, leadgen_id: str) -> None:
        self._may_fail("end_alone")
        self.alone.pop(leadgen_id, None)

    async def reserve(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        """Not those that are being read elsewhere; each is so for as many looks as `elsewhere` says."""
        await asyncio.sleep(self.reserving)
        self._may_fail("reserve")
        theirs = {i for i in leadgen_ids if self.elsewhere[i] > 0}
        self.elsewhere.subtract(theirs)
        return frozenset(leadgen_ids) - theirs

    def _may_fail(self, what: str) -> None:
        if self.fails.get(what, lambda: False)():
            raise LedgerUnavailable("told")


@dataclass
class FakeReader:
    """Stores every lead after `takes` seconds; `outcomes`, `faults` and `hangs` say otherwise of a lead or a Page.

    `brings`: leads that come along with a lead, unasked.
    """

    takes: float = 0.1
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    faults: dict[str, Exception] = field(default_factory=dict)
    hangs: dict[str, float] = field(default_factory=dict)
    batches: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    calling: Counter[str] = field(default_factory=Counter)
    sparings: Counter[str] = field(default_factory=Counter)
    most_of_a_page: int = 0
    most_at_once: int = 0
    dice: random.Random | None = None
    brings: dict[str, tuple[InFlight, ...]] = field(default_factory=dict)

    def plan(
        self, page_id: str, references: tuple[InFlight, ...], listing: Collection[str] = ()
    ) -> tuple[Ask, ...]:
        return tuple(
            ById(references[start : start + BATCH_LIMIT]) for start in range(0, len(references), BATCH_LIMIT)
        )

    async def spared(self, page_id: str, leads: int) -> None:
        self.sparings[page_id] += leads

    async def read(self, page_id: str, ask: Ask, lane: Lane) -> list[tuple[InFlight, Outcome]]:
        references = ask.references
        assert {r.page_id for r in references} == {page_id}
        assert 0 < len(references) <= 50
        self.batches.append((page_id, tuple(r.leadgen_id for r in references)))
        self.calling[page_id] += 1
        self.most_of_a_page = max(self.most_of_a_page, self.calling[page_id])
        self.most_at_once = max(self.most_at_once, self.calling.total())
        try:
            await asyncio.sleep(
                self.hangs.get(page_id, self.takes) * (self.dice.random() if self.dice else 1)
            )
            if page_id in self.faults:
                raise self.faults[page_id]
            along = [r for reference in references for r in self.brings.get(reference.leadgen_id, ())]
            return [
                *((r, Stored(a_lead(r.leadgen_id))) for r in along),
                *((r, self.outcomes.get(r.leadgen_id) or Stored(a_lead(r.leadgen_id))) for r in references),
            ]
        finally:
            self.calling[page_id] -= 1

    def read_ids(self) -> list[str]:
        return [i for _, ids in self.batches for i in ids]


def in_batches(references: Iterable[InFlight], size: int = 500) -> deque[tuple[InFlight, ...]]:
    """What a source gives out, so many at a time."""
    whole = tuple(references)
    return deque(whole[n : n + size] for n in range(0, len(whole), size))
