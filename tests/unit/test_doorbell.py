"""The doorbell: however often somebody rings, one message is under way, and a lost one silences nobody for long."""

import time
from collections.abc import Iterator

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.fakes.leads import a_reference
from worker.doorbell import DRAIN_BELL, LOOK_EVERY_SECONDS, RESUME_BELL_OF, Bell, Doorbell
from worker.inbox import (
    BELL,
    BELL_EXPIRES_SECONDS,
    DRAIN_TASK,
    LIVE_QUEUE,
    PROGRESS,
    RESUME_TASK,
    STREAM,
    UPKEEP_QUEUE,
)

BELLS = [(DRAIN_BELL, (DRAIN_TASK, LIVE_QUEUE)), (RESUME_BELL_OF, (RESUME_TASK, UPKEEP_QUEUE))]


@pytest.fixture
def client() -> Iterator[fakeredis.FakeRedis]:
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client:
        yield client


@pytest.fixture
def sent() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def doorbell(client: fakeredis.FakeRedis, sent: list[tuple[str, str]]) -> Doorbell:
    return Doorbell(client, lambda task, queue: sent.append((task, queue)))


@pytest.mark.parametrize(("bell", "message"), BELLS)
def test_a_thousand_rings_are_one_message(
    doorbell: Doorbell, sent: list[tuple[str, str]], bell: Bell, message: tuple[str, str]
) -> None:
    """Messages do not pile up while nobody answers."""
    assert [doorbell.ring(bell) for _ in range(1_000)] == [True, *[False] * 999]
    assert sent == [message]


def test_the_two_bells_are_apart(doorbell: Doorbell, sent: list[tuple[str, str]]) -> None:
    """A bell that is out for live references silences none for waiting rows."""
    assert doorbell.ring(DRAIN_BELL)
    assert doorbell.ring(RESUME_BELL_OF)
    assert len(sent) == 2


@pytest.mark.parametrize(("bell", "message"), BELLS)
def test_once_answered_a_ring_is_news(
    doorbell: Doorbell, sent: list[tuple[str, str]], bell: Bell, message: tuple[str, str]
) -> None:
    """What arrives after the task has begun is rung for again."""
    doorbell.ring(bell)
    doorbell.answered(bell)
    assert doorbell.ring(bell)
    assert sent == [message] * 2


def test_a_lost_bell_is_forgotten_by_itself(doorbell: Doorbell, client: fakeredis.FakeRedis) -> None:
    """A worker that dies with the message silences the bell no longer than its expiry."""
    doorbell.ring(DRAIN_BELL)
    assert 0 < client.ttl(BELL) <= BELL_EXPIRES_SECONDS


def test_nobody_rings_while_a_drain_listens(doorbell: Doorbell, client: fakeredis.FakeRedis) -> None:
    """A flag that the listening drain set counts like a bell that is out."""
    client.set(BELL, "consumer")
    assert not doorbell.ring(DRAIN_BELL)


def test_an_empty_stream_is_no_reason_to_ring(
    doorbell: Doorbell, client: fakeredis.FakeRedis, sent: list[tuple[str, str]]
) -> None:
    """The schedule rings while the stream holds something; an empty one that was just looked at is left alone."""
    client.hset(PROGRESS, LIVE_QUEUE, str(time.time_ns() // 1_000_000))
    assert not doorbell.ring_for_references()
    assert sent == []
    client.xadd(STREAM, dict(a_reference().to_entry()))
    assert doorbell.ring_for_references()
    assert not doorbell.ring_for_references()
    assert sent == [(DRAIN_TASK, LIVE_QUEUE)]


def test_a_stream_that_nobody_looks_at_is_rung_for(doorbell: Doorbell, client: fakeredis.FakeRedis) -> None:
    """An empty stream does not show whether any worker still hears its bells, so the schedule asks now and then."""
    long_ago = time.time_ns() // 1_000_000 - int(LOOK_EVERY_SECONDS * 1_000) - 1
    client.hset(PROGRESS, LIVE_QUEUE, str(long_ago))
    assert doorbell.ring_for_references()


def test_a_look_from_the_future_does_not_silence_the_bell(
    doorbell: Doorbell, client: fakeredis.FakeRedis
) -> None:
    """It was noted before the clock was set back: nobody knows whether anybody has looked since."""
    ahead = time.time_ns() // 1_000_000 + 7_200_000
    client.hset(PROGRESS, LIVE_QUEUE, str(ahead))
    assert doorbell.ring_for_references()


def test_a_bell_without_redis_is_not_sent(sent: list[tuple[str, str]]) -> None:
    """Where the flag cannot be set no message goes out, and the ringer is told."""
    server = fakeredis.FakeServer()
    server.connected = False
    doorbell = Doorbell(fakeredis.FakeRedis(server=server), lambda task, queue: sent.append((task, queue)))
    with pytest.raises(RedisConnectionError):
        doorbell.ring(DRAIN_BELL)
    assert sent == []
