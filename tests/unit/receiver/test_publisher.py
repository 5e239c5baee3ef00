"""What reaches Redis, when a worker is woken, and when a delivery is refused."""

import threading
from dataclasses import replace

import fakeredis
import pytest
import redis

from receiver.capacity import Condition, Limits
from receiver.delivery import Delivery, Unread
from receiver.errors import QueueUnavailable
from receiver.publisher import (
    BEGIN_SECONDS,
    CONDITION_HOLDS_SECONDS,
    FLUSH_EVERY_SECONDS,
    PROMPT_SECONDS,
    Publisher,
)
from receiver.tally import Verdict
from worker.inbox import (
    BELL,
    BELL_EXPIRES_SECONDS,
    COUNTERS,
    RECONCILE_WANTED,
    RECONCILE_WANTED_LAST,
    SET_ASIDE,
    SET_ASIDE_LIMIT,
    STREAM,
    LeadReference,
)

PATIENT = 60.0
"""Seconds that no test takes."""


class World:
    """A Redis, a bell, a clock and a condition that tests can change, and the publisher between them."""

    def __init__(self) -> None:
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server)
        self.now = 1_000.0
        self.rings = 0
        self.bell_works = True
        self.looks = 0
        self.condition = Condition(length=0)
        limits = Limits(entries=5, memory_share=0.8)
        self.publisher = Publisher(self.redis, self, limits, look=self.look, clock=lambda: self.now)

    def ring(self) -> bool:
        self.rings += 1
        return self.bell_works

    def look(self, client: redis.Redis) -> Condition:
        self.looks += 1
        client.ping()
        return self.condition

    def counters(self) -> dict[str, int]:
        return {name.decode(): int(count) for name, count in self.redis.hgetall(COUNTERS).items()}


@pytest.fixture
def world() -> World:
    return World()


def delivery(*leadgen_ids: str, unread: tuple[Unread, ...] = (), lacking: tuple[str, ...] = ()) -> Delivery:
    references = tuple(LeadReference(lead, "7", None, None, None, None, 1) for lead in leadgen_ids)
    return Delivery(b"\xffraw", 99, references, unread, lacking, duplicates=2, ignored=1)


def test_a_delivery_goes_into_the_stream_in_order(world: World) -> None:
    """Each reference is one entry, in the order of the delivery, and reads back as it was."""
    taken = delivery("1", "2", "3")
    world.publisher.publish(taken, 0)
    entries = [LeadReference.from_entry(fields) for _, fields in world.redis.xrange(STREAM)]
    assert tuple(entries) == taken.references


def test_a_delivery_is_counted_with_it(world: World) -> None:
    """What was seen in a delivery is counted in the same transaction."""
    world.publisher.publish(delivery("1", "2", unread=(Unread.VALUE,), lacking=("8", "9")), 0)
    assert world.counters() == {
        "deliveries": 1,
        "references": 2,
        "duplicates": 2,
        "ignored": 1,
        "lacking_values": 2,
        "set_aside": 1,
    }


def test_what_is_unreadable_is_set_aside_raw(world: World) -> None:
    """The body is kept byte for byte with every reason, and the oldest goes when there are too many."""
    world.publisher.publish(delivery("1", unread=(Unread.VALUE, Unread.ENTRY)), 0)
    ((_, kept),) = world.redis.xrange(SET_ASIDE)
    assert kept == {b"reason": b"value,entry", b"received_at": b"99", b"body": b"\xffraw"}
    for _ in range(SET_ASIDE_LIMIT):
        world.publisher.publish(delivery(unread=(Unread.BODY,)), 0)
    assert world.redis.xlen(SET_ASIDE) == SET_ASIDE_LIMIT
    assert world.redis.xrange(SET_ASIDE, count=1)[0][1][b"reason"] == b"body"


def test_pages_that_lack_values_are_marked(world: World) -> None:
    """A Page whose leads come without ids is marked for reconciling, with when it was seen first and last."""
    world.publisher.publish(delivery(lacking=("8",)), 0)
    world.publisher.publish(replace(delivery(lacking=("8",)), received_at=150), 0)
    assert world.redis.hgetall(RECONCILE_WANTED) == {b"8": b"99"}
    assert world.redis.hgetall(RECONCILE_WANTED_LAST) == {b"8": b"150"}


def test_the_bell_rings_once_until_it_is_lifted(world: World) -> None:
    """A worker is woken by the first delivery after it stopped listening, and by no other."""
    world.publisher.publish(delivery("1"), 0)
    world.publisher.publish(delivery("2"), 0)
    assert (world.rings, 0 < world.redis.ttl(BELL) <= BELL_EXPIRES_SECONDS) == (1, True)
    world.redis.delete(BELL)
    world.publisher.publish(delivery("3"), 0)
    assert world.rings == 2


def test_without_references_nobody_is_woken(world: World) -> None:
    """A delivery that put nothing into the stream rings no bell."""
    world.publisher.publish(delivery(unread=(Unread.BODY,), lacking=("8",)), 0)
    assert (world.rings, world.redis.exists(BELL)) == (0, 0)


def test_a_bell_that_failed_is_rung_by_the_next(world: World) -> None:
    """A doorbell that could not be sent costs no delivery, and leaves the bell free for the next one."""
    world.bell_works = False
    world.publisher.publish(delivery("1"), 0)
    world.bell_works = True
    world.publisher.publish(delivery("2"), 0)
    world.publisher.publish(delivery(), 0)
    assert (world.rings, world.redis.xlen(STREAM)) == (2, 2)
    assert (world.counters()["bells_failed"], world.counters()["bells_rung"]) == (1, 1)


def test_a_lost_redis_refuses_and_keeps_its_counts(world: World) -> None:
    """Without Redis every delivery is refused, and what was counted meanwhile is written later."""
    world.publisher.publish(delivery("1"), 0)
    world.publisher.count(Verdict.UNSIGNED)
    world.server.connected = False
    with pytest.raises(QueueUnavailable):
        world.publisher.publish(delivery("2"), 0)
    world.publisher.count(Verdict.QUEUE_UNAVAILABLE)
    world.server.connected = True
    world.publisher.publish(delivery("3"), 0)
    counted = world.counters()
    assert (counted["unsigned"], counted["queue_unavailable"], counted["deliveries"]) == (1, 1, 2)


def test_a_refusal_by_redis_is_a_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Redis says no with, the delivery is not taken, and the next one is where Redis does."""
    errors = (
        redis.exceptions.OutOfMemoryError("OOM"),
        redis.exceptions.ReadOnlyError("READONLY"),
        redis.ResponseError("MISCONF"),
        redis.exceptions.BusyLoadingError("LOADING"),
        redis.TimeoutError("late"),
        redis.exceptions.ExecAbortError("EXECABORT"),
    )
    connections = world.redis.connection_pool.connection_class
    for error in errors:

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(connections, "read_response", refuse)
            with pytest.raises(QueueUnavailable):
                world.publisher.publish(delivery("1"), 0)
        world.redis.delete(STREAM)
        world.publisher.publish(delivery("2"), 0)
        assert world.redis.xlen(STREAM) == 1


def test_a_full_stream_refuses_until_it_is_drained(world: World) -> None:
    """Past its bound the stream takes nothing more, and takes again as soon as it is below it."""
    world.publisher.publish(delivery("1", "2", "3", "4", "5", "6"), 0)
    world.condition = Condition(length=6)
    with pytest.raises(QueueUnavailable, match="stream is full"):
        world.publisher.publish(delivery("7"), 0)
    world.condition = Condition(length=0)
    world.publisher.publish(delivery("7"), 0)
    assert world.redis.xlen(STREAM) == 7


def test_redis_is_looked_at_once_a_second(world: World) -> None:
    """Within its bounds a delivery costs no look of its own."""
    for _ in range(10):
        world.publisher.publish(delivery(), 0)
    assert world.looks == 1
    world.now += CONDITION_HOLDS_SECONDS
    world.publisher.publish(delivery(), 0)
    assert world.looks == 2


def test_readiness_follows_the_first_failure(world: World) -> None:
    """After Redis failed a delivery its last good look counts for nothing, and a good one restores it."""
    world.publisher.publish(delivery("1"), 0)
    world.server.connected = False
    with pytest.raises(QueueUnavailable):
        world.publisher.publish(delivery("2"), 0)
    with pytest.raises(QueueUnavailable):
        world.publisher.check()
    world.server.connected = True
    world.publisher.check()


def test_strangers_cost_no_write_each(world: World) -> None:
    """Refusals are counted in memory and written together, at most once every few seconds."""
    for _ in range(50):
        world.publisher.count(Verdict.UNSIGNED)
    assert world.counters() == {}
    world.now += FLUSH_EVERY_SECONDS
    world.publisher.count(Verdict.UNSIGNED)
    assert world.counters() == {"unsigned": 51}


def test_closing_writes_what_was_counted(world: World) -> None:
    """An orderly end loses no count."""
    world.publisher.count(Verdict.TOO_LARGE)
    world.publisher.close()
    assert world.counters() == {"too_large": 1}


def test_a_delivery_that_is_late_is_refused_unasked(world: World) -> None:
    """Who waited too long for a thread costs no round trip; the next is taken."""
    with pytest.raises(QueueUnavailable, match="too slow"):
        world.publisher.publish(delivery("1"), BEGIN_SECONDS + 0.001)
    assert (world.looks, world.redis.exists(STREAM)) == (0, 0)
    world.publisher.publish(delivery("1"), BEGIN_SECONDS - 0.001)
    assert world.redis.xlen(STREAM) == 1


def test_who_would_be_refused_as_late_is_not_admitted(world: World) -> None:
    """So that it need not be read; nobody is asked for that."""
    with pytest.raises(QueueUnavailable, match="too slow"):
        world.publisher.admit(BEGIN_SECONDS + 0.001)
    world.publisher.admit(BEGIN_SECONDS - 0.001)
    assert world.looks == 0


def test_a_slow_look_makes_late_only_who_looked(world: World) -> None:
    """What it saw serves the next one."""

    def slow(client: redis.Redis) -> Condition:
        world.now += BEGIN_SECONDS + 0.001
        return World.look(world, client)

    world.look = slow  # type: ignore[method-assign]
    publisher = Publisher(world.redis, world, Limits(5, 0.8), look=world.look, clock=lambda: world.now)
    with pytest.raises(QueueUnavailable):
        publisher.publish(delivery("1"), 0)
    publisher.publish(delivery("2"), 0)
    assert (world.looks, world.redis.xlen(STREAM)) == (1, 1)


def test_nothing_is_written_once_its_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where connecting took all of it, the script is not sent, and Redis is not thought to be away."""
    connections = world.redis.connection_pool.connection_class

    def slowly(*_: object, **__: object) -> None:
        world.now += PROMPT_SECONDS

    world.publisher.check()
    with monkeypatch.context() as patch:
        patch.setattr(connections, "connect", slowly)
        with pytest.raises(QueueUnavailable, match="too slow"):
            world.publisher.publish(delivery("1"), 0)
    assert world.redis.exists(STREAM) == 0


def test_a_late_delivery_is_answered_before_the_bell_is_rung(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is due; but somebody has to ring, for where Redis is slow all of them are late."""
    connections = world.redis.connection_pool.connection_class
    answer = connections.read_response
    may_ring, rung = threading.Event(), threading.Event()

    def slowly(*args: object, **options: object) -> object:
        world.now += BEGIN_SECONDS + 0.001
        return answer(*args, **options)

    def ring() -> bool:
        assert may_ring.wait(PATIENT)
        rung.set()
        return True

    world.publisher.check()
    with monkeypatch.context() as patch:
        patch.setattr(connections, "read_response", slowly)
        patch.setattr(world, "ring", ring)
        world.publisher.publish(delivery("1"), 0)
        assert world.redis.xlen(STREAM) == 1
        may_ring.set()
        assert rung.wait(PATIENT)


def test_a_redis_that_refuses_connections_is_asked_by_each(world: World) -> None:
    """That takes no time, and it may be back for the next one."""
    world.server.connected = False
    for _ in range(3):
        with pytest.raises(QueueUnavailable):
            world.publisher.publish(delivery("1"), 0)
    world.server.connected = True
    world.publisher.publish(delivery("1"), 0)
    assert world.looks == 4
