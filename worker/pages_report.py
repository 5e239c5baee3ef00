"""Rows and ledger -> how each Page is, and what to do about it -> something to look at; a check on command.

It judges nothing (health.py does). Invariant: a ledger that is away leaves the budget out and is no error; the tables
fit 80 columns; of a Page that was never checked it is said so.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from worker.budget_report import gather as gather_budget
from worker.clock import now
from worker.desks import open_ward
from worker.errors import LeadSyncError
from worker.foreign_text import clean
from worker.health import ASPECTS, OK, UNKNOWN, remedy
from worker.neighbours import create_pool
from worker.settings import Settings
from worker.store.health import HealthStore
from worker.store.statements import Row

EVENTS_SHOWN: Final = 5
LEASE: Final = timedelta(seconds=120)
_COLOURS: Final = {"ok": "green", "unknown": "dim", "expiring": "yellow", "silent": "yellow"}
_TITLES: Final = {"lead_access": "lead access"}


async def gather(settings: Settings, page_ids: Sequence[str] | None) -> list[dict[str, Any]]:
    """One object a Page, the parked ones first; with `page_ids` those alone, and their last `events`."""
    at = now()
    async with create_pool(settings, 1) as pool:
        rows = HealthStore(pool)
        found = [_page(row, at) for row in await rows.overview(page_ids, at)]
        if page_ids is not None:
            for page in found:
                page["events"] = [_plain(event) for event in await rows.events(page["page_id"], EVENTS_SHOWN)]
    budgets = await _budgets(settings, page_ids)
    for page in found:
        page["budget"] = budgets.get(page["page_id"], page["budget"])
    return found


async def check_now(settings: Settings, page_ids: Sequence[str]) -> None:
    """Check these Pages, due or not. Raises LeadSyncError where one is not known, or disconnected."""
    from worker.doorbell import BACKFILL_BELL_OF, RESUME_BELL_OF
    from worker.tasks import ring_now

    async def ring() -> None:
        ring_now(settings, RESUME_BELL_OF, BACKFILL_BELL_OF)

    async with open_ward(settings, ring) as ward:
        unknown = []
        for page_id in page_ids:
            at = now()
            # One by one: a Page whose calls hang takes up no other's lease.
            leased = await ward.health.lease_checks(at, at + LEASE, most=1, page_ids=[page_id])
            unknown += [] if leased else [page_id]
            for each in leased:
                checked = await ward.checker.check(each.page_id, each.parked_reason)
                every = settings.parked_probe_every if checked.is_parked else settings.health_every
                await ward.health.next_check(each, now() + timedelta(seconds=every))
        if unknown:
            raise LeadSyncError(
                f"Page {unknown[0]} is not known here, or disconnected: `leadsync connect --page {unknown[0]}`"
                " connects it; or it is being checked at this moment"
            )


def is_well(page: Mapping[str, Any]) -> bool:
    """Nothing is known to be wrong with it."""
    return page["parked"] is None and all(page["health"][each]["word"] in (OK, UNKNOWN) for each in ASPECTS)


async def _budgets(settings: Settings, page_ids: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    if not settings.redis_url:
        return {}
    only = page_ids[0] if page_ids is not None and len(page_ids) == 1 else None
    report = await gather_budget(settings, only)
    return {
        page["page_id"]: {
            "limit": page["limit"]["calls"],
            "spent": page.get("spent", {}).get("all"),
            "left": page.get("left"),
        }
        for page in report["pages"]
    }


def _page(row: Row, at: datetime) -> dict[str, Any]:
    page_id = row["page_id"]
    parked = None
    if row["parked_at"] is not None:
        parked = {
            "since": row["parked_at"].isoformat(),
            "reason": row["parked_reason"],
            "remedy": remedy(row["parked_reason"], page_id),
        }
    health: dict[str, Any] = {each: _aspect(row, each) for each in ASPECTS}
    health["token"] |= {
        "expires_at": _iso(row["token_expires_at"]),
        "days_left": _days(row["token_expires_at"], at),
        "data_access_expires_at": _iso(row["data_access_expires_at"]),
        "data_access_days_left": _days(row["data_access_expires_at"], at),
        "missing_scopes": row["missing_scopes"],
    }
    return {
        "page_id": page_id,
        "name": row["name"],
        "state": "parked" if parked else "held" if row["held_reason"] else "open",
        "parked": parked,
        "held": {"until": _iso(row["held_until"]), "reason": row["held_reason"]}
        if row["held_reason"]
        else None,
        "connected_at": _iso(row["connected_at"]),
        "health": health,
        "forms": {"active": row["forms_active"], "archived": row["forms_archived"]},
        "leads": {"stored": row["stored"], "waiting": row["waiting"], "dead": row["dead"]},
        "last_webhook": _iso(row["last_webhook"]),
        "last_lead": _iso(row["last_lead"]),
        "budget": {"limit": row["limit_calls"], "spent": None, "left": None},
        "checked_at": _iso(row["checked_at"]),
        "check_due_at": _iso(row["check_at"]),
    }


def _aspect(row: Row, name: str) -> dict[str, Any]:
    reason = row[f"{name}_reason"]
    return {
        "word": row[name] or UNKNOWN,
        "reason": reason if row[name] else "not_checked_yet",
        "remedy": remedy(reason, row["page_id"]),
    }


def _plain(row: Row) -> dict[str, Any]:
    return {name: _iso(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _days(at: datetime | None, now: datetime) -> int | None:
    return None if at is None else (at - now).days


def render(pages: Sequence[Mapping[str, Any]], at: datetime) -> Group:
    """All Pages as a table."""
    if not pages:
        return Group("no Page is known yet; `leadsync connect` connects one")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("Page", "state", "token", "sub", "access", "hooks"):
        table.add_column(name, no_wrap=True)
    for name in ("leads", "wait", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for page in pages:
        health = page["health"]
        table.add_row(
            page["page_id"],
            _state(page),
            _in_short(health["token"]),
            *(_word(health[each]) for each in ("subscription", "lead_access", "webhooks")),
            _short(page["leads"]["stored"]),
            _short(page["leads"]["waiting"]),
            _short(page["budget"]["left"]),
            _ago(page["last_lead"], at).removesuffix(" ago"),
        )
    wrong = [
        Text(
            f"{page['page_id']}: parked, {page['parked']['reason']}, since {_ago(page['parked']['since'], at)}",
            "red",
        )
        for page in pages
        if page["parked"]
    ]
    hint = (
        [Text("`leadsync pages show PAGE` says what to do.", "dim")] if not all(map(is_well, pages)) else []
    )
    return Group(table, *wrong, *hint)


def render_one(page: Mapping[str, Any], at: datetime) -> Group:
    """One Page, all of it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    state = _state(page)
    if page["parked"]:
        state.append(f", {page['parked']['reason']}, since {_ago(page['parked']['since'], at)}", "red")
    elif page["held"]:
        state.append(f", {page['held']['reason']}, until {_clock(page['held']['until'])}", "yellow")
    # A name is somebody's text: no markup is read in it.
    table.add_row("Page", Text(clean(" ".join(filter(None, (page["page_id"], page["name"]))))))
    table.add_row("state", state)
    _remedy(table, page["parked"])
    for name in ASPECTS:
        aspect = page["health"][name]
        word = _word(aspect)
        if aspect["reason"]:
            word.append(f", {aspect['reason']}")
        if name == "token":
            word.append(_expiry(aspect))
        table.add_row(_TITLES.get(name, name), word)
        _remedy(
            table, aspect if page["parked"] is None or aspect["reason"] != page["parked"]["reason"] else None
        )
    forms, leads, budget = page["forms"], page["leads"], page["budget"]
    table.add_row("forms", f"{forms['active']:,} active, {forms['archived']:,} archived")
    table.add_row(
        "leads", f"{leads['stored']:,} stored, {leads['waiting']:,} waiting, {leads['dead']:,} dead"
    )
    table.add_row("last webhook", _ago(page["last_webhook"], at))
    table.add_row("last lead", _ago(page["last_lead"], at))
    table.add_row(
        "budget",
        f"limit {_count(budget['limit']) or '?'}, spent {_count(budget['spent']) or '?'},"
        f" left {_count(budget['left']) or '?'}",
    )
    table.add_row("last check", _ago(page["checked_at"], at))
    for number, event in enumerate(page.get("events", ())):
        reason = f" ({event['reason']})" if event["reason"] else ""
        told = f"{_clock(event['at'])}  {event['aspect']}: {event['was']} -> {event['became']}{reason}"
        table.add_row("last events" if number == 0 else "", told)
    return Group(table, "")


def _remedy(table: Table, told: Mapping[str, Any] | None) -> None:
    if told and told["remedy"]:
        table.add_row("", Text(f"-> {told['remedy']}", "yellow"))


def _state(page: Mapping[str, Any]) -> Text:
    return Text(page["state"], {"parked": "red", "held": "yellow"}.get(page["state"], "green"))


def _word(aspect: Mapping[str, Any]) -> Text:
    word = {"unknown": "?", "app_missing": "no app"}.get(aspect["word"], aspect["word"])
    return Text(word, _COLOURS.get(aspect["word"], "red"))


def _in_short(token: Mapping[str, Any]) -> Text:
    """A token's word, and the days that it has left."""
    days = [each for each in (token["days_left"], token["data_access_days_left"]) if each is not None]
    if token["word"] not in ("ok", "expiring") or not days:
        return _word(token)
    word = "ok" if token["word"] == "ok" else "soon"
    return Text(f"{word} {min(days)}d", _COLOURS[token["word"]])


def _short(value: int | None) -> str:
    """At most five characters."""
    if value is None:
        return ""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if value >= size:
            number = value / min(size, 1_000 if unit == "k" else size)
            return f"{number:.1f}{unit}" if number < 10 else f"{number:.0f}{unit}"
    return str(value)


def _expiry(token: Mapping[str, Any]) -> str:
    told = [
        f"{what} in {token[name]} days"
        for what, name in (("expires", "days_left"), ("data access ends", "data_access_days_left"))
        if token[name] is not None
    ]
    if token["missing_scopes"]:
        told.append(f"lacks {', '.join(token['missing_scopes'])}")
    return "".join(f", {each}" for each in told)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _ago(text: str | None, at: datetime) -> str:
    if text is None:
        return "never"
    seconds = max(0.0, (at - datetime.fromisoformat(text)).total_seconds())
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _clock(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%m-%d %H:%M:%S")
