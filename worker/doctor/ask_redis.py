"""Redis -> facts about the server and about what waits there. It judges nothing and changes nothing.

Invariant: what a kin of Redis does not tell counts as in order, as in the receiver.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError, TimeoutError

from worker.doctor.facts import RedisFacts, StreamFacts
from worker.errors import LedgerUnavailable
from worker.inbox import COUNTERS, PROGRESS, RECONCILE_WANTED, SET_ASIDE, STREAM


async def ask_server(client: "aioredis.Redis") -> RedisFacts:
    """About the server. Raises LedgerUnavailable."""
    async with _redis():
        info = await client.info("all")
        try:
            told: dict[Any, Any] = await client.config_get("appendfsync")
        except ResponseError:
            told = {}
    return server_facts(info, _text(told.get("appendfsync", told.get(b"appendfsync"))))


def server_facts(info: Mapping[str, Any], fsync: str | None) -> RedisFacts:
    """From the answer to INFO."""
    return RedisFacts(
        version=str(info.get("redis_version", "0")),
        is_replica=info.get("role") == "slave",
        is_loading=str(info.get("loading", 0)) == "1",
        appends=str(info.get("aof_enabled", 1)) == "1",
        fsync=fsync,
        eviction=str(info.get("maxmemory_policy", "noeviction")),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        append_ok=info.get("aof_last_write_status", "ok") == "ok",
        rewrite_ok=info.get("aof_last_bgrewrite_status", "ok") == "ok",
    )


async def ask_stream(client: "aioredis.Redis") -> StreamFacts:
    """About what waits there and who works. Raises LedgerUnavailable."""
    async with _redis(), client.pipeline(transaction=False) as pipe:
        pipe.xlen(STREAM)
        pipe.xrange(STREAM, count=1)
        pipe.hgetall(PROGRESS)
        pipe.hgetall(COUNTERS)
        pipe.hgetall(RECONCILE_WANTED)
        pipe.xlen(SET_ASIDE)
        pipe.xrevrange(SET_ASIDE, count=1)
        length, oldest, progress, deliveries, wanted, set_aside, newest = await pipe.execute()
    return StreamFacts(
        length=int(length),
        oldest_ms=_moment(oldest),
        progress=_numbers(progress),
        deliveries=_numbers(deliveries),
        lacking_values=_numbers(wanted),
        set_aside=int(set_aside),
        set_aside_ms=_moment(newest),
    )


def _moment(entries: Any) -> int | None:
    """When the first of these stream entries was added."""
    return int(_text(entries[0][0]).partition("-")[0]) if entries else None


def _numbers(found: Mapping[Any, Any]) -> dict[str, int]:
    return {_text(name): int(value) for name, value in found.items()}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


@asynccontextmanager
async def _redis() -> AsyncIterator[None]:
    try:
        yield
    except (AuthenticationError, NoPermissionError):
        raise LedgerUnavailable("it refuses user or password, or a command") from None
    except TimeoutError:
        raise LedgerUnavailable("it does not answer") from None
    except ResponseError as error:
        raise LedgerUnavailable(f"it refuses: {str(error).split(' ', 1)[0]}") from None
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(f"nobody answers there ({type(error).__name__})") from None
