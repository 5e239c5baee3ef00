"""A look at the tables of a database, and a hand in them, beside the stores under test."""

from typing import Any

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool


class Tables:
    """What a test has beside its stores: the same database, by `pool`."""

    pool: AsyncConnectionPool

    async def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """The statement's rows, none where it gives none. Without parameters a `%` stands for itself."""
        async with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description else []
