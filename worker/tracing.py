"""One leadgen_id -> all that Postgres, Redis and, where nobody announced it, Meta know of it. It changes nothing.

    row? -> its form, Page, reconciliations, erasure        stream, reservations, bodies set aside
    neither -> ask Meta, one granted call a Page -> its form's last reconciliation

What that means in words is trace_report.py's. It is handed its neighbours. Invariants: of the lead itself Meta is asked
for ids and time only, so no answer of a person comes here; a neighbour that is away is part of what is found.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from worker.budget.policy import Budget, Grant, Lane, Refusal
from worker.errors import LeadSyncError, LedgerUnavailable, NotVisibleYet, Throttled
from worker.granted import answer_of
from worker.graph.wire import LeadsRead
from worker.inbox import is_id
from worker.lead import Lead
from worker.stream_search import Standing
from worker.tokens import PageTokens

LOOK_FIELDS: Final = ("id", "created_time", "form_id")
"""What Meta is asked of a lead that nobody announced: nothing that a person answered."""
PAGES_AT_MOST: Final = 20
"""Pages asked for one lead, a call each."""

Row = dict[str, Any]


class Rows(Protocol):
    """What this file needs of the rows."""

    async def lead(self, leadgen_id: str) -> Row | None: ...
    async def repaired(self, leadgen_id: str) -> Row | None: ...
    async def erasure(self, leadgen_id: str) -> Row | None: ...
    async def form(self, form_id: str) -> Row | None: ...
    async def day(self, form_id: str, created: object) -> Row | None: ...
    async def page(self, page_id: str) -> Row | None: ...


class Graph(Protocol):
    """What this file needs of Graph."""

    async def read_leads(
        self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str, grant: Grant
    ) -> LeadsRead: ...


@dataclass(frozen=True, slots=True)
class MetaSays:
    """What Meta says of a lead: the Page whose token reads it, its form and time; `page_id` None: no such lead.

    `asked` are the Pages whose tokens were tried and do not see it, `troubles` those that could not be, and why;
    `left_out` counts Pages that were not asked.
    """

    page_id: str | None = None
    form_id: str | None = None
    created_time: datetime | None = None
    asked: tuple[str, ...] = ()
    troubles: dict[str, str] = field(default_factory=dict)
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known of a lead. `standing` is what Redis knows, or why it could not be asked.

    `meta` is None where Meta was not asked; `asked_form` what was said of the lead's form.
    """

    leadgen_id: str
    row: Row | None
    standing: Standing | str
    repaired: Row | None = None
    erasure: Row | None = None
    form: Row | None = None
    day: Row | None = None
    page: Row | None = None
    meta: MetaSays | None = None
    asked_form: str | None = None


async def trace(
    leadgen_id: str,
    *,
    rows: Rows,
    find: Callable[[str], Awaitable[Standing]],
    ask: Callable[[str], Awaitable[MetaSays]] | None,
    form_id: str | None = None,
) -> Trace:
    """Look everywhere. `ask` asks Meta, where it may be; not where `form_id` says which form the lead is of."""
    row = await rows.lead(leadgen_id)
    standing: Standing | str
    try:
        standing = await find(leadgen_id)
    except LedgerUnavailable as error:
        standing = str(error)
    if row is None:
        # A worker may have committed it while the stream was looked through.
        row = await rows.lead(leadgen_id)
    if row is not None and row["state"] == "erased":
        return Trace(leadgen_id, row, standing, erasure=await rows.erasure(leadgen_id))
    if row is not None:
        return await _of_row(leadgen_id, row, standing, rows)
    lying = isinstance(standing, Standing) and bool(standing.entries)
    meta = await ask(leadgen_id) if ask is not None and form_id is None and not lying else None
    of_form = form_id or (meta.form_id if meta else None)
    if of_form is None and isinstance(standing, Standing) and standing.entries:
        of_form = standing.entries[-1].form_id
    page_id = standing.entries[-1].page_id if isinstance(standing, Standing) and standing.entries else None
    created = meta.created_time if meta else None
    return Trace(
        leadgen_id,
        None,
        standing,
        form=await rows.form(of_form) if of_form else None,
        day=await rows.day(of_form, created) if of_form and created else None,
        page=await rows.page(page_id) if page_id else None,
        meta=meta,
        asked_form=of_form,
    )


async def _of_row(leadgen_id: str, row: Row, standing: Standing | str, rows: Rows) -> Trace:
    form_id, created = row["form_id"], row["created_time"]
    return Trace(
        leadgen_id,
        row,
        standing,
        repaired=await rows.repaired(leadgen_id),
        form=await rows.form(form_id) if form_id else None,
        day=await rows.day(form_id, created) if form_id and created else None,
        page=await rows.page(row["page_id"]),
        asked_form=form_id,
    )


async def ask_meta(
    leadgen_id: str, page_ids: Sequence[str], *, graph: Graph, budget: Budget, tokens: PageTokens
) -> MetaSays:
    """Which of these Pages' tokens sees the lead, a call each, until one does."""
    asked: list[str] = []
    troubles: dict[str, str] = {}
    for page_id in page_ids[:PAGES_AT_MOST]:
        try:
            lead = await _read(leadgen_id, page_id, graph, budget, tokens)
        except NotVisibleYet:
            asked.append(page_id)
            continue
        except LeadSyncError as error:
            troubles[page_id] = error.reason
            continue
        form_id = lead.form_id if lead.form_id and is_id(lead.form_id) else None
        return MetaSays(page_id, form_id, lead.created_time, tuple(asked), troubles)
    return MetaSays(asked=tuple(asked), troubles=troubles, left_out=max(0, len(page_ids) - PAGES_AT_MOST))


async def _read(leadgen_id: str, page_id: str, graph: Graph, budget: Budget, tokens: PageTokens) -> Lead:
    token = await tokens.token_for(page_id)
    grant = await budget.request(page_id, 1, Lane.UPKEEP)
    if isinstance(grant, Refusal):
        raise Throttled(f"no call is left for Page {page_id}", until=grant.not_before, scope="page")
    answer = await answer_of(
        graph.read_leads([leadgen_id], LOOK_FIELDS, token, grant), budget, page_id, grant
    )
    (raw,) = answer.leads
    if isinstance(raw, LeadSyncError):
        raise raw
    return Lead.from_graph(raw, leadgen_id=leadgen_id, in_part=True)
