"""One batch of references of one Page -> grant -> Graph read -> an outcome each.

The second half of the live path's middle: sync.py decides which references are read when, this file reads them. It
is handed graph, budget, tokens and clock and imports no I/O. Invariant: every reference that goes in comes out with
exactly one outcome, whatever Graph does; no call is made without a grant.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from worker.batches import InFlight, halves
from worker.budget.policy import Budget, Lane, Refusal
from worker.errors import (
    ItemUnanswered,
    LeadSyncError,
    LedgerUnavailable,
    PermissionRefused,
    RequestRefused,
    Throttled,
    TooMuchAsked,
    Transient,
)
from worker.graph.wire import FULL_FIELDS, REDUCED_FIELDS, LeadsRead
from worker.lead import Lead
from worker.outcomes import DeadLetter, Outcome, Retry, RetryPolicy, Snooze, Stored, full_reading, outcome_of
from worker.tokens import PageTokens

log = structlog.get_logger("reading")

LEDGER_AGAIN: Final = timedelta(seconds=5)
"""When to ask again for a grant that the ledger could not be asked for."""
REDUCED_FOR: Final = timedelta(hours=1)
"""How long a Page whose ad fields were refused is read with the reduced list before the full one is tried again."""
REFUSALS_TO_REDUCE: Final = 3
"""So many batches in a row refused whole: it is the Page, not one lead of another ad account."""
AD_FIELDS_REFUSED: Final = "ad_fields_refused"
UNANSWERED_AGAIN: Final = 2
"""How often an item that Graph left unanswered is asked again at once."""


class Graph(Protocol):
    """What this file needs of Graph."""

    async def read_leads(self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str) -> LeadsRead:
        """One request for these leads."""


class Unexpected(Transient):
    """A fault of ours, met while a lead was being read: the lead is tried again, the fault is logged."""

    reason = "internal_error"


class LeadReader:
    """Reads batches. `clock` gives aware UTC, `dice` numbers in [0, 1)."""

    def __init__(
        self,
        *,
        graph: Graph,
        budget: Budget,
        tokens: PageTokens,
        policy: RetryPolicy,
        clock: Callable[[], datetime],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._graph = graph
        self._budget = budget
        self._tokens = tokens
        self._policy = policy
        self._clock = clock
        self._dice = dice
        self._reduced_until: dict[str, datetime] = {}
        self._refusals: Counter[str] = Counter()

    async def read(
        self, page_id: str, references: tuple[InFlight, ...], lane: Lane
    ) -> list[tuple[InFlight, Outcome]]:
        """An outcome for each of these references of `page_id`, at most 50."""
        fields = self._fields(page_id)
        settled: list[tuple[InFlight, Outcome]] = []
        if fields is REDUCED_FIELDS:
            until = self._reduced_until[page_id]
            settled = [(r, Snooze(until, AD_FIELDS_REFUSED)) for r in references if r.in_part]
            references = tuple(r for r in references if not r.in_part)
        try:
            return settled + await self._ask(page_id, references, fields, lane, UNANSWERED_AGAIN)
        except Exception as error:
            # A fault of ours must not take the drain down with it. Only its type is told: its text may quote a lead.
            log.error(
                "reading_failed", page_id=page_id, error=type(error).__name__, references=len(references)
            )
            return settled + self._all(references, Unexpected("a fault of leadsync"))

    async def _ask(
        self, page_id: str, references: tuple[InFlight, ...], fields: Sequence[str], lane: Lane, again: int
    ) -> list[tuple[InFlight, Outcome]]:
        settled: list[tuple[InFlight, Outcome]] = []
        while references:
            try:
                answer = await self._budget.request(page_id, len(references), lane)
            except LedgerUnavailable as error:
                until = self._clock() + LEDGER_AGAIN
                return settled + [(r, Snooze(until, error.reason)) for r in references]
            if isinstance(answer, Refusal):
                return settled + [(r, Snooze(answer.not_before, answer.reason)) for r in references]
            granted, references = references[: answer.calls], references[answer.calls :]
            settled += await self._ask_granted(page_id, granted, fields, lane, again)
        return settled

    async def _ask_granted(
        self, page_id: str, references: tuple[InFlight, ...], fields: Sequence[str], lane: Lane, again: int
    ) -> list[tuple[InFlight, Outcome]]:
        try:
            token = self._tokens.token_for(page_id)
            answer = await self._graph.read_leads([r.leadgen_id for r in references], fields, token)
        except TooMuchAsked as error:
            if len(references) == 1:
                return self._all(references, error)
            first, second = halves(references)
            return await self._ask(page_id, first, fields, lane, again) + await self._ask(
                page_id, second, fields, lane, again
            )
        except (PermissionRefused, RequestRefused) as error:
            if fields is REDUCED_FIELDS:
                return self._all(references, error)
            return await self._ask_reduced(page_id, references, lane, again, whole=True)
        except LeadSyncError as error:
            await self._tell_budget(page_id, error)
            return self._all(references, error)
        return await self._sort(page_id, references, answer, fields, lane, again)

    async def _sort(
        self,
        page_id: str,
        references: tuple[InFlight, ...],
        answer: LeadsRead,
        fields: Sequence[str],
        lane: Lane,
        again: int,
    ) -> list[tuple[InFlight, Outcome]]:
        settled: list[tuple[InFlight, Outcome]] = []
        refused: list[InFlight] = []
        unanswered: list[InFlight] = []
        for reference, raw in zip(references, answer.leads, strict=True):
            if isinstance(raw, PermissionRefused | RequestRefused) and fields is not REDUCED_FIELDS:
                refused.append(reference)
            elif isinstance(raw, ItemUnanswered) and again > 0:
                unanswered.append(reference)
            elif isinstance(raw, LeadSyncError):
                await self._tell_budget(page_id, raw)
                settled.append((reference, self._outcome(reference, raw)))
            else:
                settled.append((reference, self._stored(reference, raw, fields)))
        if fields is not REDUCED_FIELDS and any(isinstance(outcome, Stored) for _, outcome in settled):
            self._refusals.pop(page_id, None)
        if refused:
            whole = len(refused) == len(references)
            settled += await self._ask_reduced(page_id, tuple(refused), lane, again, whole=whole)
        if unanswered:
            settled += await self._ask(page_id, tuple(unanswered), fields, lane, again - 1)
        return settled

    async def _ask_reduced(
        self, page_id: str, references: tuple[InFlight, ...], lane: Lane, again: int, *, whole: bool
    ) -> list[tuple[InFlight, Outcome]]:
        """The full list was refused: it may be the ad fields only.

        Where it was refused for whole batches one after the other, the Page is read with the reduced list for a
        while. Who is stored in part already has nothing to gain from that list.
        """
        settled: list[tuple[InFlight, Outcome]] = [
            (r, self._still_in_part(r)) for r in references if r.in_part
        ]
        rest = tuple(r for r in references if not r.in_part)
        settled += await self._ask(page_id, rest, REDUCED_FIELDS, lane, again)
        if whole and any(isinstance(outcome, Stored) for _, outcome in settled):
            self._refusals[page_id] += 1
            if self._refusals[page_id] >= REFUSALS_TO_REDUCE:
                log.warning("ad_fields_refused", page_id=page_id)
                self._reduced_until[page_id] = self._clock() + REDUCED_FOR
        return settled

    def _still_in_part(self, reference: InFlight) -> Outcome:
        at = full_reading(reference.attempts + 1, self._clock())
        if at is None:
            return DeadLetter(AD_FIELDS_REFUSED)  # of the full reading; the stored row stays as it is
        return Retry(at, AD_FIELDS_REFUSED, reference.attempts + 1)

    def _fields(self, page_id: str) -> Sequence[str]:
        until = self._reduced_until.get(page_id)
        if until is not None and until <= self._clock():
            del self._reduced_until[page_id]
            self._refusals.pop(page_id, None)
            until = None
        return FULL_FIELDS if until is None else REDUCED_FIELDS

    def _stored(self, reference: InFlight, raw: object, fields: Sequence[str]) -> Outcome:
        try:
            lead = Lead.from_graph(raw, leadgen_id=reference.leadgen_id, in_part=fields is REDUCED_FIELDS)
        except LeadSyncError as error:
            return self._outcome(reference, error)
        except Exception as error:
            log.error("lead_not_understood", leadgen_id=reference.leadgen_id, error=type(error).__name__)
            return self._outcome(reference, Unexpected("a fault of leadsync"))
        return Stored(lead)

    async def _tell_budget(self, page_id: str, error: LeadSyncError) -> None:
        if isinstance(error, Throttled):
            try:
                await self._budget.close(page_id, error.scope, error.until)
            except LedgerUnavailable:
                log.warning("throttle_not_noted", page_id=page_id, scope=error.scope)

    def _all(self, references: Sequence[InFlight], error: LeadSyncError) -> list[tuple[InFlight, Outcome]]:
        return [(reference, self._outcome(reference, error)) for reference in references]

    def _outcome(self, reference: InFlight, error: LeadSyncError) -> Outcome:
        return outcome_of(
            error,
            attempts=reference.attempts,
            last_reason=reference.failed_for,
            waiting_since=reference.first_seen_at,
            now=self._clock(),
            policy=self._policy,
            dice=self._dice,
        )
