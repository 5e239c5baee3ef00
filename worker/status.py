"""Redis and Postgres -> one report of how it goes, and the plain tables and lines of it. It changes nothing.

One look is a few cheap statements and a few round trips to Redis, whatever the tables hold; what is told as at least
or about so many was not counted to its end. status_view.py draws the report on a terminal.
Invariant: one of the two neighbours away is part of the report, not an error.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from worker.budget.ledger import APP_SCOPE, ScopeState, page_scope
from worker.clock import now
from worker.desks import Lookout, open_lookout
from worker.errors import LeadSyncError
from worker.health import ASPECTS, OK, UNKNOWN
from worker.inbox import QUEUES
from worker.looks import is_ahead, is_silent
from worker.settings import Settings
from worker.store.statements import Row
from worker.store.status import Bounds

SILENT_SECONDS: Final = 60
"""Who has not looked at its work for so long is not working."""
TIGHTEST: Final = 16
BACKFILLS: Final = 10
"""Pages by budget, and running backfills, that one report tells of."""
COMMITTED_AFTER: Final = timedelta(seconds=1)
"""What was stored less than so long ago may not be committed yet, and is counted at the next look."""
FIRST_SPAN: Final = timedelta(minutes=1)
"""Without a look before, the flow is that of the last minute."""


AT_ONCE: Final = Bounds(a_page=100_000, all=200_000)
WATCHING: Final = Bounds(a_page=1_000, all=5_000)


async def gather(settings: Settings) -> dict[str, Any]:
    """The report of one look, as `look` describes it."""
    async with open_lookout(settings) as lookout:
        return await look(lookout, AT_ONCE)


async def look(lookout: Lookout, bounds: Bounds, stored_until: datetime | None = None) -> dict[str, Any]:
    """What there is to tell; JSON but for aware datetimes.

    `stream`: what Redis tells; `rows`: counts by state and reason; `pages`: held Pages; `lag`, `health`, `backfills`
    and `flow` (rows stored since `stored_until`) of Postgres; `budget` of the Pages with the least left. `error` stands
    in the place of what could not be asked.
    """
    at = now()
    report, (stream, told) = await asyncio.gather(
        _rows_report(lookout, bounds, at, stored_until), _stream_report(lookout)
    )
    known = report.pop("known", None)
    if known is None:
        budget = report["rows"]  # It is not known whose budget to ask for.
    elif "error" in told:
        budget = told
    else:
        budget = await _budget_report(lookout, {page["page_id"]: page["name"] for page in known}, at)
    return {"at": at, "stream": stream, **report, "budget": budget}


async def _stream_report(lookout: Lookout) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return await lookout.stream.condition(), {}
    except LeadSyncError as error:
        away = {"error": str(error)}
        return away, away


async def _rows_report(
    lookout: Lookout, bounds: Bounds, at: datetime, stored_until: datetime | None
) -> dict[str, Any]:
    rows = lookout.rows
    until = at - COMMITTED_AFTER
    since = min(until, stored_until or until - FIRST_SPAN)
    try:
        pages = await rows.pages(at)
        waiting, dead, others = await rows.waiting(bounds), await rows.dead(), await rows.others()
        flow = {"since": since, "until": until, "stored": await rows.stored_between(since, until)}
        lag = {"oldest_overdue": await rows.oldest_overdue(at)}
        running = [dict(row) for row in await rows.running(BACKFILLS)]
    except LeadSyncError as error:
        away = {"error": str(error)}
        return dict.fromkeys(("rows", "lag", "flow", "backfills", "health"), away) | {"pages": []}
    return {
        "rows": _states(waiting, dead, others),
        "pages": [_held(page, waiting, bounds) for page in pages if page["parked_at"]],
        "lag": lag,
        "flow": flow,
        "backfills": running,
        "health": _health(pages),
        "known": pages,
    }


def _states(waiting: Sequence[Row], dead: Sequence[Row], others: Sequence[Row]) -> list[dict[str, Any]]:
    """Counts by state and reason, sorted by both."""
    reasons: dict[str, dict[str, Any]] = {}
    for row in waiting:
        told = reasons.setdefault(row["reason"], _state("waiting", row["reason"], 0, row["oldest_due"]))
        told["count"] += row["count"]
        told["oldest_due"] = min(told["oldest_due"], row["oldest_due"])
        told["is_at_least"] |= row["is_at_least"]
    found = [
        *(_state("dead", row["reason"], row["count"], at_least=row["is_at_least"]) for row in dead),
        *(_state(row["state"], "", row["count"], estimate=row["is_estimate"]) for row in others),
        *reasons.values(),
    ]
    return sorted(found, key=lambda row: (row["state"], row["reason"]))


def _state(
    state: str, reason: str, count: int, oldest_due: datetime | None = None, *,
    at_least: bool = False, estimate: bool = False,
) -> dict[str, Any]:  # fmt: skip
    return {
        "state": state,
        "reason": reason,
        "count": count,
        "oldest_due": oldest_due,
        "is_at_least": at_least,
        "is_estimate": estimate,
    }


def _held(page: Row, waiting: Sequence[Row], bounds: Bounds) -> dict[str, Any]:
    kept = ("page_id", "name", "parked_at", "parked_reason", "check_at", "held_until")
    own = [row for row in waiting if row["page_id"] == page["page_id"]]
    return {
        **{name: page[name] for name in kept},
        "waiting": sum(row["count"] for row in own),
        # Where the bound of all was met, later Pages were not counted at all.
        "is_at_least": any(row["is_at_least"] for row in own)
        or sum(row["count"] for row in waiting) >= bounds.all,
    }


def _health(pages: Sequence[Row]) -> dict[str, Any]:
    """`pages`: how many there are; `wrong`: those with an aspect that is not well, and which it is."""
    wrong = []
    for page in pages:
        aspects = {each: page[each] for each in ASPECTS if page[each] not in (None, OK, UNKNOWN)}
        if aspects:
            wrong.append({"page_id": page["page_id"], "name": page["name"], "aspects": aspects})
    return {"pages": len(pages), "wrong": wrong}


async def _budget_report(lookout: Lookout, names: Mapping[str, str | None], at: datetime) -> dict[str, Any]:
    try:
        scopes = {state.scope: state for state in await lookout.ledger.scopes()}
        accounts = await lookout.ledger.accounts(sorted(names))
    except LeadSyncError as error:
        return {"error": str(error)}
    pages: list[dict[str, Any]] = [
        {
            "page_id": page_id,
            "name": names[page_id],
            "limit": account.limit.calls,
            "spent": sum(account.spent.values()),
            "closed_until": _closed_until(scopes.get(page_scope(page_id)), at),
        }
        for page_id, account in accounts.items()
    ]
    pages.sort(key=lambda page: (page["closed_until"] is None, -page["spent"] / max(1, page["limit"])))
    return {"pages": pages[:TIGHTEST], "app_closed_until": _closed_until(scopes.get(APP_SCOPE), at)}


def _closed_until(state: ScopeState | None, at: datetime) -> datetime | None:
    return at + timedelta(seconds=state.seconds) if state and state.seconds > 0 else None


def count(row: Mapping[str, Any]) -> str:
    """A count as it is told: `~` before an estimate, `+` after what is at least so many."""
    about, more = "~" * row.get("is_estimate", False), "+" * row.get("is_at_least", False)
    return f"{about}{row['count']:,}{more}"


def render(report: Mapping[str, Any], now: float) -> Group:
    """The report as tables; `now` in unix seconds."""
    stream, rows, pages = report["stream"], report["rows"], report.get("pages", [])
    is_wrong = "error" in stream or isinstance(rows, Mapping) or bool(pages)
    is_wrong = is_wrong or any(row["state"] == "dead" for row in rows)
    hint = ["\n[dim]`leadsync doctor` says what is wrong and what to type"] if is_wrong else []
    return Group(_stream(stream, now), _rows(rows), *_pages(pages), *hint)


def _plain_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)


def _stream(stream: Mapping[str, Any], now: float) -> Table:
    table = _plain_table("[bold]Redis")
    if "error" in stream:
        table.add_row("[red]away", Text(stream["error"]))
        return table
    table.add_row("references in the stream", f"{stream['length']:,}")
    if stream["oldest_at"] is not None:
        table.add_row("the oldest of them", _age(stream["oldest_at"], now))
    for name in (*QUEUES, "schedule"):
        table.add_row(f"{name} last looked", _look(stream["progress"].get(name), now))
    for verdict, seen in sorted(stream["deliveries"].items()):
        table.add_row(f"webhook: {verdict.replace('_', ' ')}", f"{seen:,}")
    if stream["reconcile_wanted"]:
        table.add_row(
            "[yellow]subscription lacks values",
            f"Pages {', '.join(stream['reconcile_wanted'])}: `leadsync connect --only webhook --again`",
        )
    if stream["set_aside"]:
        table.add_row("[yellow]bodies set aside", f"{stream['set_aside']:,}")
    return table


def _look(at_ms: int | None, now: float) -> str:
    if at_ms is None:
        return "[red]never"
    age = now - at_ms / 1000
    told = f"{-age:,.0f} s ahead of this clock" if is_ahead(age) else f"{max(0.0, age):,.0f} s ago"
    return f"[red]{told}" if is_silent(age, SILENT_SECONDS) else told


def _age(at_ms: int, now: float) -> str:
    age = max(0.0, now - at_ms / 1000)
    return f"[red]{age:,.0f} s ago" if age > SILENT_SECONDS else f"{age:.0f} s ago"


def _rows(rows: Any) -> Table:
    table = _plain_table("\n[bold]Postgres")
    if isinstance(rows, Mapping):
        table.add_row("[red]away", Text(rows["error"]))
        return table
    colours = {"stored": "green", "waiting": "yellow", "dead": "red"}
    for row in rows:
        name = " ".join(filter(None, (row["state"], row["reason"])))
        table.add_row(f"[{colours.get(row['state'], 'white')}]{name}", count(row))
    return table


def _pages(pages: Any) -> list[Table]:
    if not pages:
        return []
    table = _plain_table("\n[bold]Pages parked")
    for page in pages:
        waits = count({"count": page["waiting"], "is_at_least": page.get("is_at_least", False)})
        table.add_row(f"[red]{page['page_id']}", f"{page['parked_reason']}, {waits} waiting")
    return [table]
