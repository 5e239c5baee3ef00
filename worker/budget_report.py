"""Ledger and rows -> what each Page may spend, has spent and waits for -> something to look at. It changes nothing.

Invariant: a ledger that is away is part of the report, not an error; what is shown of a limit is what is in force.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from worker.budget.ledger import Ledger, ScopeState, page_scope
from worker.budget.policy import Lane, Shares, Window, cadence, forecast
from worker.clock import now
from worker.desks import open_budget
from worker.errors import LeadSyncError
from worker.settings import Settings
from worker.store.statements import Row

LEADS_A_CALL: Final = 100
"""What a result page of a listing is taken to bring in a forecast; Graph often brings more."""
RECONCILE_SOONEST: Final = timedelta(minutes=15)
ORIGINS: Final = {"floor": "limit is the floor: no lead is known yet", "override": "limit was set by hand"}
"""Where a limit comes from that the leads of the Page do not explain."""


async def gather(settings: Settings, page_id: str | None = None) -> dict[str, Any]:
    """`pages`: limit, spending, Meta's word and the waiting references of each; `scopes`: those that Meta closed."""
    at = now()
    async with open_budget(settings) as (ledger, _, rows):
        found = await rows.budgeted(page_id, at)
        report: dict[str, Any] = {"window_seconds": settings.budget_window, "at": at.isoformat()}
        try:
            scopes = {state.scope: state for state in await ledger.scopes()}
            report["pages"] = [await _page(ledger, row, scopes, settings, at) for row in found]
            report["scopes"] = [_closed(state) for state in scopes.values() if state.seconds > 0]
        except LeadSyncError as error:
            report["pages"] = [_without_ledger(row) for row in found]
            report["scopes"] = []
            report["error"] = str(error)
    return report


async def foresee(
    settings: Settings, page_id: str, leads: int | None, leads_a_call: int = LEADS_A_CALL
) -> dict[str, Any]:
    """What a backfill of `leads` leads of a Page (None: all that Meta counts, or our rows hold) would cost and take."""
    async with open_budget(settings) as (ledger, budget, rows):
        facts = await rows.limit_facts(page_id, now())
        limit = await budget.refresh(page_id)
        account = await ledger.account(page_id)
        forms = await rows.form_counts(page_id, now())
    wanted = max(facts.metas, facts.ours) if leads is None else leads
    counts = forms if leads is None and forms else [wanted]
    calls = sum(max(1, math.ceil(count / leads_a_call)) for count in counts) if wanted or forms else 1
    spent = account.spent if account else {}
    live = spent.get(Lane.LIVE, 0) + spent.get(Lane.WAITING, 0)
    window, shares = Window(settings.budget_window), Shares()
    told = forecast(
        calls=calls, limit=limit.calls, live=live, spent=sum(spent.values()), window=window, shares=shares
    )
    round_of = cadence(
        calls_a_round=max(1, len(forms)),
        limit=limit.calls,
        live=live,
        window=window,
        shares=shares,
        soonest=RECONCILE_SOONEST,
    )
    return {
        "page_id": page_id,
        "leads": wanted,
        "forms": len(forms),
        "calls": told.calls,
        "calls_at_once": told.now,
        "limit": limit.calls,
        "lasts_seconds": None if told.lasts == timedelta.max else round(told.lasts.total_seconds()),
        "reconcile_every_seconds": round(round_of.total_seconds()),
    }


async def _page(
    ledger: Ledger, row: Row, scopes: Mapping[str, ScopeState], settings: Settings, at: datetime
) -> dict[str, Any]:
    account = await ledger.account(row["page_id"])
    told = _without_ledger(row)
    if account is None:
        return told
    state = scopes.get(page_scope(row["page_id"]))
    spent = sum(account.spent.values())
    left = max(0, account.limit.calls - spent)
    told |= {
        "spent": {**account.spent, "all": spent},
        "left": left,
        "saved": account.saved,
        "meta_percent": state.percent if state and state.told_seconds_ago < settings.budget_window else None,
        "waits_until": _waits_until(row, account.limit.calls, left, settings.budget_window, at),
    }
    told["limit"]["calls"] = account.limit.calls
    return told


def _without_ledger(row: Row) -> dict[str, Any]:
    return {
        "page_id": row["page_id"],
        "limit": {
            "calls": row["limit_calls"],
            "told": row["limit_told"],
            "origin": row["limit_origin"],
            "override": row["limit_override"],
            "at": _iso(row["limit_at"]),
        },
        "held_until": _iso(row["held_until"]),
        "held_reason": row["held_reason"],
        "parked": row["parked_reason"],
        "waiting": row["waiting"],
        "oldest_waiting": _iso(row["oldest"]),
    }


def _waits_until(row: Row, limit: int, left: int, window: float, at: datetime) -> str | None:
    """When the last of what waits is read at the latest: a call each, by what the window gives back."""
    if not row["waiting"] or row["parked_reason"] or limit < 1:
        return None
    begins = max(at, row["held_until"] or at)
    return _iso(begins + timedelta(seconds=window * max(0, row["waiting"] - left) / limit))


def _closed(state: ScopeState) -> dict[str, Any]:
    return {"scope": state.scope, "seconds": round(state.seconds, 1), "throttles_in_a_row": state.strikes}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def render(report: Mapping[str, Any]) -> Group:
    """The report as a table of 80 columns, and a line for each Page of which there is more to say."""
    parts: list[Any] = []
    if "error" in report:
        parts.append(Text(report["error"], "red"))
    parts += [
        f"[red]closed by Meta:[/] {scope['scope']} for {scope['seconds']:,.0f} s more,"
        f" {scope['throttles_in_a_row']} throttles in a row"
        for scope in report["scopes"]
    ]
    pages: Sequence[Mapping[str, Any]] = report["pages"]
    if not pages:
        parts.append("no Page has asked for calls yet")
        return Group(*parts)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Page", no_wrap=True)
    for name in ("limit", "spent", "left", *(lane.value for lane in Lane), "Meta", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for page in pages:
        table.add_row(page["page_id"], *_cells(page))
    title = Text(f"calls in {_span(report['window_seconds'])}; times in UTC", "dim")
    return Group(*parts, title, table, *filter(None, map(_note, pages)))


def _cells(page: Mapping[str, Any]) -> list[str]:
    spent = page.get("spent", {})
    percent = page.get("meta_percent")
    return [
        *(_number(count) for count in (page["limit"]["calls"], spent.get("all"), page.get("left"))),
        *(_number(spent.get(lane.value)) for lane in Lane),
        "" if percent is None else f"{int(percent)}%",
        _number(page.get("saved")),
    ]


def _note(page: Mapping[str, Any]) -> Text | None:
    """What the table has no column for: a limit that is not worked out from leads, and what waits."""
    told = [ORIGINS[origin]] if (origin := page["limit"]["origin"]) in ORIGINS else []
    if page["parked"]:
        told.append(f"parked, {page['parked']}")
    elif page["held_reason"]:
        told.append(f"no calls until {_clock(page['held_until'])} ({page['held_reason']})")
    if page["waiting"]:
        told.append(f"{page['waiting']:,} waiting")
    if page.get("waits_until"):
        told.append(f"all read by {_clock(page['waits_until'])} at the latest")
    return Text(f"{page['page_id']}: {'; '.join(told)}", "yellow") if told else None


def _number(value: int | None) -> str:
    """At most six characters: from 100,000 on, thousands or millions. `--json` has them exact."""
    if value is None:
        return ""
    if value < 100_000:
        return f"{value:,}"
    return f"{value // 1_000}k" if value < 1_000_000 else f"{value / 1_000_000:.4g}M"


def _clock(text: str | None) -> str:
    return "" if text is None else datetime.fromisoformat(text).strftime("%m-%d %H:%M")


def _span(seconds: float) -> str:
    return f"{seconds / 3600:g} hours" if seconds >= 3_600 else f"{seconds:g} seconds"
