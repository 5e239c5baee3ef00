"""Rows of health on a real Postgres: what is forgotten of its changes, and when a webhook last told of a lead."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import OTHER_PAGE, PAGE
from tests.fakes.time import NOW
from tests.integration.tables import Tables
from worker.store.health import WEBHOOK_LEADS, HealthStore

DAY = timedelta(days=1)
EVENT = """
insert into health_events (at, page_id, aspect, was, became, due_at) values (%s, %s, %s, 'was', %s, %s)
"""
LEADS = """
insert into leadgen (
    leadgen_id, state, page_id, first_seen_at, last_seen_at, source, updated_at, created_time, received_at)
select (%s::bigint + n)::text, %s, %s, now(), now(), 'webhook', now(), %s, %s from generate_series(1, %s) as n
"""


@dataclass
class World(Tables):
    """The store under test and its tables."""

    store: HealthStore
    pool: AsyncConnectionPool

    async def leads(
        self,
        first: int,
        *,
        created: datetime | None,
        received: datetime | None,
        count: int = 1,
        state: str = "stored",
    ) -> None:
        await self.sql(LEADS, first, state, PAGE, created, received, count)

    async def last_webhook(self) -> datetime | None:
        last: datetime | None = (await self.store.webhooks(PAGE, NOW))["last_webhook"]
        return last


@pytest.fixture
def on_rows(database: str) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Runs a scenario."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def inner() -> None:
            async with AsyncConnectionPool(database, min_size=1, max_size=2, open=False, timeout=30) as pool:
                await scenario(World(HealthStore(pool), pool))

        asyncio.run(inner())

    return run


def test_old_changes_are_dropped_but_never_the_last_word_nor_what_is_still_to_be_told(on_rows: Any) -> None:
    """A check compares with the last word of each aspect of a Page, however old that is."""

    async def scenario(world: World) -> None:
        old, new = NOW - 100 * DAY, NOW - DAY
        for at, page_id, aspect, became, due_at in (
            (old, PAGE, "token", "gone", None),
            (old, PAGE, "token", "to be told", NOW),
            (old, PAGE, "token", "last", None),
            (old, PAGE, "page", "gone", None),
            (new, PAGE, "page", "last", None),
            (new, OTHER_PAGE, "page", "young", None),
            (new, OTHER_PAGE, "page", "last", None),
            (old, None, "page", "gone", None),
            (old, None, "page", "last", None),
        ):
            await world.sql(EVENT, at, page_id, aspect, became, due_at)
        assert await world.store.forget(NOW - 90 * DAY) == 3
        left = [
            row["became"] for row in await world.sql("select became from health_events order by event_id")
        ]
        assert left == ["to be told", "last", "last", "young", "last", "last"]
        assert await world.store.forget(NOW - 90 * DAY) == 0
        assert (await world.store.known(PAGE))[1] == {"token": "last", "page": "last"}

    on_rows(scenario)


def test_the_last_webhook_is_found_before_leads_of_which_none_told(on_rows: Any) -> None:
    """However many leads only a listing brought since, up to as many as are looked at."""

    async def scenario(world: World) -> None:
        assert await world.last_webhook() is None
        await world.leads(1, created=NOW - 9 * DAY, received=NOW - 9 * DAY)
        await world.leads(1_000, created=NOW - DAY, received=None, count=WEBHOOK_LEADS - 1)
        assert await world.last_webhook() == NOW - 9 * DAY
        await world.leads(9_000, created=NOW - DAY, received=None)
        assert await world.last_webhook() is None

    on_rows(scenario)


def test_leads_of_unknown_creation_hide_no_webhook(on_rows: Any) -> None:
    """Sorted by creation they would stand before the newest lead, and a Page would be said to be silent."""

    async def scenario(world: World) -> None:
        await world.leads(1_000, created=None, received=NOW - 30 * DAY, count=WEBHOOK_LEADS + 1, state="dead")
        await world.leads(1, created=NOW - DAY, received=NOW - DAY)
        assert await world.last_webhook() == NOW - DAY

    on_rows(scenario)


def test_a_late_webhook_of_an_older_lead_is_the_last_one(on_rows: Any) -> None:
    """What counts is when it came, not which lead it told of."""

    async def scenario(world: World) -> None:
        await world.leads(1, created=NOW - 2 * DAY, received=NOW)
        await world.leads(2, created=NOW - DAY, received=NOW - DAY)
        assert await world.last_webhook() == NOW

    on_rows(scenario)
