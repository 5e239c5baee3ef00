"""What Postgres tells for /metrics: the right numbers, and cheap ones however many leads are stored."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.fakes.time import NOW
from worker.store import metrics as statements
from worker.store.metrics import MOST_COUNTED, MetricStore, RowFacts

ROWS = """
insert into leadgen (leadgen_id, state, reason, due_at, first_seen_at, last_seen_at, page_id, source, updated_at)
select %(first)s + n, %(state)s, %(reason)s, %(due_at)s, %(at)s, %(at)s, %(page_id)s, 'webhook', %(at)s
from generate_series(0, %(rows)s - 1) as n
"""


class World:
    """A database and the store under test."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self.pool = pool
        self._first = 1_000

    async def sql(self, statement: str, parameters: Any = None) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def rows(self, state: str, reason: str | None = None, rows: int = 1, **changed: Any) -> None:
        about = {"page_id": "7", "at": NOW, "due_at": NOW if state == "waiting" else None, **changed}
        await self.sql(ROWS, {"first": self._first, "state": state, "reason": reason, "rows": rows, **about})
        self._first += rows

    async def facts(self) -> RowFacts:
        return await MetricStore(self.pool).facts(NOW)


OnDatabase = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture
def on_database(database: str) -> OnDatabase:
    """Runs a scenario on a database of its own."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def inner() -> None:
            async with AsyncConnectionPool(database, min_size=1, max_size=1, open=False) as pool:
                await scenario(World(pool))

        asyncio.run(inner())

    return run


def test_an_empty_database_tells_nothing_and_fails_nothing(on_database: OnDatabase) -> None:
    """A fresh installation has series at 0 and no series that would need a row."""

    async def scenario(world: World) -> None:
        facts = await world.facts()
        assert (facts.waiting, facts.dead, facts.parked, facts.health, facts.running) == ((), (), (), (), ())
        assert facts.overdue_since is None
        assert facts.reconciled == {"listed": 0, "missing": 0, "repaired": 0, "unexplained": 0}

    on_database(scenario)


def test_references_are_counted_by_reason_with_the_oldest(on_database: OnDatabase) -> None:
    """Waiting and dead ones apart; a stored row that is still to be read in full waits for nothing."""

    async def scenario(world: World) -> None:
        await world.rows("stored", rows=50)
        await world.rows("stored", due_at=NOW)
        await world.rows("waiting", "budget", 3, at=NOW - timedelta(hours=1))
        await world.rows("waiting", "budget")
        await world.rows("waiting", "not_visible", due_at=NOW + timedelta(hours=1))
        await world.rows("dead", "poison", 2)
        facts = await world.facts()
        assert {row["reason"]: row["count"] for row in facts.waiting} == {"budget": 4, "not_visible": 1}
        assert {row["reason"]: row["oldest"] for row in facts.waiting}["budget"] == NOW - timedelta(hours=1)
        assert [(row["reason"], row["count"]) for row in facts.dead] == [("poison", 2)]
        assert facts.overdue_since == NOW

    on_database(scenario)


def test_what_is_parked_or_held_is_not_overdue(on_database: OnDatabase) -> None:
    """Nothing is late that nobody may read."""

    async def scenario(world: World) -> None:
        await world.sql(
            "insert into pages (page_id, parked_at, parked_reason, updated_at) values ('7', %s, 'token_refused', %s)",
            (NOW, NOW),
        )
        await world.sql(
            "insert into pages (page_id, held_until, held_reason, updated_at) values ('8', %s, 'budget', %s)",
            (NOW + timedelta(hours=1), NOW),
        )
        await world.rows("waiting", "page_parked")
        await world.rows("waiting", "budget", page_id="8")
        facts = await world.facts()
        assert facts.overdue_since is None
        assert facts.pages == {"known": 2, "parked": 1, "held": 1}
        assert [(row["page_id"], row["reason"]) for row in facts.parked] == [("7", "token_refused")]

    on_database(scenario)


def test_pages_that_are_not_well_come_before_the_others(on_database: OnDatabase) -> None:
    """With more Pages than have series of their own, those are shown that somebody has to look at."""

    async def scenario(world: World) -> None:
        await world.sql(
            "insert into page_health (page_id, checked_at, token, subscription, lead_access, webhooks)"
            " select n::text, now(), 'ok', 'ok', 'ok', 'ok' from generate_series(1, 300) as n"
        )
        await world.sql("update page_health set subscription = 'missing' where page_id = '299'")
        await world.sql("update page_health set token_expires_at = now() where page_id = '298'")
        facts = await world.facts()
        assert len(facts.health) == statements.MOST_PAGES
        assert [row["page_id"] for row in facts.health[:2]] == ["299", "298"]
        words = {(row["aspect"], row["word"]): row["count"] for row in facts.health_counts}
        assert words[("subscription", "missing")] == 1
        assert words[("token", "ok")] == 300

    on_database(scenario)


def test_counting_ends_somewhere(on_database: OnDatabase) -> None:
    """A Page that was refused for days costs a scrape no more than MOST_COUNTED rows."""

    async def scenario(world: World) -> None:
        await world.rows("waiting", "page_parked", MOST_COUNTED + 5_000)
        facts = await world.facts()
        assert [row["count"] for row in facts.waiting] == [MOST_COUNTED]

    on_database(scenario)


def test_no_statement_reads_the_stored_leads(on_database: OnDatabase) -> None:
    """However many leads are stored, what is asked of them is answered by an index that does not hold them."""

    async def scenario(world: World) -> None:
        await world.rows("stored", rows=50_000)
        await world.rows("waiting", "budget", 20)
        await world.rows("dead", "poison", 20)
        async with world.pool.connection() as connection:
            await connection.set_autocommit(True)
            await connection.execute("vacuum analyze leadgen")
        asked = {"now": NOW, "most": MOST_COUNTED}
        for statement in (statements.WAITING, statements.DEAD):
            plan = await world.sql(f"explain (format text) {statement}", asked)
            told = "\n".join(str(row) for row in plan)
            assert "Seq Scan" not in told, told
        assert 0.9 < (await world.facts()).estimate / 50_040 < 1.1

    on_database(scenario)
