"""Migrations on a real Postgres: forward only, once, however many start at the same moment."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.rows import dict_row

from worker.errors import StoreUnavailable
from worker.store.migrate import _config, head, migrate, migrate_when_up


def schema(url: str) -> list[dict[str, Any]]:
    """Every column and its type, and every index."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        columns = connection.execute(
            "select table_name, column_name, data_type, is_nullable from information_schema.columns"
            " where table_schema = 'public' order by 1, 2"
        ).fetchall()
        indexes = connection.execute("select indexdef from pg_indexes where schemaname = 'public' order by 1")
        return [*columns, *indexes.fetchall()]


def test_an_empty_database_comes_forward(postgres_url: str) -> None:
    """From nothing to the newest revision, with the tables and views that people query."""
    assert migrate(postgres_url) == (None, head())
    tables = {row.get("table_name") for row in schema(postgres_url)}
    assert {"leadgen", "pages", "leads", "waiting", "dead_letters"} <= tables


def test_a_second_run_finds_nothing_to_do(postgres_url: str) -> None:
    """Migrating again changes neither schema nor rows."""
    migrate(postgres_url)
    before = schema(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "insert into leadgen (leadgen_id, state, first_seen_at, last_seen_at, page_id, source, updated_at)"
            " values ('1', 'waiting', now(), now(), '7', 'webhook', now())"
        )
    assert migrate(postgres_url) == (head(), head())
    assert schema(postgres_url) == before
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select count(*) from leadgen").fetchone() == (1,)


def test_where_the_schema_is_current_alembic_is_not_loaded(database: str) -> None:
    """A worker looks at the revision and goes on: half a second of CPU and 25 MB less at each start."""
    words = (
        "import sys; from worker.store.migrate import migrate_when_up; migrate_when_up(sys.argv[1]);"
        " print('alembic' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", words, database], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "False\n"


def test_a_worker_brings_an_empty_database_forward(postgres_url: str) -> None:
    """The quick look is no excuse: what is missing is applied before it works."""
    migrate_when_up(postgres_url)
    assert migrate(postgres_url) == (head(), head())


def test_the_newest_revision_is_told_by_the_names_of_the_files() -> None:
    """Alembic, which reads the files, finds the same head, and only one."""
    assert ScriptDirectory.from_config(_config()).get_heads() == [head()]


@pytest.mark.parametrize("start", [migrate, migrate_when_up])
def test_a_schema_of_a_later_version_is_left_alone_and_stops_nobody(database: str, start: Any) -> None:
    """While a new version is rolled out, or after a step back, the former one's workers start all the same."""
    later = f"{int(head()) + 1:04}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = %s", (later,))
        before = schema(database)
        assert start(database) in (None, (later, later))
        assert schema(database) == before
        assert connection.execute("select version_num from alembic_version").fetchone() == (later,)


def test_the_command_says_that_the_schema_is_of_a_later_version(database: str) -> None:
    """Nothing is wrong with it, so the status is 0; what to do next is told."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    told = subprocess.run(
        [sys.executable, "-m", "worker", "migrate"],
        env={**os.environ, "DATABASE_URL": database}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert told.stdout.startswith("schema at 9999, of a later version")
    assert "finish the upgrade" in told.stdout


ANSWERS = ("field_data", "custom_disclaimer_responses", "extra")
SAMPLED = "select attname from pg_stats where tablename = 'leadgen' and attname = any(%s)"


def _with_answers(url: str) -> None:
    """A table at revision 0006 of which Postgres has taken samples."""
    from alembic import command
    from sqlalchemy import create_engine

    config = _config()
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        connection.commit()
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into leadgen (leadgen_id, state, page_id, source, first_seen_at, last_seen_at, updated_at,"
            " stored_at, field_data, custom_disclaimer_responses, extra) select i::text, 'stored', '7', 'webhook',"
            " now(), now(), now(), now(), told, told, told from"
            " (select i, jsonb_build_array(i || '@example.org') as told"
            " from generate_series(1, 500) i) as them"
        )
        connection.execute("analyze leadgen")
        assert len(connection.execute(SAMPLED, [list(ANSWERS)]).fetchall()) == len(ANSWERS)


def test_postgres_keeps_no_samples_of_answers(postgres_url: str) -> None:
    """What it had sampled goes, and no later ANALYZE takes any; what queries are planned by is sampled on."""
    _with_answers(postgres_url)
    migrate(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for _ in range(2):
            assert connection.execute(SAMPLED, [list(ANSWERS)]).fetchall() == []
            connection.execute("analyze leadgen")
        assert connection.execute(SAMPLED, [["page_id"]]).fetchall() == [("page_id",)]


def test_a_superuser_clears_samples_before_postgres_18(postgres_url: str) -> None:
    """There is no function for it there; its rows are deleted."""
    _with_answers(postgres_url)
    revision = ScriptDirectory.from_config(_config()).get_revision("0007").module
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(revision.CLEAR.replace("180000", "990000"))
        connection.execute("analyze leadgen")
        assert connection.execute(SAMPLED, [list(ANSWERS)]).fetchall() == []


def test_where_samples_cannot_be_cleared_they_are_taken_on(postgres_url: str) -> None:
    """Else those of today would stay for ever. The schema of one who may not clear them comes forward all the same."""
    _with_answers(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # Stands for a Postgres before 18, of which the owner is no superuser.
        revision = ScriptDirectory.from_config(_config()).get_revision("0007").module
        clear = revision.CLEAR.replace("180000", "990000")
        connection.execute("create role owner_alone")
        try:
            connection.execute("alter table leadgen owner to owner_alone")
            connection.execute("grant usage on schema public to owner_alone")
            connection.execute("set role owner_alone")
            connection.execute(clear)
            connection.execute("update leadgen set field_data = null")
            connection.execute("vacuum (analyze) leadgen")
        finally:
            connection.execute("reset role")
            connection.execute("reassign owned by owner_alone to current_user")
            connection.execute("drop owned by owner_alone")
            connection.execute("drop role owner_alone")
        bounds = connection.execute("select null_frac from pg_stats where attname = 'field_data'").fetchall()
        assert bounds == [(1.0,)]


def test_many_may_start_at_once(postgres_url: str) -> None:
    """One of them migrates while the others wait and then find it done; none fails."""
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: migrate(postgres_url), range(8)))
    assert sorted(results, key=str) == sorted([(None, head()), *[(head(), head())] * 7], key=str)


def test_the_lock_is_given_back(postgres_url: str) -> None:
    """After a migration no lock is left that would hold up the next one."""
    migrate(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        locks = connection.execute(
            "select count(*) from pg_locks l join pg_database d on d.oid = l.database"
            " where l.locktype = 'advisory' and d.datname = current_database()"
        )
        assert locks.fetchone() == (0,)


def test_a_revision_that_fails_leaves_nothing_behind(postgres_url: str) -> None:
    """A database that somebody else has used is told apart: the revision fails whole, and once mended it runs."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create table pages (x int)")
        with pytest.raises(Exception, match="pages"):
            migrate(postgres_url)
        assert [row["table_name"] for row in schema(postgres_url) if "table_name" in row] in (
            ["pages"],
            ["alembic_version", "pages"],
        )
        connection.execute("drop table pages")
    assert migrate(postgres_url)[1] == head()


@pytest.mark.parametrize("state", ["stored", "waiting", "dead", "erased"])
def test_the_four_states_are_the_only_ones(postgres_url: str, state: str) -> None:
    """The table itself refuses a state that is none, and a second row for an id."""
    migrate(postgres_url)
    insert = (
        "insert into leadgen (leadgen_id, state, first_seen_at, last_seen_at, page_id, source, updated_at)"
        " values ('1', %s, now(), now(), '7', 'webhook', now())"
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(insert, [state.upper()])
        connection.execute(insert, [state])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert, [state])


def test_a_postgres_that_is_away_is_told_without_its_url(free_port: int) -> None:
    """No password of the database is in the error or behind it."""
    with pytest.raises(StoreUnavailable) as told:
        migrate(f"postgresql://u:hunter2@127.0.0.1:{free_port}/x")
    assert "hunter2" not in str(told.value)
    assert told.value.__suppress_context__
