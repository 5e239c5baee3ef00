"""When the stream takes no more, and what makes it unsafe."""

from dataclasses import replace

import pytest

from receiver.capacity import Condition, Limits, refusal, risks

LIMITS = Limits(entries=100, memory_share=0.8)
WELL = Condition(length=100, used_memory=800, max_memory=1_000, fsync="always")


def test_a_redis_within_its_bounds_is_used() -> None:
    """Up to and with the bound itself deliveries are taken."""
    assert refusal(WELL, LIMITS) is None
    assert refusal(replace(WELL, max_memory=0), LIMITS) is None


@pytest.mark.parametrize(
    "ill",
    [
        replace(WELL, length=101),
        replace(WELL, used_memory=801),
        replace(WELL, is_replica=True),
        replace(WELL, loading=True),
        replace(WELL, append_only_failing=True),
    ],
)
def test_a_redis_beyond_a_bound_is_refused(ill: Condition) -> None:
    """Well before Redis itself refuses, and wherever it would, deliveries are refused with a reason."""
    assert refusal(ill, LIMITS)


def test_settings_that_can_lose_a_delivery_are_named() -> None:
    """A Redis that keeps too little on disk, or evicts, is told by its own setting's name."""
    assert risks(WELL) == ()
    careless = replace(WELL, append_only=False, fsync="everysec", eviction="allkeys-lru")
    assert risks(careless) == ("appendonly", "appendfsync", "maxmemory-policy")
    assert risks(replace(WELL, fsync=None)) == ()


def test_what_info_says_is_read() -> None:
    """The answer to INFO becomes the condition, and what it leaves out counts as in order."""
    info = {
        "used_memory": 5,
        "maxmemory": 6,
        "maxmemory_policy": "volatile-ttl",
        "role": "slave",
        "loading": 1,
        "aof_enabled": 0,
        "aof_last_write_status": "err",
    }
    assert Condition.of(1, info, "no") == Condition(1, 5, 6, "volatile-ttl", True, True, False, True, "no")
    assert Condition.of(1, {}, None) == Condition(1)
