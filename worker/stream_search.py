"""One leadgen_id -> where it lies in Redis: in the stream, reserved for being read, in bodies set aside. It reads only.

A stream has no index, so entries are looked through from the newest back, block by block. Invariants: at
most ENTRIES_AT_MOST entries are looked at, and it is said where that was not all; memory holds one block.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError, ResponseError

from worker.errors import LedgerUnavailable
from worker.inbox import GROUP, SET_ASIDE, STREAM
from worker.stream import ALONE, RESERVED_PREFIX

BLOCK: Final = 5_000
ENTRIES_AT_MOST: Final = 2_000_000
_TIME_DIGITS: Final = 14
"""The longest time that a receiver of ours writes into an entry; anyone may have added others."""
BODIES: Final = 20
"""Set-aside bodies looked at together; one may have a megabyte."""


@dataclass(frozen=True, slots=True)
class Lying:
    """An entry of the stream. Moments in unix milliseconds of Redis' clock (`added_ms`) or ours (`received_ms`).

    `taken_by` is the consumer that it was delivered to, `deliveries` times, the last one `idle_ms` ago; None: nobody
    has taken it up.
    """

    entry_id: str
    page_id: str
    form_id: str | None
    added_ms: int
    received_ms: int
    taken_by: str | None = None
    idle_ms: int = 0
    deliveries: int = 0

    @classmethod
    def of(
        cls, entry_id: bytes, fields: Mapping[bytes, bytes], held: Mapping[str, Any] | None = None
    ) -> "Lying":
        """An entry of any shape, and what the group says of it where somebody holds it."""
        form = fields.get(b"form")
        added, received = _milliseconds(entry_id), fields.get(b"recv", b"")
        return cls(
            entry_id.decode(),
            fields.get(b"page", b"").decode("ascii", "replace"),
            form.decode("ascii", "replace") if form else None,
            added,
            int(received) if received.isdigit() and len(received) <= _TIME_DIGITS else added,
            held["consumer"].decode() if held else None,
            int(held["time_since_delivered"]) if held else 0,
            int(held["times_delivered"]) if held else 0,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """All that Redis knows of a lead. `reserved_by`: the consumer that reads it now; `whole`: all was looked through.

    `set_aside`: reason and moment (unix milliseconds) of each body set aside that names it.
    """

    entries: tuple[Lying, ...]
    reserved_by: str | None
    begun_alone: int
    set_aside: tuple[tuple[str, int], ...]
    whole: bool


async def search(
    client: "aioredis.Redis",
    leadgen_id: str,
    *,
    since_ms: int = 0,
    told: Callable[[int, int], None] = lambda looked, length: None,
) -> Standing:
    """Where the lead is, among entries added since `since_ms`; `told` hears how many of how many were looked at.

    Raises LedgerUnavailable.
    """
    try:
        entries, whole = await _entries(client, leadgen_id, since_ms, told)
        reserved: Any = await client.get(RESERVED_PREFIX + leadgen_id)
        alone: Any = await client.hget(ALONE, leadgen_id)
        aside = await _set_aside(client, leadgen_id.encode(), since_ms)
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(f"Redis cannot be asked: {type(error).__name__}") from None
    return Standing(entries, reserved.decode() if reserved else None, int(alone or 0), aside, whole)


async def _entries(
    client: "aioredis.Redis", leadgen_id: str, since_ms: int, told: Callable[[int, int], None]
) -> tuple[tuple[Lying, ...], bool]:
    length = int(await client.xlen(STREAM))
    found: list[Lying] = []
    looked = 0
    highest = "+"
    while looked < ENTRIES_AT_MOST:
        block: Any = await client.xrevrange(STREAM, max=highest, min=str(since_ms), count=BLOCK)
        for entry_id, fields in block:
            if fields.get(b"lead") == leadgen_id.encode():
                found.append(await _lying(client, entry_id, fields))
        looked += len(block)
        if len(block) < BLOCK:
            return tuple(reversed(found)), True
        told(looked, length)
        highest = "(" + block[-1][0].decode()
    return tuple(reversed(found)), False


async def _set_aside(
    client: "aioredis.Redis", leadgen_id: bytes, since_ms: int
) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    lowest = str(since_ms)
    while True:
        block: Any = await client.xrange(SET_ASIDE, min=lowest, count=BODIES)
        found += (
            (fields.get(b"reason", b"").decode("ascii", "replace"), _milliseconds(entry_id))
            for entry_id, fields in block
            if _names(fields.get(b"body", b""), leadgen_id)
        )
        if len(block) < BODIES:
            return tuple(found)
        lowest = "(" + block[-1][0].decode()


async def _lying(client: "aioredis.Redis", entry_id: bytes, fields: dict[bytes, bytes]) -> Lying:
    try:
        pending = await client.xpending_range(STREAM, GROUP, entry_id, entry_id, 1)
    except ResponseError:
        pending = []  # no group yet: no worker has ever run
    return Lying.of(entry_id, fields, pending[0] if pending else None)


def _names(body: bytes, leadgen_id: bytes) -> bool:
    """Whether the id stands in a body, and not only as a part of a longer number."""
    at = body.find(leadgen_id)
    while at >= 0:
        around = body[max(0, at - 1) : at], body[at + len(leadgen_id) : at + len(leadgen_id) + 1]
        if not any(each.isdigit() for each in around):
            return True
        at = body.find(leadgen_id, at + 1)
    return False


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
