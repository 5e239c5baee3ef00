"""What Redis says of itself -> may the stream take more, and is what it takes safe. Pure.

This file decides; publisher.py asks Redis and carries the decision out.

Invariant: the bound on the stream lies below Redis' own `maxmemory`. A Redis that is full to its limit
refuses the writes that draining it needs, so deliveries have to stop well before.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the queue may hold: entries in the stream, and the share of `maxmemory` in use (0 to 1)."""

    entries: int
    memory_share: float


@dataclass(frozen=True, slots=True)
class Condition:
    """Redis at one moment. `fsync` is None where Redis does not tell us (managed ones refuse CONFIG)."""

    length: int
    used_memory: int = 0
    max_memory: int = 0
    eviction: str = "noeviction"
    is_replica: bool = False
    loading: bool = False
    append_only: bool = True
    append_only_failing: bool = False
    fsync: str | None = None

    @classmethod
    def of(cls, length: int, info: Mapping[str, object], fsync: str | None) -> "Condition":
        """From the answer to INFO. What a kin of Redis leaves out counts as in order."""
        return cls(
            length=length,
            used_memory=int(str(info.get("used_memory", 0))),
            max_memory=int(str(info.get("maxmemory", 0))),
            eviction=str(info.get("maxmemory_policy", "noeviction")),
            is_replica=info.get("role") == "slave",
            loading=str(info.get("loading", 0)) == "1",
            append_only=str(info.get("aof_enabled", 1)) == "1",
            append_only_failing=info.get("aof_last_write_status", "ok") != "ok",
            fsync=fsync,
        )


def refusal(now: Condition, limits: Limits) -> str | None:
    """Why the stream cannot take a delivery, in a short fixed phrase; None where it can."""
    if now.is_replica:
        return "redis is a replica"
    if now.loading:
        return "redis is loading"
    if now.append_only_failing:
        return "redis cannot write its append-only file"
    if now.length > limits.entries:
        return "stream is full"
    if now.max_memory and now.used_memory > limits.memory_share * now.max_memory:
        return "redis memory is full"
    return None


def risks(now: Condition) -> tuple[str, ...]:
    """How this Redis could lose what it accepted: the settings to change, as Redis names them."""
    found = []
    if not now.append_only:
        found.append("appendonly")
    if now.fsync not in (None, "always"):
        found.append("appendfsync")
    if now.eviction != "noeviction":
        found.append("maxmemory-policy")
    return tuple(found)
