"""One test lead made at Meta -> the moment at which it passed each hop, or the hop at which it is missing and why.

    delete the former -> make one -> look at Redis and Postgres until it is a row -> else ask what is wrong

What is wrong is missing.py's to say. It is handed its neighbours. Invariants: every call under the Page's token is
granted; nothing is deleted but the form's test lead; it ends after `seconds` and one look at Meta's side.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from worker.budget.policy import IN_NO_PAGES_NAME, Budget, Grant, Lane, Refusal
from worker.errors import LeadSyncError, Throttled
from worker.granted import found_by
from worker.graph.account import (
    AppSubscription,
    Caller,
    SecondTestLead,
    delete_lead_request,
    make_test_lead_request,
    read_ids,
    read_made,
    read_subscribed,
    read_subscriptions,
    read_success,
    subscribed_apps_request,
    subscriptions_request,
    test_leads_request,
)
from worker.graph.wire import GraphAnswer, GraphRequest
from worker.missing import MADE, READ, RECEIVED, ROW, STREAMED, TAKEN, Found, MetasSide, first_missing, why
from worker.stream_search import Standing
from worker.tokens import PageTokens

LOOK_SECONDS: Final = 0.2
CLOCKS_DIFFER_MS: Final = 600_000
"""The stream is looked through from so long before the lead was made: its entries have Redis' clock."""

Row = dict[str, Any]
T = TypeVar("T")


class Graph(Protocol):
    """What this file needs of Graph."""

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer: ...


class Rows(Protocol):
    """What this file needs of the rows."""

    async def lead(self, leadgen_id: str) -> Row | None: ...
    async def page(self, page_id: str) -> Row | None: ...


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Whom a proof asks. `find` looks for a lead in Redis since unix milliseconds; `condition` is Redis' own account.

    `shake` does the handshake with a callback and says what is wrong with it; `clock` gives aware UTC.
    """

    graph: Graph
    budget: Budget
    tokens: PageTokens
    rows: Rows
    find: Callable[[str, int], Awaitable[Standing]]
    condition: Callable[[], Awaitable[dict[str, Any]]]
    shake: Callable[[str], Awaitable[str | None]]
    caller: Caller
    clock: Callable[[], datetime]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of it. `passed`: when it was seen at each hop, None where that was too quick to see.

    `began_at`: when Meta was asked to make it; `missing`: the hop at which it is not, and `why`.
    """

    leadgen_id: str
    page_id: str
    form_id: str
    began_at: datetime
    passed: Mapping[str, datetime | None]
    missing: str | None = None
    why: tuple[str, ...] = field(default=())


async def prove(
    form_id: str,
    page_id: str,
    *,
    near: Neighbours,
    seconds: float,
    told: Callable[[Mapping[str, datetime | None]], None] = lambda passed: None,
) -> Proof:
    """Make a test lead and follow it, at most `seconds`; `told` hears each time how far it is.

    Raises what Graph answers where no test lead can be made.
    """
    before = (await near.condition())["deliveries"]
    began_at, leadgen_id = await _make(form_id, page_id, near)
    passed: dict[str, datetime | None] = {MADE: near.clock()}
    ends_at = near.clock() + timedelta(seconds=seconds)
    since_ms = int(began_at.timestamp() * 1000) - CLOCKS_DIFFER_MS
    while True:
        told(passed)
        row = await near.rows.lead(leadgen_id)
        standing = await near.find(leadgen_id, since_ms)
        _note(passed, row, standing, near.clock())
        over = first_missing(passed) is None or (row is not None and row["state"] == "dead")
        if over or near.clock() >= ends_at:
            break
        await near.pause(LOOK_SECONDS)
    told(passed)
    proof = Proof(leadgen_id, page_id, form_id, began_at, passed)
    missing = first_missing(passed)
    if missing is None:
        return proof
    condition = await near.condition()
    found = Found(
        page_id,
        row,
        standing.entries[-1] if standing.entries else None,
        await near.rows.page(page_id),
        await _metas_side(page_id, near) if missing == RECEIVED else None,
        {name: count - before.get(name, 0) for name, count in condition["deliveries"].items()},
        {name: datetime.fromtimestamp(at / 1000, UTC) for name, at in condition["progress"].items()},
    )
    reasons = tuple(why(missing, found, near.clock()))
    return Proof(leadgen_id, page_id, form_id, began_at, passed, missing, reasons)


def _note(passed: dict[str, datetime | None], row: Row | None, standing: Standing, now: datetime) -> None:
    """Which hops were passed by now; what was seen once stays."""
    if standing.entries:
        entry = standing.entries[0]
        passed.setdefault(RECEIVED, _moment(entry.received_ms))
        passed.setdefault(STREAMED, _moment(entry.added_ms))
        if standing.reserved_by is not None:
            passed.setdefault(TAKEN, now - timedelta(milliseconds=entry.idle_ms))
    if row is None or not row["announced"]:
        return
    # Of a lead that a listing had brought before, its webhook is known to have come by then.
    received = row["received_at"] or row["last_seen_at"]
    passed[RECEIVED] = received
    passed.setdefault(STREAMED, None)
    passed[TAKEN] = _after(received, row["taken_ms"])
    if row["state"] == "stored":
        passed[READ] = _after(received, row["read_ms"])
        passed[ROW] = row["stored_at"]


async def _make(form_id: str, page_id: str, near: Neighbours) -> tuple[datetime, str]:
    """When Meta was asked for it, and its id; the former one is deleted before."""
    await _delete_former(form_id, page_id, near)
    try:
        return await _make_one(form_id, page_id, near)
    except SecondTestLead:
        await _delete_former(form_id, page_id, near)
    try:
        return await _make_one(form_id, page_id, near)
    except SecondTestLead:
        raise LeadSyncError(
            f"form {form_id} has a test lead that Meta neither lists nor deletes; delete it in its Lead Ads Testing"
            " Tool"
        ) from None


async def _make_one(form_id: str, page_id: str, near: Neighbours) -> tuple[datetime, str]:
    began_at = near.clock()
    made = await _ask(page_id, near, partial(make_test_lead_request, near.caller, form_id), read_made)
    if made is None:
        listed = await _ask(page_id, near, partial(test_leads_request, near.caller, form_id), read_ids)
        made = listed[0] if listed else None
    if made is None:
        raise LeadSyncError(f"Meta made a test lead of form {form_id} and does not say which; ask again")
    return began_at, made


async def _delete_former(form_id: str, page_id: str, near: Neighbours) -> None:
    former = await _ask(page_id, near, partial(test_leads_request, near.caller, form_id), read_ids)
    if len(former) > 1:
        # A form has one. Whatever these are, a real lead that is deleted at Meta does not come back.
        raise LeadSyncError(
            f"Meta lists {len(former)} test leads of form {form_id}, which has one at most, so none was deleted;"
            " delete them in its Lead Ads Testing Tool"
        )
    for leadgen_id in former:
        await _ask(page_id, near, partial(delete_lead_request, near.caller, leadgen_id), read_success)


async def _ask(
    page_id: str,
    near: Neighbours,
    request: Callable[[str], GraphRequest],
    read: Callable[[GraphAnswer, datetime], T],
) -> T:
    """One granted call under the Page's token, and what it answered."""
    token = await near.tokens.token_for(page_id)
    grant = await near.budget.request(page_id, 1, Lane.UPKEEP)
    if isinstance(grant, Refusal):
        raise Throttled(
            f"no call is left for Page {page_id} before {grant.not_before:%H:%M:%S} UTC ({grant.reason})",
            until=grant.not_before,
            scope="page",
        )
    return await found_by(near.graph, request(token), read, near.clock, near.budget, page_id, grant)


async def _metas_side(page_id: str, near: Neighbours) -> MetasSide:
    """What Meta has been told to announce, and to whom."""
    page_fields: tuple[str, ...] | None = None
    page_trouble = app_trouble = callback = None
    app: AppSubscription | None = None
    if not near.caller.app_id:
        return MetasSide(page_trouble="META_APP_ID is not set", app_trouble="META_APP_ID is not set")
    try:
        page_fields = await _ask(
            page_id, near, partial(subscribed_apps_request, near.caller, page_id),
            lambda answer, now: read_subscribed(answer, near.caller.app_id, now),
        )  # fmt: skip
    except LeadSyncError as error:
        page_trouble = str(error)
    try:
        answer = await near.graph.ask(subscriptions_request(near.caller), IN_NO_PAGES_NAME)
        told = read_subscriptions(answer, near.clock())
        app = next((each for each in told if each.object == "page"), None)
    except LeadSyncError as error:
        app_trouble = str(error)
    if app is not None:
        callback = await near.shake(app.callback_url)
    return MetasSide(page_fields, page_trouble, app, app_trouble, callback)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _after(at: datetime, milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else at + timedelta(milliseconds=milliseconds)
