"""A process' growth -> totals of all processes in Redis, and back for whoever shows them.

It counts nothing itself (metrics.py does). Invariants: growth is added once, even where the answer was lost and it is
sent again; while Redis is away or full it is kept and added later. It is weak where a process is killed: what it
counted in the last seconds is gone. A Redis that was emptied begins at nothing, which Prometheus takes for a restart.
https://prometheus.io/docs/instrumenting/writing_exporters/
"""

import asyncio
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError, ResponseError

from worker.errors import LedgerUnavailable
from worker.metrics import Meter

TOTALS: Final = "leadsync:totals"
"""Redis hash of what all processes counted: `series label values`, of a histogram also a bound, -> a whole number."""
TOLD_PREFIX: Final = "leadsync:totals:told:"
"""Redis string a process, with an expiry: the number of the last growth that it added."""
TOLD_SECONDS: Final = 3_600
"""Growth that is sent again within this is added once."""
TOTALS_SECONDS: Final = 2.0
"""How long the end of a run or of a process waits for Redis to take its counts."""

# KEYS: the totals, the process' told. ARGV: the growth's number, the life of told in seconds, then fields with their
# growth. A full Redis refuses the first write and with it all of them.
_ADD: Final = """
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
for place = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[place], ARGV[place + 1]) end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return 1
"""


class Totals:
    """The totals as one process adds to them. `process` is a name that no other has; `client` belongs to its loop."""

    def __init__(self, client: "aioredis.Redis", meter: Meter, process: str) -> None:
        self._client = client
        self._meter = meter
        self._told = TOLD_PREFIX + process
        self._number = 0
        self._unsaid: dict[str, int] = {}
        self._adding = asyncio.Lock()

    async def add(self) -> None:
        """Add what was counted since the last time. Raises LedgerUnavailable; then it is added the next time."""
        async with self._adding:
            if self._unsaid:
                await self._send()
            self._unsaid = self._meter.take()
            if self._unsaid:
                self._number += 1
                await self._send()

    async def _send(self) -> None:
        pairs = (word for field, growth in self._unsaid.items() for word in (field, str(growth)))
        try:
            await self._client.eval(_ADD, 2, TOTALS, self._told, str(self._number), str(TOLD_SECONDS), *pairs)
        except ResponseError as error:
            raise LedgerUnavailable(f"Redis refuses: {str(error).split(' ', 1)[0]}") from None
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(f"Redis cannot do this now: {type(error).__name__}") from None
        self._unsaid = {}


async def add_quietly(totals: Totals) -> bool:
    """Add what this process counted, within TOTALS_SECONDS; false where it is kept for the next time."""
    try:
        await asyncio.wait_for(totals.add(), TOTALS_SECONDS)
    except (LedgerUnavailable, TimeoutError):
        return False
    return True


async def read_totals(client: "aioredis.Redis") -> dict[str, int]:
    """The totals by field."""
    found: dict[Any, Any] = await client.hgetall(TOTALS)
    return {field.decode(): int(total) for field, total in found.items()}
