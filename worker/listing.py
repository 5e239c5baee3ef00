"""References of one form in a stretch of time -> its listing, result page by result page -> an outcome each.

One result page is one call and may bring hundreds of leads; what the listing does not bring is left to be read by id
(reading.py). It decides nothing about which references are listed (asks.py does). Invariant: it ends where `next` is
absent, where everything was found, or once a quarter of the calls that ids would cost are spent; whatever else it finds
on the way is passed on, since the call is paid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from worker.asks import USUAL_RATE, ByListing
from worker.batches import InFlight
from worker.budget.policy import Answer, Budget, Grant, Lane, Refusal
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    RequestRefused,
    StoreUnavailable,
    TokenRefused,
    TooMuchAsked,
)
from worker.granted import answer_of
from worker.graph.wire import ResultPage
from worker.inbox import is_id
from worker.outcomes import Stored
from worker.result_pages import ResultPageLimits
from worker.tokens import PageTokens
from worker.verdicts import Settled, Verdicts

log = structlog.get_logger("reading")

CALLS_OF_IDS: Final = 4
"""A listing gives up after so small a part of the calls that its references would cost by id."""
ASKED_AGAIN: Final = 2
"""How often a call that was not sent is asked again beyond that."""
TIGHT_PART: Final = 4
"""Calls are scarce when fewer than so many times of what was asked is left, or after a refusal."""
TIGHT_FOR: Final = timedelta(minutes=10)
BY_ID_FOR: Final = timedelta(minutes=10)
"""How long a form whose listing brought less than it cost is read by id only."""


class Graph(Protocol):
    """What this file needs of Graph."""

    async def list_leads(
        self, form_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        """One result page of a form's leads."""


@dataclass(slots=True)
class _Found:
    """What a listing has brought so far, who is still wanted of it, its calls, and whether it was read to its end."""

    settled: list[Settled]
    wanted: dict[str, InFlight]
    calls: int = 0
    whole: bool = False


class ListingReader:
    """Lists. What it learns of forms and Pages on the way is what `plan` decides by; `clock` gives aware UTC."""

    def __init__(
        self,
        graph: Graph,
        budget: Budget,
        tokens: PageTokens,
        verdicts: Verdicts,
        clock: Callable[[], datetime],
    ) -> None:
        self._graph = graph
        self._budget = budget
        self._tokens = tokens
        self._verdicts = verdicts
        self._clock = clock
        self._rates: dict[str, float] = {}
        self._limits = ResultPageLimits(clock)
        self._by_id_until: dict[str, datetime] = {}
        self._tight_until: dict[str, datetime] = {}

    def rate_of(self, form_id: str) -> float:
        """Leads a second of this form, as its last listing showed."""
        return self._rates.get(form_id, USUAL_RATE)

    def is_tight(self, page_id: str) -> bool:
        """Whether the Page's calls were scarce a short while ago."""
        return page_id in _still(self._tight_until, self._clock())

    def not_worth_it(self) -> frozenset[str]:
        """Forms whose listing lately brought less than it cost."""
        return frozenset(_still(self._by_id_until, self._clock()))

    def answered(self, page_id: str, answer: Answer) -> None:
        """Note whether the budget was generous."""
        if isinstance(answer, Refusal):
            if answer.reason == "budget":
                self._tight_until[page_id] = self._clock() + TIGHT_FOR
        elif answer.left < TIGHT_PART * answer.calls:
            self._tight_until[page_id] = self._clock() + TIGHT_FOR

    async def read(
        self, page_id: str, ask: ByListing, fields: Sequence[str], lane: Lane
    ) -> tuple[list[Settled], tuple[InFlight, ...]]:
        """Outcomes of what was listed, and the references that are left to be read by id."""
        wanted = {r.leadgen_id: r for r in ask.references}
        found = _Found([], wanted)
        ended = await self._list(page_id, ask, fields, lane, found)
        await self._learn(page_id, ask, found)
        return found.settled + ended, () if ended else tuple(wanted.values())

    async def _list(
        self, page_id: str, ask: ByListing, fields: Sequence[str], lane: Lane, found: "_Found"
    ) -> list[Settled]:
        """Read result pages into `found`; outcomes of those that are left, where reading by id would end so too."""
        most = max(1, len(ask.references) // CALLS_OF_IDS)
        after: str | None = None
        for _ in range(most + ASKED_AGAIN):
            if not found.wanted or found.calls >= most:
                break
            left = tuple(found.wanted.values())
            try:
                # First: a grant without a call is a trial wasted.
                token = await self._tokens.token_for(page_id)
                answer = await self._budget.request(page_id, 1, lane)
            except (LedgerUnavailable, StoreUnavailable) as error:
                return self._verdicts.no_grant(left, error)
            except LeadSyncError as error:
                return self._verdicts.failed(left, error)
            self.answered(page_id, answer)
            if isinstance(answer, Refusal):
                return self._verdicts.refused(left, answer)
            limit = self._limits.of(ask.form_id)
            try:
                page = await answer_of(
                    self._graph.list_leads(
                        ask.form_id, ask.since, ask.until, fields, token, answer, limit=limit, after=after
                    ),
                    self._budget,
                    page_id,
                    answer,
                )
            except GrantLapsed:
                continue  # nothing was sent
            except TokenRefused as error:
                found.calls += 1
                if await self._tokens.has_another(page_id, token):
                    continue
                return self._verdicts.failed(left, error)
            except TooMuchAsked as error:
                found.calls += 1
                if limit == 1:
                    if isinstance(error, AnswerTooLarge):
                        self._limits.was_one_lead(ask.form_id)
                    break  # which lead it is, reading by id tells
                self._limits.was_too_much(ask.form_id, limit)
                continue
            except (NotVisibleYet, PermissionRefused, RequestRefused):
                # Of the form, the edge or the ad fields; reading by id tells of each lead which.
                found.calls += 1
                break
            except LeadSyncError as error:
                return self._verdicts.failed(left, error)
            found.calls += 1
            found.settled += self._sort(page_id, ask, page, found.wanted, fields)
            after = page.after
            if after is None:
                found.whole = True
                break
        return []

    def _sort(
        self,
        page_id: str,
        ask: ByListing,
        found: ResultPage,
        wanted: dict[str, InFlight],
        fields: Sequence[str],
    ) -> list[Settled]:
        settled: list[Settled] = []
        read_at = self._clock()
        for entry in found.entries:
            leadgen_id = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(leadgen_id, str) or not is_id(leadgen_id):
                continue
            reference = wanted.pop(leadgen_id, None) or InFlight.listed(
                leadgen_id, page_id, ask.form_id, self._clock()
            )
            outcome = self._verdicts.stored(reference, entry, fields, read_at, is_clean=found.is_clean)
            if isinstance(outcome, Stored) or not reference.unasked:
                settled.append((reference, outcome))
        return settled

    async def _learn(self, page_id: str, ask: ByListing, found: "_Found") -> None:
        asked = sum(not reference.unasked for reference, _ in found.settled)
        if found.whole and found.settled:
            self._rates[ask.form_id] = max(USUAL_RATE / 10, len(found.settled) / (ask.until - ask.since))
        if asked <= found.calls:
            if found.calls:
                self._by_id_until[ask.form_id] = self._clock() + BY_ID_FOR
            return
        log.info("listing_read", page_id=page_id, form_id=ask.form_id, leads=asked, calls=found.calls)
        await self._verdicts.saved(page_id, asked - found.calls)


def _still(until: dict[str, datetime], now: datetime) -> dict[str, datetime]:
    """The entries that are not over; the others are dropped."""
    for key in [key for key, at in until.items() if at <= now]:
        del until[key]
    return until
