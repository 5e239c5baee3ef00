"""One batch of references of one Page -> grant -> Graph read -> an outcome each.

The second half of the live path's middle: sync.py decides which references are read when, asks.py how, this file reads
by id and hands listings to listing.py. It is handed graph, budget, tokens and clock and imports no I/O. Invariant:
every reference that goes in comes out with exactly one outcome, whatever Graph does; no call is made without a grant.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from worker.asks import Ask, ByListing, plan
from worker.batches import InFlight, halves
from worker.budget.policy import Budget, Grant, Lane, Refusal
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    ItemUnanswered,
    LeadSyncError,
    LedgerUnavailable,
    PermissionRefused,
    RequestRefused,
    StoreUnavailable,
    TokenRefused,
    TooMuchAsked,
)
from worker.granted import answer_of
from worker.graph.wire import BATCH_LIMIT, FULL_FIELDS, REDUCED_FIELDS, LeadsRead, ResultPage
from worker.listing import ListingReader
from worker.outcomes import DeadLetter, Outcome, Retry, RetryPolicy, Snooze, Stored, full_reading
from worker.tokens import PageTokens
from worker.verdicts import Settled, Unexpected, Verdicts

log = structlog.get_logger("reading")

REDUCED_FOR: Final = timedelta(hours=1)
"""How long a Page whose ad fields were refused is read with the reduced list before the full one is tried again."""
REFUSALS_TO_REDUCE: Final = 3
"""So many batches in a row refused whole: it is the Page, not one lead of another ad account."""
AD_FIELDS_REFUSED: Final = "ad_fields_refused"
TOO_MUCH: Final = (TooMuchAsked.reason, AnswerTooLarge.reason)
UNANSWERED_AGAIN: Final = 2
"""How often an item that Graph left unanswered, or a call that was not sent, is asked again at once."""


class Graph(Protocol):
    """What the readers need of Graph."""

    async def read_leads(
        self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str, grant: Grant
    ) -> LeadsRead:
        """One request for these leads."""

    async def list_leads(
        self, form_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        """One result page of a form's leads."""


class LeadReader:
    """Reads asks. `clock` gives aware UTC, `dice` numbers in [0, 1)."""

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
        self._clock = clock
        self._verdicts = Verdicts(budget, policy, clock, dice)
        self._listings = ListingReader(graph, budget, tokens, self._verdicts, clock)
        self._reduced_until: dict[str, datetime] = {}
        self._refusals: Counter[str] = Counter()

    def plan(
        self, page_id: str, references: tuple[InFlight, ...], listing: Collection[str] = ()
    ) -> tuple[Ask, ...]:
        """What to ask for these references of `page_id`; none for those of forms in `listing`, which is under way."""
        return plan(
            references,
            rate_of=self._listings.rate_of,
            tight=self._listings.is_tight(page_id),
            listing=listing,
            by_id_only=self._listings.not_worth_it(),
        )

    async def spared(self, page_id: str, leads: int) -> None:
        """So many references need no call any more, since a listing brought their leads along."""
        await self._verdicts.saved(page_id, leads)

    async def read(self, page_id: str, ask: Ask, lane: Lane) -> list[Settled]:
        """An outcome for each reference of this ask, and for leads that a listing brought along."""
        references, fields = ask.references, self._fields(page_id)
        settled: list[Settled] = []
        if fields is REDUCED_FIELDS:
            until = self._reduced_until[page_id]
            settled = [(r, Snooze(until, AD_FIELDS_REFUSED)) for r in references if r.in_part]
            references = tuple(r for r in references if not r.in_part)
        try:
            if isinstance(ask, ByListing):
                listed, references = await self._listings.read(page_id, ask, fields, lane)
                settled += listed
            for batch in _batches(references):
                settled += await self._ask(page_id, batch, fields, lane, UNANSWERED_AGAIN)
            return settled
        except Exception as error:
            # A fault of ours must not take the drain down with it. Only its type is told: its text may quote a lead.
            log.error(
                "reading_failed", page_id=page_id, error=type(error).__name__, references=len(references)
            )
            done = {r.leadgen_id for r, _ in settled}
            left = [r for r in ask.references if r.leadgen_id not in done]
            return settled + self._verdicts.failed(left, Unexpected("a fault of leadsync"))

    async def _ask(
        self, page_id: str, references: tuple[InFlight, ...], fields: Sequence[str], lane: Lane, again: int
    ) -> list[Settled]:
        settled: list[Settled] = []
        while references:
            try:
                # First: a grant without a call is a trial wasted.
                token = await self._tokens.token_for(page_id)
                answer = await self._budget.request(page_id, len(references), lane)
            except (LedgerUnavailable, StoreUnavailable) as error:
                return settled + self._verdicts.no_grant(references, error)
            except LeadSyncError as error:
                return settled + self._verdicts.failed(references, error)
            self._listings.answered(page_id, answer)
            if isinstance(answer, Refusal):
                return settled + self._verdicts.refused(references, answer)
            granted, references = references[: answer.calls], references[answer.calls :]
            settled += await self._ask_granted(page_id, granted, fields, lane, again, token, answer)
        return settled

    async def _ask_granted(
        self,
        page_id: str,
        references: tuple[InFlight, ...],
        fields: Sequence[str],
        lane: Lane,
        again: int,
        token: str,
        grant: Grant,
    ) -> list[Settled]:
        try:
            answer = await answer_of(
                self._graph.read_leads([r.leadgen_id for r in references], fields, token, grant),
                self._budget,
                page_id,
                grant,
            )
        except TokenRefused as error:
            if again == 0 or not await self._tokens.has_another(page_id, token):
                return self._verdicts.failed(references, error)
            return await self._ask(page_id, references, fields, lane, again - 1)
        except TooMuchAsked as error:
            if len(references) == 1:
                return self._verdicts.failed(references, error)
            first, second = halves(references)
            return await self._ask(page_id, first, fields, lane, again) + await self._ask(
                page_id, second, fields, lane, again
            )
        except GrantLapsed as error:
            if again == 0:
                return self._verdicts.no_grant(references, error)
            return await self._ask(page_id, references, fields, lane, again - 1)
        except (PermissionRefused, RequestRefused) as error:
            if fields is REDUCED_FIELDS:
                return self._verdicts.failed(references, error)
            return await self._ask_reduced(page_id, references, lane, again, whole=True)
        except LeadSyncError as error:
            return self._verdicts.failed(references, error)
        return await self._sort(page_id, references, answer, fields, lane, again)

    async def _sort(
        self,
        page_id: str,
        references: tuple[InFlight, ...],
        answer: LeadsRead,
        fields: Sequence[str],
        lane: Lane,
        again: int,
    ) -> list[Settled]:
        settled: list[Settled] = []
        read_at = self._clock()
        refused: list[InFlight] = []
        unanswered: list[InFlight] = []
        for reference, raw in zip(references, answer.leads, strict=True):
            if isinstance(raw, PermissionRefused | RequestRefused) and fields is not REDUCED_FIELDS:
                refused.append(reference)
            elif isinstance(raw, ItemUnanswered) and again > 0:
                unanswered.append(reference)
            elif isinstance(raw, LeadSyncError):
                settled.append((reference, self._verdicts.outcome(reference, raw)))
            else:
                outcome = self._verdicts.stored(reference, raw, fields, read_at, is_clean=answer.is_clean)
                settled.append((reference, outcome))
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
    ) -> list[Settled]:
        """The full list was refused: it may be the ad fields only.

        Where it was refused for whole batches one after the other, the Page is read with the reduced list for a
        while. Who is stored in part already has nothing to gain from that list.
        """
        settled: list[Settled] = [(r, self._still_in_part(r)) for r in references if r.in_part]
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


def _batches(references: tuple[InFlight, ...]) -> Iterator[tuple[InFlight, ...]]:
    """What alone was too much is read alone at once: it would have its whole batch halved down to itself again."""
    rest = tuple(r for r in references if r.failed_for not in TOO_MUCH)
    for start in range(0, len(rest), BATCH_LIMIT):
        yield rest[start : start + BATCH_LIMIT]
    for reference in references:
        if reference.failed_for in TOO_MUCH:
            yield (reference,)
