"""The live path's middle: references -> batches -> reads -> rows -> acknowledged.

    source.take -> admit (known? parked? read elsewhere?) -> a queue a Page -> a read an ask -> settle -> source.done

It does the calls in the right order and decides nothing about a reference (outcomes.py does) nor how one is read
(asks.py and reading.py do). It is handed its neighbours and imports no I/O. Invariants: `source.done` is called for a
reference only after the store has committed what became of it; every reference taken is either done or given back; a
slow Page or call holds up neither another Page nor a lead that is already here.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

import structlog

from worker.asks import Ask, ById, ByListing, can_be_listed
from worker.batches import Held, InFlight, PageQueues
from worker.budget.policy import Lane
from worker.errors import LedgerUnavailable, StoreUnavailable
from worker.graph.wire import BATCH_LIMIT
from worker.outcomes import DeadLetter, Outcome, Park, Retry, Snooze, Stored
from worker.ports import Reader, Source, Store
from worker.speed import SLOW_CALL_SECONDS, PageSpeeds

log = structlog.get_logger("sync")

WRITE_LIMIT: Final = 500
"""References settled in one commit."""
PLAN_LIMIT: Final = 500
"""References of one Page looked at together, to see which of them one listing could bring: a result page of them."""
LISTING_LIMIT: Final = 250
"""So many references of a Page that a listing may bring are not left waiting for more of them."""
FOLLOW_SECONDS: Final = 0.25
"""How often to look whether a lead that is read elsewhere has arrived."""
SLOW_AGAIN: Final = timedelta(seconds=10)
FAULT_AGAIN: Final = timedelta(minutes=1)
BUSY_SECONDS: Final = 1.0
"""A run waits for calls younger than this; while older ones are in flight it goes on taking references."""
STORE_PAUSES: Final = (0.1, 0.3, 1.0, 2.0, 5.0)
WARY_CRASHES: Final = 3
"""Who was held at so many crashes is read apart from those that were not, WARY_TOGETHER at a time."""
WARY_TOGETHER: Final = 20
ALONE_CRASHES: Final = 6
"""Who was held at so many crashes is read all alone."""
POISON_CRASHES: Final = 3
"""Who was alone in its process at so many crashes is what the processes died of."""
ABANDON_SECONDS: Final = 8.0
"""How long the end of a run waits for calls in flight and for the store before it gives the rest back."""
STOP_SECONDS: Final = 2.0
"""How long it then waits for what it has cancelled."""
STALLED_SECONDS: Final = 60.0
"""A run that has not looked for more for so long is stuck: what it holds is no longer kept from being claimed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is in flight at once; `slow_page_calls`: to a slow Page, whose other references wait in the store."""

    references: int = 2_000
    calls_per_page: int = 8
    calls_per_process: int = 64
    slow_page_calls: int = 0
    keep_every: float = 10.0


class Run:
    """One run of the path over one source, until the source is finished or `stop` says so. Used once."""

    def __init__(
        self,
        *,
        source: Source,
        reader: Reader,
        store: Store,
        lane: Lane,
        limits: Limits,
        clock: Callable[[], datetime],
        stop: Callable[[], bool],
        landed: Callable[[Sequence[float]], None] = lambda each: None,
    ) -> None:
        """`landed` is told, of announced leads, the seconds from the webhook to the commit of the row of each."""
        self._source = source
        self._landed = landed
        self._reader = reader
        self._store = store
        self._lane = lane
        self._limits = limits
        self._clock = clock
        self._stop = stop
        self._queues = PageQueues()
        self._listing: set[str] = set()
        self._behind_listing: set[str] = set()
        self._arrived: set[str] = set()
        self._parking: set[str] = set()
        self._held = Held()
        self._wary: deque[InFlight] = deque()
        self._apart: set[str] = set()
        self._begun_alone: set[str] = set()
        self._followers: list[InFlight] = []
        self._followed_at = 0.0
        self._calls: dict[asyncio.Task[None], float] = {}
        self._calling: Counter[str] = Counter()
        self._speeds = PageSpeeds()
        self._more_waits = False
        self._settled: asyncio.Queue[list[tuple[InFlight, Outcome]] | None] = asyncio.Queue()
        self._moved = asyncio.Event()
        self._store_is_up = asyncio.Event()
        self._store_is_up.set()
        self._turns = 0
        self._ending = False
        self._abandoned = False
        self._is_over = asyncio.Event()
        self.counts: Counter[str] = Counter()

    async def run(self) -> Counter[str]:
        """Counts by what became of the references. Raises LedgerUnavailable where the source failed."""
        self._writer = asyncio.create_task(self._write())
        keeper = asyncio.create_task(self._keep())
        try:
            await self._feed()
        finally:
            await self._end(keeper)
        if self._writer.done() and not self._writer.cancelled():
            self._writer.result()  # a fault of ours in writing is told, not swallowed
        return self.counts

    async def _feed(self) -> None:
        finished = False
        while not self._stop() and not self._writer.done() and not (finished and not self._size()):
            self._turns += 1
            room = self._limits.references - self._size()
            if not self._store_is_up.is_set():
                await self._wait(self._store_is_up, 0.5)
            elif room <= 0 or finished:
                await self._wait(self._moved, FOLLOW_SECONDS)
                await self._admit(self._due_followers())
                self._dispatch()  # a call may have become one that nobody is to wait for
            else:
                most = min(room, WRITE_LIMIT)
                taken = await self._source.take(most, busy=self._is_busy())
                finished = taken is None
                had_more, self._more_waits = self._more_waits, taken is not None and len(taken) == most
                await self._admit((*(taken or ()), *self._due_followers()))
                if had_more and not self._more_waits:
                    self._dispatch()  # what waited for more to be batched with

    def _is_busy(self) -> bool:
        oldest = min(self._calls.values(), default=None)
        return oldest is not None and monotonic() - oldest > BUSY_SECONDS

    def _size(self) -> int:
        return len(self._held) + len(self._followers)

    def _due_followers(self) -> tuple[InFlight, ...]:
        if not self._followers or monotonic() - self._followed_at < FOLLOW_SECONDS:
            return ()
        followers, self._followers = tuple(self._followers), []
        return followers

    async def _wait(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        if event is self._moved:
            event.clear()
        return True

    async def _admit(self, taken: tuple[InFlight, ...]) -> None:
        """Queue what is to be read; acknowledge what is known; join what is in flight already."""
        fresh: list[InFlight] = []
        for reference in taken:
            if self._held.add(reference):
                fresh.append(reference)
            else:
                self.counts["joined"] += 1
        if not fresh:
            return
        try:
            await self._sort_out(fresh)
        except StoreUnavailable:
            # Nothing is lost: they are asked about again once the store answers.
            self._store_is_up.clear()
            self._follow(fresh)
            asyncio.get_running_loop().call_later(STORE_PAUSES[2], self._store_is_up.set)
        self._dispatch()

    async def _sort_out(self, fresh: list[InFlight]) -> None:
        announced = [r for r in fresh if r.turn is None]
        leased = [r for r in fresh if r.turn is not None]
        if announced:
            # Whoever is being parked now may be written before the store looks, and no longer be so after it.
            parking = frozenset(self._parking)
            ids = [r.leadgen_id for r in announced]
            mine, (states, parked) = await asyncio.gather(
                self._source.reserve(ids),
                self._store.known_and_parked(ids, sorted({r.page_id for r in announced})),
            )
            again = [r for r in announced if states.get(r.leadgen_id, "in_part") != "in_part"]
            if again:
                await self._store.seen_again(
                    sorted(r.leadgen_id for each in again for r in self._held.of(each.leadgen_id) or (each,)),
                    self._clock(),
                )
                self.counts["known"] += len(again)
                await self._done(again)
            parked |= parking | self._parking
            announced = [r for r in announced if r.leadgen_id in self._held]
            held = [r for r in announced if r.page_id in parked]
            if held:
                now = self._clock()
                self._settled.put_nowait([(r, Snooze(now, "page_parked")) for r in held])
            announced = [r for r in announced if r.page_id not in parked]
            self._follow([r for r in announced if r.leadgen_id not in mine])
            announced = [r for r in announced if r.leadgen_id in mine]
        self._wary.extend(r for r in (*announced, *leased) if r.crashes >= WARY_CRASHES)
        usual = [r for r in (*announced, *leased) if r.crashes < WARY_CRASHES]
        self._queues.put(usual)
        self._behind_listing.difference_update(r.page_id for r in usual)

    def _follow(self, references: Sequence[InFlight]) -> None:
        if not self._followers:
            self._followed_at = monotonic()
        for reference in references:
            self._followers += self._held.pop(reference.leadgen_id)

    def _dispatch(self) -> None:
        """Start as many reads as may be in flight, the Pages in turn; the wary ones apart from all others."""
        if self._ending or self._apart or (self._wary and self._calls):
            return
        if self._wary:
            self._start_apart()
            return
        started = True
        while started:
            started = False
            pages = self._queues.pages()
            for page_id in pages:
                free = self._limits.calls_per_process - len(self._calls)
                if free <= 0:
                    return
                if self._is_filling_up(page_id, self._queues.oldest(page_id), self._queues.size(page_id)):
                    continue
                allowed = self._calls_for(page_id) - self._calling[page_id]
                if allowed > 0:
                    if page_id not in self._behind_listing:
                        most = min(allowed, max(1, free // len(pages)))
                        started = self._start_next(page_id, most) or started
                elif self._is_slow(page_id):
                    self._leave_to_waiting_room(page_id)

    def _is_filling_up(self, page_id: str, oldest: InFlight, queued: int) -> bool:
        """Whether part of an ask waits for the rest, which is about to be taken: a request of few costs what one of
        many does. Only while others of the Page are being read, and quickly."""
        enough = LISTING_LIMIT if can_be_listed(oldest) else BATCH_LIMIT
        waits = self._more_waits and self._calling[page_id] > 0 and queued < enough
        return waits and not self._is_busy()

    def _start_next(self, page_id: str, most: int) -> bool:
        """Start the next asks of a Page, at most `most`; false where all of it has to wait for what is under way."""
        # A listing may have brought some of them meanwhile; they are done once that is committed.
        queued = tuple(
            r
            for r in self._queues.take(page_id, PLAN_LIMIT)
            if r.leadgen_id in self._held and r.leadgen_id not in self._arrived
        )
        begun: set[str] = set()
        for ask in self._reader.plan(page_id, queued, self._listing):
            left = len(queued) - len(begun) + self._queues.size(page_id)
            if most == 0 or (begun and self._is_filling_up(page_id, ask.references[0], left)):
                break
            # Of a form whose leads lie far apart each stretch waits for the one before it.
            if not (isinstance(ask, ByListing) and ask.form_id in self._listing):
                self._start(page_id, ask)
                begun.update(r.leadgen_id for r in ask.references)
                most -= 1
        self._queues.put_back(r for r in queued if r.leadgen_id not in begun)
        if not begun and queued:
            self._behind_listing.add(page_id)
        return bool(begun)

    def _calls_for(self, page_id: str) -> int:
        if self._is_slow(page_id):
            return min(self._limits.slow_page_calls, self._limits.calls_per_page)
        return 1 if self._speeds.is_on_trial(page_id, monotonic()) else self._limits.calls_per_page

    def _is_slow(self, page_id: str) -> bool:
        return self._speeds.is_slow(page_id, monotonic())

    def _leave_to_waiting_room(self, page_id: str) -> None:
        until = self._clock() + SLOW_AGAIN
        self._settled.put_nowait([(r, Snooze(until, "page_slow")) for r in self._queues.take_all([page_id])])

    def _start_apart(self) -> None:
        """Start the first few of those that some process may have died of; nothing else until they are settled."""
        first = self._wary.popleft()
        together = [first]
        while (
            self._wary
            and len(together) < min(WARY_TOGETHER, self._limits.calls_per_process)
            and max(first.crashes, self._wary[0].crashes) < ALONE_CRASHES
        ):
            together.append(self._wary.popleft())
        self._apart = {r.leadgen_id for r in together}
        for page_id in sorted({r.page_id for r in together}):
            self._start(page_id, ById(tuple(r for r in together if r.page_id == page_id)))

    def _start(self, page_id: str, ask: Ask) -> None:
        call = asyncio.create_task(self._read(page_id, ask))
        if isinstance(ask, ByListing):
            self._listing.add(ask.form_id)
            call.add_done_callback(lambda _: self._listed(ask.form_id))
        self._calls[call] = monotonic()
        self._calling[page_id] += 1
        # A call that hangs marks its Page while it hangs, not when it ends.
        marker = asyncio.get_running_loop().call_later(SLOW_CALL_SECONDS, self._call_hangs, page_id)
        call.add_done_callback(lambda task: self._ended(task, page_id, marker))

    def _listed(self, form_id: str) -> None:
        self._listing.discard(form_id)
        self._behind_listing.clear()  # a webhook may name the form under another Page

    def _call_hangs(self, page_id: str) -> None:
        if self._speeds.call_hangs(page_id, monotonic()):
            log.warning("page_slow", page_id=page_id)
            self._dispatch()

    async def _read(self, page_id: str, ask: Ask) -> None:
        try:
            if ask.references[0].crashes >= ALONE_CRASHES:
                settled = await self._read_alone(page_id, ask)
            else:
                settled = await self._reader.read(page_id, ask, self._lane)
        except Exception as error:
            # A fault of ours; only its type is told, its text may quote a lead.
            log.error(
                "reading_failed", page_id=page_id, error=type(error).__name__, references=len(ask.references)
            )
            at = self._clock() + FAULT_AGAIN
            settled = [(r, Retry(at, "internal_error", r.attempts + 1)) for r in ask.references]
        self._arrived.update(r.leadgen_id for r, outcome in settled if isinstance(outcome, Stored))
        self._settled.put_nowait(settled)
        outcomes = {type(outcome) for _, outcome in settled}
        if Park in outcomes and Stored not in outcomes:
            # Each of the others would be one more refused call.
            self._parking.add(page_id)
            now, left = self._clock(), self._queues.take_all([page_id])
            self._settled.put_nowait([(r, Snooze(now, "page_parked")) for r in left])

    async def _read_alone(self, page_id: str, ask: Ask) -> list[tuple[InFlight, Outcome]]:
        batch = ask.references
        try:
            died_of_it = await self._source.begin_alone(batch[0].leadgen_id)
            self._begun_alone.add(batch[0].leadgen_id)
        except LedgerUnavailable:
            return [(r, Snooze(self._clock() + SLOW_AGAIN, "ledger_unavailable")) for r in batch]
        if died_of_it >= POISON_CRASHES:
            return [(r, DeadLetter("poison")) for r in batch]
        return await self._reader.read(page_id, ask, self._lane)

    def _ended(self, call: asyncio.Task[None], page_id: str, marker: asyncio.TimerHandle) -> None:
        marker.cancel()
        if call.cancelled():
            return  # _end gives back what it was reading
        now = monotonic()
        self._speeds.call_ended(page_id, now - self._calls.pop(call), now)
        self._calling[page_id] -= 1
        self._dispatch()

    async def _write(self) -> None:
        """Commit outcomes as they come, as many at once as have come meanwhile."""
        ended = False
        while not ended:
            settled: list[tuple[InFlight, Outcome]] = []
            while not settled or (not self._settled.empty() and len(settled) < WRITE_LIMIT):
                some = await self._settled.get()
                if some is None:
                    ended = True
                    break
                settled += some
            if settled:
                await self._settle(settled)

    async def _settle(self, settled: list[tuple[InFlight, Outcome]]) -> None:
        failures = 0
        while not self._abandoned:
            try:
                kept, spared = await self._without_known(settled)
                await self._store.settle(kept, self._clock())
                if copies := self._copies(settled):
                    await self._store.seen_again(copies, self._clock())
            except StoreUnavailable as error:
                self._store_is_up.clear()
                if failures == 0:
                    log.warning("store_unavailable", error=str(error), references=len(settled))
                await asyncio.sleep(STORE_PAUSES[min(failures, len(STORE_PAUSES) - 1)])
                failures += 1
                continue
            self._store_is_up.set()
            self._parking.difference_update(r.page_id for r, _ in settled)
            self._count(kept)
            for page_id, leads in spared.items():
                await self._reader.spared(page_id, leads)
            # Of those that were not kept there is a row, so whoever is in flight for one is done as well.
            await self._done([reference for reference, _ in settled])
            return

    def _copies(self, settled: list[tuple[InFlight, Outcome]]) -> list[str]:
        """The ids of references that joined these, each as often as it did: a row counts its first announcement."""
        if not self._held.have_joined:
            return []
        return sorted(
            copy.leadgen_id
            for leadgen_id in {r.leadgen_id for r, _ in settled}
            for copy in self._held.of(leadgen_id)[1:]
        )

    async def _without_known(
        self, settled: list[tuple[InFlight, Outcome]]
    ) -> tuple[list[tuple[InFlight, Outcome]], Counter[str]]:
        """A listing brings leads along that nobody asked for: of those, keep what is not stored yet.

        One whose reference is in flight here is that reference's, and beats whatever else became of it. Also counts, by
        Page, those whose references were waiting, here or in the store: each would have cost a call.
        """
        spared: Counter[str] = Counter()
        if not any(r.unasked for r, _ in settled):
            return settled, spared
        outcomes: dict[str, tuple[InFlight, Outcome]] = {}
        for reference, outcome in settled:
            known = self._held.of(reference.leadgen_id) if reference.unasked else ()
            former = outcomes.get(reference.leadgen_id)
            if former is None or not isinstance(former[1], Stored):
                outcomes[reference.leadgen_id] = (known[0] if known else reference, outcome)
        along = [r.leadgen_id for r, _ in outcomes.values() if r.unasked]
        states = await self._store.known(along) if along else {}
        ended = {leadgen_id for leadgen_id, state in states.items() if state in ("stored", "erased")}
        unasked = {r.leadgen_id for r, _ in settled if r.unasked} - {
            r.leadgen_id for r, _ in settled if not r.unasked
        }
        for i in unasked:
            reference, _ = outcomes[i]
            spared[reference.page_id] += not reference.unasked or states.get(i) == "waiting"
        kept = [(r, outcome) for i, (r, outcome) in outcomes.items() if not (r.unasked and i in ended)]
        return kept, +spared

    def _count(self, settled: Sequence[tuple[InFlight, Outcome]]) -> None:
        now = self._clock()
        landed: list[float] = []
        for reference, outcome in settled:
            if reference.in_part and not isinstance(outcome, Stored):
                self.counts["left_in_part"] += 1
                continue
            self.counts[_COUNT_AS[type(outcome)]] += 1
            if isinstance(outcome, Stored) and reference.received_at is not None and not reference.in_part:
                landed.append((now - reference.received_at).total_seconds())
            if isinstance(outcome, DeadLetter):
                log.warning(
                    "lead_dead",
                    leadgen_id=reference.leadgen_id,
                    page_id=reference.page_id,
                    reason=outcome.reason,
                )
        if landed:
            self._landed(landed)

    async def _done(self, references: Sequence[InFlight]) -> None:
        finished = [r for reference in references for r in self._held.pop(reference.leadgen_id)]
        self._apart.difference_update(r.leadgen_id for r in references)
        self._arrived.difference_update(r.leadgen_id for r in references)
        self._moved.set()
        try:
            await self._source.done(finished)
            await self._end_alone(references)
        except LedgerUnavailable as error:
            # They stay pending, are claimed later and then found to be known.
            log.warning("acknowledge_failed", error=str(error), references=len(finished))
        self._dispatch()

    async def _end_alone(self, references: Sequence[InFlight]) -> None:
        """These are over, so whatever they were, they did not kill this process."""
        for leadgen_id in self._begun_alone.intersection(r.leadgen_id for r in references):
            await self._source.end_alone(leadgen_id)
            self._begun_alone.discard(leadgen_id)

    async def _keep(self) -> None:
        """Until the run is over or stuck. That it is cancelled may be lost in whatever it asks, and it would go on for
        ever: https://github.com/python/cpython/issues/86296"""
        stood, turns = 0.0, 0
        while not await self._wait(self._is_over, self._limits.keep_every):
            # By looks, not by a clock: a process that was stopped for a while has stood still without being stuck.
            stood, turns = (stood + self._limits.keep_every if turns == self._turns else 0.0), self._turns
            if stood >= STALLED_SECONDS:
                log.error("run_stalled", references=self._size(), seconds=STALLED_SECONDS)
                return
            held = [*self._held, *self._followers]
            try:
                await self._source.keep(held)
            except (LedgerUnavailable, StoreUnavailable) as error:
                log.warning("keep_failed", error=str(error), references=len(held))

    async def _end(self, keeper: asyncio.Task[None]) -> None:
        """Finish what is being read and written, in bounded time; give the rest back."""
        self._ending = True
        self._turns += 1
        deadline = monotonic() + ABANDON_SECONDS
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=ABANDON_SECONDS)
        for call in list(self._calls):
            call.cancel()
        self._settled.put_nowait(None)
        await asyncio.wait([self._writer], timeout=max(1.0, deadline - monotonic()))
        self._abandoned = True
        crashed = (
            self._writer.done() and not self._writer.cancelled() and self._writer.exception() is not None
        )
        self._is_over.set()
        cancelled = (self._writer, keeper, *self._calls)
        for task in cancelled:
            task.cancel()
            task.add_done_callback(_look_at)
        await asyncio.wait(cancelled, timeout=STOP_SECONDS)
        left = [*self._held, *self._followers]
        if crashed:
            # Whatever cannot be written must count against itself like a crash, or it would come back for ever.
            log.error("writing_crashed", references=len(left))
        elif left:
            await self._give_back(left)

    async def _give_back(self, references: Sequence[InFlight]) -> None:
        self.counts["given_back"] += len(references)
        try:
            await self._source.give_back(references)
            await self._end_alone(references)
        except (LedgerUnavailable, StoreUnavailable) as error:
            # Their claim or lease runs out by itself.
            log.warning("give_back_failed", error=str(error), references=len(references))


def _look_at(ended: asyncio.Task[None]) -> None:
    """asyncio prints an error that nobody looked at, and its text may quote a lead."""
    if not ended.cancelled():
        ended.exception()


_COUNT_AS: Final[dict[type, str]] = {
    Stored: "stored",
    Snooze: "snoozed",
    Retry: "retried",
    Park: "parked",
    DeadLetter: "dead",
}
