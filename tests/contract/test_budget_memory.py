"""The memory that the budget's tests use is the one in Postgres: the same blocks, told alike by both.

What the rows themselves promise is tests/integration/test_budget_store.py's.
"""

import asyncio
import random

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.fakes.budget import Clocks, FakeMemory
from worker.budget.policy import Lane, Spent
from worker.errors import StoreUnavailable
from worker.store.budget import BudgetStore

PAGES, MACHINES = ("7001", "7002"), ("here", "there")
WINDOW, LIFE, BUCKET = 86_400.0, 900.0, 300.0
RESERVED_AT = b"""update budget_blocks set reserved_at = clock_timestamp() - make_interval(secs => %s)
where block_id = %s"""


@pytest.mark.parametrize("seed", range(3))
def test_the_fake_memory_tells_what_postgres_tells(database: str, seed: int) -> None:
    """Given the same blocks, ages by both clocks and gifts back, both say the same was spent."""
    draw, gifts, clocks = random.Random(seed), random.Random(seed), Clocks()
    fake = FakeMemory(clocks, lambda: StoreUnavailable("told"))

    async def scenario() -> None:
        async with AsyncConnectionPool(database, min_size=1, open=False, timeout=30) as pool:
            real = BudgetStore(pool)
            ids: dict[int, int] = {}
            for number in range(60):
                clocks.move(draw.choice((0.0, 20.0, 460.0, 3_600.0)))
                clocks.database_wrong += draw.choice((0, 0, 0, 5_000_000, -7_000_000))
                machine, given = (
                    draw.choice(MACHINES),
                    (draw.randint(1, number), 4) if number % 3 == 2 else None,
                )
                steady = clocks.steady(machine) - draw.choice((0, 0, 0, 10**6))
                page, lane, calls = draw.choice(PAGES), draw.choice(list(Lane)), draw.randint(1, 60)
                told = {"machine": machine, "steady": steady}
                fake_id = await fake.reserve(page, lane, calls, **told, instead_of=given)  # type: ignore[arg-type]
                given = (ids[given[0]], given[1]) if given else None
                ids[fake_id] = await real.reserve(page, lane, calls, **told, instead_of=given)  # type: ignore[arg-type]
                if number % 5 == 4:
                    back, unspent = gifts.randint(1, number + 1), gifts.choice((1, 7, 60))
                    await fake.give_back(back, unspent)
                    await real.give_back(ids[back], unspent)
            clocks.move(3.0)  # no age lies near the end of a bucket or of ten seconds
            async with pool.connection() as connection:
                for block in fake.blocks:
                    age = clocks.database - block.reserved_at
                    await connection.execute(RESERVED_AT, (age, ids[block.block_id]))
            left_out = {draw.randint(1, 60): draw.randint(0, 60) for _ in range(10)}
            for page in PAGES:
                for machine in MACHINES:
                    asked = {
                        "machine": machine,
                        "steady": clocks.steady(machine),
                        "window": WINDOW,
                        "life": LIFE,
                        "bucket": BUCKET,
                    }
                    by_fake = await fake.spent(page, left_out, **asked)  # type: ignore[arg-type]
                    by_real = await real.spent(
                        page,
                        {ids[n]: calls for n, calls in left_out.items()},
                        **asked,  # type: ignore[arg-type]
                    )
                    assert len(by_fake) > 5
                    assert rounded(by_real) == rounded(by_fake)

    asyncio.run(scenario())


def rounded(spent: tuple[Spent, ...]) -> list[tuple[Lane, int, float]]:
    """In order, with ages to ten seconds: the database's clock goes on while the test runs."""
    return sorted((one.lane, one.calls, round(one.age, -1)) for one in spent)
