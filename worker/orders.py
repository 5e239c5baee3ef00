"""What is asked for (a Page, a form, an ad; from when to when) -> plans and what they will cost -> backfills begun.

It finds out what it has to know: which Page a form belongs to, which forms a Page has, how many leads Meta holds of
each. Cutting and costs are plans.py's and policy.py's; reading is the workers'. Invariant: nothing is begun before the
whole order is known to be possible.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from worker.budget.policy import Forecast, Lane, Shares, Window, forecast
from worker.clock import now
from worker.desks import Desk
from worker.errors import LeadSyncError
from worker.forms import Discovered
from worker.plans import FormFacts, Plan, plan_ad, plan_forms, span_of
from worker.reconcile import deep_plan

SECONDS_A_CALL: Final = 0.5
"""How long Graph takes for a result page, in a forecast."""


class OrderRefused(LeadSyncError):
    """What was asked for cannot be read; the message says why and what to do."""

    reason = "order_refused"


@dataclass(frozen=True, slots=True)
class Order:
    """`edge` is page, form or ad. `since`, `until`: aware UTC, or None for all; `page_id` where it was told."""

    edge: str
    object_id: str
    page_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what it will cost: `limit` calls a window, of which `spent` are spent."""

    plan: Plan
    forecast: Forecast
    limit: int
    spent: int


async def plan_order(desk: Desk, order: Order, *, lag: timedelta, window: Window, at_once: int) -> Planned:
    """The plan of an order. `at_once`: slices read side by side. Raises OrderRefused, or what neighbours raise."""
    page_id = order.page_id or await _page_of(desk, order)
    await desk.tokens.token_for(page_id)
    at = now()
    span = span_of(order.since, order.until, now=at, lag=lag)
    if span is None:
        raise OrderRefused(
            "nothing to read between these dates: Meta keeps leads for 90 days, and the newest"
            f" {lag.total_seconds():g} s are left to the webhooks and to reconciling"
        )
    asked = (order.since, order.until)
    if order.edge == "ad":
        plan = plan_ad(order.object_id, page_id=page_id, span=span, asked=asked)
    else:
        facts = await _forms(desk, order, page_id)
        plan = plan_forms(
            facts, purpose="backfill", edge=order.edge, object_id=order.object_id, page_id=page_id, span=span,
            now=at, asked=asked,
        )  # fmt: skip
    limit = await desk.budget.refresh(page_id)
    account = await desk.ledger.account(page_id)
    spent = account.spent if account else {}
    told = forecast(
        calls=plan.calls,
        limit=limit.calls,
        live=spent.get(Lane.LIVE, 0) + spent.get(Lane.WAITING, 0),
        spent=sum(spent.values()),
        window=window,
        shares=Shares(),
        seconds_a_call=SECONDS_A_CALL / max(1, min(at_once, len(plan.slices))),
    )
    return Planned(plan, told, limit.calls, sum(spent.values()))


async def order_comparison(
    desk: Desk, *, page_ids: Sequence[str], form_ids: Sequence[str], since: datetime, lag: timedelta
) -> list[int]:
    """Compare these forms, or all forms of these Pages, id by id since then; the ids of what was begun."""
    at = now()
    forms: dict[str, dict[str, Any]] = {}
    for page_id in page_ids:
        _whole(await desk.forms.discover(page_id, Lane.BACKFILL), page_id)
        forms |= {row["form_id"]: row for row in await desk.form_rows.forms_of(page_id)}
    for form_id in form_ids:
        page_id = await _page_of(desk, Order("form", form_id))
        _whole(await desk.forms.read_form(form_id, page_id, Lane.BACKFILL), page_id)
        forms[form_id] = await _known_form(desk, form_id)
    begun: list[int] = []
    for row in forms.values():
        plan = deep_plan({**row, "leads": _count(row)}, now=at, lag=lag, since=since)
        if plan is not None:
            begun.append((await desk.backfills.open(plan, at))[0])
    return begun


async def _page_of(desk: Desk, order: Order) -> str:
    if order.edge == "page":
        return order.object_id
    known = await desk.backfills.pages_of(order.edge, order.object_id)
    if len(known) == 1:
        return known[0]
    with_token = await desk.tokens.page_ids()
    if not known and len(with_token) == 1:
        return with_token[0]
    raise OrderRefused(
        f"it is not known here to which Page {order.edge} {order.object_id} belongs; say so with --page"
    )


async def _forms(desk: Desk, order: Order, page_id: str) -> list[FormFacts]:
    if order.edge == "form":
        _whole(await desk.forms.read_form(order.object_id, page_id, Lane.BACKFILL), page_id)
        return [_facts(await _known_form(desk, order.object_id))]
    _whole(await desk.forms.discover(page_id, Lane.BACKFILL), page_id)
    facts = [_facts(row) for row in await desk.form_rows.forms_of(page_id)]
    if not facts:
        raise OrderRefused(f"Meta lists no form of Page {page_id}")
    return facts


async def _known_form(desk: Desk, form_id: str) -> dict[str, Any]:
    row = await desk.form_rows.form(form_id)
    assert row is not None, "a form that was read has a row"
    return row


def _whole(told: Discovered, page_id: str) -> None:
    if told.whole:
        return
    when = f", not before {told.not_before:%Y-%m-%d %H:%M:%S} UTC" if told.not_before else ""
    raise OrderRefused(
        f"Meta did not tell the forms of Page {page_id} ({told.reason}); ask again later{when}"
    )


def _facts(row: dict[str, Any]) -> FormFacts:
    return FormFacts(row["form_id"], _count(row), row["created_time"])


def _count(row: dict[str, Any]) -> int | None:
    if row["leads_count"] is None:
        return None
    return max(0, int(row["leads_count"]) - int(row["expired_leads_count"] or 0))
