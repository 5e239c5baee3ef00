"""Servers and processes that go away, hang or refuse, while leads come in on real processes."""

import signal
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis

from tests.system.whole import Whole, whole

QUICK = {
    "CLAIM_AFTER_SECONDS": "4",
    "LEASE_SECONDS": "6",
    "RING_EVERY_SECONDS": "1",
    "TRANSIENT_FIRST_SECONDS": "0.2",
    "TRANSIENT_LONGEST_SECONDS": "1",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """One stack for the module; each test leaves it working."""
    with whole(
        sandbox={"latency_seconds": 0.1, "pages": 3, "redelivery_span_seconds": 15}, env=QUICK
    ) as running:
        yield running


@pytest.fixture
def server(stack: Whole) -> Iterator["redis.Redis"]:
    """The stack's Redis."""
    with redis.Redis.from_url(stack.settings.redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def send(stack: Whole) -> Callable[[int], None]:
    """Announce so many new leads, fast enough that much is in flight at once."""

    def announce(count: int) -> None:
        stack.send(count=count, batch=20, duplicates=0.2, rate=200)

    return announce


RESCUED_SECONDS = 150.0
"""Whatever has become of a worker, its watchdog ends it after a minute, and the next one takes its work up."""


def all_there(stack: Whole, seconds: float = RESCUED_SECONDS) -> bool:
    return stack.wait_for(lambda: stack.all_stored(stack.get("send")["created"]), seconds)


def counted_attempts(stack: Whole) -> int:
    with psycopg.connect(stack.settings.database_url) as connection:
        row = connection.execute("select coalesce(sum(attempts), 0) from leadgen").fetchone()
        return int(row[0]) if row else 0


def test_sigkill_of_a_workers_main_process_leaves_no_child_behind(
    stack: Whole, send: Callable[[int], None]
) -> None:
    """Children of a killed worker end by themselves, and all leads are stored once."""
    send(200)
    assert stack.wait_for(lambda: bool(stack.children("worker")), 20)
    pid, orphans = stack.pid("worker"), stack.children("worker")
    assert stack.kill(pid)
    assert all_there(stack)
    assert stack.wait_for(lambda: not any(map(stack.lives, orphans)), 45)


def test_a_postgres_that_stops_at_once_costs_no_attempt(stack: Whole, send: Callable[[int], None]) -> None:
    """Stopped without a checkpoint under load: nothing lost or doubled, and no attempt is counted."""
    before = counted_attempts(stack)
    send(300)
    time.sleep(0.7)
    assert stack.kill(stack.pid("postgres"), signal.SIGQUIT)
    assert all_there(stack)
    assert counted_attempts(stack) == before
    assert stack.differing() == {}


def test_terminated_connections_cost_nothing(stack: Whole, send: Callable[[int], None]) -> None:
    """All of leadsync's sessions ended again and again: all is stored."""
    send(200)
    with psycopg.connect(stack.settings.database_url, autocommit=True) as connection:
        for _ in range(10):
            time.sleep(0.15)
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'leadsync'"
            )
    assert all_there(stack)


def test_a_read_only_postgres_stops_the_intake_and_nothing_is_acknowledged(
    stack: Whole, server: "redis.Redis", send: Callable[[int], None]
) -> None:
    """While nothing can be written, everything stays in the stream, no attempt counts, and it goes on by itself."""
    before = counted_attempts(stack)
    rows = sum(stack.states().values())
    with psycopg.connect(stack.settings.database_url, autocommit=True) as connection:
        connection.execute("alter system set default_transaction_read_only = on")
        connection.execute("select pg_reload_conf()")
        time.sleep(0.5)
        try:
            send(100)
            assert stack.wait_for(lambda: not stack.get("send")["running"], 20)
            time.sleep(3)
            assert int(server.xlen("leadsync:references")) >= 100
            assert sum(stack.states().values()) == rows
        finally:
            connection.execute("set default_transaction_read_only = off")
            connection.execute("alter system reset default_transaction_read_only")
            connection.execute("select pg_reload_conf()")
    assert all_there(stack)
    assert counted_attempts(stack) == before


def test_a_killed_redis_loses_nothing_that_was_answered_200(
    stack: Whole, send: Callable[[int], None]
) -> None:
    """kill -9 of Redis under load: the receiver refuses while it is away, Meta delivers again, all is stored."""
    send(300)
    for _ in range(2):
        time.sleep(0.6)
        assert stack.wait_for(lambda: stack.kill(stack.pid("redis")), 20)
        time.sleep(2)
    assert all_there(stack)
    assert stack.differing() == {}


def test_an_emptied_redis_stops_nothing_that_comes_after(
    stack: Whole, server: "redis.Redis", send: Callable[[int], None]
) -> None:
    """After FLUSHALL the group is made anew from the beginning: what is announced from then on is stored."""
    server.flushall()
    send(100)
    assert all_there(stack)


def test_a_full_redis_is_refused_before_it_is_full_and_can_be_drained(
    stack: Whole, server: "redis.Redis", send: Callable[[int], None]
) -> None:
    """Close to maxmemory deliveries get 503; with room again all of them are stored."""
    limit = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", int(server.info("memory")["used_memory"] * 1.1))
    try:
        time.sleep(1.5)
        send(60)
        assert stack.wait_for(lambda: stack.get("send")["statuses"].get("503", 0) > 0, 20)
    finally:
        server.config_set("maxmemory", limit)
    assert all_there(stack)


def test_a_worker_that_slept_through_its_claims_does_no_harm(
    stack: Whole, send: Callable[[int], None]
) -> None:
    """SIGSTOP for longer than a claim, then SIGCONT: others take the work up, the zombie's verdicts change nothing."""
    send(200)
    assert stack.wait_for(lambda: bool(stack.children("worker")), 20)
    time.sleep(0.5)
    sleepers = [stack.pid("worker"), *stack.children("worker")][1:2]
    for pid in sleepers:
        stack.kill(pid, signal.SIGSTOP)
    try:
        # One that sleeps within a transaction holds its rows until Postgres ends its session, after a minute.
        assert stack.wait_for(lambda: stack.states().get("stored", 0) == len(stack.truth()), RESCUED_SECONDS)
    finally:
        for pid in sleepers:
            stack.kill(pid, signal.SIGCONT)
    assert all_there(stack)
    assert stack.differing() == {}


def test_sigterm_under_load_ends_a_worker_in_time_and_gives_its_work_back(
    stack: Whole, send: Callable[[int], None]
) -> None:
    """A worker that is told to stop ends within 30 seconds; what it held is taken up at once by the next."""
    stack.post("latency", {"seconds": 2})
    try:
        send(300)
        time.sleep(1.5)
        pid = stack.pid("worker")
        began = time.monotonic()
        assert stack.kill(pid, signal.SIGTERM)
        assert stack.wait_for(lambda: not stack.lives(pid), 30)
        assert time.monotonic() - began < 30
    finally:
        stack.post("latency", {"seconds": 0.1})
    assert all_there(stack)
    assert stack.differing() == {}


def test_each_announced_lead_was_stored_and_none_died(stack: Whole) -> None:
    """After all of the above every lead is one stored row and there is no dead letter."""
    assert stack.states() == {"stored": len(stack.truth())}
