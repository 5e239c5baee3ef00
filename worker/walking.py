"""One leased slice -> its listing, result page by result page -> rows, and what becomes of the slice.

    grant -> result page -> leads -> rows (one commit) -> `next`? -> the next one, or the slice is done

It is handed Graph, budget, store and clock, and decides neither how time is cut (slices.py) nor what an error means
(outcomes.py). Invariants: a walk ends where `next` is absent and nowhere else, so an empty result page goes on; it
begins anew, from nothing, whenever it breaks off, since a cursor cannot be kept; each lead of a walk is written once.
https://developers.facebook.com/docs/graph-api/results
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar

import structlog

from worker.batches import InFlight
from worker.budget.policy import Budget, Grant, Lane, Refusal
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    GraphUnavailable,
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    RequestRefused,
    StoreUnavailable,
    Throttled,
    TokenRefused,
    TooMuchAsked,
)
from worker.giving_way import Turns
from worker.granted import Ear, answer_of
from worker.graph.usage import Usage
from worker.graph.wire import FULL_FIELDS, REDUCED_FIELDS, ResultPage
from worker.inbox import is_id
from worker.lead import Lead
from worker.outcomes import DeadLetter, Park, Retry, RetryPolicy, Stored, listing_outcome_of
from worker.plans import utc
from worker.result_pages import ResultPageLimits
from worker.sealing import KeysUnreadable
from worker.slices import Slice, parted
from worker.tokens import PageTokens

log = structlog.get_logger("backfill")

REFUSALS_TO_REDUCE: Final = 3
"""Walks of a Page in a row whose ad fields were refused, before others are not refused them any more but go without."""
REDUCED_FOR: Final = timedelta(minutes=5)
"""How long they go without. Short: what is listed so is in part until it is listed again, and a question more costs
little."""
AD_REFUSED: Final = "throttled_ad"
"""Why a slice waits that shares its wait with nothing else of its Page."""
LEDGER_AGAIN: Final = timedelta(seconds=5)
RENEWALS: Final = 2
"""So often a walk goes on with another token of its Page after one was refused."""
LAPSES: Final = 3
"""So many grants in a row may run out unused before the slice is put off."""
RESTARTS: Final = 3
"""So often a walk whose cursor is refused begins anew before that counts as a failure."""


NAME_FIELDS: Final = ("id", "created_time")
"""What is asked of a lead whose own answer is too large: which one it is."""


class Graph(Protocol):
    """What this file needs of Graph."""

    async def list_leads(
        self, object_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        """One result page of a form's or an ad's leads."""


class Leased(Protocol):
    """What this file needs of a leased slice."""

    @property
    def slice_id(self) -> int: ...
    @property
    def purpose(self) -> str: ...
    @property
    def page_id(self) -> str: ...
    @property
    def edge(self) -> str: ...
    @property
    def object_id(self) -> str: ...
    @property
    def span(self) -> Slice: ...
    @property
    def attempts(self) -> int: ...
    @property
    def failed_for(self) -> str | None: ...


L = TypeVar("L", bound=Leased, contravariant=True)


class Store(Protocol[L]):
    """What this file needs of the rows; what is told of a slice that is no longer ours changes nothing."""

    async def write_leads(
        self,
        leased: L,
        leads: Sequence[tuple[InFlight, Stored | DeadLetter]],
        *,
        calls: int,
        now: datetime,
    ) -> bool:
        """Commit a result page; whether the slice is still ours."""

    async def finish(self, leased: L, now: datetime) -> bool: ...
    async def fail(self, leased: L, reason: str, *, calls: int, now: datetime) -> None: ...
    async def divide(self, leased: L, parts: Sequence[Slice], *, calls: int, now: datetime) -> None: ...
    async def put_off(
        self,
        leased: L,
        until: datetime,
        reason: str | None,
        *,
        attempts: int,
        failed_for: str | None,
        calls: int,
    ) -> None: ...
    async def put_off_page(self, page_id: str, until: datetime, reason: str, now: datetime) -> None: ...
    async def restart(self, leased: L, *, calls: int, now: datetime) -> None: ...
    async def park(self, page_id: str, reason: str, now: datetime) -> bool: ...


@dataclass(slots=True)
class _Walk:
    """Where a walk stands: the cursor, how it last asked, what it has brought, and calls that no commit told of yet.

    `is_reduced`: the full fields were refused; `is_noted`: and the reduced ones were not. `names_only`: the next lead
    alone is too large an answer, so it is only asked which one it is.
    """

    after: str | None = None
    fields: Sequence[str] = FULL_FIELDS
    limit: int = 0
    cursors: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    times: list[int] = field(default_factory=list)
    result_pages: int = 0
    untold_calls: int = 0
    lapses: int = 0
    restarts: int = 0
    renewals: int = 0
    is_reduced: bool = False
    is_noted: bool = False
    names_only: bool = False

    def begin_anew(self) -> None:
        """From the first result page."""
        self.after, self.result_pages, self.names_only = None, 0, False
        self.cursors.clear()
        self.seen.clear()
        self.times.clear()


class AdsEar:
    """Tells of an ad's listing, which Meta meters by its ad account: the Page's other calls do not wait with it."""

    def __init__(self, budget: Ear) -> None:
        self._budget = budget

    async def heard(
        self, page_id: str, grant: Grant, usages: tuple[Usage, ...], *, also: tuple[str, ...] = ()
    ) -> None:
        """Meta's word on the ad account counts for the ad."""
        of_ad = [usage for usage in usages if usage.scope == "ad_account"]
        others = tuple(usage for usage in usages if usage not in of_ad)
        await self._budget.heard(page_id, grant, others, also=also)
        if any(usage.percent >= 100 or usage.regain_minutes > 0 for usage in of_ad):
            minutes = max(usage.regain_minutes for usage in of_ad)
            regain = timedelta(minutes=minutes) if minutes > 0 else None
            await self._budget.throttled(page_id, "ad", (), regain, also=also)

    async def throttled(
        self,
        page_id: str,
        scope: str,
        usages: tuple[Usage, ...],
        regain: timedelta | None,
        *,
        also: tuple[str, ...] = (),
    ) -> datetime:
        """A throttled ad account closes the ad."""
        return await self._budget.throttled(
            page_id, "ad" if scope == "ad_account" else scope, usages, regain, also=also
        )


class SliceWalker(Generic[L]):
    """Walks. What it learns of Pages and forms (refused fields, smaller result pages) it keeps for a while."""

    def __init__(
        self,
        *,
        graph: Graph,
        budget: Budget,
        store: Store[L],
        tokens: PageTokens,
        policy: RetryPolicy,
        clock: Callable[[], datetime],
        dice: Callable[[], float],
        stop: Callable[[], bool],
        turns: Turns,
    ) -> None:
        self._graph = graph
        self._budget = budget
        self._store = store
        self._tokens = tokens
        self._policy = policy
        self._clock = clock
        self._dice = dice
        self._stop = stop
        self._turns = turns
        self._reduced_until: dict[str, datetime] = {}
        self._refusals: Counter[str] = Counter()
        self._limits = ResultPageLimits(clock)

    async def walk(self, leased: L) -> str:
        """Walk until the slice is done or has to wait; a word for what became of it.

        Raises StoreUnavailable; the slice then waits for its lease to end.
        """
        walk = _Walk()
        while not self._stop():
            sent = False
            try:
                token = await self._tokens.token_for(leased.page_id)
                grant = await self._budget.request(leased.page_id, 1, Lane.BACKFILL, also=_scopes(leased))
                if isinstance(grant, Refusal):
                    return await self._refused(leased, walk, grant.not_before, grant.reason)
                sent = True
                page = await self._ask(leased, walk, token, grant)
            except (LedgerUnavailable, KeysUnreadable) as error:
                await self._put_off(leased, walk, self._clock() + LEDGER_AGAIN, error.reason)
                return "put_off"
            except StoreUnavailable:
                raise
            except Throttled as error:
                walk.untold_calls += 1
                scope = "ad" if leased.edge == "ad" and error.scope == "ad_account" else error.scope
                return await self._refused(leased, walk, error.until, f"{error.reason}_{scope}")
            except LeadSyncError as error:
                walk.untold_calls += sent and not isinstance(error, GrantLapsed)
                if sent and isinstance(error, TokenRefused) and walk.renewals < RENEWALS:
                    walk.renewals += 1
                    if await self._tokens.has_another(leased.page_id, token):
                        continue
                if not await self._goes_on(leased, walk, error):
                    return await self._failed(leased, walk, error)
                continue
            ended = await self._take(leased, walk, page)
            if ended:
                return ended
        await self._put_off(leased, walk, self._clock(), None)
        return "given_back"

    async def _ask(self, leased: L, walk: _Walk, token: str, grant: Grant) -> ResultPage:
        walk.fields = REDUCED_FIELDS if walk.is_reduced else self._fields(leased.page_id)
        walk.limit = self._limits.of(leased.object_id)
        if walk.names_only:
            walk.fields, walk.limit = NAME_FIELDS, 1
        page = await answer_of(
            self._graph.list_leads(
                leased.object_id, leased.span.since, leased.span.until, walk.fields, token, grant,
                limit=walk.limit, after=walk.after,
            ),
            AdsEar(self._budget) if leased.edge == "ad" else self._budget, leased.page_id, grant,
            also=_scopes(leased),
        )  # fmt: skip
        if page.after is not None and page.after in walk.cursors:
            raise GraphUnavailable("Graph's cursor leads back to where the listing has been")
        if walk.names_only and len(page.entries) > 1:
            raise GraphUnavailable("Graph listed more leads than it was asked for")
        walk.untold_calls += 1
        walk.lapses = 0
        self._note_fields(leased.page_id, walk)
        return page

    def _note_fields(self, page_id: str, walk: _Walk) -> None:
        """Learn from an answer whether it is the ad fields that a Page refuses, or was something that has passed."""
        if walk.fields is FULL_FIELDS:
            self._refusals.pop(page_id, None)
        elif walk.fields is REDUCED_FIELDS and walk.is_reduced and not walk.is_noted:
            walk.is_noted = True
            self._refusals[page_id] += 1
            if self._refusals[page_id] == REFUSALS_TO_REDUCE:
                log.warning("ad_fields_refused", page_id=page_id)
                self._reduced_until[page_id] = self._clock() + REDUCED_FOR

    async def _take(self, leased: L, walk: _Walk, page: ResultPage) -> str | None:
        """Write what the result page brought; what became of the slice, or None where the walk goes on."""
        async with self._turns.turn():
            known = len(walk.times)
            leads = self._leads(leased, walk, page)
            walk.result_pages += 1
            calls, walk.untold_calls = walk.untold_calls, 0
            ours = await self._store.write_leads(leased, leads, calls=calls, now=self._clock())
        if not ours:
            return "taken_away"
        if page.after is None:
            await self._store.finish(leased, self._clock())
            return "done"
        walk.after, walk.names_only = page.after, False
        walk.cursors.add(page.after)
        parts = parted(leased.span, walk.times, new=len(walk.times) - known)
        if parts:
            await self._store.divide(leased, parts, calls=0, now=self._clock())
            return "divided"
        return None

    def _leads(self, leased: L, walk: _Walk, page: ResultPage) -> list[tuple[InFlight, Stored | DeadLetter]]:
        """The leads of a result page that this walk has not met yet."""
        now, in_part = self._clock(), walk.fields is REDUCED_FIELDS
        form_id = leased.object_id if leased.edge == "form" else None
        ad_id = leased.object_id if leased.edge == "ad" else None
        source = "backfill" if leased.purpose == "backfill" else "reconcile"
        leads: list[tuple[InFlight, Stored | DeadLetter]] = []
        unreadable = 0
        for entry in page.entries:
            leadgen_id = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(leadgen_id, str) or not is_id(leadgen_id):
                unreadable += 1
                continue
            if leadgen_id in walk.seen:
                continue
            walk.seen.add(leadgen_id)
            outcome = _outcome(entry, leadgen_id, in_part, page.is_clean)
            # Of a lead that cannot be read it is known that it was created within the slice.
            created = None if isinstance(outcome, Stored) else utc(leased.span.since)
            if walk.names_only:
                log.error(
                    "lead_too_large",
                    page_id=leased.page_id,
                    object_id=leased.object_id,
                    leadgen_id=leadgen_id,
                )
                known = outcome.lead.created_time if isinstance(outcome, Stored) else None
                created = known or utc(leased.span.since)
                outcome = DeadLetter(AnswerTooLarge.reason)
            reference = InFlight(
                leadgen_id, leased.page_id, form_id, ad_id, None, now, source=source, unasked=True,
                created_time=created,
            )  # fmt: skip
            leads.append((reference, outcome))
            if isinstance(outcome, Stored) and outcome.lead.created_time is not None:
                walk.times.append(int(outcome.lead.created_time.timestamp()))
        if unreadable:
            log.error(
                "listing_unreadable", page_id=leased.page_id, object_id=leased.object_id, entries=unreadable
            )
        return leads

    async def _goes_on(self, leased: L, walk: _Walk, error: LeadSyncError) -> bool:
        """Whether the walk can be saved, by asking again or by asking for less."""
        if isinstance(error, GrantLapsed):
            walk.lapses += 1
            return walk.lapses <= LAPSES  # nothing was sent
        if isinstance(error, TooMuchAsked):
            if walk.limit > 1:
                self._limits.was_too_much(leased.object_id, walk.limit)
                return True
            if isinstance(error, AnswerTooLarge) and not walk.names_only:
                self._limits.was_one_lead(leased.object_id)
                walk.names_only = True
                return True
            return False
        if isinstance(error, PermissionRefused) and walk.fields is FULL_FIELDS:
            # It may be the ad fields only.
            walk.is_reduced = True
            await self._restart(leased, walk)
            return True
        if isinstance(error, RequestRefused | NotVisibleYet) and walk.after is not None:
            walk.restarts += 1
            if walk.restarts <= RESTARTS:
                log.info("cursor_refused", page_id=leased.page_id, object_id=leased.object_id)
                await self._restart(leased, walk)
                return True
        return False

    async def _restart(self, leased: L, walk: _Walk) -> None:
        walk.begin_anew()
        calls, walk.untold_calls = walk.untold_calls, 0
        await self._store.restart(leased, calls=calls, now=self._clock())

    async def _failed(self, leased: L, walk: _Walk, error: LeadSyncError) -> str:
        # Failures in a row are those of one kind, or a time-out would shorten the patience with another.
        attempts = leased.attempts if leased.failed_for in (None, error.reason) else 0
        outcome = listing_outcome_of(
            error, attempts=attempts, now=self._clock(), policy=self._policy, dice=self._dice
        )
        match outcome:
            case Retry(at, reason, attempts):
                await self._put_off(leased, walk, at, reason, attempts=attempts)
                return "put_off"
            case Park(reason):
                await self._store.park(leased.page_id, reason, self._clock())
                await self._put_off(leased, walk, self._clock(), reason)
                return "parked"
            case DeadLetter(reason):
                log.error(
                    "slice_failed", page_id=leased.page_id, object_id=leased.object_id, reason=reason,
                    error=str(error),
                )  # fmt: skip
                await self._store.fail(leased, reason, calls=walk.untold_calls, now=self._clock())
                return "failed"

    async def _refused(self, leased: L, walk: _Walk, until: datetime, reason: str) -> str:
        await self._put_off(leased, walk, until, reason)
        if reason != AD_REFUSED:
            await self._store.put_off_page(leased.page_id, until, reason, self._clock())
        return "refused"

    async def _put_off(
        self, leased: L, walk: _Walk, until: datetime, reason: str | None, *, attempts: int | None = None
    ) -> None:
        # Waiting for another reason than a failure leaves the count of failures as it is.
        counted, failed_for = (leased.attempts, leased.failed_for) if attempts is None else (attempts, reason)
        await self._store.put_off(
            leased, until, reason, attempts=counted, failed_for=failed_for, calls=walk.untold_calls
        )

    def _fields(self, page_id: str) -> Sequence[str]:
        until = self._reduced_until.get(page_id)
        if until is not None and until <= self._clock():
            del self._reduced_until[page_id]
            self._refusals.pop(page_id, None)
            until = None
        return FULL_FIELDS if until is None else REDUCED_FIELDS


def _scopes(leased: Leased) -> tuple[str, ...]:
    """Further scopes of the budget that a slice's calls fall in."""
    return (f"ad:{leased.object_id}",) if leased.edge == "ad" else ()


def _outcome(entry: object, leadgen_id: str, in_part: bool, is_clean: bool) -> Stored | DeadLetter:
    try:
        return Stored(Lead.from_graph(entry, leadgen_id=leadgen_id, in_part=in_part, is_clean=is_clean))
    except LeadSyncError as error:
        return DeadLetter(error.reason)
    except Exception as error:
        # A fault of ours; only its type is told, its text may quote the lead.
        log.error("lead_not_understood", leadgen_id=leadgen_id, error=type(error).__name__)
        return DeadLetter("internal_error")
