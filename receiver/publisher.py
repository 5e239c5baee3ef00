"""Delivery -> stream entries, whole or not at all; then one ring at the worker's door.

    Delivery -> refusal? -> with other threads' -> take.lua (bodies, references, Pages, counts, bell) -> doorbell

A delivery has PROMPT_SECONDS for its answer, the wait for a thread included, for Meta counts an answer that comes later
as none: what is late before it is written is refused unwritten, and a write waits for no longer than is left.

The only file here that knows redis and celery. It does not judge what a delivery says (delivery.py) nor how
full is too full (capacity.py), nor does it know how take.lua is told (parts.py) or who writes together (together.py).

Invariant: `publish` returns only after Redis answered the script; where the append-only file is synced always,
that is after the entries are on disk. Everything after that answer may fail without a word: the worker's
schedule rings too.

It is weak where an answer is lost or late: the entries may be in the stream though the caller was refused.
Meta then delivers again and the worker sees some references twice, which it is built for.
"""

import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Final, Protocol

import hiredis
import redis
import structlog
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from receiver.capacity import Condition, Limits, refusal, risks
from receiver.delivery import Delivery
from receiver.errors import QueueUnavailable
from receiver.parts import KEYS, SCRIPT, Word, counts_of, total, words
from receiver.settings import Settings
from receiver.tally import Quietly, Tally, Verdict
from receiver.together import Together
from worker.inbox import BELL, COUNTERS, DRAIN_TASK, LIVE_QUEUE, SET_ASIDE, STREAM

PROMPT_SECONDS: Final = 0.95
"""For a delivery's wait for a thread, and for all that is asked of Redis until its answer, whichever that is."""
BEGIN_SECONDS: Final = 0.4
"""No write begins after so much of that: what is left suffices for a Redis that is only slow."""
LEAST_SECONDS: Final = 0.35
"""A write that connecting left less time is not begun."""
CONNECT_SECONDS: Final = 0.3
ANSWER_SECONDS: Final = 0.5
"""With CONNECT_SECONDS less than PROMPT_SECONDS."""
RING_SECONDS: Final = 0.15
"""A broker may hold up an answer that is safe already by this, thrice: for the bell, to connect, to take it."""
DOORBELL_EXPIRES_SECONDS: Final = 3_600
"""A doorbell that lay this long has been overtaken by the schedule.

A moment of this machine's clock, judged by the worker's: one that is further ahead throws every doorbell away. While
no worker listens the bell lets a message through in BELL_EXPIRES_SECONDS, so no more than 360 pile up in it.
"""
CONDITION_HOLDS_SECONDS: Final = 1.0
"""A look at Redis' condition serves for this long: one round trip a second, not one a delivery."""
FLUSH_EVERY_SECONDS: Final = 5.0
"""Counts of refusals go to Redis no more often than this by themselves; the next delivery takes them
along."""
MOST_TOGETHER: Final = 1_000
"""References written at once; a longer script would hold up whoever else asks Redis."""
SET_ASIDE_BYTES: Final = 64 * 1024 * 1024
"""Bodies set aside may take this much of Redis' memory; beyond it the oldest go, however few they are."""

_log = structlog.get_logger()


class _Late(redis.RedisError):
    """Too little of the delivery's time was left to ask Redis."""


@dataclass(frozen=True, slots=True)
class _Due:
    """A delivery, and the moment of the monotonic clock by which it is to be answered."""

    delivery: Delivery
    until: float


class Bell(Protocol):
    """Something that can wake a worker."""

    def ring(self) -> bool:
        """Ring once; False where it could not, never an exception."""


class Publisher:
    """The stream's front. One for the process, shared by its threads."""

    def __init__(
        self,
        client: redis.Redis,
        bell: Bell,
        limits: Limits,
        *,
        look: Callable[[redis.Redis], Condition] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._bell = bell
        self._limits = limits
        self._look = look or look_at
        self._clock = clock
        self._tally = Tally()
        self._quietly = Quietly(clock)
        self._line = _Line(client, clock)
        self._name, self._bells = uuid.uuid4().hex, count()
        self._together = Together(self._take, _weight, MOST_TOGETHER)
        self._unrung: deque[None] = deque()
        self._looking = threading.Lock()
        self._condition: Condition | None = None
        self._looked_at = float("-inf")
        self._length = 0
        self._risks: tuple[str, ...] = ()
        self._flushing = threading.Lock()
        self._flushed_at = clock()

    def admit(self, waited: float) -> None:
        """Raise QueueUnavailable where `waited` seconds are so many that `publish` would refuse. Asks nobody."""
        if waited > BEGIN_SECONDS:
            raise self._unavailable(_Late())

    def publish(self, delivery: Delivery, waited: float) -> None:
        """Put all of `delivery` into the stream, or raise QueueUnavailable. Wakes a worker if none listens.

        `waited` are the seconds of its time that were over before it was read. Reading it is not counted: what takes
        long would be refused whenever it came.
        """
        since = self._clock() - waited
        try:
            self._refuse_if_late(since)
            self.check()
            self._refuse_if_late(since)
            self._together.put(_Due(delivery, since + PROMPT_SECONDS))
        except redis.RedisError as error:
            raise self._unavailable(error) from None
        self._tell(delivery)
        # This need not be done for this delivery: it is left to one that has the time.
        if delivery.unread and not self._is_late(since):
            self._bound_set_aside()
        if self._unrung:
            if self._is_late(since):
                # There may be none that has: then all are late, and each puts the flag up again.
                threading.Thread(target=self._ring, daemon=True).start()
            else:
                self._ring()

    def count(self, verdict: Verdict) -> None:
        """Count a refusal in memory: a write at most every few seconds, a line at most every minute."""
        self._tally.add(verdict)
        if verdict is not Verdict.QUEUE_UNAVAILABLE:
            self._quietly.warning(verdict.value)
            self._flush_if_due()

    def check(self) -> None:
        """Raise QueueUnavailable where the stream cannot take a delivery.

        A stream that was full a moment ago is asked anew: the worker may have emptied it.
        """
        fresh = self._clock() - self._looked_at < CONDITION_HOLDS_SECONDS
        if not fresh or self._length > self._limits.entries:
            self._look_again()
        condition = self._condition
        why = refusal(condition, self._limits) if condition else None
        if why is not None:
            self._quietly.warning("queue_unavailable", why=why)
            raise QueueUnavailable(why)

    def close(self) -> None:
        """Write the counts still in memory, as far as that is quick, and let go of Redis."""
        self._flush()
        self._client.close()

    def _refuse_if_late(self, since: float) -> None:
        if self._is_late(since):
            raise _Late

    def _is_late(self, since: float) -> bool:
        return self._clock() - since > BEGIN_SECONDS

    def _look_again(self) -> None:
        # One thread looks while the others go by the last condition; where there is none each looks for
        # itself, since waiting in line for a silent Redis would add up.
        mine = self._looking.acquire(blocking=False)
        if not mine and self._condition is not None:
            return
        try:
            seen = self._look(self._client)
        except redis.RedisError as error:
            raise self._unavailable(error) from None
        finally:
            if mine:
                self._looking.release()
        self._condition, self._looked_at, self._length = seen, self._clock(), seen.length
        self._warn_of_risks(risks(seen))

    def _warn_of_risks(self, found: tuple[str, ...]) -> None:
        if found != self._risks:
            self._risks = found
            if found:
                _log.error("queue_not_safe", settings=list(found))
            else:
                _log.info("queue_safe_again")

    def _unavailable(self, error: redis.RedisError) -> QueueUnavailable:
        if isinstance(error, _Late):
            self._quietly.warning("queue_unavailable", why="too late")
            return QueueUnavailable("queue too slow")
        self._condition, self._looked_at = None, float("-inf")
        self._quietly.warning("queue_unavailable", why=type(error).__name__)
        return QueueUnavailable("queue unavailable")

    def _tell(self, delivery: Delivery) -> None:
        if delivery.unread:
            reasons = [reason.value for reason in delivery.unread]
            self._quietly.warning("delivery_set_aside", reasons=reasons, bytes=len(delivery.body))
        if delivery.lacking_values:
            self._quietly.warning("subscription_lacks_values", page_id=delivery.lacking_values[0])

    def _bound_set_aside(self) -> None:
        try:
            dropped = _trim_set_aside(self._client)
        except redis.RedisError:
            return  # The next body set aside trims for this one too.
        if dropped:
            self._tally.add(Verdict.SET_ASIDE_DROPPED, dropped)

    def _take(self, dues: Sequence[_Due]) -> None:
        deliveries = [due.delivery for due in dues]
        counts = self._tally.take()
        seen = total([counts, *map(counts_of, deliveries)])
        try:
            told = words(deliveries, seen, f"{self._name}-{next(self._bells)}")
            self._length, nobody_listens = self._line.send(told, min(due.until for due in dues))
        except Exception:
            self._tally.put_back(counts)
            raise
        if nobody_listens:
            self._unrung.append(None)
        _log.debug(
            "deliveries_published", deliveries=len(deliveries), references=seen.get(Verdict.REFERENCES, 0)
        )

    def _ring(self) -> None:
        try:
            self._unrung.pop()
        except IndexError:
            return  # Another thread has come first.
        if self._bell.ring():
            self._tally.add(Verdict.BELLS_RUNG)
            return
        self._tally.add(Verdict.BELLS_FAILED)
        _log.debug("bell_failed")
        try:
            self._client.delete(BELL)
        except redis.RedisError:
            return  # The flag expires by itself.

    def _flush_if_due(self) -> None:
        if self._clock() - self._flushed_at >= FLUSH_EVERY_SECONDS and self._flushing.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._flushed_at = self._clock()
                self._flushing.release()

    def _flush(self) -> None:
        counts = self._tally.take()
        if not counts:
            return
        try:
            with self._client.pipeline(transaction=True) as pipe:
                _add_counts(pipe, counts)
                pipe.execute()
        except redis.RedisError:
            self._tally.put_back(counts)


class Doorbell:
    """Celery's message that there is work: no payload, and nothing is lost with it."""

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("leadsync.receiver", broker=redis_url, set_as_current=False)
        self._app.conf.update(
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            broker_connection_timeout=RING_SECONDS,
            # Without a bound on tries kombu goes on connecting for as long as the broker is away.
            broker_transport_options={
                "socket_timeout": RING_SECONDS,
                "socket_connect_timeout": RING_SECONDS,
                "max_retries": 0,
                "max_connections": 2,
            },
        )
        self._lock = threading.Lock()
        self._producer: Any = None

    def ring(self) -> bool:
        """Send one doorbell over the connection that is kept for it; False where that failed."""
        if not self._lock.acquire(timeout=RING_SECONDS):
            return False
        try:
            self._send()
        except Exception:  # kombu lets errors of every layer below it through, and none may cost a 200.
            self._hang_up()
            return False
        finally:
            self._lock.release()
        return True

    def _send(self) -> None:
        if self._producer is None:
            self._producer = self._app.amqp.Producer(self._app.connection_for_write(), auto_declare=False)
        self._app.send_task(
            DRAIN_TASK,
            queue=LIVE_QUEUE,
            producer=self._producer,
            expires=DOORBELL_EXPIRES_SECONDS,
            ignore_result=True,
            retry=False,
            add_to_parent=False,
        )

    def _hang_up(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.connection.release()
            except Exception:  # It is being thrown away.
                _log.debug("bell_not_hung_up")


def open_publisher(settings: Settings) -> Publisher:
    """The publisher for these settings. Nothing is connected before the first delivery."""
    client = redis.Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        # A dropped connection may be tried anew at once; what timed out has had its time.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        # What redis-py tells each connection of itself takes three round trips, and a delivery would wait for them.
        protocol=2,
        driver_info=None,
    )
    limits = Limits(entries=settings.stream_max_entries, memory_share=settings.redis_memory_share)
    return Publisher(client, Doorbell(settings.redis_url), limits)


def look_at(client: redis.Redis) -> Condition:
    """Redis' condition, in one round trip."""
    with client.pipeline(transaction=False) as pipe:
        pipe.xlen(STREAM)
        for section in ("memory", "persistence", "replication"):
            pipe.info(section)
        pipe.config_get("appendfsync")
        length, *sections, config = pipe.execute(raise_on_error=False)
    for answer in (length, *sections):
        if isinstance(answer, redis.RedisError):
            raise answer
    info = {name: value for section in sections for name, value in section.items()}
    return Condition.of(length, info, fsync=config.get("appendfsync") if isinstance(config, dict) else None)


def _weight(due: _Due) -> int:
    """In references; a body that is set aside may be large, so it is written alone."""
    return MOST_TOGETHER if due.delivery.unread else len(due.delivery.references)


class _Line:
    """take.lua's own connections to Redis; safe to use from many threads.

    The command is packed here, and the connection kept: redis-py looks at each word of a command, and whether a
    connection still stands, and both take longer than all the rest. What was dropped is noticed by its first use.
    """

    def __init__(self, client: redis.Redis, clock: Callable[[], float]) -> None:
        self._pool, self._clock = client.connection_pool, clock
        self._kept: deque[Any] = deque()

    def send(self, told: Sequence[Word], until: float) -> tuple[int, bool]:
        """Let the script run: the stream's length afterwards, and whether the bell is now ours to ring.

        Raises redis.TimeoutError where no answer came by `until`, and _Late where connecting left too little time: then
        the connection is kept for the next.
        """
        keyed = (str(len(KEYS)), *KEYS, *told)
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._pool.get_connection()
        try:
            answer = connection.retry.call_with_retry(
                lambda: self._run(connection, keyed, until), lambda _: connection.disconnect()
            )
        except _Late:
            self._kept.append(connection)
            raise
        except BaseException:
            # Part of an answer may still be on its way.
            connection.disconnect()
            self._pool.release(connection)
            raise
        self._kept.append(connection)
        return answer[0], answer[1] == 1

    def _run(self, connection: Any, keyed: Sequence[Word], until: float) -> Any:
        connection.connect()
        if until - self._clock() < LEAST_SECONDS:
            raise _Late
        text, digest = _script()
        try:
            return self._ask(connection, until, "EVALSHA", digest, *keyed)
        except redis.exceptions.NoScriptError:
            return self._ask(connection, until, "EVAL", text, *keyed)

    def _ask(self, connection: Any, until: float, *command: Word) -> Any:
        connection.send_packed_command([hiredis.pack_command(command)])  # type: ignore[arg-type]
        # No time at all would mean not to wait, and to take that for a broken connection.
        return connection.read_response(timeout=max(until - self._clock(), 0.001))


@cache
def _script() -> tuple[str, str]:
    """The script, and its digest, by which a Redis that has seen it knows it."""
    text = SCRIPT.read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _add_counts(pipe: "redis.client.Pipeline", counts: Mapping[Verdict, int]) -> None:
    for verdict, times in counts.items():
        if times:
            pipe.hincrby(COUNTERS, verdict.value, times)


def _trim_set_aside(client: redis.Redis) -> int:
    """Drop the oldest bodies until the rest fits into SET_ASIDE_BYTES; how many went. The newest stays."""
    dropped = 0
    while (client.memory_usage(SET_ASIDE, samples=0) or 0) > SET_ASIDE_BYTES:
        length = client.xlen(SET_ASIDE)
        if length <= 1:
            break
        dropped += client.xtrim(SET_ASIDE, maxlen=length - max(1, length // 16), approximate=False)
    return dropped
