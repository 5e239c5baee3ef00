"""Leads -> webhook bodies, as Meta builds and signs them.

    leads, duplicates, order -> announcements -> deliveries -> entries and changes -> bytes, signature

Pure: whether and when a delivery is sent, and what becomes of it, is sender.py's. Meta's payloads differ in
many small ways; each of VARIANTS is one that was seen, and all of them name the same lead.

Invariant: the signature holds for exactly the bytes that are sent.
"""

import hashlib
import hmac
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from sandbox.wire import encode
from sandbox.world import Lead

MOST_CHANGES: Final = 1_000
"""https://developers.facebook.com/docs/graph-api/webhooks/getting-started"""
VARIANTS: Final = (
    "strings",
    "integers",
    "entry_string",
    "no_ads",
    "empty_ads",
    "entry_zero",
    "field_last",
    "object_last",
    "more_keys",
)
_REORDER_WITHIN: Final = 200
"""Announcements change places about so far at most: deliveries overtake each other, but not by days."""

What = Literal["lead", "update", "sample", "other", "changed_fields"]

FIELDS: Final[Mapping[What, str]] = {
    "lead": "leadgen",
    "changed_fields": "leadgen",
    "sample": "leadgen",
    "update": "leadgen_update",
    "other": "feed",
}
"""The subscription's field that each belongs to."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One change to come: of the lead made as number `ordinal` of this run, or of nothing that exists."""

    what: What
    ordinal: int = 0
    dropped: bool = False
    """Never delivered, as if Meta had lost it."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What a run of deliveries holds."""

    count: int
    duplicates: float = 0.0
    """Announcements on top, as a share of `count`."""
    drop: float = 0.0
    """Share of the announcements of leads that are never delivered."""
    batch: int = 1
    """Changes a delivery; a delivery never has more than 1,000."""
    vary_batch: bool = False
    """Deliveries hold 1 to `batch` changes."""
    reorder: bool = False
    sample_pings: int = 0
    updates: int = 0
    """leadgen_update changes, which announce no new lead."""
    other_fields: int = 0
    changed_fields: int = 0
    """Entries without ids, as of a subscription without values."""
    variants: tuple[str, ...] = ("strings",)
    seed: int = 1


def plan(mix: Mix) -> Iterator[tuple[Announcement, ...]]:
    """The deliveries of a run: every lead at least once, and whatever else the mix asks for; with those that are
    dropped in their places."""
    luck = random.Random(mix.seed)
    line = [(place, Announcement("lead", place)) for place in range(mix.count)]
    extra = round(mix.count * mix.duplicates)
    # A duplicate comes after its first announcement, at a place of its own.
    for number in range(extra if mix.count else 0):
        ordinal = number % mix.count
        line.append((ordinal + 1 + int(luck.random() * _REORDER_WITHIN), Announcement("lead", ordinal)))
    # But for a sample each stands on the Page of a lead of this run.
    others: tuple[tuple[What, int], ...] = (
        ("update", mix.updates if mix.count else 0),
        ("sample", mix.sample_pings),
        ("other", mix.other_fields if mix.count else 0),
        ("changed_fields", mix.changed_fields if mix.count else 0),
    )
    for what, times in others:
        for _ in range(times):
            place = int(luck.random() * mix.count)
            line.append((place, Announcement(what, place)))
    shift = _REORDER_WITHIN if mix.reorder else 0
    line.sort(key=lambda pair: pair[0] + (luck.random() * shift if shift else 0))
    told = [announcement for _, announcement in line]
    leads = [place for place, announcement in enumerate(told) if announcement.what == "lead"]
    for place in luck.sample(leads, round(len(leads) * mix.drop)):
        told[place] = replace(told[place], dropped=True)
    most = max(1, min(mix.batch, MOST_CHANGES))
    start = 0
    while start < len(told):
        size = luck.randint(1, most) if mix.vary_batch else most
        yield tuple(told[start : start + size])
        start += size


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a delivery; `lead` is None where it is of nothing that exists."""

    what: What
    lead: Lead | None
    variant: str
    values: bool = True
    """Whether the subscription wants to be told what changed, and not only that something did."""


def delivery_body(changes: Sequence[Change], sent_time: int) -> bytes:
    """The body of one delivery. Changes that follow each other on one Page share an entry."""
    entries: list[dict[str, object]] = []
    shown: list[dict[str, object]] = []
    page_id = ""
    for change in changes:
        if change.what == "sample" or change.lead is None:
            entries.append(_sample(sent_time))
            page_id = ""
            continue
        if change.what == "changed_fields" or not change.values:
            fields = [FIELDS[change.what]]
            entries.append({"id": change.lead.page_id, "time": sent_time, "changed_fields": fields})
            page_id = ""
            continue
        key = change.lead.page_id + change.variant
        if key != page_id:
            page_id, shown = key, []
            entries.append({"id": _entry_id(change), "time": sent_time, "changes": shown})
        shown.append(_change(change))
    last = changes[-1].variant if changes else ""
    payload = (
        {"entry": entries, "object": "page"}
        if last == "object_last"
        else {"object": "page", "entry": entries}
    )
    return encode(payload).encode()


def signatures(body: bytes, app_secret: str) -> dict[str, str]:
    """The headers that prove the body."""
    key = app_secret.encode()
    return {
        "X-Hub-Signature-256": "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest(),
        "X-Hub-Signature": "sha1=" + hmac.new(key, body, hashlib.sha1).hexdigest(),
    }


def redelivery_delays(span_seconds: float) -> Iterator[float]:
    """Seconds to wait before each further try: at once, then ever less often until the span is over.
    https://developers.facebook.com/docs/graph-api/webhooks/getting-started"""
    yield 0.0
    before = 0.0
    for halvings in range(9, -1, -1):
        at = span_seconds / 2**halvings
        yield at - before
        before = at


def _entry_id(change: Change) -> object:
    page_id = change.lead.page_id if change.lead else "0"
    if change.variant == "entry_zero":
        return "0"
    return int(page_id) if change.variant == "integers" else page_id


def _change(change: Change) -> dict[str, object]:
    if change.what == "other":
        return {
            "field": FIELDS["other"],
            "value": {"item": "comment", "verb": "add", "message": "Grüße / 👋"},
        }
    lead = change.lead
    value = _value(change.variant, lead) if lead else {}
    if change.what == "update":
        value |= {
            "updated_time": str(value.pop("created_time", 0)),
            "area": "ai_agent_updates",
            "event": "qualification_status_change",
            "updated_fields": ["qualification_details", "qualification_status"],
        }
    field = FIELDS[change.what]
    if change.variant == "field_last":
        return {"value": value, "field": field}
    return {"field": field, "value": value}


def _value(variant: str, lead: Lead) -> dict[str, object]:
    as_number = variant in ("integers", "entry_string")
    value: dict[str, object] = {
        "leadgen_id": lead.leadgen_id,
        "page_id": lead.page_id,
        "form_id": lead.form.form_id,
    }
    if lead.ad is not None:
        value |= {"adgroup_id": lead.ad.ad_id, "ad_id": lead.ad.ad_id}
    elif variant in ("integers", "entry_string"):
        value |= {"adgroup_id": "0", "ad_id": "0"}
    elif variant == "empty_ads":
        value |= {"adgroup_id": "", "ad_id": ""}
    if as_number:
        value = {name: int(str(text)) for name, text in value.items()}
    value["created_time"] = lead.created_time
    if variant == "more_keys":
        value |= {"page_name": "Café / Bar äöå 🌞 @home", "nested": {"leadgen_id": "1"}, "is_new": True}
    return value


def _sample(sent_time: int) -> dict[str, object]:
    """What the "Test" button of the app's dashboard sends: a lead that never existed."""
    value = {
        "ad_id": "444444444",
        "form_id": "444444444444",
        "leadgen_id": "444444444444",
        "created_time": sent_time,
        "page_id": "444444444444",
        "adgroup_id": "44444444444",
    }
    return {"id": "0", "time": sent_time, "changes": [{"field": "leadgen", "value": value}]}
