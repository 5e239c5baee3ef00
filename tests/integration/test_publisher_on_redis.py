"""The publisher against a real Redis and a real broker."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis

from receiver.capacity import Condition, Limits
from receiver.delivery import Delivery, Unread, read
from receiver.errors import QueueUnavailable
from receiver.publisher import (
    ANSWER_SECONDS,
    BEGIN_SECONDS,
    CONNECT_SECONDS,
    PROMPT_SECONDS,
    SET_ASIDE_BYTES,
    Doorbell,
    Publisher,
    look_at,
    open_publisher,
)
from receiver.settings import Settings
from tests.fakes.leads import a_reference
from worker.inbox import BELL, COUNTERS, DRAIN_TASK, LIVE_QUEUE, SET_ASIDE, STREAM, LeadReference

TRIES = 3
"""A machine that is busy may make one of them slow; who waits too long does so each time."""
ONE = (
    b'{"object":"page","entry":[{"id":"7","changes":[{"field":"leadgen","value":{"leadgen_id":"5"}},'
    b'{"field":"leadgen","value":{"leadgen_id":"6"}},{"field":"feed"},7]}]}'
)


def settings(redis_url: str) -> Settings:
    return Settings(app_secrets=("s",), verify_token="t", redis_url=redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def configured(client: redis.Redis, name: str, value: object) -> Iterator[None]:
    """One of Redis' settings, changed for a while."""
    before = client.config_get(name)[name]
    client.config_set(name, str(value))
    try:
        yield
    finally:
        client.config_set(name, before)


def test_a_delivery_lands_whole_and_rings_once(redis_url: str, client: redis.Redis) -> None:
    """References, body, counts and one doorbell without arguments arrive, and a second delivery adds none."""
    publisher = open_publisher(settings(redis_url))
    delivery = read(ONE, 99)
    publisher.publish(delivery, 0)
    publisher.publish(delivery, 0)
    publisher.close()
    entries = [LeadReference.from_entry(fields) for _, fields in client.xrange(STREAM)]
    assert tuple(entries) == delivery.references * 2
    assert client.xrange(SET_ASIDE, count=1)[0][1] == {
        b"reason": b"change",
        b"received_at": b"99",
        b"body": ONE,
    }
    assert client.hgetall(COUNTERS) == {
        b"deliveries": b"2",
        b"references": b"4",
        b"ignored": b"2",
        b"set_aside": b"2",
        b"bells_rung": b"1",
    }
    (doorbell,) = client.lrange(LIVE_QUEUE, 0, -1)
    message = json.loads(doorbell)
    assert (message["headers"]["task"], message["headers"]["argsrepr"]) == (DRAIN_TASK, "()")
    assert message["content-type"] == "application/json"


def test_the_shipped_redis_is_seen_as_safe(client: redis.Redis) -> None:
    """What Redis says of itself is read: here it keeps everything on disk and evicts nothing."""
    client.xadd(STREAM, {"a": "1"})
    seen = look_at(client)
    assert (seen.length, seen.append_only, seen.fsync, seen.eviction) == (1, True, "always", "noeviction")
    assert (seen.is_replica, seen.loading, seen.append_only_failing) == (False, False, False)
    assert seen.used_memory > 0


def test_deliveries_stop_before_redis_is_full(redis_url: str, client: redis.Redis) -> None:
    """Past its share of `maxmemory` nothing is taken, though Redis itself would still take it."""
    publisher = open_publisher(settings(redis_url))
    used = client.info("memory")["used_memory"]
    with configured(client, "maxmemory", int(used * 1.15)):
        client.set("still", "possible")
        with pytest.raises(QueueUnavailable, match="memory is full"):
            publisher.publish(read(ONE, 99), 0)
    assert client.xlen(STREAM) == 0


def test_a_redis_that_refuses_takes_nothing_of_a_delivery(redis_url: str, client: redis.Redis) -> None:
    """Where Redis is out of memory the delivery is refused whole: no entry, no count, no bell."""
    publisher = Publisher(
        client, Doorbell(redis_url), Limits(entries=9, memory_share=1), look=lambda _: Condition(0)
    )
    with configured(client, "maxmemory", "1"), pytest.raises(QueueUnavailable):
        publisher.publish(read(ONE, 99), 0)
    assert (client.xlen(STREAM), client.exists(COUNTERS, BELL, SET_ASIDE)) == (0, 0)


def test_no_reference_is_ever_dropped_for_a_newer_one(redis_url: str, client: redis.Redis) -> None:
    """However long the stream is, what was taken stays in it until a worker acknowledges it."""
    publisher = open_publisher(settings(redis_url))
    for thousand in range(12):
        references = tuple(a_reference(str(thousand * 1_000 + each)) for each in range(1_000))
        publisher.publish(Delivery(body=b"", received_at=1, references=references), 0)
    publisher.close()
    ids = [fields[b"lead"].decode() for _, fields in client.xrange(STREAM)]
    assert ids == [str(each) for each in range(12_000)]


def test_bodies_set_aside_never_fill_redis(redis_url: str, client: redis.Redis) -> None:
    """However large the bodies, they stay within their bytes; the oldest go and the newest stays."""
    publisher = open_publisher(settings(redis_url))
    for number in range(20):
        publisher.publish(Delivery(b"x" * 4_194_304, number, unread=(Unread.BODY,)), 0)
    assert (client.memory_usage(SET_ASIDE, samples=0) or 0) <= SET_ASIDE_BYTES
    assert client.xrevrange(SET_ASIDE, count=1)[0][1][b"received_at"] == b"19"
    publisher.close()
    assert int(client.hgetall(COUNTERS)[b"set_aside_dropped"]) == 20 - client.xlen(SET_ASIDE)
    client.delete(SET_ASIDE)


def test_a_redis_that_never_answers_is_given_up_within_a_second() -> None:
    """A Redis that accepts and is silent costs Meta a second, then a refusal that brings the delivery again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        publisher, took = open_publisher(settings(url)), []
        for _ in range(TRIES):
            started = time.monotonic()
            with pytest.raises(QueueUnavailable):
                publisher.publish(read(ONE, 99), 0)
            took.append(time.monotonic() - started)
        assert min(took) < CONNECT_SECONDS + ANSWER_SECONDS + 0.5


def test_a_write_waits_no_longer_than_its_delivery_may(redis_url: str, client: redis.Redis) -> None:
    """A Redis that hangs over the script is given up when the delivery's own time is over, not after another."""
    publisher, took = open_publisher(settings(redis_url)), []
    for _ in range(TRIES):
        publisher.publish(read(ONE, 99), 0)
        client.client_pause(4_000, all=False)
        waited, began = 0.9 * BEGIN_SECONDS, time.monotonic()
        with pytest.raises(QueueUnavailable):
            publisher.publish(read(ONE, 99), waited)
        took.append(time.monotonic() - began + waited)
        client.client_unpause()
    assert PROMPT_SECONDS <= min(took) < PROMPT_SECONDS + 0.3


def test_a_broker_that_never_answers_costs_no_delivery(client: redis.Redis) -> None:
    """The delivery is taken and the answer hardly later, where the doorbell cannot be sent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bell = Doorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        publisher, took = Publisher(client, bell, Limits(entries=2 * TRIES, memory_share=1)), []
        for _ in range(TRIES):
            started = time.monotonic()
            publisher.publish(read(ONE, 99), 0)
            took.append(time.monotonic() - started)
        assert min(took) < 1
    assert (client.xlen(STREAM), client.exists(BELL)) == (2 * TRIES, 0)


def test_a_bell_rings_again_after_its_line_was_cut(redis_url: str, client: redis.Redis) -> None:
    """A broker that dropped the kept connection is reached anew, at the latest by the second ring."""
    bell = Doorbell(redis_url)
    assert bell.ring()
    client.client_kill_filter(_type="normal", skipme=True)
    assert bell.ring() or bell.ring()
    assert client.llen(LIVE_QUEUE) >= 2


def test_deliveries_of_many_threads_land_once_each(redis_url: str, client: redis.Redis) -> None:
    """Written together or not, each delivery's references are there once, each is counted, one bell rings."""
    publisher = open_publisher(settings(redis_url))
    begin = threading.Barrier(8)

    def deliver(thread: int) -> None:
        begin.wait()
        for number in range(25):
            reference = LeadReference(str(1000 * (thread + 1) + number), "7", None, None, None, None, 1)
            publisher.publish(Delivery(b"", 1, (reference,)), 0)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(deliver, range(8)))
    publisher.close()
    found = [LeadReference.from_entry(fields).leadgen_id for _, fields in client.xrange(STREAM)]
    assert sorted(found) == sorted(str(1000 * (t + 1) + n) for t in range(8) for n in range(25))
    assert client.hgetall(COUNTERS) == {b"deliveries": b"200", b"references": b"200", b"bells_rung": b"1"}


def test_a_script_that_redis_has_forgotten_is_told_again(redis_url: str, client: redis.Redis) -> None:
    """After a restart of Redis, or SCRIPT FLUSH, the next delivery is taken like any other."""
    publisher = open_publisher(settings(redis_url))
    publisher.publish(read(ONE, 99), 0)
    client.script_flush()
    client.client_kill_filter(_type="normal", skipme=True)
    publisher.publish(read(ONE, 99), 0)
    publisher.close()
    assert client.xlen(STREAM) == 4
