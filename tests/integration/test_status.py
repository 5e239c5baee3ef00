"""`leadsync status [--watch]` on a real Redis and Postgres: what is counted, and what stands on a terminal."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import redis
from click.testing import CliRunner

from tests.fakes.leads import OTHER_PAGE, PAGE, a_lead, in_flight
from worker.budget.policy import Lane
from worker.cli import main
from worker.desks import Lookout, open_budget, open_lookout, open_store
from worker.inbox import COUNTERS, PROGRESS, STREAM
from worker.outcomes import DeadLetter, Park, Retry, Stored
from worker.settings import Settings, read_settings
from worker.status import look
from worker.store import status as status_store
from worker.store.status import Bounds

T = TypeVar("T")

GONE = "127.0.0.1:1"
"""Nobody listens there."""
MANY = Bounds(1_000, 1_000)
MANY_ROWS = """
insert into leadgen
    (leadgen_id, state, reason, due_at, first_seen_at, last_seen_at, page_id, source, stored_at, updated_at)
select i + 1000000, case i % 50 when 0 then 'waiting' when 1 then 'dead' else 'stored' end,
    case when i % 50 < 2 then 'budget' end, case i % 50 when 0 then now() end, now(), now(), i % 200 + 1, 'webhook',
    case when i % 50 > 1 then now() end, now()
from generate_series(1, 20000) as i
"""
EVIL = "[red]\x1b[2JBakery"


@pytest.fixture
def settings(database: str, redis_url: str) -> Settings:
    """Settings of these servers, with rows in each state, an entry in the stream and calls on PAGE's budget."""
    settings = replace(read_settings(), database_url=database, redis_url=redis_url)

    async def prepare() -> None:
        at = datetime.now(UTC) - timedelta(seconds=3)
        async with open_store(settings) as store:
            await store.settle(
                [
                    (in_flight(1), Stored(a_lead(1))),
                    (in_flight(2), Stored(a_lead(2))),
                    (in_flight(3), DeadLetter("lead_malformed")),
                    (in_flight(4), Retry(at, "graph_unavailable", 1)),
                    (in_flight(5), Retry(at, "graph_unavailable", 1)),
                    (in_flight(6, page_id=OTHER_PAGE), Park("token_refused")),
                ],
                at,
            )
        async with open_budget(settings) as (_, granter, _rows):
            await granter.request(PAGE, 3, Lane.LIVE)

    asyncio.run(prepare())
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("update pages set name = %s", [EVIL])
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(STREAM, {"v": "1"})
        client.hset(COUNTERS, "references", 7)
        client.hset(PROGRESS, "live", str(time.time_ns() // 1_000_000))
    return settings


def looked(settings: Settings, ask: Callable[[Lookout], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with open_lookout(settings) as lookout:
            return await ask(lookout)

    return asyncio.run(opened())


def counts(report: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(row["state"], row["reason"]): row["count"] for row in report["rows"]}


def test_a_look_tells_of_everything_at_once(settings: Settings) -> None:
    """Rows by state and reason, what was stored lately, what is overdue, the stream, held Pages, budgets."""
    report = looked(settings, lambda lookout: look(lookout, MANY))
    assert counts(report) == {
        ("stored", ""): 2,
        ("dead", "lead_malformed"): 1,
        ("waiting", "graph_unavailable"): 2,
        ("waiting", "token_refused"): 1,
    }
    assert not any(row["is_estimate"] or row["is_at_least"] for row in report["rows"])
    assert report["flow"]["stored"] == 2
    assert report["at"] - report["lag"]["oldest_overdue"] > timedelta(seconds=2)
    assert report["stream"]["length"] == 1
    assert abs(report["stream"]["oldest_at"] / 1000 - report["at"].timestamp()) < 60
    (held,) = report["pages"]
    assert (held["page_id"], held["parked_reason"], held["waiting"]) == (OTHER_PAGE, "token_refused", 1)
    (budget,) = report["budget"]["pages"]
    assert (budget["page_id"], budget["spent"] >= 3, budget["closed_until"]) == (PAGE, True, None)
    assert (report["backfills"], report["health"]["wrong"]) == ([], [])


def test_what_was_counted_is_not_counted_again(settings: Settings) -> None:
    """A look tells what was stored since the one before."""
    report = looked(settings, lambda lookout: look(lookout, MANY))
    again = looked(settings, lambda lookout: look(lookout, MANY, report["flow"]["until"]))
    assert again["flow"]["since"] == report["flow"]["until"]
    assert again["flow"]["stored"] == 0


def test_a_count_that_meets_its_bound_says_so(settings: Settings) -> None:
    """Of one Page and of all; a Page that was not reached is not said to have none."""
    report = looked(settings, lambda lookout: look(lookout, Bounds(1, 1)))
    waiting = [row for row in report["rows"] if row["state"] == "waiting"]
    assert [row["count"] for row in waiting] == [1]
    assert all(row["is_at_least"] for row in waiting)
    assert report["pages"][0]["is_at_least"]


def test_a_large_table_is_estimated_and_not_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored rows come from Postgres' statistics, marked as such; before the first ANALYZE they are not told."""
    monkeypatch.setattr(status_store, "EXACT_BYTES", 0)
    assert ("stored", "") not in counts(looked(settings, lambda lookout: look(lookout, MANY)))
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("analyze leadgen")
    (stored,) = [
        row
        for row in looked(settings, lambda lookout: look(lookout, MANY))["rows"]
        if row["state"] == "stored"
    ]
    assert (stored["count"], stored["is_estimate"]) == (2, True)


@pytest.mark.parametrize("statement", ["WAITING", "DEAD", "STORED_BETWEEN"])
def test_counts_go_along_an_index_in_order(settings: Settings, statement: str) -> None:
    """So that they end at their bound: nothing is sorted or collected of leadgen before it is cut.

    The planner must not be misled by Pages that wait for many times more than the others, as throttled ones do.
    """
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(MANY_ROWS)
        connection.execute("analyze leadgen")
    told = {
        "a_page": 1_000, "most": 5_000, "since": datetime.now(UTC) - timedelta(minutes=1), "until": datetime.now(UTC),
    }  # fmt: skip

    async def explain(lookout: Lookout) -> str:
        text = getattr(status_store, statement)
        rows = await lookout.rows._rows(f"explain (costs off) {text}", told)
        return "\n".join(row["QUERY PLAN"] for row in rows)

    plan = looked(settings, explain)
    assert "Index" in plan
    assert "Sort Key: l.due_at" not in plan
    assert "Seq Scan on leadgen" not in plan
    assert "Bitmap" not in plan


def run(settings: Settings, *words: str, **other: str) -> Any:
    env = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, **other}
    return CliRunner().invoke(main, ["status", *words, "--data-dir", "none"], env=env)


def test_status_prints_tables_or_one_object(settings: Settings) -> None:
    """As before, with the keys that scripts know."""
    told = run(settings)
    assert told.exit_code == 0
    for words in ("references in the stream", "waiting graph_unavailable", "dead lead_malformed", OTHER_PAGE):
        assert words in told.stdout
    report = json.loads(run(settings, "--json").stdout)
    assert report["stream"]["deliveries"] == {"references": 7}
    assert counts(report)["stored", ""] == 2
    assert report["pages"][0]["parked_reason"] == "token_refused"


def test_a_neighbour_away_is_part_of_the_report(settings: Settings) -> None:
    """Exit status 0, and the other one's figures."""
    no_redis = run(settings, REDIS_URL=f"redis://{GONE}/0")
    assert no_redis.exit_code == 0
    assert "Redis cannot" in no_redis.stdout
    assert "dead lead_malformed" in no_redis.stdout
    report = json.loads(run(settings, "--json", DATABASE_URL=f"postgresql://{GONE}/none").stdout)
    assert "Postgres" in report["rows"]["error"]
    assert report["budget"] == report["rows"]
    assert report["stream"]["length"] == 1


def test_every_goes_with_watch_only(settings: Settings) -> None:
    """A forgotten --watch is told, not guessed."""
    assert run(settings, "--every", "5").exit_code == 2


@contextmanager
def watching(
    settings: Settings, folder: Path, *words: str, output: int, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`leadsync status --watch` as a process of its own that writes to `output`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "status", "--watch", "--every", "0.5", *words],
        cwd=folder,
        env={
            **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url, "TERM": "xterm-256color", **(env or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read_until(descriptor: int, is_enough: Callable[[bytes], bool], seconds: float = 30) -> bytes:
    """What was written until there is enough of it."""
    told, deadline = b"", time.monotonic() + seconds
    while not is_enough(told):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"only this was written: {told!r}"
        try:
            piece = os.read(descriptor, 65_536)
        except OSError:  # a terminal whose other end is closed
            break
        if not piece:
            break
        told += piece
    return told


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_drawn_on_and_left_as_it_was(
    settings: Settings, tmp_path: Path, ended_by: signal.Signals
) -> None:
    """Ctrl-C: status 0, no traceback, the cursor is seen and the screen is the one from before."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    try:
        with watching(settings, tmp_path, output=theirs) as process:
            drawn = read_until(ours, lambda told: told.count(b"HEALTH") >= 2)
            process.send_signal(ended_by)
            drawn += read_until(ours, lambda told: b"\x1b[?1049l" in told and b"\x1b[?25h" in told)
            assert process.wait(10) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(theirs)
        os.close(ours)
    assert drawn.index(b"\x1b[?1049h") < drawn.index(b"HEALTH")
    for mode in (b"1049", b"25"):
        last = re.findall(rb"\x1b\[\?" + mode + rb"[hl]", drawn)[-1]
        assert last == (b"\x1b[?1049l" if mode == b"1049" else b"\x1b[?25h")
    assert b"Traceback" not in drawn
    assert b"Aborted" not in drawn
    assert b"[red]" in drawn
    assert b"\x1b[2J" not in drawn


def test_without_a_terminal_each_look_is_one_plain_line(settings: Settings, tmp_path: Path) -> None:
    """No control character, one line a look, and it goes on until it is told to end; then status 0."""
    ours, theirs = os.pipe()
    with watching(settings, tmp_path, output=theirs) as process:
        os.close(theirs)
        told = read_until(ours, lambda told: told.count(b"\n") >= 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    os.close(ours)
    lines = told.decode().splitlines()
    assert all(line.isprintable() and line.isascii() for line in lines)
    assert "stream=1 " in lines[0]
    assert "waiting=3 dead=1 backfills=0 parked=1" in lines[0]


def test_with_json_each_look_is_one_object(settings: Settings, tmp_path: Path) -> None:
    """Also on a terminal; a neighbour that is away is in its place in each."""
    ours, theirs = os.pipe()
    away = {"REDIS_URL": f"redis://{GONE}/0"}
    with watching(settings, tmp_path, "--json", output=theirs, env=away) as process:
        os.close(theirs)
        told = read_until(ours, lambda told: told.count(b"\n") >= 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    os.close(ours)
    first, second = (json.loads(line) for line in told.splitlines()[:2])
    assert "error" in first["stream"]
    assert counts(second)["stored", ""] == 2
    assert second["rates"]["stored_per_second"] is not None
