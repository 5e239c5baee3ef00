"""The neighbours of a walk: a listing that is filtered by time and behaves as badly as Meta's may, and rows of slices.

    SpanGraph -> leads by their second, in any order, on result pages of any size, short and empty ones too
    FakeRows  -> slices that are leased, written, divided, put off; it checks what must never happen as it happens

No socket, no sleep; the clock is handed in.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32

from tests.fakes.graph import answered
from tests.fakes.leads import FORM, PAGE, graph_lead
from tests.fakes.time import NOW, FrozenClock
from worker.batches import InFlight
from worker.budget.policy import Grant
from worker.errors import AnswerTooLarge, GrantLapsed, RequestRefused, TooMuchAsked
from worker.graph.wire import FULL_FIELDS, ResultPage
from worker.outcomes import DeadLetter, Stored
from worker.plans import utc
from worker.slices import Slice

SECOND = int(NOW.timestamp())
DAY = 86_400


@dataclass(frozen=True, slots=True)
class ASlice:
    """A leased slice."""

    slice_id: int = 1
    purpose: str = "backfill"
    page_id: str = PAGE
    edge: str = "form"
    object_id: str = FORM
    span: Slice = field(default_factory=lambda: Slice(SECOND - 90 * DAY, SECOND))
    attempts: int = 0
    failed_for: str | None = None
    turn: int = 1
    backfill_id: int = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a listing."""

    object_id: str
    span: Slice
    full: bool
    limit: int
    after: str | None


@dataclass
class SpanGraph:
    """Lists `leads` (leadgen_id -> second of creation) in `order`: newest, oldest or shuffled.

    `sizes` tells how many leads the next result page may hold (0: an empty one that goes on), `faults` what to raise
    instead, `between` what happens to the leads after an answer, `entries` what stands in place of a lead.
    A cursor points at a lead; `stale`: where that has vanished, the cursor is refused. `loops`: the cursor of an empty
    result page leads to the same one again. `huge`: leads of which nothing but the id can be answered at once.
    """

    leads: dict[str, int] = field(default_factory=dict)
    order: str = "newest"
    sizes: Callable[[], int] = lambda: 10_000
    faults: Callable[[Asked], Exception | None] = lambda _: None
    between: Callable[[], None] = lambda: None
    entries: Callable[[str, dict[str, Any]], list[object]] = lambda _, entry: [entry]
    at_most: int = 10_000
    refuses: Callable[[Asked], Exception | None] = lambda _: None
    stale: bool = False
    loops: bool = False
    huge: frozenset[str] = frozenset()
    asked: list[Asked] = field(default_factory=list)
    used: list[Grant] = field(default_factory=list)
    _sorted_for: tuple[Slice, dict[str, int]] | None = None
    _sorted: list[tuple[tuple[int, int], str]] = field(default_factory=list)

    async def list_leads(
        self, object_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        assert not any(grant is used for used in self.used), "a grant is used twice"
        asked = Asked(object_id, Slice(since, until), fields is FULL_FIELDS, limit, after)
        fault = self.faults(asked)
        if isinstance(fault, GrantLapsed):
            raise fault
        self.used.append(grant)
        self.asked.append(asked)
        await asyncio.sleep(0)
        if fault := (fault or self.refuses(asked)):
            raise fault
        if limit > self.at_most:
            raise TooMuchAsked("told")
        try:
            answer = self._answer(asked)
            if "field_data" not in fields:
                named = ({name: entry[name] for name in fields} for entry in _leads_of(answer))
                return replace(answer, entries=tuple(named))
            if any(entry.get("id") in self.huge for entry in _leads_of(answer)):
                raise answered(AnswerTooLarge("told"))
            return answer
        finally:
            self.between()

    def _answer(self, asked: Asked) -> ResultPage:
        places = self._places(asked.span)
        if asked.after is not None:
            behind, rest, _ = asked.after.split("+")
            if behind and behind not in self.leads and self.stale:
                raise RequestRefused("told")
            place = tuple(int(n) for n in rest.split(","))
            places = places[bisect_right(places, place, key=lambda one: one[0]) :]
        size = min(asked.limit, self.sizes())
        shown, more = places[:size], len(places) > size
        entries = [entry for _, i in shown for entry in self.entries(i, self._entry(i, asked))]
        last = shown[-1] if shown else None
        if not more:
            return ResultPage(tuple(entries), None, ())
        if last:
            return ResultPage((*entries,), f"{last[1]}+{','.join(map(str, last[0]))}+0", ())
        behind, rest, rests = (asked.after or "+-99999999999,0+0").split("+")
        return ResultPage((), f"{behind}+{rest}+{int(rests) + (not self.loops)}", ())

    def _entry(self, leadgen_id: str, asked: Asked) -> dict[str, Any]:
        created = utc(self.leads[leadgen_id]).strftime("%Y-%m-%dT%H:%M:%S+0000")
        entry = graph_lead(leadgen_id, form_id=asked.object_id, created_time=created)
        if not asked.full:
            entry = {name: entry[name] for name in entry if not name.startswith(("ad_", "adset_", "camp"))}
        return entry

    def _places(self, span: Slice) -> list[tuple[tuple[int, int], str]]:
        """The leads of `span` in order; sorted anew only where the span is another or leads came or went."""
        if self._sorted_for != (span, self.leads):
            inside = (i for i, at in self.leads.items() if span.since <= at < span.until)
            self._sorted = sorted((self._place(i), i) for i in inside)
            self._sorted_for = (span, dict(self.leads))
        return self._sorted

    def _place(self, leadgen_id: str) -> tuple[int, int]:
        at, number = self.leads[leadgen_id], int(leadgen_id)
        match self.order:
            case "newest":
                return (-at, number)
            case "oldest":
                return (at, number)
            case _:
                return (crc32(f"{leadgen_id}:{at}".encode()), number)


@dataclass
class _Row:
    one: ASlice
    state: str = "waiting"
    due_at: datetime = NOW
    leased: bool = False
    calls: int = 0
    reason: str | None = None
    written: set[str] = field(default_factory=set)
    """In this reading."""


@dataclass
class FakeRows:
    """Slices and leads in dictionaries. `taken_away`: whether the slice has gone to another at this moment.

    `fails` raises in place of the named step.
    """

    clock: FrozenClock = field(default_factory=FrozenClock)
    rows: dict[int, _Row] = field(default_factory=dict)
    leads: dict[str, Stored | DeadLetter] = field(default_factory=dict)
    references: dict[str, InFlight] = field(default_factory=dict)
    taken_away: Callable[[], bool] = lambda: False
    fails: Callable[[str], None] = lambda _: None
    parked: dict[str, str] = field(default_factory=dict)
    unparked: list[str] = field(default_factory=list)
    pages_put_off: list[tuple[str, datetime, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def add(self, *slices: ASlice) -> None:
        for one in slices:
            self.rows[one.slice_id] = _Row(one, due_at=self.clock())

    def lease(self, slice_id: int) -> ASlice:
        row = self.rows[slice_id]
        assert row.state == "waiting"
        assert not row.leased
        row.one = replace(row.one, turn=row.one.turn + 1)
        row.leased = True
        row.written.clear()
        return row.one

    def waiting(self) -> list[_Row]:
        return [row for row in self.rows.values() if row.state == "waiting"]

    @property
    def calls(self) -> int:
        return sum(row.calls for row in self.rows.values())

    async def write_leads(
        self,
        leased: ASlice,
        leads: Sequence[tuple[InFlight, Stored | DeadLetter]],
        *,
        calls: int,
        now: datetime,
    ) -> bool:
        row = self._step("write", leased, calls)
        ids = [reference.leadgen_id for reference, _ in leads]
        assert len(set(ids)) == len(ids), "a lead twice in one result page"
        assert not row.written & set(ids), "a lead is written twice in a walk"
        row.written |= set(ids)
        for reference, outcome in leads:
            self.references[reference.leadgen_id] = reference
            self.leads[reference.leadgen_id] = outcome
        if self.taken_away():
            row.leased = False
            return False
        return True

    async def finish(self, leased: ASlice, now: datetime) -> bool:
        row = self._step("finish", leased, 0)
        row.state, row.leased = "done", False
        return True

    async def fail(self, leased: ASlice, reason: str, *, calls: int, now: datetime) -> None:
        row = self._step("fail", leased, calls)
        row.state, row.leased, row.reason = "failed", False, reason

    async def divide(self, leased: ASlice, parts: Sequence[Slice], *, calls: int, now: datetime) -> None:
        row = self._step("divide", leased, calls)
        row.state, row.leased = "divided", False
        assert len(parts) > 1
        assert (parts[0].since, parts[-1].until) == (leased.span.since, leased.span.until)
        first = max(self.rows) + 1
        self.add(*(replace(leased, slice_id=first + n, span=part) for n, part in enumerate(parts)))

    async def put_off(
        self,
        leased: ASlice,
        until: datetime,
        reason: str | None,
        *,
        attempts: int,
        failed_for: str | None,
        calls: int,
    ) -> None:
        row = self._step("put_off", leased, calls)
        row.leased, row.due_at, row.reason = False, until, reason
        row.one = replace(row.one, attempts=attempts, failed_for=failed_for)

    async def put_off_page(self, page_id: str, until: datetime, reason: str, now: datetime) -> None:
        self.fails("put_off_page")
        self.pages_put_off.append((page_id, until, reason))
        for row in self.waiting():
            if row.one.page_id == page_id and not row.leased and row.due_at <= now:
                row.due_at = until

    async def restart(self, leased: ASlice, *, calls: int, now: datetime) -> None:
        self._step("restart", leased, calls).written.clear()

    async def park(self, page_id: str, reason: str, now: datetime) -> bool:
        self.fails("park")
        self.parked[page_id] = reason
        return True

    def _step(self, name: str, leased: ASlice, calls: int) -> _Row:
        self.fails(name)
        self.steps.append(name)
        row = self.rows[leased.slice_id]
        assert row.leased, f"{name} of a slice that is not leased"
        assert row.one.turn == leased.turn
        row.calls += calls
        return row


@dataclass
class FakeLeases:
    """What a BackfillRun leases from: slices by Page, given out within the bounds that it names.

    `opened` are backfills of which nothing waits any more; they end when `close` is called.
    """

    due: list[ASlice] = field(default_factory=list)
    opened: list[dict[str, Any]] = field(default_factory=list)
    fails: Callable[[str], None] = lambda _: None
    kept: list[tuple[datetime, tuple[int, ...]]] = field(default_factory=list)
    asked: list[tuple[int, int, dict[str, int]]] = field(default_factory=list)
    closed: list[tuple[datetime, Sequence[int] | None]] = field(default_factory=list)

    async def lease(
        self, room: int, per_page: int, now: datetime, *, walked: Mapping[str, int]
    ) -> tuple[ASlice, ...]:
        self.fails("lease")
        self.asked.append((room, per_page, dict(walked)))
        walks, leased = dict(walked), []
        for one in list(self.due):
            if len(leased) < room and walks.get(one.page_id, 0) < per_page:
                walks[one.page_id] = walks.get(one.page_id, 0) + 1
                leased.append(one)
                self.due.remove(one)
        return tuple(leased)

    async def keep(self, held: Sequence[ASlice], now: datetime) -> None:
        self.fails("keep")
        self.kept.append((now, tuple(one.slice_id for one in held)))

    async def close(self, now: datetime, backfill_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        self.fails("close")
        self.closed.append((now, backfill_ids))
        ended, self.opened = self.opened, []
        return ended


def spread(count: int, since: int, until: int, *, first: int = 1) -> dict[str, int]:
    """So many leads, evenly over [since, until)."""
    return {str(first + n): since + n * (until - since) // count for n in range(count)}


def after_now(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def _leads_of(page: ResultPage) -> list[dict[str, Any]]:
    return [entry for entry in page.entries if isinstance(entry, dict)]
