"""Deliveries and counts -> the words that take.lua reads. Pure.

    Delivery -> aside, entries, wanted Pages;  verdicts -> counts

publisher.py sends the words; what they do is take.lua's. Invariant: the entries stand in the order in which the
deliveries announce them, and what follows a part's length is as long as it says.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from receiver.delivery import Delivery
from receiver.tally import Verdict
from worker.inbox import (
    BELL,
    BELL_EXPIRES_SECONDS,
    COUNTERS,
    RECONCILE_WANTED,
    RECONCILE_WANTED_LAST,
    SET_ASIDE,
    SET_ASIDE_LIMIT,
    STREAM,
)

SCRIPT: Final = Path(__file__).with_name("take.lua")
KEYS: Final = (STREAM, COUNTERS, BELL, RECONCILE_WANTED, SET_ASIDE, RECONCILE_WANTED_LAST)

Word = str | bytes


def words(deliveries: Iterable[Delivery], counts: Mapping[Verdict, int], bell: str) -> list[Word]:
    """The script's arguments; `bell` is a word that no other bell has."""
    found: list[Word] = [bell, str(BELL_EXPIRES_SECONDS), str(SET_ASIDE_LIMIT)]
    for delivery in deliveries:
        for part in _of(delivery):
            found += part
    for verdict, count in counts.items():
        found += ("count", "2", verdict.value, str(count))
    return found


def _of(delivery: Delivery) -> Iterator[list[Word]]:
    if delivery.unread:
        yield [
            *("aside", "6", "reason", ",".join(reason.value for reason in delivery.unread)),
            *("received_at", str(delivery.received_at), "body", delivery.body),
        ]
    for reference in delivery.references:
        entry = reference.to_entry()
        part: list[Word] = ["entry", str(2 * len(entry))]
        for pair in entry.items():
            part += pair
        yield part
    for page_id in delivery.lacking_values:
        yield ["wanted", "2", page_id, str(delivery.received_at)]


def counts_of(delivery: Delivery) -> dict[Verdict, int]:
    """What was seen in a delivery."""
    return {
        Verdict.DELIVERIES: 1,
        Verdict.REFERENCES: len(delivery.references),
        Verdict.DUPLICATES: delivery.duplicates,
        Verdict.TESTS: delivery.tests,
        Verdict.UPDATES: delivery.updates,
        Verdict.IGNORED: delivery.ignored,
        Verdict.LACKING_VALUES: len(delivery.lacking_values),
        Verdict.SET_ASIDE: 1 if delivery.unread else 0,
    }


def total(parts: Iterable[Mapping[Verdict, int]]) -> dict[Verdict, int]:
    """All counts as one; those that are nothing are left out."""
    found: dict[Verdict, int] = {}
    for part in parts:
        for verdict, count in part.items():
            if count:
                found[verdict] = found.get(verdict, 0) + count
    return found
