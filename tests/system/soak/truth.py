"""The stack -> facts for the judge: Graph's own leads and calls, every row compared with them, what is left to do.

It judges nothing. Invariant: rows are read from Postgres and leads from the sandbox, past leadsync's own code, but for
the comparison of one row with one lead, which is the demo's.
"""

import json
import urllib.request
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import psycopg
import redis
from psycopg.rows import dict_row

from tests.system import canaries
from tests.system.soak.invariants import Answer, Found, PageWindow
from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole
from worker.demo import differences, get_lines
from worker.inbox import STREAM

PART = 2_000
"""Leads that are compared at a time."""
_WATCH = """
create table if not exists moved_back (leadgen_id text);
create or replace function note_move() returns trigger language plpgsql as
    $$ begin insert into moved_back values (old.leadgen_id); return null; end $$;
create or replace trigger note_move after update on leadgen for each row
    when (old.state = 'stored' and new.state not in ('stored', 'erased')
        or old.state = 'erased' and new.state <> 'erased')
    execute function note_move();
"""


def watch_moves(stack: Whole) -> None:
    """Let Postgres itself note every row that stops being stored, unless it is erased, or comes back from there."""
    with psycopg.connect(stack.settings.database_url, autocommit=True) as connection:
        connection.execute(_WATCH)


def moved_back(stack: Whole) -> tuple[str, ...]:
    """The rows so noted."""
    with psycopg.connect(stack.settings.database_url) as connection:
        return tuple(str(row[0]) for row in connection.execute("select distinct leadgen_id from moved_back"))


def compare(stack: Whole) -> tuple[frozenset[str], dict[str, Found]]:
    """The ids of all leads that Meta has, and every row by its id, the stored ones compared with Graph's answer.

    A part at a time: of hundreds of thousands of leads only ids and verdicts are kept.
    """
    with psycopg.connect(stack.settings.database_url, row_factory=dict_row) as connection:
        rows = _states_of(connection)
        truth: set[str] = set()
        for leads in _parts(f"{stack.sandbox_url}/sandbox/truth"):
            truth.update(leads)
            query = "select * from leadgen where state = 'stored' and leadgen_id = any(%s)"
            for row in connection.execute(query, (list(leads),)):
                if differs := differences(leads[row["leadgen_id"]], row):
                    rows[row["leadgen_id"]] = Found("stored", row["reason"], differs)
    return frozenset(truth), rows


def _states_of(connection: "psycopg.Connection[dict[str, Any]]") -> dict[str, Found]:
    same: dict[tuple[str, str | None], Found] = {}
    rows = {}
    with connection.cursor("rows") as cursor:
        cursor.itersize = PART
        for row in cursor.execute("select leadgen_id, state, reason from leadgen"):
            kind = row["state"], row["reason"]
            rows[row["leadgen_id"]] = same.setdefault(kind, Found(*kind))
    return rows


def _parts(url: str) -> Iterator[dict[str, Any]]:
    """The sandbox's leads by id, so many at a time."""
    with urllib.request.urlopen(url, timeout=300) as lines:
        while part := {lead["id"]: lead for lead in map(json.loads, islice(lines, PART))}:
            yield part


def read_states(stack: Whole) -> dict[str, int]:
    """Rows by state."""
    with psycopg.connect(stack.settings.database_url, connect_timeout=3) as connection:
        return dict(connection.execute("select state, count(*) from leadgen group by 1").fetchall())


def read_left(stack: Whole) -> dict[str, float]:
    """What is still to be done: deliveries to come, entries of the stream, rows that wait."""
    told = stack.get("send")
    states = read_states(stack)
    with redis.Redis.from_url(stack.settings.redis_url, protocol=2, socket_timeout=5) as client:
        entries = int(client.xlen(STREAM))
    return {
        "runs of the sender": told["running"],
        "deliveries": told["pending"],
        "entries in the stream": entries,
        "rows that wait": states.get("waiting", 0),
    }


def read_repaired(stack: Whole) -> int:
    """Leads that came by reconciling."""
    with psycopg.connect(stack.settings.database_url, connect_timeout=3) as connection:
        row = connection.execute("select count(*) from repaired").fetchone()
        return int(row[0]) if row else 0


def read_windows(stack: Whole) -> tuple[PageWindow, ...]:
    """Each Page's window, by the sandbox's own exact count."""
    told = stack.get("calls")
    return tuple(
        PageWindow(
            page_id, window["limit"], window["most"], told["pages"].get(page_id, {}).get("over_limit", 0)
        )
        for page_id, window in told["windows"].items()
    )


def read_answers(stack: Whole) -> list[Answer]:
    """Every attempt to deliver."""
    return [Answer(*line) for line in get_lines(f"{stack.sandbox_url}/sandbox/send/log")]


def read_results(stack: Whole, leadgen_ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """What Graph answered for each of these leads when it was asked for by its id."""
    return {leadgen_id: stack.get(f"leads/{leadgen_id}")["results"] for leadgen_id in leadgen_ids}


def look_for_canaries(stack: Whole) -> tuple[str, ...]:
    """Where a token, a secret or an answer lies that ought not to lie there."""
    return tuple(
        canaries.look(
            log=stack.folder / "whole.log",
            redis_url=stack.settings.redis_url,
            redis_folder=stack.folder / "redis",
            database_url=stack.settings.database_url,
            pids=stack.supervisor.pids().values(),
            secrets=(APP_SECRET, VERIFY_TOKEN),
            given=tuple(stack.env),
        )
    )
