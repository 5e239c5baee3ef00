"""What Redis tells of how it goes: stream, totals, progress, memory, the Pages' budgets. It reads only.

It judges nothing and shows nothing (exposition.py does). Invariant: whatever Redis does to us leaves as
LedgerUnavailable; what a user of Redis may not ask (INFO) is left out and spoils nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import RedisError, ResponseError

from worker.errors import LedgerUnavailable
from worker.inbox import COUNTERS, GROUP, PROGRESS, RECONCILE_WANTED, SET_ASIDE, STREAM
from worker.totals import TOTALS


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """Times in unix seconds of Redis' clock; `oldest_at`: when the stream's oldest entry was added.

    `deliveries` are the receiver's counts by verdict, `totals` the workers' by field. Memory in bytes, None where it
    is not told, limit 0 where there is none.
    """

    at: float
    entries: int
    taken: int
    oldest_at: float | None
    set_aside: int
    wanted: int
    deliveries: Mapping[str, int]
    totals: Mapping[str, int]
    progress: Mapping[str, float]
    memory: int | None
    memory_limit: int | None


async def read_redis(client: "aioredis.Redis") -> RedisFacts:
    """All of it in one round trip. Raises LedgerUnavailable."""
    try:
        async with client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.xlen(STREAM)
            pipe.xrange(STREAM, count=1)
            pipe.xlen(SET_ASIDE)
            pipe.hlen(RECONCILE_WANTED)
            for counts in (COUNTERS, TOTALS, PROGRESS):
                pipe.hgetall(counts)
            pipe.xpending(STREAM, GROUP)
            pipe.info("memory")
            *answers, pending, memory = await pipe.execute(raise_on_error=False)
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(f"Redis cannot do this now: {type(error).__name__}") from None
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise LedgerUnavailable(f"Redis refuses: {str(answer).split(' ', 1)[0]}")
    return _facts(answers, pending, memory)


def _facts(answers: list[Any], pending: Any, memory: Any) -> RedisFacts:
    (seconds, micros), entries, first, set_aside, wanted, deliveries, totals, progress = answers
    told = memory if isinstance(memory, dict) else {}
    return RedisFacts(
        at=seconds + micros / 1_000_000,
        entries=int(entries),
        # No group yet: nobody has taken anything.
        taken=int(pending["pending"]) if isinstance(pending, dict) else 0,
        oldest_at=int(first[0][0].split(b"-")[0]) / 1_000 if first else None,
        set_aside=int(set_aside),
        wanted=int(wanted),
        deliveries=_numbers(deliveries),
        totals=_numbers(totals),
        progress={who: at / 1_000 for who, at in _numbers(progress).items()},
        memory=_number(told.get("used_memory")),
        memory_limit=_number(told.get("maxmemory")),
    )


def _numbers(found: Mapping[bytes, bytes]) -> dict[str, int]:
    return {field.decode(): int(number) for field, number in found.items()}


def _number(told: Any) -> int | None:
    return None if told is None else int(told)
