"""What is known of a lead -> the stage it is at, in one sentence, and tables to look at. Pure: no socket, no clock.

Gathering is tracing.py's. Invariant: whatever is told is told as JSON first and drawn from that; an erased lead's
report holds how and when it was erased and nothing else.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.foreign_text import clean
from worker.stream_search import Lying, Standing
from worker.tracing import MetaSays, Row, Trace
from worker.trail import WORDS, Entry, calls_of

KEPT: Final = timedelta(days=90)
"""How long Meta keeps leads."""

REASONS: Final = {
    "graph_unavailable": "Graph failed or did not answer",
    "not_visible": "Graph does not show the lead (100/33)",
    "budget": "the Page's calls of 24 hours are spent",
    "token_refused": "Meta refuses the Page's token",
    "permission_refused": "a permission or lead access is missing",
    "proof_refused": "META_APP_SECRET is not that of the token's app",
    "page_parked": "its Page was parked",
    "page_slow": "Graph was slow for its Page",
    "too_much_asked": "Graph wanted smaller asks",
    "answer_too_large": "Graph's answer for it alone is too large to be read",
    "tokens_unreadable": "PAGE_TOKENS_FILE could not be read",
    "keys_unreadable": "TOKEN_KEYS_FILE could not be read",
    "token_locked": "the key that sealed the Page's token is missing",
    "by_hand": "by hand",
    "disconnected": "since it was disconnected",
    "internal_error": "a fault of leadsync",
    "ledger_unavailable": "Redis could not grant calls",
    "store_unavailable": "Postgres could not note calls",
    "grant_lapsed": "the worker was frozen between a grant and its call",
    "lead_malformed": "Graph's answer was not that lead",
    "request_refused": "Graph refuses the request itself",
    "ad_fields_refused": "the ad's fields are refused",
    "poison": "workers died while reading nothing but it",
    "import": "a file of Ads Manager",
    "backfill": "a backfill",
    "reconcile": "a reconciliation",
    "deep": "a reconciliation",
    "listing": "the listing of its form, read for other leads",
    "reading": "its own reading",
    "webhook": "its webhook",
}
HELD_BY_ORDER: Final = {
    "by_hand": "`leadsync pages unpark {}` takes it up again; by itself nothing does",
    "disconnected": "`leadsync connect --page {}` takes it up again; by itself nothing does",
}
"""What takes a Page up again that an operator wants held, by the reason that it is parked for."""
ORDERS: Final = {
    "id": "an order that named it",
    "answer": "an order that named an answer",
    "retention": "its retention period",
    "restore": "an earlier order, once more after a restore",
    "by_order": "an order",
    "by_retention": "its retention period",
}


def in_words(reason: str | None) -> str:
    """A fixed reason for people."""
    if reason is None:
        return ""
    if reason.startswith("throttled"):
        scope = reason.removeprefix("throttled").strip("_").replace("_", " ")
        return f"Meta throttled the {scope or 'calls'}"
    if reason.startswith("row_refused_"):
        return f"Postgres refuses the row (SQLSTATE {reason.removeprefix('row_refused_')})"
    if reason.startswith("mass_"):
        return f"many of its leads died: {in_words(reason.removeprefix('mass_'))}"
    return REASONS.get(reason, reason)


def report(trace: Trace, now: datetime) -> dict[str, Any]:
    """All of it as JSON: `known`, `stage`, `told` (a sentence), `advice`, and what it rests upon."""
    stage, told, advice = verdict(trace, now)
    row = trace.row
    base: dict[str, Any] = {
        "leadgen_id": trace.leadgen_id,
        "known": row is not None or stage in ("in_stream", "taken", "set_aside"),
        "stage": stage,
        "told": told,
        "advice": advice,
    }
    if stage == "erased":
        return base
    trail = _trail(row)
    return base | {
        "announced": _announced(row, trace.standing),
        "stream": _stream(trace.standing),
        "row": None if row is None else _row(row),
        "hops": _hops(row),
        "trail": [
            {
                "first_at": entry.first_at,
                "last_at": entry.last_at,
                "times": entry.times,
                "word": entry.word,
                "reason": entry.reason,
                "told": _entry(entry),
            }
            for entry in trail
        ],
        "calls": None if row is None else calls_of(trail) + (row["read_ms"] is not None),
        "repaired": _repaired(trace.repaired),
        "page": trace.page,
        "form": trace.form,
        "day": trace.day,
        "meta": _meta(trace.meta),
    }


def verdict(trace: Trace, now: datetime) -> tuple[str, str, list[str]]:
    """The stage, what to say of it, and what to do."""
    row = trace.row
    if row is not None:
        return _of_row(trace, row, now)
    if isinstance(trace.standing, Standing):
        if trace.standing.entries:
            return _of_entry(trace.standing.entries[-1], trace.standing, now)
        if trace.standing.set_aside:
            reason, at = trace.standing.set_aside[-1]
            return (
                "set_aside",
                f"named in a body that could not be read ({reason}) and was set aside {_when(_moment(at))}",
                ["look at the Redis stream leadsync:set_aside; reconciling brings the lead all the same"],
            )
    return _of_nobody(trace, now)


def _of_row(trace: Trace, row: Row, now: datetime) -> tuple[str, str, list[str]]:
    state, reason = row["state"], in_words(row["reason"])
    if state == "erased":
        order = trace.erasure or {"by_order_of": row["reason"], "at": row["updated_at"]}
        by = ORDERS.get(order["by_order_of"] or "", "an order")
        return "erased", f"erased by {by} {_when(order['at'])}", []
    if state == "stored":
        by = f"repaired by a reconciliation, {_late(trace.repaired)}" if trace.repaired else ""
        told = f"stored {_when(row['stored_at'])}, {by or 'brought by ' + in_words(row['source'])}"
        if not row["in_part"]:
            return "stored", told, []
        again = f", asked for again {_when(row['due_at'])}" if row["due_at"] else ""
        return "stored", f"{told}; in part: without what its source lacks{again}", []
    if state == "dead":
        told = f"dead letter since {_when(row['updated_at'])}: {reason}"
        return "dead", told, [f"mend the reason, then `leadsync dead-letters replay {trace.leadgen_id}`"]
    page = trace.page or {}
    if page.get("parked_at"):
        return _of_parked(page)
    if row["leases"] > 0 and row["due_at"] and row["due_at"] > now:
        return "reading", f"being read now, under a lease until {_when(row['due_at'])}", []
    if page.get("held_until") and page["held_until"] > now:
        return (
            "held",
            f"waits: no call is made for its Page {row['page_id']} until {_when(page['held_until'])}:"
            f" {in_words(page['held_reason'])}",
            ["`leadsync budget` shows what the Page may spend"],
        )
    overdue = row["due_at"] is not None and row["due_at"] < now - timedelta(minutes=1)
    return (
        "waiting",
        f"waits until {_when(row['due_at'])}: {reason}, attempt {row['attempts']}",
        ["it is overdue: `leadsync status` tells whether the queue `upkeep` has a worker"] if overdue else [],
    )


def _of_parked(page: Row) -> tuple[str, str, list[str]]:
    page_id, reason = page["page_id"], page["parked_reason"]
    told = f"waits: its Page {page_id} is parked since {_when(page['parked_at'])}, {in_words(reason)}"
    if reason in HELD_BY_ORDER:
        return "parked", told, [HELD_BY_ORDER[reason].format(page_id)]
    again = _when(page["check_at"]) if page["check_at"] else "at once"
    mend = f"mend the Page's token or permission, then `leadsync pages unpark {page_id}`"
    return "parked", f"{told}; checked again {again}", [mend]


def _of_entry(entry: Lying, standing: Standing, now: datetime) -> tuple[str, str, list[str]]:
    lain = _span(now - _moment(entry.added_ms))
    if entry.taken_by is None:
        return (
            "in_stream",
            f"in the stream for {lain}, not yet taken up by a worker",
            [
                "`leadsync status` tells when a worker last looked; `leadsync up` or `leadsync worker` runs one"
            ],
        )
    reading = ", being read now" if standing.reserved_by else ""
    return (
        "taken",
        f"in the stream for {lain}, taken up by {entry.taken_by} {_span(timedelta(milliseconds=entry.idle_ms))} ago,"
        f" delivered {_times(entry.deliveries)}{reading}",
        ["where that worker is dead another takes it up within CLAIM_AFTER_SECONDS"],
    )


def _of_nobody(trace: Trace, now: datetime) -> tuple[str, str, list[str]]:
    meta, told = trace.meta, "never announced here"
    if isinstance(trace.standing, str):
        told = f"no row, and {trace.standing}"
    elif not trace.standing.whole:
        told = (
            "no row, and not among the newest entries of the stream, which is longer than was looked through"
        )
    if meta is not None and meta.page_id is not None:
        form = f"form {meta.form_id}" if meta.form_id else "a form that Meta does not name"
        told += f"; Meta has it: {form} of Page {meta.page_id}, created {_when(meta.created_time)}"
        told += _covered(trace.form, meta.created_time)
        how = f"`leadsync reconcile --form {meta.form_id}` brings it now" if meta.form_id else ""
        return "not_announced", told, [how] if how else []
    if meta is not None:
        asked = f"{len(meta.asked)} Page" + "s" * (len(meta.asked) != 1)
        left = f"; {meta.left_out} Pages were not asked, name one by --page" if meta.left_out else ""
        trouble = "".join(f"; Page {page}: {in_words(why)}" for page, why in meta.troubles.items())
        if not meta.asked:
            told += f"; Meta could not be asked{left}{trouble}"
            return "unknown", told, ["`leadsync doctor` says what is in the way; then ask again"]
        told += f"; Meta does not show it to {asked} of ours{left}{trouble}"
        return (
            "unknown",
            told,
            ["it is older than 90 days, deleted, of a Page without a token here, or lead access is missing"],
        )
    if trace.asked_form is not None:
        told += f"; form {trace.asked_form}" + _covered(trace.form, None)
        return "not_announced", told, [f"`leadsync reconcile --form {trace.asked_form}` brings what it lacks"]
    return (
        "not_announced",
        told + "; Meta was not asked",
        ["ask without --offline, or name its form by --form"],
    )


def _covered(form: Row | None, created: datetime | None) -> str:
    """How far its form is reconciled, and whether that should have brought the lead."""
    if form is None:
        return "; that form is not known here"
    if form["reading"] is not None:
        return f"; the form's past is being read (backfill {form['reading']['backfill_id']})"
    if form["watermark"] is None:
        return "; the form was never reconciled" + _next(form)
    behind = created is not None and created < form["watermark"]
    told = f"; the form is reconciled up to {_when(form['watermark'])}"
    told += f", last compared {_when(form['compared_at'])}" if form["compared_at"] else ""
    return told + (", which should have brought it" if behind else "") + _next(form)


def _next(form: Row) -> str:
    return f"; compared next {_when(form['reconcile_at'])}" if form["reconcile_at"] else ""


def _trail(row: Row | None) -> list[Entry]:
    return [Entry.from_text(text) for text in (row["trail"] or ())] if row else []


def _entry(entry: Entry) -> str:
    why = in_words(entry.reason)
    return WORDS.get(entry.word, entry.word) + (f": {why}" if why else "")


def _row(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("trail", "leadgen_id")}


def _hops(row: Row | None) -> list[dict[str, Any]]:
    """Moments of the way, and seconds after the webhook."""
    if row is None or row["received_at"] is None:
        return []
    received = row["received_at"]
    passed = [("webhook", received)]
    for name, took in (("taken up", row["taken_ms"]), ("Graph's answer", row["read_ms"])):
        if took is not None:
            passed.append((name, received + timedelta(milliseconds=took)))
    if row["stored_at"]:
        passed.append(("row", row["stored_at"]))
    return [{"hop": n, "at": at, "seconds": round((at - received).total_seconds(), 3)} for n, at in passed]


def _announced(row: Row | None, standing: Standing | str) -> dict[str, Any]:
    entries = standing.entries if isinstance(standing, Standing) else ()
    times = (row["announced"] if row else 0) + (0 if row else len(entries))
    first = row["received_at"] if row else _moment(entries[0].received_ms) if entries else None
    last = _moment(entries[-1].received_ms) if entries else row["last_seen_at"] if row and times else None
    if times == 0 and first is not None:
        times = 1  # from before this was counted
    return {"times": times, "first_at": first, "last_at": first if times == 1 and first else last}


def _stream(standing: Standing | str) -> dict[str, Any]:
    if isinstance(standing, str):
        return {"error": standing}
    return {
        "entries": [
            {
                "entry_id": entry.entry_id,
                "added_at": _moment(entry.added_ms),
                "taken_by": entry.taken_by,
                "idle_seconds": entry.idle_ms / 1000,
                "deliveries": entry.deliveries,
            }
            for entry in standing.entries
        ],
        "read_now_by": standing.reserved_by,
        "begun_alone": standing.begun_alone,
        "set_aside": [{"reason": reason, "at": _moment(at)} for reason, at in standing.set_aside],
        "looked_through": standing.whole,
    }


def _repaired(repaired: Row | None) -> dict[str, Any] | None:
    if repaired is None:
        return None
    late = (repaired["repaired_at"] - repaired["created_time"]).total_seconds()
    return {**repaired, "late_seconds": late}


def _late(repaired: Row | None) -> str:
    assert repaired is not None
    return f"{_span(repaired['repaired_at'] - repaired['created_time'])} after it was created"


def _meta(meta: MetaSays | None) -> dict[str, Any] | None:
    if meta is None:
        return None
    return {
        "page_id": meta.page_id,
        "form_id": meta.form_id,
        "created_time": meta.created_time,
        "pages_asked": list(meta.asked),
        "troubles": meta.troubles,
        "pages_left_out": meta.left_out,
    }


def render(told: Mapping[str, Any]) -> Group:
    """A report as one sentence and tables."""
    colour = {"stored": "green", "dead": "red", "parked": "red", "erased": "white"}.get(
        told["stage"], "yellow"
    )
    parts: list[RenderableType] = [
        Text.assemble((f"lead {told['leadgen_id']}  ", "bold"), (told["told"], colour))
    ]
    parts += [Text(f"-> {advice}") for advice in told["advice"]]
    if told["stage"] == "erased":
        return Group(*parts)
    parts.append(_facts(told))
    if told["hops"]:
        table = _table("way", "hop", "at", "after the webhook")
        for hop in told["hops"]:
            at = f"{hop['at'].astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
            table.add_row(hop["hop"], f"{at} UTC", f"{hop['seconds']:.3f} s")
        parts.append(table)
    if told["trail"]:
        table = _table("what befell it", "at", "times", "until", "what and why")
        for entry in told["trail"]:
            again = _when(entry["last_at"]) if entry["times"] > 1 else ""
            table.add_row(_when(entry["first_at"]), str(entry["times"]), again, entry["told"])
        parts.append(table)
    return Group(*parts)


def _facts(told: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    announced, row, form, day = told["announced"], told["row"], told["form"], told["day"]
    if announced["times"]:
        first = f", first {_when(announced['first_at'])}" if announced["first_at"] else ""
        last = f", last {_when(announced['last_at'])}" if announced["times"] > 1 else ""
        table.add_row("announced", f"{_times(announced['times'])}{first}{last}")
    else:
        table.add_row("announced", "never")
    stream = told["stream"]
    if "error" in stream:
        table.add_row("Redis", Text(stream["error"]))
    else:
        table.add_row("in the stream", _lying(stream))
    if row:
        table.add_row("state", " ".join(filter(None, (row["state"], row["reason"]))))
        if row["due_at"]:
            table.add_row("due", _when(row["due_at"]))
        table.add_row("Page, form", f"{row['page_id']}, {row['form_id'] or 'unknown'}")
        table.add_row("created", _when(row["created_time"]))
        table.add_row("brought by", in_words(row["source"]))
        marks = [name for name in ("is_test", "in_part", "cleaned") if row[name]]
        if marks:
            table.add_row("marks", ", ".join(marks))
        table.add_row("calls made for it", f"about {told['calls']}")
    if form:
        named = " ".join(filter(None, (form["form_id"], form["name"])))
        table.add_row("its form", Text(f"{clean(named)}{_covered(form, None)}"))
    if day:
        table.add_row(
            "reconciled that day",
            f"{day['metas']} leads at Meta, {day['repaired']} repaired, {day['unexplained']} unexplained",
        )
    if told["repaired"]:
        table.add_row(
            "repaired", f"was {told['repaired']['was']}, {told['repaired']['late_seconds']:,.0f} s late"
        )
    return table


def _lying(stream: Mapping[str, Any]) -> str:
    if not stream["entries"]:
        return (
            "no"
            if stream["looked_through"]
            else "not among the newest entries; the others were not looked at"
        )
    told = [
        f"{each['entry_id']}" + (f", taken by {each['taken_by']}" if each["taken_by"] else ", not yet taken")
        for each in stream["entries"]
    ]
    return "; ".join(told) + (f"; read now by {stream['read_now_by']}" if stream["read_now_by"] else "")


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)


def plain(value: object) -> object:
    """What json.dumps cannot write by itself."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _when(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at else "an unknown moment"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _span(span: timedelta) -> str:
    seconds = max(0.0, span.total_seconds())
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
