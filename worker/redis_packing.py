"""Commands to Redis, an acknowledgement of hundreds of entries say -> the bytes that are sent, packed by hiredis.

redis-py's asyncio connection packs argument by argument in Python, though it reads replies by hiredis; that was a
twentieth of what a lead costs. It changes nothing else of a connection. Invariant: the bytes are those that redis-py
would send, and what it refuses is refused in its words.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from typing import Any

import hiredis
import redis.asyncio as aioredis


class _Packing:
    """Before a connection class of redis-py, whose `pack_command` it answers for."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """One command, whose name may be several words, as redis-py passes it."""
        try:
            return [hiredis.pack_command((*args[0].split(), *args[1:]))]
        except TypeError:
            packed: list[bytes] = super().pack_command(*args)  # type: ignore[misc]  # of the class behind this one
            return packed


def pack_by_hiredis(client: "aioredis.Redis") -> None:
    """For a client that has not connected yet: each of its connections packs so."""
    pool = client.connection_pool
    plain = pool.connection_class
    pool.connection_class = type(plain.__name__, (_Packing, plain), {})
