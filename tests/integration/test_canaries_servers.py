"""The look for canaries on a real Redis and a real Postgres: one planted anywhere is told, what may be there is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from sandbox.tokens import page_token
from tests.system.canaries import look

CANARY = page_token(1, "153125381133")
ANSWER = "Lead.12@EXAMPLE.COM"
Look = Callable[[], list[str]]


@pytest.fixture
def looked(tmp_path: Path, redis_url: str, database: str) -> Look:
    """What is found on the servers of the test."""
    (tmp_path / "log").write_text("")
    return lambda: look(
        log=tmp_path / "log", redis_url=redis_url, redis_folder=tmp_path, database_url=database, pids=()
    )


PLANTS: dict[str, Callable[["redis.Redis", str], Any]] = {
    "string": lambda client, text: client.set("leadsync:x", text),
    "hash": lambda client, text: client.hset("leadsync:x", "field", text),
    "field": lambda client, text: client.hset("leadsync:x", text, "value"),
    "list": lambda client, text: client.rpush("leadsync:x", text),
    "set": lambda client, text: client.sadd("leadsync:x", text),
    "zset": lambda client, text: client.zadd("leadsync:x", {text: 1}),
    "stream": lambda client, text: client.xadd("leadsync:x", {"raw": text}),
    "key": lambda client, text: client.set(f"leadsync:x:{text}", 1),
}


@pytest.mark.parametrize("text", [CANARY, ANSWER, "jürgen3@bücher.example"])
@pytest.mark.parametrize("kind", PLANTS)
def test_one_in_redis_is_told(looked: Look, redis_url: str, kind: str, text: str) -> None:
    """Whatever the type of its key; by the beginning of the key's name."""
    assert looked() == []
    with redis.Redis.from_url(redis_url) as client:
        PLANTS[kind](client, text)
    (place,) = looked()
    told = "a token" if text == CANARY else "an answer"
    assert place.startswith(f"Redis: {told} in key leadsync:x")
    assert text not in place


def test_one_that_was_in_redis_for_a_moment_is_told(looked: Look, tmp_path: Path) -> None:
    """By the append-only file."""
    (tmp_path / "appendonly.aof").write_text(f"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$86\r\n{CANARY}\r\n")
    assert looked() == ["Redis: a token in appendonly.aof"]


@pytest.mark.parametrize("sealed", [CANARY.encode(), b"\x00\x01" + CANARY.encode()])
def test_a_token_that_was_not_sealed_is_told(looked: Look, database: str, sealed: bytes) -> None:
    """Its bytes are known in the way that a dump shows them."""
    with psycopg.connect(database) as connection:
        connection.execute("insert into page_tokens values ('1', null, 'k', %s, null, now())", (sealed,))
    assert looked() == ["Postgres: a token in table page_tokens"]


@pytest.mark.parametrize(
    ("text", "told"), [(CANARY, "a token"), (ANSWER, "an answer"), ("0151 1234567", "an answer")]
)
def test_one_in_another_table_is_told(looked: Look, database: str, text: str, told: str) -> None:
    """Answers belong to the leads' table only."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into health_events (at, aspect, became, reason) values (now(), 'token', 'x', %s)",
            (f"a {text}",),
        )
    assert looked() == [f"Postgres: {told} in table health_events"]


@pytest.mark.parametrize(("text", "told"), [(ANSWER, []), (CANARY, ["Postgres: a token in table leadgen"])])
def test_answers_may_be_with_their_leads_and_tokens_may_not(
    looked: Look, database: str, text: str, told: list[str]
) -> None:
    """The one table that answers are for holds no token either."""
    with psycopg.connect(database) as connection:
        columns = "select column_name from information_schema.columns where table_name = 'leadgen'"
        assert ("field_data",) in connection.execute(columns).fetchall()
        connection.execute(
            "insert into leadgen (leadgen_id, page_id, state, source, first_seen_at, last_seen_at, updated_at,"
            " field_data) values ('1', '2', 'waiting', 'x', now(), now(), now(), jsonb_build_array(%s::text))",
            (text,),
        )
    assert looked() == told
