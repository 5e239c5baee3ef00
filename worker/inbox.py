"""The front door: what the receiver hands to the worker, and under which names.

A lead reference turns into the flat text fields of one stream entry and back again. This file does no I/O and
imports nothing but the standard library and quick_dataclass.py, so that the receiver can import it without pulling in
the worker.

Invariant: `LeadReference.from_entry(reference.to_entry()) == reference` for every reference.
"""

import re
from collections.abc import Mapping
from typing import Final

from worker.quick_dataclass import quick_dataclass

STREAM: Final = "leadsync:references"
"""Redis Stream, one entry a lead reference, pending until Postgres has committed what became of it."""
GROUP: Final = "leadsync"
"""The consumer group on STREAM. Always created at id 0: one created at `$` skips what was added before it."""
SET_ASIDE: Final = "leadsync:set_aside"
"""Redis Stream of signed but unreadable bodies: fields `reason`, `received_at` (unix ms), `body` (raw bytes)."""
SET_ASIDE_LIMIT: Final = 1_000
"""Bodies kept in SET_ASIDE; the oldest go first."""
COUNTERS: Final = "leadsync:deliveries"
"""Redis hash of what the receiver has seen, by verdict."""
RECONCILE_WANTED: Final = "leadsync:reconcile_wanted"
"""Redis hash page_id -> unix ms: Pages whose webhook announced a change without its ids, and when the first time since
they were last compared with Meta's listing for it."""
RECONCILE_WANTED_LAST: Final = "leadsync:reconcile_wanted_last"
"""The same, and when the last time."""
ERASED: Final = "leadsync:erased"
"""Redis hash leadgen_id -> page_id of what was erased by order: a database that is restored knows nothing of it."""
CLOCK: Final = "leadsync:clock:"
"""Redis string a machine, with an expiry: since when its wall clock and its steady one agree."""
BELL: Final = "leadsync:bell"
"""Redis string with an expiry: a doorbell is out or a drain is listening, so nobody needs to ring."""
BELL_EXPIRES_SECONDS: Final = 10
"""A bell that was rung and lost (a killed worker) silences its ringers no longer than this."""
PROGRESS: Final = "leadsync:progress"
"""Redis hash queue -> unix ms of the last look that any of its workers took at its work; so too `schedule`."""
RESUME_BELL: Final = "leadsync:bell:resume"
"""As BELL, for the task that reads the waiting rows."""
BACKFILL_BELL: Final = "leadsync:bell:backfill"
"""As BELL, for the task that reads slices of the past."""

LIVE_QUEUE: Final = "live"
BACKFILL_QUEUE: Final = "backfill"
UPKEEP_QUEUE: Final = "upkeep"
QUEUES: Final = (LIVE_QUEUE, BACKFILL_QUEUE, UPKEEP_QUEUE)
DRAIN_TASK: Final = "leads.drain"
RESUME_TASK: Final = "leads.resume"
TIDY_TASK: Final = "leads.tidy"
LIMITS_TASK: Final = "budget.limits"
BACKFILL_TASK: Final = "leads.backfill"
DISCOVER_TASK: Final = "forms.discover"
RECONCILE_TASK: Final = "leads.reconcile"
DEEP_TASK: Final = "leads.reconcile_deep"
FORGET_TASK: Final = "leads.forget"
CHECK_TASK: Final = "pages.check"

WIRE_VERSION: Final = "1"

_ID: Final = "(?=0*[1-9])[0-9]{1,32}"
_TIME: Final = "[0-9]{1,14}"
_IS_ID: Final = re.compile(_ID).fullmatch
_IS_TIME: Final = re.compile(_TIME).fullmatch
_FIELDS: Final = (b"lead", b"page", b"form", b"ad", b"created", b"sent", b"recv")
_TIMES: Final = frozenset((b"created", b"sent", b"recv"))
_REQUIRED: Final = frozenset((b"lead", b"page", b"recv"))
_ABSENT: Final = b"-"
_WHERE_ABSENT: Final = (b"", b"", _ABSENT, _ABSENT, _ABSENT, _ABSENT, b"")
_READ: Final = re.compile(
    f"({_ID}) ({_ID}) (?:-|({_ID})) (?:-|({_ID})) (?:-|({_TIME})) (?:-|({_TIME})) ({_TIME})"
).fullmatch
"""What stands in _FIELDS, one after the other: to read each by itself took twice as long."""


class UnreadableEntry(ValueError):
    """A stream entry that is no lead reference; the message names the field and never its content."""


def is_id(text: str) -> bool:
    """Whether `text` is an id as leadsync keeps it: 1 to 32 ASCII digits, not all of them zero."""
    return _IS_ID(text) is not None


@quick_dataclass(frozen=True, slots=True)
class LeadReference:
    """The ids that one webhook change announces; not the lead itself.

    `created_time` and `sent_time` are Meta's clock in unix seconds (of the lead, of the delivery's entry) or None
    where Meta did not say; `received_at` is our clock in unix milliseconds, when the receiver had the body. Each has
    at most 14 digits.
    """

    leadgen_id: str
    page_id: str
    form_id: str | None
    ad_id: str | None
    created_time: int | None
    sent_time: int | None
    received_at: int

    def to_entry(self) -> dict[str, str]:
        """The stream entry's fields. What is None is left out."""
        entry = {
            "v": WIRE_VERSION,
            "lead": self.leadgen_id,
            "page": self.page_id,
            "recv": str(self.received_at),
        }
        if self.form_id is not None:
            entry["form"] = self.form_id
        if self.ad_id is not None:
            entry["ad"] = self.ad_id
        if self.created_time is not None:
            entry["created"] = str(self.created_time)
        if self.sent_time is not None:
            entry["sent"] = str(self.sent_time)
        return entry

    @classmethod
    def from_entry(cls, entry: Mapping[bytes, bytes]) -> "LeadReference":
        """The reference that a stream entry (as redis-py reads it, bytes) carries.

        Raises UnreadableEntry where a field is missing or is not what `to_entry` writes. Fields that this version
        does not know are ignored, so that a newer receiver may run before an older worker.
        """
        told = b" ".join(map(entry.get, _FIELDS, _WHERE_ABSENT))
        read = _READ(told.decode("latin-1"))
        found = read.groups() if read else ()
        if not read or (None in found and _ABSENT in map(entry.get, _FIELDS)):
            raise UnreadableEntry(_fault(entry))
        lead, page, form, ad, created, sent, received = found
        return cls(
            lead,
            page,
            form,
            ad,
            int(created) if created else None,
            int(sent) if sent else None,
            int(received),
        )


def _fault(entry: Mapping[bytes, bytes]) -> str:
    """Why an entry is none of ours: the first field that is not as it should be."""
    for field in _FIELDS:
        told = entry.get(field)
        if told is None and field not in _REQUIRED:
            continue
        if told is None or not told.isascii():
            return f"stream entry field {field.decode()!r} is missing or not ASCII"
        is_right, kind = (_IS_TIME, "a time") if field in _TIMES else (_IS_ID, "an id")
        if not is_right(told.decode()):
            return f"stream entry field {field.decode()!r} is not {kind}"
    raise AssertionError("a readable entry has no fault")
