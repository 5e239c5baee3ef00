"""Ids that were erased by order -> Redis, beside the database, and set-aside bodies that name one of them -> nothing.

It decides nothing and knows no answer. Invariant: an id that was added stays until Redis is emptied: only then, or in
a database that was restored from before the order, one of the two lacks what the other has.
"""

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from worker.errors import LedgerUnavailable
from worker.inbox import ERASED, SET_ASIDE, STREAM

BODIES: Final = 50
"""Set-aside bodies looked at together; one may have a megabyte."""

_NUMBER: Final = re.compile(rb"[0-9]+")


class ErasedList:
    """The ids in Redis. `client` belongs to this process' event loop."""

    def __init__(self, client: "aioredis.Redis") -> None:
        self._client = client

    async def count(self) -> int:
        """How many there are."""
        async with self._redis():
            return int(await self._client.hlen(ERASED))

    async def add(self, pages: Mapping[str, str]) -> None:
        """Keep these ids with their Pages."""
        told: dict[Any, Any] = dict(pages)
        if told:
            async with self._redis():
                await self._client.hset(ERASED, mapping=told)

    async def lacking(self, leadgen_ids: Sequence[str]) -> Sequence[str]:
        """Those of these ids that are not here. (What is added anew is written to Redis' disk anew.)"""
        async with self._redis():
            found: list[Any] = await self._client.hmget(ERASED, list(leadgen_ids))
        return [leadgen_id for leadgen_id, page_id in zip(leadgen_ids, found, strict=True) if page_id is None]

    async def batches(self, size: int) -> AsyncIterator[dict[str, str]]:
        """All of them, about `size` at a time: the Page by id."""
        cursor = 0
        while True:
            async with self._redis():
                answer: Any = await self._client.hscan(ERASED, cursor, count=size)
            cursor, found = answer
            if found:
                yield {leadgen_id.decode(): page_id.decode() for leadgen_id, page_id in found.items()}
            if cursor == 0:
                return

    async def drop_set_aside(self, leadgen_ids: Collection[str]) -> int:
        """Remove set-aside bodies that name one of these ids; how many."""
        wanted = {leadgen_id.encode() for leadgen_id in leadgen_ids}
        dropped, after = 0, b"-"
        while wanted:
            async with self._redis():
                entries: list[Any] = await self._client.xrange(SET_ASIDE, min=after, count=BODIES) or []
                named = [
                    entry_id
                    for entry_id, fields in entries
                    if not wanted.isdisjoint(_NUMBER.findall(fields.get(b"body", b"")))
                ]
                if named:
                    dropped += int(await self._client.xdel(SET_ASIDE, *named))
            if len(entries) < BODIES:
                break
            after = b"(" + entries[-1][0]
        return dropped

    async def unread(self) -> int:
        """References in the stream that no row knows of yet."""
        async with self._redis():
            return int(await self._client.xlen(STREAM))

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(f"Redis cannot do this now: {type(error).__name__}") from None
