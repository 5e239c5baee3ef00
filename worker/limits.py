"""Pages whose limit is due -> Meta's counts of their forms' leads -> limits, in the rows and in the ledger.

It is handed Graph, budget, rows, tokens and clock, and works no limit out itself (policy.py does). Invariant: every
call is granted in the lane of upkeep; a Page that cannot be asked keeps the limit that our own rows give it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from worker.budget.policy import Budget, Grant, Lane, Limit, Refusal
from worker.errors import LeadSyncError, LedgerUnavailable, StoreUnavailable, Throttled, TooMuchAsked
from worker.graph.wire import ResultPage
from worker.inbox import is_id
from worker.tokens import PageTokens

log = structlog.get_logger("limits")

FORMS_LIMIT: Final = 100
"""Forms asked for on one result page."""
MOST_PAGES: Final = 500
"""Pages looked after in one run."""
AT_ONCE: Final = 8
"""Pages looked after at the same time."""
MOST_COUNT: Final = 2**53


class Graph(Protocol):
    """What this file needs of Graph."""

    async def list_forms(
        self, page_id: str, token: str, grant: Grant, *, limit: int, after: str | None
    ) -> ResultPage:
        """One result page of a Page's forms."""


class Rows(Protocol):
    """What this file needs of the budget's rows."""

    async def stale_limits(
        self, *, before: datetime, forms_before: datetime, most: int
    ) -> tuple[tuple[str, bool], ...]: ...
    async def asking_forms(self, page_id: str, now: datetime) -> None: ...
    async def keep_forms(
        self, page_id: str, forms: Sequence[Mapping[str, object]], now: datetime
    ) -> None: ...


class LimitedBudget(Budget, Protocol):
    """A budget whose limits can be worked out anew."""

    async def refresh(self, page_id: str) -> Limit:
        """Work out and put in force."""


@dataclass(frozen=True, slots=True)
class LimitAges:
    """How old a limit, and Meta's counts behind it, may become."""

    limit: timedelta = timedelta(minutes=15)
    forms: timedelta = timedelta(hours=6)


class LimitKeeper:
    """Keeps limits fresh. `clock` gives aware UTC."""

    def __init__(
        self,
        *,
        graph: Graph,
        budget: LimitedBudget,
        rows: Rows,
        tokens: PageTokens,
        ages: LimitAges,
        clock: Callable[[], datetime],
    ) -> None:
        self._graph = graph
        self._budget = budget
        self._rows = rows
        self._tokens = tokens
        self._ages = ages
        self._clock = clock

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """Look after the Pages that are due, until `stop`; counts. Raises where Redis or Postgres is away."""
        now = self._clock()
        due = await self._rows.stale_limits(
            before=now - self._ages.limit, forms_before=now - self._ages.forms, most=MOST_PAGES
        )
        counts = {"limits": 0, "forms": 0}
        pages = iter(due)

        async def look_after() -> None:
            for page_id, forms_due in pages:
                if stop():
                    return
                try:
                    if forms_due:
                        counted = await self.count_forms(page_id)
                        counts["forms"] += counted
                    await self._budget.refresh(page_id)
                    counts["limits"] += 1
                except (LedgerUnavailable, StoreUnavailable):
                    raise
                except Exception as error:
                    # A fault of ours with one Page; only its type is told.
                    log.error("limit_failed", page_id=page_id, error=type(error).__name__)

        async with asyncio.TaskGroup() as group:
            # A Page whose calls hang holds up one of these, and no other Page.
            for _ in range(min(AT_ONCE, len(due))):
                group.create_task(look_after())
        return counts

    async def count_forms(self, page_id: str) -> int:
        """Ask Meta for the counts of a Page's forms; how many forms were counted."""
        await self._rows.asking_forms(page_id, self._clock())
        after: str | None = None
        limit, counted = FORMS_LIMIT, 0
        while True:
            try:
                grant = await self._budget.request(page_id, 1, Lane.UPKEEP)
                if isinstance(grant, Refusal):
                    return counted
                token = self._tokens.token_for(page_id)
                found = await self._graph.list_forms(page_id, token, grant, limit=limit, after=after)
                await self._budget.heard(page_id, grant, found.usages)
            except TooMuchAsked:
                if limit == 1:
                    return counted
                limit = max(1, limit // 2)
                continue
            except (LedgerUnavailable, StoreUnavailable):
                raise
            except Throttled as error:
                await self._budget.throttled(page_id, error.scope, (), error.regain)
                return counted
            except LeadSyncError as error:
                # Live reads find out what is wrong with a Page and park it; here nothing is lost.
                log.info("forms_not_counted", page_id=page_id, reason=error.reason)
                return counted
            told = [form for entry in found.entries if (form := _form(entry))]
            forms = list({form["form_id"]: form for form in told}.values())
            await self._rows.keep_forms(page_id, forms, self._clock())
            counted += len(forms)
            after = found.after
            if after is None:
                return counted


def _form(entry: object) -> Mapping[str, object] | None:
    form_id = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(form_id, str) or not is_id(form_id):
        return None
    status = entry.get("status")
    return {
        "form_id": form_id,
        "status": status if isinstance(status, str) and status.isascii() and status.isprintable() else None,
        "leads_count": _count(entry.get("leads_count")),
        "expired_leads_count": _count(entry.get("expired_leads_count")) or 0,
    }


def _count(value: object) -> int | None:
    """Meta writes counts as numbers; what is none, or beyond all reason, is not known."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_COUNT else None
    )
