"""Orders to forget people, and leads that were kept long enough -> erased rows that no way back can fill.

    order -> ids (given, or found by an answer) -> batch of 1,000 -> erased rows and a line that tells of it
          -> the ids kept in Redis too, set-aside bodies that name them dropped

It does the calls in the right order; it is handed rows, list and clock and imports no I/O. Invariants: rows come before
the list, so what is interrupted anywhere is finished by the schedule or by the same order once more; memory holds ids
and one batch, never all answers; ids of orders are in the rows and in the list, and who lacks some gets them; by age
nothing is erased but by a moment that can be believed (believed.py).
"""

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final, Protocol

from worker.conditions import Condition, Needle, all_met, needle_of
from worker.errors import LedgerUnavailable
from worker.json_text import read_json
from worker.store.erasures import Candidate, Erased, Overdue

BATCH: Final = 1_000
"""Leads erased in one transaction, and ids compared at once."""
SPAN: Final = 5_000
"""Rows looked through at once: some megabytes of answers, and far from the minute that a statement may take."""
COMPARE_ALL_EVERY: Final = 3_600.0
"""Equal counts mean equal ids, unless both lost some; so often all of them are compared."""
RETAIN_EVERY: Final = 3_600.0


class Rows(Protocol):
    """The store, as far as forgetting needs it."""

    async def erase(
        self, asked: Mapping[str, str | None], by_order_of: str, question: str | None, now: datetime
    ) -> list[Erased]: ...
    async def tell(
        self, by_order_of: str, question: str | None, took_from: Mapping[str, int], now: datetime
    ) -> None: ...
    async def mark(self) -> str: ...
    async def unread(self) -> int: ...
    async def span(
        self, needle: Needle, after: str, most: int, since: str | None = None
    ) -> tuple[Sequence[Candidate], str | None, int]: ...
    async def count_ordered(self) -> int: ...
    async def ordered(self, after: str, most: int) -> dict[str, str]: ...
    async def ordered_among(self, leadgen_ids: Sequence[str]) -> frozenset[str]: ...
    async def retaining(self) -> dict[str, int]: ...
    async def overdue(
        self, page_id: str, fewest: int, after: Overdue | None, now: datetime, most: int
    ) -> tuple[list[Overdue], Overdue | None]: ...
    async def overdue_undated(self, page_id: str, now: datetime, most: int) -> list[Overdue]: ...


class Listed(Protocol):
    """The ids outside of the database."""

    async def count(self) -> int: ...
    async def unread(self) -> int: ...
    async def add(self, pages: Mapping[str, str]) -> None: ...
    async def lacking(self, leadgen_ids: Sequence[str]) -> Sequence[str]: ...
    def batches(self, size: int) -> AsyncIterator[dict[str, str]]: ...
    async def drop_set_aside(self, leadgen_ids: Collection[str]) -> int: ...


@dataclass(frozen=True, slots=True)
class Order:
    """By whose order: id, answer, retention or restore; `question` names the keys by which leads were found."""

    by_order_of: str
    question: str | None = None


@dataclass(slots=True)
class OfForm:
    """Leads that were found of a form, and since when (the oldest one's creation)."""

    page_id: str
    form_id: str | None
    leads: int
    since: datetime


@dataclass(slots=True)
class Found:
    """Leads that have an answer: their Pages by id, and sums by form; and how many references may have it, unread."""

    pages: dict[str, str | None] = field(default_factory=dict)
    forms: dict[tuple[str, str | None], OfForm] = field(default_factory=dict)
    unread: int = 0

    def add(self, one: Candidate) -> None:
        """One more lead, unless it was found before."""
        if one.leadgen_id in self.pages:
            return
        self.pages[one.leadgen_id] = one.page_id
        of_form = self.forms.setdefault(
            (one.page_id, one.form_id), OfForm(one.page_id, one.form_id, 0, one.since)
        )
        of_form.leads += 1
        of_form.since = min(of_form.since, one.since)


@dataclass(slots=True)
class Forgotten:
    """What ids `was` before, counted: stored, waiting, dead, nothing, erased; and set-aside bodies that went.

    `is_listed`: Redis was told, all of it.
    """

    was: Counter[str] = field(default_factory=Counter)
    set_aside: int = 0
    is_listed: bool = True

    @property
    def erased(self) -> int:
        """Ids that were not erased before."""
        return self.was.total() - self.was["erased"]


class Forgetter:
    """Carries out orders. `clock` gives aware UTC, `believed` a moment to erase by that can be believed, if any does;
    `steady` counts seconds whatever is done to clocks.
    """

    def __init__(
        self,
        rows: Rows,
        listed: Listed,
        clock: Callable[[], datetime],
        *,
        believed: Callable[[], Awaitable[datetime | None]],
        steady: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._listed = listed
        self._clock = clock
        self._believed = believed
        self._steady = steady
        self._compare_all_at: float | None = None
        self._retain_at: float | None = None
        self._stopped_at: tuple[str, Overdue | None] | None = None

    async def find(self, conditions: Sequence[Condition], on_progress: Callable[[int], None]) -> Found:
        """The leads that meet all conditions; `on_progress` is told how many rows were looked at.

        What was written meanwhile, maybe behind us, is looked at once more. Whatever was announced before that second
        look is then in its rows, or was unread and is told: the stream is counted first, which a reference leaves for
        its row.
        """
        found, mark = Found(), await self._rows.mark()
        await self._look(found, conditions, None, on_progress)
        with suppress(LedgerUnavailable):
            found.unread = await self._listed.unread()
        found.unread += await self._rows.unread()
        await self._look(found, conditions, mark, lambda _: None)
        return found

    async def _look(
        self,
        found: Found,
        conditions: Sequence[Condition],
        since: str | None,
        on_progress: Callable[[int], None],
    ) -> None:
        needle = needle_of(conditions)
        after: str | None = ""
        looked_at = 0
        while after is not None:
            candidates, after, some = await self._rows.span(needle, after, SPAN, since)
            for one in candidates:
                if _is_met(conditions, one.told):
                    found.add(one)
            looked_at += some
            on_progress(looked_at)

    async def forget(
        self,
        asked: Mapping[str, str | None],
        order: Order,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Forgotten:
        """Erase these ids, with their Pages where they are known. Safe to repeat. Raises StoreUnavailable.

        Redis that is away holds nothing up: the schedule tells it later.
        """
        done = Forgotten()
        for batch in _batches(asked.items(), BATCH):
            erased = await self._erase(dict(batch), order)
            done.was.update(one.was for one in erased)
            try:
                await self._listed.add({one.leadgen_id: one.page_id for one in erased})
            except LedgerUnavailable:
                done.is_listed = False
            on_progress(done.was.total())
        try:
            done.set_aside = await self._drop_set_aside(asked, order)
        except LedgerUnavailable:
            done.is_listed = False
        return done

    async def _erase(self, asked: Mapping[str, str | None], order: Order) -> list[Erased]:
        return await self._rows.erase(asked, order.by_order_of, order.question, self._clock())

    async def _drop_set_aside(self, leadgen_ids: Collection[str], order: Order) -> int:
        dropped = await self._listed.drop_set_aside(leadgen_ids)
        if dropped:
            await self._rows.tell(order.by_order_of, order.question, {"set_aside": dropped}, self._clock())
        return dropped

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """What the schedule asks for: rows and list in step again, and what was kept long enough erased."""
        counts = await self.keep_in_step(stop)
        # Each time, so that a clock that is set is noticed whether or not anything is erased now.
        by, now = await self._believed(), self._steady()
        if by is not None and (self._retain_at is None or now >= self._retain_at):
            counts["erased_by_retention"] = await self._retain(by, stop)
            if not stop():
                self._retain_at = now + RETAIN_EVERY
        return counts

    async def keep_in_step(self, stop: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Erase what a restored database has back, and give the list what it lacks. Cheap where both count the same."""
        now = self._steady()
        is_all_due = self._compare_all_at is None or now >= self._compare_all_at
        if not is_all_due and await self._rows.count_ordered() == await self._listed.count():
            return {"erased_again": 0, "listed_again": 0}
        erased_again = await self._erase_what_is_listed(stop)
        listed_again = await self._list_what_is_erased(stop)
        if not stop():
            self._compare_all_at = now + COMPARE_ALL_EVERY
        return {"erased_again": erased_again, "listed_again": listed_again}

    async def _erase_what_is_listed(self, stop: Callable[[], bool]) -> int:
        again = 0
        async for pages in self._listed.batches(BATCH):
            for batch in _batches(pages.items(), BATCH):
                known = await self._rows.ordered_among([leadgen_id for leadgen_id, _ in batch])
                lacking = {i: page_id for i, page_id in batch if i not in known}
                if lacking:
                    again += len(await self._erase(lacking, Order("restore")))
            if stop():
                break
        return again

    async def _list_what_is_erased(self, stop: Callable[[], bool]) -> int:
        again, after = 0, ""
        while not stop() and (pages := await self._rows.ordered(after, BATCH)):
            lacking = await self._listed.lacking(list(pages))
            await self._listed.add({leadgen_id: pages[leadgen_id] for leadgen_id in lacking})
            again += len(lacking)
            after = list(pages)[-1]
        return again

    async def retain(self, stop: Callable[[], bool] = lambda: False) -> int | None:
        """Erase stored and dead leads that were kept as long as was set for their form or Page; how many.

        None where no clock can be believed yet.
        """
        by = await self._believed()
        return None if by is None else await self._retain(by, stop)

    async def _retain(self, by: datetime, stop: Callable[[], bool]) -> int:
        """As `retain`, of what is old enough by that moment.

        The next one goes on where this one was stopped, or what comes late would never be reached.
        """
        erased, begin = 0, self._stopped_at
        for page_id, fewest in (await self._rows.retaining()).items():
            if begin is not None and page_id < begin[0]:
                continue
            after = begin[1] if begin is not None and page_id == begin[0] else None
            async for overdue, last in self._overdue(page_id, fewest, after, by):
                for batch in _batches(((one.leadgen_id, page_id) for one in overdue), BATCH):
                    erased += len(await self._erase(dict(batch), Order("retention")))
                if stop():
                    self._stopped_at = (page_id, last)
                    return erased
        self._stopped_at = None
        return erased

    async def _overdue(
        self, page_id: str, fewest: int, after: Overdue | None, by: datetime
    ) -> AsyncIterator[tuple[Sequence[Overdue], Overdue | None]]:
        """What is overdue of a Page, a part at a time, and the last of the rows that were looked at."""
        last = after
        while True:
            overdue, reached = await self._rows.overdue(page_id, fewest, last, by, SPAN)
            if reached is None:
                break
            last = reached
            yield overdue, last
        while undated := await self._rows.overdue_undated(page_id, by, BATCH):
            yield undated, last


def _is_met(conditions: Sequence[Condition], told: str) -> bool:
    try:
        field_data: Any = read_json(told)[0]
    except (ValueError, RecursionError):
        return False  # no person answers so
    return all_met(conditions, field_data)


def _batches(items: Iterable[tuple[str, str | None]], size: int) -> Iterator[list[tuple[str, str | None]]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
