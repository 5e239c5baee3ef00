"""Proven bytes -> Delivery: lead references, and what became of everything else in it. Pure.

    bytes -> document -> entries -> changes -> findings -> Delivery

Numbers are read as the text they are written in, so an id is the same whether Meta sends it as a number or a
string, and no number is too large to read. This file does not store, publish or log anything.

Invariant: `read` returns for all bytes, and every change that can be read is in the Delivery whatever
surrounds it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from worker.inbox import LeadReference, is_id

PAGE_OBJECT: Final = "page"
LEADGEN: Final = "leadgen"
LEADGEN_UPDATE: Final = "leadgen_update"
SAMPLE_ID_DIGITS: Final = 9
"""The dashboard's sample ids are fours alone, 9 to 12 of them; a lead's own id is 15 to 17 digits of all
kinds."""
TIME_DIGITS: Final = 14
"""The longest time that a stream entry carries."""


class Unread(StrEnum):
    """Why a part of a delivery could not be read. The part is named, never quoted."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    REPEATED_KEY = "repeated_key"
    BODY = "body"
    OBJECT = "object"
    ENTRIES = "entries"
    ENTRY = "entry"
    CHANGES = "changes"
    CHANGE = "change"
    FIELD = "field"
    VALUE = "value"
    LEADGEN_ID = "leadgen_id"
    PAGE_ID = "page_id"


class Seen(StrEnum):
    """What is read, understood and not to be fetched."""

    TEST = "test"
    UPDATE = "update"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Lacking:
    """A Page that announced a lead without an id that we can use."""

    page_id: str


Finding = LeadReference | Lacking | Seen | Unread


@dataclass(frozen=True, slots=True)
class Delivery:
    """One signed POST, read. `received_at` is our clock in unix milliseconds.

    `unread` names what could not be read, each reason once; where there is any, `body` is to be set aside.
    `lacking_values` are the Pages whose leads only Meta's listing can tell. The numbers count changes.
    """

    body: bytes = field(repr=False)
    received_at: int
    references: tuple[LeadReference, ...] = ()
    unread: tuple[Unread, ...] = ()
    lacking_values: tuple[str, ...] = ()
    duplicates: int = 0
    tests: int = 0
    updates: int = 0
    ignored: int = 0


def read(body: bytes, received_at: int) -> Delivery:
    """Everything that `body` announces, in the order in which it does. Never raises.

    https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving
    """
    document, flaws = _decode(body)
    first: dict[str, LeadReference] = {}
    unread: dict[Unread, None] = {}
    lacking: dict[str, None] = {}
    seen = dict.fromkeys(Seen, 0)
    duplicates = 0
    for finding in (*flaws, *(_in_document(document, received_at) if _is_readable(flaws) else ())):
        if isinstance(finding, LeadReference):
            duplicates += first.setdefault(finding.leadgen_id, finding) is not finding
        elif isinstance(finding, Seen):
            seen[finding] += 1
        elif isinstance(finding, Unread):
            unread[finding] = None
        else:
            lacking[finding.page_id] = None
    return Delivery(
        body=body,
        received_at=received_at,
        references=tuple(first.values()),
        unread=tuple(unread),
        lacking_values=tuple(lacking),
        duplicates=duplicates,
        tests=seen[Seen.TEST],
        updates=seen[Seen.UPDATE],
        ignored=seen[Seen.IGNORED],
    )


def _decode(body: bytes) -> tuple[object, list[Unread]]:
    """The JSON document, numbers as text, and what is wrong with the bytes."""
    flaws: list[Unread] = []

    def to_dict(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            flaws.append(Unread.REPEATED_KEY)
        return found

    decoder = json.JSONDecoder(
        parse_int=str, parse_float=str, parse_constant=str, strict=False, object_pairs_hook=to_dict
    )
    try:
        return decoder.decode(_text(body, flaws)), flaws
    except RecursionError:
        return None, [*flaws, Unread.TOO_DEEP]
    except ValueError:
        return None, [*flaws, Unread.NOT_JSON]


def _text(body: bytes, flaws: list[Unread]) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        # One bad letter somewhere must not cost the ids beside it.
        flaws.append(Unread.NOT_UTF8)
        return body.decode("utf-8-sig", "replace")


def _is_readable(flaws: Sequence[Unread]) -> bool:
    return Unread.TOO_DEEP not in flaws and Unread.NOT_JSON not in flaws


def _in_document(document: object, received_at: int) -> Iterator[Finding]:
    if not isinstance(document, dict):
        yield Unread.BODY
        return
    kind = document.get("object", PAGE_OBJECT)
    if not isinstance(kind, str):
        yield Unread.OBJECT
    elif kind != PAGE_OBJECT:
        yield Seen.IGNORED
        return
    entries = document.get("entry")
    if not isinstance(entries, list):
        yield Unread.ENTRIES
        return
    for entry in entries:
        yield from _in_entry(entry, received_at)


def _in_entry(entry: object, received_at: int) -> Iterator[Finding]:
    if not isinstance(entry, dict):
        yield Unread.ENTRY
        return
    changes = entry.get("changes")
    if changes:
        yield from _in_changes(changes, entry, received_at)
    elif "changed_fields" in entry:
        yield from _in_changed_fields(entry["changed_fields"], entry)
    elif changes is None or changes == []:
        yield Seen.IGNORED
    else:
        yield Unread.CHANGES


def _in_changed_fields(fields: object, entry: dict[str, object]) -> Iterator[Finding]:
    """What Meta sends instead of changes to a subscription that lacks `include_values`.

    https://developers.facebook.com/docs/graph-api/webhooks/getting-started#event-notifications
    """
    named = [fields] if isinstance(fields, str) else fields
    if not isinstance(named, list):
        yield Unread.CHANGES
    elif LEADGEN in named:
        page_id = _id(entry.get("id"))
        yield Lacking(page_id) if page_id else Unread.PAGE_ID
    else:
        yield Seen.IGNORED


def _in_changes(changes: object, entry: dict[str, object], received_at: int) -> Iterator[Finding]:
    if not isinstance(changes, list):
        yield Unread.CHANGES
        return
    for change in changes:
        yield from _in_change(change, entry, received_at)


def _in_change(change: object, entry: dict[str, object], received_at: int) -> Iterator[Finding]:
    name = change.get("field") if isinstance(change, dict) else None
    if not isinstance(change, dict):
        yield Unread.CHANGE
    elif not isinstance(name, str):
        yield Unread.FIELD
    elif name == LEADGEN:
        yield from _in_value(change.get("value"), entry, received_at)
    else:
        yield Seen.UPDATE if name == LEADGEN_UPDATE else Seen.IGNORED


def _in_value(value: object, entry: dict[str, object], received_at: int) -> Iterator[Finding]:
    told = value if isinstance(value, dict) else {}
    page_id = _id(told.get("page_id")) or _id(entry.get("id"))
    leadgen_id = _id(told.get("leadgen_id"))
    if leadgen_id and _is_sample(leadgen_id):
        yield Seen.TEST
    elif leadgen_id and page_id:
        yield _reference(leadgen_id, page_id, told, entry, received_at)
    else:
        if value is not None:
            yield _why_unread(value, leadgen_id)
        # The listing of the Page's forms still has the lead whose id did not reach us.
        yield Lacking(page_id) if page_id else Unread.PAGE_ID


def _why_unread(value: object, leadgen_id: str | None) -> Unread:
    if not isinstance(value, dict):
        return Unread.VALUE
    return Unread.PAGE_ID if leadgen_id else Unread.LEADGEN_ID


def _reference(
    leadgen_id: str, page_id: str, value: dict[str, object], entry: dict[str, object], received_at: int
) -> LeadReference:
    return LeadReference(
        leadgen_id=leadgen_id,
        page_id=page_id,
        form_id=_id(value.get("form_id")),
        # `adgroup_id` is the ad's id under its older name.
        ad_id=_id(value["ad_id"] if "ad_id" in value else value.get("adgroup_id")),
        created_time=_time(value.get("created_time")),
        sent_time=_time(entry.get("time")),
        received_at=received_at,
    )


def _is_sample(leadgen_id: str) -> bool:
    return len(leadgen_id) >= SAMPLE_ID_DIGITS and not leadgen_id.strip("4")


def _id(value: object) -> str | None:
    """An id, or None for what stands in an id's place without being one: 0, "", null, true, 1.0."""
    return value if isinstance(value, str) and is_id(value) else None


def _time(value: object) -> int | None:
    usable = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= TIME_DIGITS
    return int(str(value)) or None if usable else None
