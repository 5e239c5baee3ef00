"""What every connection to a neighbour is, whatever its server, database or role has set."""

import asyncio
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from worker.neighbours import create_pool
from worker.settings import read_settings


@pytest.mark.parametrize(
    ("theirs", "ours"), [("off", "local"), ("on", "on"), ("remote_write", "remote_write")]
)
def test_a_commit_is_on_disk_before_it_is_answered(database: str, theirs: str, ours: str) -> None:
    """A reference is acknowledged after it: where it came earlier a crash would lose both."""
    with psycopg.connect(database, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("alter database {} set synchronous_commit = {}").format(name, theirs))

    async def found() -> str:
        async with (
            create_pool(replace(read_settings(), database_url=database), 1) as pool,
            pool.connection() as c,
        ):
            row = await (await c.execute("show synchronous_commit")).fetchone()
            assert row is not None
            return str(row[0])

    assert asyncio.run(found()) == ours
