"""Entries of the Redis stream, which anyone with the password may have added -> references in flight.

Input: the fields of an entry, `name=value` a line each.
"""

from typing import Final

from tests.fuzz.holdable import check_time
from tests.fuzz.target import Target, holds
from worker.batches import InFlight
from worker.inbox import LeadReference, UnreadableEntry, is_id
from worker.stream_search import Lying


def fields_of(data: bytes) -> dict[bytes, bytes]:
    """The entry that the input stands for."""
    pairs = (line.partition(b"=") for line in data.split(b"\n"))
    return {name: value for name, _, value in pairs}


def check_entry(data: bytes) -> None:
    """An entry is a reference that survives the way back, or is refused in words without its content."""
    fields = fields_of(data)
    try:
        reference = LeadReference.from_entry(fields)
    except UnreadableEntry as error:
        holds("a refusal is short ASCII", str(error).isascii() and len(str(error)) < 80)
        return
    entry = {name.encode(): value.encode() for name, value in reference.to_entry().items()}
    holds("a reference survives the stream", LeadReference.from_entry(entry) == reference)
    ids = (reference.leadgen_id, reference.page_id, reference.form_id or "1", reference.ad_id or "1")
    holds("ids are ids", all(map(is_id, ids)))
    in_flight = InFlight.from_entry(reference, b"1-0", now_ms=1_790_000_000_000)
    check_time(in_flight.received_at)
    check_time(in_flight.created_time)
    holds("a time taken fits a row", 0 <= (in_flight.taken_ms or 0) < 2**31)


def check_lying(data: bytes) -> None:
    """An entry is told of, whatever stands in it."""
    lying = Lying.of(b"1790000000000-0", fields_of(data))
    holds("a moment is a number of milliseconds", 0 <= lying.received_ms < 10**15)


TARGETS: Final = (
    Target(
        "entry",
        check_entry,
        b"v=1 lead= page= form= ad= created= sent= recv= 0 123123123123".split(),
        share=20,
    ),
    Target("lying", check_lying, b"lead= page= form= recv= 1790000000000".split(), share=5),
)
