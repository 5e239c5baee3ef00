"""Stores on a real Postgres, each scenario on a database of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.integration import backfill_world, lead_world
from worker.store.backfills import BackfillStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.reconciliations import ReconciliationStore
from worker.store.slices import SliceStore

T = TypeVar("T")


@pytest.fixture
def on_leads(database: str) -> Callable[[Callable[[lead_world.World], Awaitable[T]]], T]:
    """Runs a scenario on the store of the leads."""

    def run(scenario: Callable[[lead_world.World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(
                database, min_size=1, max_size=10, open=False, timeout=30, kwargs={"autocommit": True}
            ) as pool:
                return await scenario(lead_world.World(LeadStore(pool, StoreSettings()), pool))

        return asyncio.run(inner())

    return run


@pytest.fixture
def on_backfills(database: str) -> Callable[[Callable[[backfill_world.World], Awaitable[T]]], T]:
    """Runs a scenario on the stores of backfills."""

    def run(scenario: Callable[[backfill_world.World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(database, min_size=1, max_size=12, open=False, timeout=30) as pool:
                leads = LeadStore(pool, StoreSettings())
                slices = SliceStore(pool, leads, lease_seconds=backfill_world.LEASE)
                return await scenario(
                    backfill_world.World(BackfillStore(pool), slices, ReconciliationStore(pool), leads, pool)
                )

        return asyncio.run(inner())

    return run
