"""One statement with its parameters -> its rows, over the process' pool.

It holds no statement (sql.py and its like do). Invariant: whatever Postgres does to us leaves as StoreUnavailable,
except where it refuses the rows' content, which is RowsRefused; no message holds a row's content.
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.errors import StoreUnavailable

Row: TypeAlias = dict[str, Any]

# Classes 22 (data exception) and 23 (integrity violation) blame the row; 54 is "program limit exceeded", such as a
# text too long for an index. Everything else blames the moment.
_ROW_CLASSES: Final = ("22", "23", "54")
_SCHEMA_LACKS: Final = ("42P01", "42703", "42883")
"""No such table, column, function: nobody has migrated yet, or an older leadsync did."""


async def commit_to_disk(connection: psycopg.AsyncConnection[Any]) -> None:
    """Let the commits of a connection wait for the disk, whatever the server, the database or the role has set.

    Acknowledging follows upon a commit. Where commits wait for more than the disk, say a standby, it stays so.
    https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT
    """
    await connection.execute(
        "select set_config('synchronous_commit', 'local', false) where current_setting('synchronous_commit') = 'off'"
    )


class RowsRefused(Exception):
    """Postgres refuses the content of some row of the statement."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class Statements:
    """Runs statements. `pool` is open and belongs to this process."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def rows(
        self,
        statement: LiteralString,
        parameters: Mapping[str, object],
        *,
        under: LiteralString | None = None,
    ) -> list[Row]:
        """Run and commit; the rows that it answers. Raises StoreUnavailable or RowsRefused.

        `under` is a statement that sets, for this transaction alone, how the other is planned; that is prepared at its
        first run.
        """
        async with self._connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            if under is None:
                # A statement is a transaction by itself; to begin and to commit one would be two round trips more.
                await cursor.execute(statement, parameters)
                return await cursor.fetchall() if cursor.description else []
            async with connection.transaction():
                await cursor.execute(under)
                await cursor.execute(statement, parameters, prepare=True)
                return await cursor.fetchall() if cursor.description else []

    async def alone(self, statement: LiteralString) -> None:
        """Run a statement that stands in no transaction, however long it takes. Raises StoreUnavailable."""
        async with self._connection() as connection:
            before = connection.autocommit
            await connection.set_autocommit(True)
            try:
                await connection.execute("set statement_timeout = 0")
                await connection.execute(statement)
            finally:
                await connection.execute("reset statement_timeout")
                await connection.set_autocommit(before)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection whose work is committed at the end. No exception that quotes a row gets past here."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolTimeout:
            raise StoreUnavailable("Postgres gives no connection") from None
        except psycopg.Error as error:
            sqlstate = error.sqlstate or ""
            if sqlstate[:2] in _ROW_CLASSES:
                raise RowsRefused(sqlstate) from None
            if sqlstate in _SCHEMA_LACKS:
                raise StoreUnavailable(
                    f"Postgres lacks a part of this version's schema ({sqlstate}): `leadsync migrate` makes it, and so"
                    " does `leadsync up` while it starts"
                ) from None
            raise StoreUnavailable(
                f"Postgres cannot do this now: {type(error).__name__} {sqlstate}"
            ) from None
