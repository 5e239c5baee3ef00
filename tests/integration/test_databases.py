"""The databases that tests borrow: what one test leaves there, the next does not find."""

import psycopg
import pytest

from tests.databases import Databases

LEAD = (
    "insert into leadgen (leadgen_id, state, first_seen_at, last_seen_at, page_id, source, updated_at)"
    " values ('1', 'waiting', now(), now(), '7', 'webhook', now())"
)


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _left(url: str) -> list[tuple[object, ...]]:
    """Rows, pages of the table, its statistics, views of forms."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select (select count(*) from leadgen), pg_relation_size('leadgen'), reltuples,"
            " (select count(*) from pg_views where schemaname = 'leads_of'),"
            " (select count(*) from pg_sequences where last_value is not null)"
            " from pg_class where oid = 'leadgen'::regclass"
        ).fetchall()


FRESH = [(0, 0, -1.0, 0, 0)]


@pytest.mark.parametrize(
    "left",
    [
        (LEAD,),
        (LEAD, "delete from leadgen"),
        (LEAD, "vacuum leadgen"),
        ("create view leads_of.form as select leadgen_id from leads",),
        ("select nextval(seqrelid) from pg_sequence",),
    ],
    ids=["rows", "dead rows", "vacuumed", "view of a form", "sequence"],
)
def test_what_most_tests_leave_is_put_back_in_the_same_database(
    databases: Databases, left: tuple[str, ...]
) -> None:
    """Rows dead or alive, statistics, views of forms and sequences are as in a fresh copy."""
    with databases.lent() as url:
        assert _left(url) == FRESH
        _run(url, *left)
        assert _left(url) != FRESH
    with databases.lent() as again:
        assert (again, _left(again)) == (url, FRESH)


@pytest.mark.parametrize(
    "statement",
    [
        "create table strange (x int)",
        "alter table leadgen alter column state drop not null",
        "drop index {index}",
        "alter table slices disable trigger all",
        "update alembic_version set version_num = '0001'",
        "alter database {database} set statement_timeout = '1s'",
        "analyze leadgen",
    ],
)
def test_a_database_of_another_structure_is_not_lent_again(databases: Databases, statement: str) -> None:
    """Tables, columns, indexes, triggers, revision, settings, statistics: any difference is seen."""
    with databases.lent() as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(LEAD)
        index = connection.execute(
            "select indexrelid::regclass::text from pg_index where indrelid = 'leadgen'::regclass"
            " and not indisprimary limit 1"
        ).fetchone()
        words = {"index": index and index[0], "database": connection.info.dbname}
        connection.execute(statement.format(**words).encode())
    with databases.lent() as again:
        assert (again != url, _left(again)) == (True, FRESH)


def test_who_stayed_connected_is_cut_off(databases: Databases) -> None:
    """A transaction that a test left open holds up nobody."""
    with databases.lent() as url:
        connection = psycopg.connect(url)
        connection.execute(LEAD)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    with databases.lent() as again:
        assert _left(again) == FRESH
