"""References of one Page -> what to ask Graph: a form's listing over a stretch of time, or ids, 50 at once. Pure.

A call a lead is the dearest way to read: one result page brings many leads for one call. It asks nothing (reading.py
and listing.py do) and knows no limit. Invariant: every reference that goes in is in exactly one ask, unless its form is
being listed already.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from worker.batches import InFlight
from worker.graph.wire import BATCH_LIMIT

RESULT_PAGE_LIMIT: Final = 500
"""Leads asked for on one result page; Graph may answer fewer, or ask for less."""
USUAL_RATE: Final = 1 / 60
"""Leads a second of a form of which nothing is known: over a thousand a day."""
WORTH_IT: Final = 10
"""With calls to spare a listing is worth it where it saves nine calls in ten, and more than one batch is waiting."""


@dataclass(frozen=True, slots=True)
class ById:
    """These leads, a call each, in one request."""

    references: tuple[InFlight, ...]


@dataclass(frozen=True, slots=True)
class ByListing:
    """These leads of one form by listing its leads created in the whole seconds [since, until)."""

    form_id: str
    since: int
    until: int
    references: tuple[InFlight, ...]


Ask: TypeAlias = ById | ByListing


def plan(
    references: Sequence[InFlight],
    *,
    rate_of: Callable[[str], float],
    tight: bool,
    listing: Collection[str] = (),
    by_id_only: Collection[str] = (),
) -> tuple[Ask, ...]:
    """The cheapest asks for these references.

    `rate_of` gives a form's leads a second; `tight`: calls are scarce, so that every call saved counts. References of
    the forms in `listing`, which are being listed at this moment, are in no ask; those in `by_id_only` are not listed.
    """
    listed: list[ByListing] = []
    for form_id, of_form in _by_form(references, (*listing, *by_id_only)).items():
        for stretch in _stretches(of_form, rate_of(form_id)):
            ask = _listing(form_id, stretch)
            if _is_worth_it(len(stretch), listing_calls(ask, rate_of(form_id)), tight):
                listed.append(ask)
    taken = {r.leadgen_id for ask in listed for r in ask.references}
    rest = [r for r in references if r.leadgen_id not in taken and r.form_id not in listing]
    listed.sort(key=lambda ask: -len(ask.references))
    batches = (tuple(rest[start : start + BATCH_LIMIT]) for start in range(0, len(rest), BATCH_LIMIT))
    return (*listed, *map(ById, batches))


def can_be_listed(reference: InFlight) -> bool:
    """Whether it is known of which form the lead is, and of what time; what is stored in part is read by id."""
    return reference.form_id is not None and reference.created_time is not None and not reference.in_part


def listing_calls(ask: ByListing, rate: float) -> int:
    """Result pages that the listing is expected to have: those asked for, and whatever else came in that time."""
    others = rate * max(0, ask.until - ask.since - 1)
    return max(1, math.ceil((len(ask.references) + others) / RESULT_PAGE_LIMIT))


def _is_worth_it(leads: int, calls: int, tight: bool) -> bool:
    return calls < leads if tight else leads > BATCH_LIMIT and calls * WORTH_IT <= leads


def _by_form(references: Iterable[InFlight], without: Collection[str]) -> dict[str, list[InFlight]]:
    """References that a listing could bring, by form, in the order of their creation."""
    by_form: dict[str, list[InFlight]] = {}
    for r in references:
        if r.form_id is not None and r.form_id not in without and can_be_listed(r):
            by_form.setdefault(r.form_id, []).append(r)
    for of_form in by_form.values():
        of_form.sort(key=lambda r: (r.created_time, r.leadgen_id))
    return by_form


def _stretches(of_form: Sequence[InFlight], rate: float) -> Iterator[list[InFlight]]:
    """Cut where reading through the gap would cost more than the call with which a new listing begins.

    There is a reference at least: a form without any is in no plan.
    """
    stretch: list[InFlight] = []
    for reference in of_form:
        if stretch and rate * (_second(reference) - _second(stretch[-1])) > RESULT_PAGE_LIMIT:
            yield stretch
            stretch = []
        stretch.append(reference)
    yield stretch


def _listing(form_id: str, stretch: Sequence[InFlight]) -> ByListing:
    return ByListing(form_id, _second(stretch[0]), _second(stretch[-1]) + 1, tuple(stretch))


def _second(reference: InFlight) -> int:
    assert reference.created_time is not None
    return int(reference.created_time.timestamp())
