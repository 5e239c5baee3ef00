"""What was found about a test lead that did not arrive -> at which hop it is missing, and what to look at. Pure.

Finding it out is proving.py's. Invariant: every hop has an answer, and it names what was found wrong, or what was
found right and where else to look.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from worker.graph.account import LEADGEN, AppSubscription
from worker.stream_search import Lying
from worker.trace_report import in_words

MADE: Final = "made at Meta"
RECEIVED: Final = "webhook received"
STREAMED: Final = "in the stream"
TAKEN: Final = "taken up"
READ: Final = "Graph's answer"
ROW: Final = "row"
HOPS: Final = (MADE, RECEIVED, STREAMED, TAKEN, READ, ROW)
"""The way of a lead, in order."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MetasSide:
    """What Meta has been told. Where something could not be asked, its `trouble` says why.

    `page_fields`: what the app is subscribed to on the Page, None where it is not installed there; `app`: the app's
    webhook for Pages; `callback` is what is wrong with whoever answers there, None where nothing is.
    """

    page_fields: tuple[str, ...] | None = None
    page_trouble: str | None = None
    app: AppSubscription | None = None
    app_trouble: str | None = None
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found about a lead of `page_id`. `deliveries`: what the receiver has counted meanwhile, by verdict.

    `looked`: when workers and schedule last looked at their work, by queue, aware UTC.
    """

    page_id: str = "PAGE"
    row: Row | None = None
    entry: Lying | None = None
    page: Row | None = None
    metas: MetasSide | None = None
    deliveries: Mapping[str, int] = field(default_factory=dict)
    looked: Mapping[str, datetime] = field(default_factory=dict)


def first_missing(passed: Mapping[str, object]) -> str | None:
    """The first hop at which it was not seen."""
    return next((hop for hop in HOPS if hop not in passed), None)


def why(hop: str, found: Found, now: datetime) -> list[str]:
    """What is wrong there, and what to look at; one sentence each."""
    match hop:
        case "webhook received":
            return _no_ping(found)
        case "in the stream" | "taken up":
            return _not_taken(found, now)
        case _:
            return _not_read(found, now)


def _no_ping(found: Found) -> list[str]:
    told = [*_of_page(found.page_id, found.metas), *_of_app(found.metas), *_of_receiver(found.deliveries)]
    if found.row is not None:
        told.append(f"the lead itself is here: {in_words(found.row['source'])} brought it")
    return told or [
        "Page, app and callback are set as they should be: in development mode Meta announces only leads of people"
        " with a role on the app, so look at its App Mode, and at the log of the receiver"
    ]


def _of_page(page_id: str, metas: MetasSide | None) -> list[str]:
    if metas is None:
        return []
    if metas.page_trouble:
        return [f"the Page's subscription could not be read: {metas.page_trouble}"]
    if metas.page_fields is None:
        return [f"the app is not installed on the Page: `leadsync connect --page {page_id}` subscribes it"]
    if LEADGEN not in metas.page_fields:
        return [
            f"the Page's subscription lacks the field {LEADGEN}: `leadsync connect --page {page_id}` adds it"
        ]
    return []


def _of_app(metas: MetasSide | None) -> list[str]:
    if metas is None:
        return []
    if metas.app_trouble:
        return [f"the app's webhook could not be read: {metas.app_trouble}"]
    if metas.app is None:
        return ["the app has no webhook for Pages: `leadsync connect --only webhook` sets it"]
    if not metas.app.is_active or LEADGEN not in metas.app.fields:
        return [
            f"the app's webhook is not active for the field {LEADGEN}: `leadsync connect --only webhook` sets it again"
        ]
    if metas.callback is not None:
        return [
            f"the callback {metas.app.callback_url} {metas.callback}: look at the receiver, its META_VERIFY_TOKEN, and"
            " what stands before it"
        ]
    return []


def _of_receiver(deliveries: Mapping[str, int]) -> list[str]:
    told = []
    if deliveries.get("unsigned"):
        told.append(
            "a delivery came and was not signed with META_APP_SECRET: it must be the secret of this app"
        )
    if deliveries.get("queue_unavailable"):
        told.append("a delivery came and was refused, since Redis could not take it; Meta delivers it again")
    if deliveries.get("set_aside"):
        told.append("a delivery came that could not be read: look at the Redis stream leadsync:set_aside")
    if deliveries.get("lacking_values"):
        told.append(
            "a delivery came without ids: `leadsync connect --only webhook --again` sets the webhook with its values"
        )
    return told


def _not_taken(found: Found, now: datetime) -> list[str]:
    entry = found.entry
    if entry is None:
        return [
            "it is no longer in the stream and no row has it: was Redis emptied? `leadsync reconcile` brings it"
        ]
    added = datetime.fromtimestamp(entry.added_ms / 1000, UTC)
    if entry.taken_by is not None:
        return [
            f"{entry.taken_by} took it up {entry.idle_ms / 1000:.0f} s ago and has not answered: look at its log"
        ]
    told = []
    if (live := found.looked.get("live")) is None or live < added:
        told.append(
            f"no worker has looked at the stream since it came, {_ago(live, now)}: `leadsync doctor` says what to start"
        )
    if (schedule := found.looked.get("schedule")) is None or (now - schedule).total_seconds() > 30:
        told.append(
            f"the schedule rings no more, {_ago(schedule, now)}: `leadsync doctor` says what to start"
        )
    return told or [
        "workers look at the stream and have not come to it: `leadsync status` shows how long it is"
    ]


def _not_read(found: Found, now: datetime) -> list[str]:
    row, page = found.row, found.page or {}
    if row is None:
        return ["a worker has it and has not answered yet: Graph is slow, or look at the worker's log"]
    if row["state"] == "dead":
        return [
            f"it is a dead letter: {in_words(row['reason'])}; mend it, then `leadsync dead-letters replay`"
        ]
    if page.get("parked_at"):
        return [
            f"its Page is parked: {in_words(page['parked_reason'])}; mend it, then `leadsync pages unpark"
            f" {page['page_id']}`"
        ]
    if page.get("held_until") and page["held_until"] > now:
        return [
            f"no call is made for its Page until {page['held_until']:%H:%M:%S} UTC: {in_words(page['held_reason'])}"
        ]
    due = f", again at {row['due_at']:%H:%M:%S} UTC" if row["due_at"] else ""
    told = [f"it waits: {in_words(row['reason'])}{due}"]
    if row["due_at"] and (now - row["due_at"]).total_seconds() > 15:
        told.append("that is over: is there a worker for the queue `upkeep`? `leadsync status` tells")
    return told


def _ago(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else f"last {(now - at).total_seconds():.0f} s ago"
