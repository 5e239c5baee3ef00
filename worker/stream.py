"""Stream entries -> references in flight, and back: acknowledged, given back, kept alive. The worker's door to Redis.

It decides nothing about a reference and never adds one (the receiver does). Invariant: an entry stays pending in the
group until `done` is called for it, so whatever dies, another drain claims it.
https://redis.io/docs/latest/develop/data-types/streams/
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import redis
import redis.asyncio as aioredis
import structlog
from redis.exceptions import ExecAbortError, NoScriptError, OutOfMemoryError, RedisError, ResponseError

from worker.batches import InFlight
from worker.errors import LedgerUnavailable
from worker.inbox import (
    BELL,
    COUNTERS,
    GROUP,
    PROGRESS,
    RECONCILE_WANTED,
    RECONCILE_WANTED_LAST,
    SET_ASIDE,
    SET_ASIDE_LIMIT,
    STREAM,
    LeadReference,
    UnreadableEntry,
)

log = structlog.get_logger("stream")

ALONE: Final = "leadsync:alone"
"""Redis hash leadgen_id -> how often it was begun all alone in a process and not finished: the process died of it."""
RESERVED_PREFIX: Final = "leadsync:reading:"
"""Redis string leadgen_id -> consumer, with an expiry: somebody is reading this lead, so a duplicate waits."""
_IDLE_FOREVER_MS: Final = 24 * 3_600_000
_MOST_PENDING: Final = 100_000

# KEYS: the stream. ARGV: the group, idle ms. A consumer is deleted in the same step that saw it hold nothing, since
# deleting one drops whatever it was given in between.
_FORGET_CONSUMERS: Final = """
local forgotten = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local about = {}
    for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
    if about['pending'] == 0 and about['idle'] > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
        forgotten = forgotten + 1
    end
end
return forgotten
"""

# KEYS: first and last announcements. ARGV: ms, then each Page and the first announcement that was seen of it. One that
# came since then is the first of the next time: a Page that never rests is compared again and again, not never.
_RECONCILE_BEGUN: Final = """
for place = 2, #ARGV, 2 do
    local page = ARGV[place]
    if redis.call('HGET', KEYS[1], page) == ARGV[place + 1] then
        local last = redis.call('HGET', KEYS[2], page)
        if last and tonumber(last) > tonumber(ARGV[1]) then
            redis.call('HSET', KEYS[1], page, last)
        else
            redis.call('HDEL', KEYS[1], page)
            redis.call('HDEL', KEYS[2], page)
        end
    end
end
"""

# KEYS: a reservation each. ARGV: the consumer, ms that they last. The places of those that somebody has already.
_RESERVE: Final = """
local taken = {}
for place, key in ipairs(KEYS) do
    if not redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) and redis.call('GET', key) ~= ARGV[1] then
        taken[#taken + 1] = place
    end
end
return taken
"""
"""The client sends it again where a connection breaks before its answer: what it reserved the first time is its own."""


def note_schedule(client: redis.Redis) -> None:
    """The schedule is ticking; `client` is a synchronous one."""
    client.hset(PROGRESS, "schedule", str(time.time_ns() // 1_000_000))


def last_look(redis_url: str, who: str) -> float | None:
    """When `who` (a queue, or `schedule`) last looked at its work, in unix seconds."""
    try:
        with redis.Redis.from_url(
            redis_url, socket_timeout=5, socket_connect_timeout=2, protocol=2
        ) as client:
            at_ms: Any = client.hget(PROGRESS, who)
    except (redis.RedisError, OSError) as error:
        raise LedgerUnavailable(f"Redis cannot be asked: {type(error).__name__}") from None
    return None if at_ms is None else int(at_ms) / 1000


def consumer_name(host: str, pid: int) -> str:
    """A name that no other process has, not even a later one with the same pid."""
    return f"{host}-{pid}-{secrets.token_hex(4)}"


class LeadStream:
    """The stream of lead references as one consumer sees it. `client` belongs to this process' event loop."""

    def __init__(
        self,
        client: "aioredis.Redis",
        consumer: str,
        *,
        claim_after: float,
        reserve_for: float = 60.0,
        on_progress: Callable[[], None] = lambda: None,
        on_claimed: Callable[[int], None] = lambda entries: None,
    ) -> None:
        self._client = client
        self._consumer = consumer
        self._on_progress = on_progress
        self._on_claimed = on_claimed
        self._claim_after_ms = int(claim_after * 1000)
        self._reserve_ms = int(reserve_for * 1000)
        self._reserved: set[str] = set()

    async def read(self, most: int, wait_seconds: float) -> tuple[InFlight, ...]:
        """New entries, at most `most`; waits up to `wait_seconds` for the first one (0: not at all)."""
        block = max(1, int(wait_seconds * 1000)) if wait_seconds > 0 else None
        async with self._group():
            answer = await self._client.xreadgroup(
                GROUP, self._consumer, {STREAM: ">"}, count=most, block=block
            )
        entries = [entry for _, found in _pairs(answer) for entry in found]
        return await self._in_flight(entries, {})

    async def claim(self, most: int) -> tuple[InFlight, ...]:
        """Entries that a dead or stuck worker has left, at most `most`."""
        cursor: Any = "0-0"
        entries: list[tuple[bytes, dict[bytes, bytes]]] = []
        async with self._group():
            while True:
                # Redis 6.2 answers with two elements and names deleted entries (None, None), 7 with three.
                answer = await self._client.xautoclaim(
                    STREAM,
                    GROUP,
                    self._consumer,
                    self._claim_after_ms,
                    cursor,
                    count=max(1, most - len(entries)),
                )
                cursor = answer[0]
                entries += [(entry_id, fields) for entry_id, fields in answer[1] if entry_id is not None]
                if cursor in (b"0-0", "0-0") or len(entries) >= most:
                    break
            crashes = await self._crashes([entry_id for entry_id, _ in entries])
            await self._end_reservations(fields for _, fields in entries)
        if entries:
            log.info("entries_claimed", entries=len(entries))
            self._on_claimed(len(entries))
        return await self._in_flight(entries, crashes)

    async def _end_reservations(self, claimed: Iterable[dict[bytes, bytes]]) -> None:
        """Whoever was reading these has left them."""
        keys = [RESERVED_PREFIX.encode() + fields[b"lead"] for fields in claimed if b"lead" in fields]
        if keys:
            await self._client.delete(*keys)

    async def _crashes(self, entry_ids: Sequence[bytes]) -> dict[bytes, int]:
        """How often each of these was taken up before this time; giving one back sets that to nothing."""
        async with self._client.pipeline(transaction=False) as pipe:
            for entry_id in entry_ids:
                pipe.xpending_range(STREAM, GROUP, entry_id, entry_id, 1)
            pending = await pipe.execute()
        return {entry["message_id"]: entry["times_delivered"] - 1 for found in pending for entry in found}

    async def _in_flight(
        self, entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]], crashes: dict[bytes, int]
    ) -> tuple[InFlight, ...]:
        references: list[InFlight] = []
        now_ms = time.time_ns() // 1_000_000
        for entry_id, fields in entries:
            try:
                reference = LeadReference.from_entry(fields or {})
            except UnreadableEntry as error:
                await self._set_aside(entry_id, fields or {}, str(error))
                continue
            references.append(
                InFlight.from_entry(reference, entry_id, crashes=crashes.get(entry_id, 0), now_ms=now_ms)
            )
        return tuple(references)

    async def _set_aside(self, entry_id: bytes, fields: dict[bytes, bytes], reason: str) -> None:
        """An entry that no receiver of ours wrote: keep it where unreadable bodies are kept, and go on."""
        log.error("entry_unreadable", entry_id=entry_id.decode(), reason=reason)
        async with self._redis(), self._client.pipeline(transaction=True) as pipe:
            pipe.xadd(
                SET_ASIDE,
                {
                    "reason": "stream_entry",
                    "received_at": entry_id.split(b"-")[0],
                    "body": repr(fields)[:10_000],
                },
                maxlen=SET_ASIDE_LIMIT,
                approximate=False,
            )
            pipe.xack(STREAM, GROUP, entry_id)
            pipe.xdel(STREAM, entry_id)
            await pipe.execute()

    async def reserve(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        """Which of these leads, each named once, this process may read now; the others are being read elsewhere."""
        mine = frozenset(self._reserved.intersection(leadgen_ids))
        asked = [i for i in leadgen_ids if i not in mine]
        if not asked:
            return mine
        keys = [RESERVED_PREFIX + leadgen_id for leadgen_id in asked]
        async with self._redis():
            try:
                taken = await self._client.eval(
                    _RESERVE, len(keys), *keys, self._consumer, str(self._reserve_ms)
                )
            except ResponseError:
                taken = ()  # a full Redis refuses: reading twice is harmless, waiting for room is not
        won = frozenset(asked).difference(asked[place - 1] for place in taken)
        self._reserved |= won
        return mine | won

    async def done(self, references: Sequence[InFlight]) -> None:
        """Acknowledge: Postgres has committed what became of these."""
        entry_ids = [r.entry_id for r in references if r.entry_id is not None]
        if not entry_ids:
            return

        ended = self._end_own_reservations(references)

        def acknowledge(pipe: "aioredis.client.Pipeline") -> None:
            pipe.xack(STREAM, GROUP, *entry_ids)
            pipe.xdel(STREAM, *entry_ids)
            if ended:
                pipe.delete(*ended)

        await self._let_go(acknowledge)

    async def give_back(self, references: Sequence[InFlight]) -> None:
        """Unread: any drain may claim these at once, and this delivery does not count against them."""
        entry_ids = [r.entry_id for r in references if r.entry_id is not None]
        if not entry_ids:
            return

        ended = self._end_own_reservations(references)

        def release(pipe: "aioredis.client.Pipeline") -> None:
            for entry_id in entry_ids:
                pipe.xclaim(
                    STREAM,
                    GROUP,
                    self._consumer,
                    0,
                    [entry_id],
                    idle=_IDLE_FOREVER_MS,
                    retrycount=0,
                    justid=True,
                )
            if ended:
                pipe.delete(*ended)

        await self._let_go(release)

    def _end_own_reservations(self, references: Sequence[InFlight]) -> list[str]:
        """The keys that this process set for these; what another one reserved is not ours to end."""
        own = self._reserved.intersection(r.leadgen_id for r in references)
        self._reserved -= own
        return [RESERVED_PREFIX + leadgen_id for leadgen_id in own]

    async def _let_go(self, queue: "Callable[[aioredis.client.Pipeline], None]") -> None:
        """Carry out commands that free memory: whole in a MULTI, or one by one where Redis is full.

        At maxmemory Redis refuses whatever is queued in a MULTI, though not the same commands outside of one.
        """
        async with self._group():
            for transaction in (True, False):
                async with self._client.pipeline(transaction=transaction) as pipe:
                    queue(pipe)
                    try:
                        await pipe.execute()
                        return
                    except (OutOfMemoryError, ExecAbortError):
                        if not transaction:
                            raise

    async def keep(self, references: Sequence[InFlight]) -> None:
        """Say that these are still being worked on, so that nobody claims them."""
        entry_ids = [r.entry_id for r in references if r.entry_id is not None]
        if not entry_ids:
            return
        # A process that slept past its claims must not take them back from the one that has them now.
        async with self._group():
            mine = await self._client.xpending_range(
                STREAM, GROUP, min=min(entry_ids, key=_order), max=max(entry_ids, key=_order),
                count=_MOST_PENDING, consumername=self._consumer,
            )  # fmt: skip
            kept = {entry["message_id"] for entry in mine}.intersection(entry_ids)
            async with self._client.pipeline(transaction=False) as pipe:
                if kept:
                    pipe.xclaim(STREAM, GROUP, self._consumer, 0, list(kept), justid=True)
                for reference in references:
                    # Renewing another's would keep a dead reader's alive for as long as a duplicate waits for it.
                    if reference.entry_id in kept and reference.leadgen_id in self._reserved:
                        pipe.pexpire(RESERVED_PREFIX + reference.leadgen_id, self._reserve_ms)
                await pipe.execute(raise_on_error=False)

    async def begin_alone(self, leadgen_id: str) -> int:
        """This lead is begun with nothing else in this process; how often that was so before and did not end."""
        async with self._redis():
            return int(await self._client.hincrby(ALONE, leadgen_id, 1)) - 1

    async def end_alone(self, leadgen_id: str) -> None:
        """It ended, however; the process lives."""
        async with self._redis():
            await self._client.hdel(ALONE, leadgen_id)

    async def length(self) -> int:
        """Entries not yet acknowledged."""
        async with self._redis():
            return int(await self._client.xlen(STREAM))

    async def backlog(self) -> int:
        """Entries that no consumer has been given yet (an upper bound while entries are being claimed)."""
        async with self._group():
            pending = await self._client.xpending(STREAM, GROUP)
            return max(0, int(await self._client.xlen(STREAM)) - int(pending["pending"]))

    async def delivered_within(self, seconds: float) -> bool:
        """Whether a lead was announced so lately, by Redis' own clock."""
        async with self._redis(), self._client.pipeline(transaction=False) as pipe:
            pipe.xinfo_stream(STREAM)
            pipe.time()
            about, (now, _) = await pipe.execute(raise_on_error=False)
        # There is no stream before the first delivery.
        last = 0 if isinstance(about, ResponseError) else _order(about["last-generated-id"])[0]
        return last > 0 and int(now) - last / 1000 <= seconds

    async def condition(self) -> dict[str, Any]:
        """For the eyes of an operator: how long the stream is, since when (unix ms), what came in, who works."""
        async with self._redis(), self._client.pipeline(transaction=False) as pipe:
            pipe.xlen(STREAM)
            pipe.hgetall(COUNTERS)
            pipe.hgetall(PROGRESS)
            pipe.hkeys(RECONCILE_WANTED)
            pipe.xlen(SET_ASIDE)
            pipe.xrange(STREAM, count=1)
            length, deliveries, progress, wanted, set_aside, oldest = await pipe.execute()
        return {
            "length": int(length),
            "oldest_at": _order(oldest[0][0])[0] if oldest else None,
            "deliveries": {name.decode(): int(count) for name, count in deliveries.items()},
            "progress": {name.decode(): int(at) for name, at in progress.items()},
            "reconcile_wanted": sorted(page_id.decode() for page_id in wanted),
            "set_aside": int(set_aside),
        }

    async def hush(self, seconds: float) -> None:
        """Nobody needs to ring for `seconds`: this process is listening."""
        async with self._redis():
            with suppress(OutOfMemoryError):
                await self._client.set(BELL, self._consumer, px=max(1, int(seconds * 1000)))

    async def unhush(self) -> None:
        """From here on ringing is needed again; look at the stream once more after this."""
        async with self._redis():
            await self._client.delete(BELL)

    async def progress(self, queue: str) -> None:
        """Note that a worker of `queue` is looking at its work, in this process even where Redis is away."""
        self._on_progress()
        async with self._redis():
            with suppress(OutOfMemoryError):
                await self._client.hset(PROGRESS, queue, str(time.time_ns() // 1_000_000))

    async def reconcile_wanted(self, before: float) -> dict[str, int]:
        """Pages whose webhook came without its ids before `before` (unix seconds), and when (unix ms)."""
        async with self._redis():
            found = await self._client.hgetall(RECONCILE_WANTED)
        wanted = {
            str(page_id, "ascii") if isinstance(page_id, bytes) else page_id: int(at)
            for page_id, at in found.items()
        }
        return {page_id: at for page_id, at in wanted.items() if at < before * 1000}

    async def reconcile_begun(self, wanted: Mapping[str, int], before: float) -> None:
        """Forget these, but for those that were announced once more since `before` (unix seconds): their turn comes
        again.
        """
        told = [str(word) for pair in wanted.items() for word in pair]
        async with self._redis():
            script = self._client.register_script(_RECONCILE_BEGUN)
            # A full Redis forgets none of them; they are compared once more.
            with suppress(OutOfMemoryError):
                await script(keys=[RECONCILE_WANTED, RECONCILE_WANTED_LAST], args=[int(before * 1000), *told])

    async def forget_consumers(self, idle_seconds: float) -> int:
        """Delete consumers that hold nothing and have not been heard of for so long."""
        async with self._group():
            script = self._client.register_script(_FORGET_CONSUMERS)
            return int(await script(keys=[STREAM], args=[GROUP, int(idle_seconds * 1000)]))

    async def create_group(self) -> None:
        """The group, from the stream's very beginning, where there is none."""
        async with self._redis():
            # A full Redis refuses to create even what there is already.
            with suppress(ResponseError):
                if GROUP.encode() in {group["name"] for group in await self._client.xinfo_groups(STREAM)}:
                    return
            try:
                await self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
                log.info("group_created")
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    @asynccontextmanager
    async def _group(self) -> AsyncIterator[None]:
        """Redis was emptied: the group is made anew and the caller finds an empty stream, this once."""
        try:
            async with self._redis():
                yield
        except _GroupMissing:
            await self.create_group()
            raise LedgerUnavailable(
                "the stream's consumer group was missing and is made anew; ask again"
            ) from None

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[None]:
        try:
            yield
        except NoScriptError:
            raise LedgerUnavailable("Redis lost a script; ask again") from None
        except ResponseError as error:
            if str(error).startswith("NOGROUP"):
                raise _GroupMissing from None
            raise LedgerUnavailable(f"Redis refuses: {str(error).split(' ', 1)[0]}") from None
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(f"Redis cannot do this now: {type(error).__name__}") from None


class _GroupMissing(Exception):
    pass


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _pairs(answer: Any) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    if not answer:
        return []
    return list(answer.items()) if isinstance(answer, dict) else list(answer)
