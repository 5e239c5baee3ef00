"""What hiredis packs for a connection is what redis-py itself would send."""

import pytest
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import DataError

from worker.redis_packing import pack_by_hiredis

ARGUMENTS = st.text() | st.binary() | st.integers() | st.floats(allow_nan=False)
NAMES = st.sampled_from(["XACK", "XGROUP CREATE", "PING", b"EVAL", b"CONFIG GET"])


def a_client(url: str = "redis://localhost") -> "aioredis.Redis":
    """One that has not connected."""
    client = aioredis.Redis.from_url(url, protocol=2)
    pack_by_hiredis(client)
    return client


PLAIN = aioredis.Connection(protocol=2)
PACKED = a_client().connection_pool.make_connection()


@given(NAMES, st.lists(ARGUMENTS, max_size=20))
def test_the_bytes_are_those_of_redis_py(name: str | bytes, arguments: list[object]) -> None:
    """Names of several words, text, bytes and numbers alike."""
    assert b"".join(PACKED.pack_command(name, *arguments)) == b"".join(PLAIN.pack_command(name, *arguments))


def test_what_lies_in_memory_is_sent_as_it_lies() -> None:
    """hiredis takes no bytearray; redis-py does."""
    for lying in (bytearray(b"a b"), memoryview(b"a b")):
        assert (
            b"".join(PACKED.pack_command("SET", "k", lying)) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\na b\r\n"
        )


@pytest.mark.parametrize("unfit", [None, True, ["a"], object()])
def test_what_redis_py_refuses_is_refused_in_its_words(unfit: object) -> None:
    """A mistake of ours is told as redis-py tells it."""
    with pytest.raises(DataError) as theirs:
        PLAIN.pack_command("SET", "k", unfit)
    with pytest.raises(DataError) as ours:
        PACKED.pack_command("SET", "k", unfit)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "unix:///tmp/redis.sock"])
def test_every_kind_of_connection_packs_so(url: str) -> None:
    """Whatever the address, the connection stays of the kind that it asks for."""
    plain = aioredis.Redis.from_url(url, protocol=2).connection_pool.connection_class
    made = a_client(url).connection_pool.make_connection()
    assert isinstance(made, plain)
    assert made.pack_command.__module__ == "worker.redis_packing"
