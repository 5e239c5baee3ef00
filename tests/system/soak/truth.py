"""The stack -> facts for the judge: Graph's own leads and calls, every row compared with them, what is left to do.

It judges nothing. Invariant: rows are read from Postgres and leads from the sandbox, past leadsync's own code, but for
the comparison of one row with one lead, which is the demo's.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
import redis
from psycopg.rows import dict_row

from tests.system import canaries
from tests.system.soak.invariants import Answer, Found, PageWindow
from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole
from worker.demo import differences, get_lines
from worker.inbox import STREAM

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


def read_rows(stack: Whole, truth: Mapping[str, Any]) -> dict[str, Found]:
    """Every row, the stored ones compared with Graph's answer."""
    found = {}
    with (
        psycopg.connect(stack.settings.database_url, row_factory=dict_row) as connection,
        connection.cursor("rows") as cursor,
    ):
        for row in cursor.execute("select * from leadgen"):
            lead = truth.get(row["leadgen_id"])
            compared = lead is not None and row["state"] == "stored"
            differs = differences(lead, row) if lead is not None and compared else ()
            found[row["leadgen_id"]] = Found(row["state"], row["reason"], differs)
    return found


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


def read_results(stack: Whole) -> dict[str, dict[str, int]]:
    """What Graph answered for each lead that was asked for by its id."""
    return {record["id"]: record["results"] for record in get_lines(f"{stack.sandbox_url}/sandbox/leads")}


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
