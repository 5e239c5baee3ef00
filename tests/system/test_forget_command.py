"""`leadsync forget` and `leadsync retention` as a user types them, against Postgres and Redis."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from click.testing import CliRunner, Result

from worker.believed import AGREED_SECONDS
from worker.cli import main
from worker.inbox import CLOCK

SECRET = "hunter2@example.org"
PAGE = "153125381133"
INSERT = (
    "insert into leadgen (leadgen_id, state, page_id, form_id, field_data, source, first_seen_at, last_seen_at,"
    " updated_at, stored_at, created_time) values (%s, %s, %s, '7', %s, 'webhook', now(), now(), now(), now(), now())"
)


@pytest.fixture
def shell(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """A folder, and settings with both servers, in which commands are typed; two leads share an answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", redis_url)
    with psycopg.connect(database) as connection:
        for leadgen_id, email in (("101", SECRET), ("102", SECRET.upper()), ("103", "bob@example.org")):
            told = json.dumps([{"name": "email", "values": [email]}])
            connection.execute(INSERT, (leadgen_id, "stored", PAGE, told))
        connection.execute(INSERT, ("104", "waiting", PAGE, None))
        connection.execute("update leadgen set due_at = now() where leadgen_id = '104'")

    def run(*words: str, stdin: str | bytes | None = None) -> Result:
        told = CliRunner().invoke(main, words, input=stdin, env={"COLUMNS": "200"})
        assert "hunter2" not in told.output.lower()
        assert "Traceback" not in told.output
        return told

    return run


def states(database: str) -> dict[str, str]:
    with psycopg.connect(database) as connection:
        return dict(connection.execute("select leadgen_id, state from leadgen").fetchall())


def test_who_was_found_is_told_before_anything_is_erased(shell: Any, database: str) -> None:
    """Counts, forms and since when, what waits unread, and no answer; whoever says no erases nothing."""
    told = shell("forget", "--answer", f"email={SECRET}", stdin="n\n")
    assert told.exit_code == 1
    assert "2 leads in 1 form" in told.output
    assert f"2  form 7 of Page {PAGE}, since 20" in told.output
    assert "1 reference unread still" in told.output
    assert "erased" not in states(database).values()
    told = shell("forget", "--answer", "email", "--value-stdin", "--dry-run", stdin=f"{SECRET}\n")
    assert "2 leads would be erased" in told.output
    assert "erased" not in states(database).values()
    told = shell("forget", "--answer", f"email={SECRET}", stdin="y\n")
    assert (told.exit_code, "2 erased (2 stored)" in told.output) == (0, True)
    assert states(database) == {"101": "erased", "102": "erased", "103": "stored", "104": "waiting"}
    assert "0 leads in 0 forms" in shell("forget", "--answer", f"*={SECRET}").output


def test_ids_are_erased_listed_and_taken_from_a_list(shell: Any, database: str) -> None:
    """What had no row is told apart; the list that is printed is the one that is read."""
    told = shell("forget", "101", "999", "--vacuum")
    assert "1 erased (1 stored)" in told.output
    assert "1 had no row here: a tombstone keeps it out" in told.output
    assert shell("forget", "--list").output == f"101\t{PAGE}\n999\tunknown\n"
    told = shell("forget", "--from", "-", "--json", stdin=f"101\t{PAGE}\n\n103\n")
    assert json.loads(told.stdout)["was"] == {"stored": 1, "waiting": 0, "dead": 0, "nothing": 0}
    assert states(database)["103"] == "erased"


def test_leftover_files_lose_whoever_is_erased(shell: Any, database: str) -> None:
    """Alone it takes out those who were erased before; what it took out is told in the audit, by number."""
    shell("forget", "101")
    Path("left.tsv").write_text(f"id\tform_id\temail\n101\t7\t{SECRET}\n103\t7\tbob@example.org\n")
    assert "left.tsv: 1 of 2 rows went" in shell("forget", "--in", "left.tsv").output
    assert Path("left.tsv").read_bytes() == b"id\tform_id\temail\r\n103\t7\tbob@example.org\r\n"
    with psycopg.connect(database) as connection:
        last = connection.execute(
            "select took_from from erasures order by erasure_id desc limit 1"
        ).fetchone()
    assert last == ({"files": 1},)


def test_retention_is_set_listed_applied_and_unset(shell: Any, database: str, redis_url: str) -> None:
    """By Page and by form; a form that nobody knows is refused."""
    assert "for ever" in shell("retention").output
    assert shell("retention", "set", "--page", PAGE, "--days", "30").exit_code == 0
    refused = shell("retention", "set", "--form", "7", "--days", "30")
    assert (refused.exit_code, "form 7 is not known here" in refused.output) == (1, True)
    mistyped = shell("retention", "set", "--page", "153125381134", "--days", "30")
    assert (mistyped.exit_code, "`leadsync pages list`" in mistyped.output) == (1, True)
    with psycopg.connect(database) as connection:
        assert connection.execute("select page_id from pages").fetchall() == [(PAGE,)]
    assert json.loads(shell("retention", "list", "--json").stdout)["days"] == 30
    with psycopg.connect(database) as connection:
        connection.execute(
            "update leadgen set created_time = now() - interval '31 days' where leadgen_id = '101'"
        )
    unwatched = shell("retention", "apply")
    assert (unwatched.exit_code, "nothing is erased by age yet" in unwatched.output) == (1, True)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        (key,) = client.keys(f"{CLOCK}*")
        ahead, since = map(float, str(client.get(key)).split())
        client.set(key, f"{ahead!r} {since - AGREED_SECONDS!r}")
    assert shell("retention", "apply").output == "1 erased\n"
    assert states(database)["101"] == "erased"
    assert shell("retention", "unset", "--page", PAGE).exit_code == 0
    assert "for ever" in shell("retention", "list").output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("forget",), "name LEADGEN_IDS"),
        (("forget", "x"), "is not an id"),
        (("forget", "1", "--answer", "email=a"), "one of them"),
        (("forget", "--answer", "email="), "has no value"),
        (("forget", "--answer", "email"), "--value-stdin"),
        (("forget", "--answer", "email", "--value-stdin"), "--yes or --dry-run"),
        (("forget", "1", "--page", "x"), "is not an id"),
        (("retention", "set", "--days", "3"), "--page or --form"),
    ],
)
def test_wrong_orders_are_refused_and_erase_nothing(
    shell: Any, database: str, words: tuple[str, ...], says: str
) -> None:
    """Bad input gets a clear error and exit status 2."""
    told = shell(*words, stdin="")
    assert (told.exit_code, says.lower() in told.output.lower()) == (2, True), told.output
    assert "erased" not in states(database).values()


def test_a_value_in_another_encoding_is_told_and_not_quoted(shell: Any) -> None:
    """What cannot be read as text matches nobody, so it is said instead of searched for."""
    told = shell("forget", "--answer", "email", "--value-stdin", "--dry-run", stdin=b"jos\xe9@example.com\n")
    assert told.exit_code == 2
    assert "is not utf-8; convert it" in told.output
    assert "example.com" not in told.output
