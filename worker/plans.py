"""What is to be read of the past -> a Plan: its span, cut into slices by what is known of each form. Pure.

It reads and begins nothing. Invariant: the slices of each form or ad cover the plan's span exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from worker.asks import RESULT_PAGE_LIMIT
from worker.slices import Slice, cover, slice_size

RETENTION: Final = timedelta(days=90)
"""How long Meta keeps a lead. https://www.facebook.com/business/help/1526849577619206"""


@dataclass(frozen=True, slots=True)
class FormFacts:
    """What is known of a form: leads that Meta holds of it (None: not told), and since when it exists."""

    form_id: str
    leads: int | None = None
    created_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A backfill to begin: `edge` and `object_id` name what was asked for, `slices` what is read of it.

    `asked_since`, `asked_until` are aware UTC, or None where all was asked for; `since`, `until` unix seconds.
    """

    purpose: str
    edge: str
    object_id: str
    page_id: str
    since: int
    until: int
    slices: tuple[tuple[str, str, Slice], ...]
    """(edge, object id, slice)."""
    asked_since: datetime | None = None
    asked_until: datetime | None = None
    expected_leads: int | None = None

    @property
    def calls(self) -> int:
        """About how many calls it takes, at best."""
        leads = self.expected_leads or 0
        return max(len(self.slices), math.ceil(leads / RESULT_PAGE_LIMIT) + len(self.slices) // 2)


def span_of(
    asked_since: datetime | None, asked_until: datetime | None, *, now: datetime, lag: timedelta
) -> tuple[int, int] | None:
    """The whole seconds [since, until) that can be read of what was asked for; None where that is nothing.

    It begins a day before the oldest lead that Meta can still hold, since Meta's days may be longer than ours, and
    stops short of now by `lag`: leads may become visible late.
    """
    oldest, newest = now - RETENTION - timedelta(days=1), now - lag
    since = max(asked_since or oldest, oldest)
    until = min(asked_until or newest, newest)
    begin, end = math.floor(since.timestamp()), math.floor(until.timestamp())
    return (begin, end) if begin < end else None


def plan_forms(
    forms: Sequence[FormFacts],
    *,
    purpose: str,
    edge: str,
    object_id: str,
    page_id: str,
    span: tuple[int, int],
    now: datetime,
    asked: tuple[datetime | None, datetime | None] = (None, None),
) -> Plan:
    """Read these forms of one Page over `span`, in slices that hold about the same number of leads."""
    since, until = span
    expected = {form.form_id: _leads_within(form, since, until, now) for form in forms}
    known = [leads for leads in expected.values() if leads is not None]
    size = slice_size(sum(known))
    slices = [
        ("form", form.form_id, part)
        for form in forms
        for part in cover(
            since, until, leads=expected[form.form_id] or 0, size=size,
            begins=int(form.created_time.timestamp()) if form.created_time else None,
        )
    ]  # fmt: skip
    return Plan(
        purpose, edge, object_id, page_id, since, until, tuple(slices), *asked,
        expected_leads=sum(known) if len(known) == len(forms) else None,
    )  # fmt: skip


def plan_ad(
    ad_id: str, *, page_id: str, span: tuple[int, int], asked: tuple[datetime | None, datetime | None]
) -> Plan:
    """Read an ad over `span`. Nobody tells how many leads it has: a dense slice is divided as it is read."""
    since, until = span
    slices = (("ad", ad_id, Slice(since, until)),)
    return Plan("backfill", "ad", ad_id, page_id, since, until, slices, *asked)


def _leads_within(form: FormFacts, since: int, until: int, now: datetime) -> int | None:
    """The part of a form's leads that falls into the span, if they came evenly."""
    if form.leads is None:
        return None
    begins = (now - RETENTION).timestamp()
    if form.created_time is not None:
        begins = max(begins, form.created_time.timestamp())
    lasts = max(1.0, now.timestamp() - begins)
    share = (min(until, now.timestamp()) - max(since, begins)) / lasts
    return math.ceil(form.leads * min(1.0, max(0.0, share)))


def utc(seconds: int) -> datetime:
    """A unix second as aware UTC."""
    return datetime.fromtimestamp(seconds, UTC)
