"""A database a test, without making one a test: 300 files made and removed cost a quarter of a CPU second.

    a migrated database -> copies of it -> lent to one test at a time -> put back as they came, or dropped

Invariant: a test cannot tell a database that was lent before from a fresh copy. What the catalogs say is compared
with the original; only rows, sequences and the views of forms, which most tests leave behind, are put back.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from worker.embedded import ServerProcess

_NAMES: Final = itertools.count(1)

_CATALOGS: Final = (
    # Without what filling, emptying and vacuuming a table writes there.
    "select (to_jsonb(t) - '{relfilenode,relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid}'"
    "::text[])::text from pg_class t where oid >= 16384",
    "select t::text from pg_attribute t where attrelid >= 16384",
    "select (to_jsonb(t) - 'indcheckxmin')::text from pg_index t where indexrelid >= 16384",
    "select t::text from pg_statistic t where starelid >= 16384",
    *(
        f"select t::text from {catalog} t where oid >= 16384"
        for catalog in (
            "pg_attrdef", "pg_constraint", "pg_rewrite", "pg_trigger", "pg_type", "pg_proc", "pg_policy",
            "pg_statistic_ext", "pg_operator", "pg_cast", "pg_collation", "pg_event_trigger", "pg_default_acl",
            "pg_publication", "pg_largeobject_metadata", "pg_foreign_server",
        )
    ),
    "select t::text from pg_description t where objoid >= 16384",
    # Their built-in members can be granted and altered too.
    "select t::text from pg_namespace t where nspname !~ '^pg_(toast_)?temp'",
    "select t::text from pg_extension t",
    "select setrole || setconfig::text from pg_db_role_setting"
    " where setdatabase = (select oid from pg_database where datname = current_database())",
    "select format('%s %s %s', datacl, datconnlimit, datallowconn) from pg_database"
    " where datname = current_database()",
    "select t::text from alembic_version t",
)  # fmt: skip
_STRUCTURE: Final = (
    "select md5(string_agg(part, '' order by part)) from ("
    + " union all ".join(f"select md5('{n} ' || r) from ({c}) as c(r)" for n, c in enumerate(_CATALOGS))
    + ") as parts(part)"
)
"""One word that stands for everything in a database but its rows."""

_FORM_VIEWS: Final = (
    "select format('%I.%I', schemaname, viewname) from pg_views where schemaname = 'leads_of'"
)
_TOUCHED: Final = (
    "select oid::regclass::text from pg_class where relkind = 'r' and oid >= 16384 and relname <> 'alembic_version'"
    " and (pg_relation_size(oid) > 0 or reltuples <> -1)"
)
_REWIND: Final = "select setval(seqrelid, seqstart, false) from pg_sequence where seqrelid >= 16384"


class Databases:
    """The copies of one migrated database. Tests run one after the other, so one copy is nearly always enough."""

    def __init__(self, server: ServerProcess, original: str) -> None:
        self._server = server
        self._original = original
        self._free: list[str] = []
        with psycopg.connect(url_of(server, original)) as connection:
            self._structure = _word(connection)

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The URL of a database that is nobody else's meanwhile."""
        name = self._free.pop() if self._free else made(self._server, self._original)
        yield url_of(self._server, name)
        if self._put_back(name):
            self._free.append(name)
        else:
            dropped(self._server, name)

    def _put_back(self, name: str) -> bool:
        """Bring it to where it began; false where its structure is another now."""
        with psycopg.connect(url_of(self._server, name), autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            if views := _names(connection, _FORM_VIEWS):
                connection.execute(f"drop view {views} cascade".encode())
            if tables := _names(connection, _TOUCHED):
                connection.execute(f"truncate {tables} cascade".encode())
            connection.execute(_REWIND)
            return _word(connection) == self._structure


def made(server: ServerProcess, template: str) -> str:
    """The name of a new copy of `template`."""
    name = f"test_{next(_NAMES)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return name


def dropped(server: ServerProcess, name: str) -> None:
    """Remove a database, whoever is still connected to it."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def url_of(server: ServerProcess, name: str) -> str:
    """The URL of the server's database `name`."""
    return urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))


def _names(connection: psycopg.Connection, statement: str) -> str:
    return ", ".join(row[0] for row in connection.execute(statement.encode()))


def _word(connection: psycopg.Connection) -> str:
    row = connection.execute(_STRUCTURE.encode()).fetchone()
    assert row is not None
    return str(row[0])
