"""Forgetting on a running stack: people are erased, then everything is sent, read and imported again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole, whole
from worker.inbox import ERASED, FORGET_TASK

LEADS = 1_500
FORGOTTEN = 1_000
BY_ANSWER = 2
PEOPLE = "select leadgen_id, lower(leadsync_answer(field_data, 'email')) from leads where form_id = %s"


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """A stack, and a Meta whose leads were all brought by a backfill."""
    sandbox = {"leads": LEADS, "pages": 1, "forms_per_page": 1, "latency_seconds": 0.01}
    with whole(sandbox=sandbox, env={"WORKER_CONCURRENCY": "1", "RECONCILE_LAG_SECONDS": "0"}) as running:
        backfill(running)
        yield running


def started(stack: Whole, *words: str, stdin: str = "") -> subprocess.Popen[str]:
    """A command of leadsync, as an operator would start it."""
    env = {
        **os.environ,
        **stack.env,
        "DATABASE_URL": stack.settings.database_url,
        "REDIS_URL": stack.settings.redis_url,
        "META_APP_SECRET": APP_SECRET,
        "META_VERIFY_TOKEN": VERIFY_TOKEN,
        "GRAPH_URL": stack.sandbox_url,
        "PAGE_TOKENS_FILE": str(stack.folder / "page_tokens.json"),
    }
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-m", "worker", *words], env=env, text=True, **pipes)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return process


def command(stack: Whole, *words: str, stdin: str = "") -> tuple[str, str]:
    """What a command that has to succeed writes."""
    process = started(stack, *words, stdin=stdin)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


def sql(stack: Whole, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Ask Postgres."""
    with psycopg.connect(stack.settings.database_url) as connection:
        cursor = connection.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def page_of(stack: Whole) -> dict[str, Any]:
    """The sandbox's one Page."""
    (page,) = stack.get("pages")["pages"]
    return dict(page)


def backfill(stack: Whole) -> None:
    """Read all that Meta has, and wait for it."""
    told = json.loads(command(stack, "backfill", "--page", page_of(stack)["page_id"], "--json")[0])
    state = f"select state from backfills where backfill_id = {told['backfill_id']}"
    assert stack.wait_for(lambda: sql(stack, state) == [("done",)], 60)


def snapshot(stack: Whole) -> dict[str, tuple[Any, ...]]:
    """What people see of each stored lead."""
    columns = "leadgen_id, field_data::text, ad_name, created_time, stored_at"
    return {row[0]: row for row in sql(stack, f"select {columns} from leads")}


def erased(stack: Whole) -> set[str]:
    """Ids of the erased rows, which have no content."""
    rows = sql(stack, "select leadgen_id, field_data, ad_name, extra from leadgen where state = 'erased'")
    assert all(row[1:] == (None, None, None) for row in rows)
    return {row[0] for row in rows}


def test_a_thousand_forgotten_people_never_return(stack: Whole, tmp_path: Path) -> None:
    """Redelivered, backfilled, compared, imported: none is back, nobody else is touched, no answer is told."""
    assert len(snapshot(stack)) == LEADS
    form = page_of(stack)["forms"][0]["form_id"]
    files = [tmp_path / f"{form['form_id']}.tsv" for form in page_of(stack)["forms"]]
    for path in files:
        command(stack, "export", "--form", path.stem, "--keys", "--raw", "--format", "tsv", "-o", str(path))
        path.write_text(path.read_text().replace("leadgen_id", "id", 1))
    people = dict(sql(stack, PEOPLE, form))
    alone = [i for i, email in people.items() if email and list(people.values()).count(email) == 1]
    by_answer = alone[:BY_ANSWER]
    for leadgen_id in by_answer:
        email = people[leadgen_id]
        out, err = command(
            stack, "forget", "--answer", "email", "--value-stdin", "--yes", stdin=f"{email.upper()}\n"
        )
        assert "1 erased (1 stored)" in out
        assert email not in (out + err).lower()
    by_id = sorted(set(snapshot(stack)))[: FORGOTTEN - BY_ANSWER]
    told = json.loads(command(stack, "forget", *by_id, "--json")[0])
    assert (told["erased"], told["was"]["stored"]) == (len(by_id), len(by_id))
    forgotten = {*by_answer, *by_id}
    assert len(forgotten) == FORGOTTEN
    assert erased(stack) == forgotten
    others = snapshot(stack)
    assert others.keys() == stack.truth().keys() - forgotten

    calls = stack.get("calls")["kinds"].get("lead", 0)
    stack.send(leads=sorted(stack.truth()), batch=100, duplicates=0.2)
    assert stack.wait_for(lambda: not stack.get("send")["running"] and not stack.get("send")["pending"], 60)
    assert stack.wait_for(lambda: stack.ask_stream(lambda stream: stream.length()) == 0, 60)
    assert stack.get("calls")["kinds"].get("lead", 0) == calls
    backfill(stack)
    report = json.loads(
        command(stack, "reconcile", "--page", page_of(stack)["page_id"], "--days", "90", "--json")[0]
    )
    assert report["unexplained"] == 0
    assert report["repaired"] == []
    assert sum(day["metas"] for day in report["days"]) == sum(day["ours"] for day in report["days"])
    for path in files:
        assert "0 new, 0 completed" in command(stack, "import", str(path))[0]
    command(stack, "dead-letters", "replay", "--all")
    assert erased(stack) == forgotten
    assert snapshot(stack) == others

    answers = {email for email in dict(sql(stack, PEOPLE, form)).values() if email} | set(people.values())
    assert not [line for line in stack.log().lower().splitlines() if any(a and a in line for a in answers)]
    audit = sql(stack, "select by_order_of, question, sum(leads)::int from erasures group by 1, 2 order by 1")
    assert audit == [("answer", "email", BY_ANSWER), ("id", None, len(by_id))]


def test_a_restored_backup_is_erased_again_by_the_schedule(stack: Whole) -> None:
    """Rows as they were before the order are found by the ids beside the database, and by a list that somebody kept."""
    listed = command(stack, "forget", "--list")[0]
    ids = re.findall(r"^(\d+)\t", listed, re.MULTILINE)
    assert set(ids) == erased(stack)
    back = ids[:50]
    restore = (
        "update leadgen set state = 'stored', reason = null, field_data = '[]' where leadgen_id = any(%s)"
    )
    sql(stack, restore, back)
    ring(stack)
    assert stack.wait_for(lambda: erased(stack) == set(ids), 90)
    told = ""
    for _ in range(5):
        with redis.Redis.from_url(stack.settings.redis_url) as client:
            client.delete(ERASED)
        sql(stack, restore, back)
        told = command(stack, "forget", "--from", "-", stdin=listed)[0]
        if "50 erased" in told:
            break  # else the schedule, which had read the ids before they were gone, was quicker
    assert "50 erased (50 stored)" in told
    assert erased(stack) == set(ids)
    with redis.Redis.from_url(stack.settings.redis_url) as client:
        assert client.hlen(ERASED) == len(ids)


def ring(stack: Whole) -> None:
    """Do at once what the schedule does every minute."""
    from worker.app import create_app, send
    from worker.inbox import UPKEEP_QUEUE

    send(create_app(stack.settings), FORGET_TASK, UPKEEP_QUEUE)


def test_an_order_that_was_killed_is_finished_by_the_same_order(stack: Whole) -> None:
    """kill -9 in the midst of it: what is erased stays so, and once more does the rest, telling of each lead once."""
    before = erased(stack)
    sql(
        stack,
        "insert into leadgen (leadgen_id, state, page_id, field_data, source, first_seen_at, last_seen_at, updated_at,"
        " stored_at) select (7000000000 + n)::text, 'stored', '7', jsonb_build_array(jsonb_build_object('name', 'tag',"
        " 'values', jsonb_build_array('killed'))), 'import', now(), now(), now(), now()"
        " from generate_series(1, 30000) as n",
    )
    count = "select count(*) from leadgen where state = 'erased' and page_id = '7'"
    process = started(stack, "forget", "--answer", "tag=Killed", "--yes")
    deadline = time.monotonic() + 60
    while sql(stack, count) == [(0,)] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    # Postgres finishes the statement that it was at, and commits it.
    busy = (
        "select count(*) from pg_stat_activity"
        " where state <> 'idle' and datname = current_database() and pid <> pg_backend_pid()"
    )
    assert stack.wait_for(lambda: sql(stack, busy) == [(0,)], 30)
    (gone,) = sql(stack, count)[0]
    assert 0 < gone < 30_000
    told = json.loads(command(stack, "forget", "--answer", "tag=Killed", "--yes", "--json")[0])
    assert (told["found"], told["erased"]) == (30_000 - gone, 30_000 - gone)
    assert sql(stack, count) == [(30_000,)]
    assert sql(stack, "select sum(leads)::int from erasures where page_id = '7'") == [(30_000,)]
    ring(stack)
    with redis.Redis.from_url(stack.settings.redis_url) as client:
        assert stack.wait_for(lambda: client.hlen(ERASED) == len(before) + 30_000, 90)
