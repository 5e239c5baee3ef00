"""Connecting and disconnecting as rows of a real Postgres."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import PAGE
from tests.fakes.time import NOW
from worker.connecting import Former
from worker.store.connections import ConnectionStore
from worker.store.leads import LeadStore, StoreSettings

T = TypeVar("T")
LATER = NOW + timedelta(hours=1)


def on(
    database: str, work: Callable[[ConnectionStore, LeadStore, Callable[[], Awaitable[Any]]], Awaitable[T]]
) -> T:
    """Do `work` with the rows; its last argument looks at the Page's row."""

    async def run() -> T:
        async with AsyncConnectionPool(database, min_size=1, max_size=1) as pool:

            async def page() -> Any:
                async with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                    await cursor.execute("select * from pages where page_id = %s", (PAGE,))
                    return await cursor.fetchone()

            return await work(ConnectionStore(pool), LeadStore(pool, StoreSettings()), page)

    return asyncio.run(run())


def test_a_page_is_connected_and_looked_at_soon(database: str) -> None:
    """A new Page and one that is known; when it was connected moves only with another token."""

    async def work(rows: ConnectionStore, _: LeadStore, page: Callable[[], Awaitable[Any]]) -> None:
        assert await rows.connect(PAGE, "Café", NOW, is_new=True) == Former(None, False)
        first = await page()
        assert (first["name"], first["connected_at"], first["check_at"]) == ("Café", NOW, NOW)
        assert await rows.connect(PAGE, "", LATER, is_new=False) == Former(None, True)
        again = await page()
        assert (again["name"], again["connected_at"], again["check_at"]) == ("Café", NOW, LATER)
        await rows.connect(PAGE, "Bar", LATER, is_new=True)
        renewed = await page()
        assert (renewed["name"], renewed["connected_at"]) == ("Bar", LATER)

    on(database, work)


def test_a_page_that_was_known_and_not_connected_is_connected(database: str) -> None:
    """A Page whose token came from the settings, or whose leads came before."""

    async def work(rows: ConnectionStore, leads: LeadStore, page: Callable[[], Awaitable[Any]]) -> None:
        await leads.park(PAGE, "token_refused", NOW)
        assert await rows.connect(PAGE, "Café", LATER, is_new=False) == Former("token_refused", False)
        assert (await page())["connected_at"] == LATER
        await leads.unpark([PAGE], LATER)
        assert (await page())["parked_at"] is None

    on(database, work)


def test_a_disconnected_page_stays_parked_for_that_reason(database: str) -> None:
    """Also where it was parked for another; a Page that is not parked is left alone."""

    async def work(rows: ConnectionStore, leads: LeadStore, page: Callable[[], Awaitable[Any]]) -> None:
        await rows.connect(PAGE, "Café", NOW, is_new=True)
        await rows.disconnect(PAGE, NOW)
        assert (await page())["connected_at"] == NOW
        await leads.park(PAGE, "token_refused", NOW)
        await rows.disconnect(PAGE, LATER)
        row = await page()
        told = row["parked_reason"], row["parked_at"], row["connected_at"], row["check_at"], row["name"]
        assert told == ("disconnected", NOW, None, None, "Café")
        assert (await rows.parked_for(PAGE), await rows.parked_for("77")) == ("disconnected", None)
        assert await rows.names([PAGE, "77"]) == {PAGE: "Café"}

    on(database, work)
