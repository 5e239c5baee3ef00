"""The store of the leads on a real Postgres, and a look at its tables beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import PAGE, in_flight
from tests.fakes.time import NOW
from tests.integration.tables import Tables
from worker.batches import InFlight
from worker.outcomes import Outcome, Snooze
from worker.store.leads import LeadStore, StoreSettings

SECRET = "ann-hunter2@example.org"
DEATHS = StoreSettings().park_after_deaths
LEASE = StoreSettings().lease_seconds
TOUCHED = "select leadgen_id from leadgen where xmax <> 0 or turn > -1"
"""Rows that were locked or written again since they were made."""


@dataclass
class World(Tables):
    """The store under test and a look at its tables beside it."""

    store: LeadStore
    pool: AsyncConnectionPool

    async def row(self, leadgen_id: object) -> dict[str, Any]:
        (row,) = await self.sql("select * from leadgen where leadgen_id = %s", str(leadgen_id))
        return row

    async def state(self, leadgen_id: object) -> str:
        return str((await self.row(leadgen_id))["state"])

    async def settle(self, *settled: tuple[InFlight, Outcome], now: datetime = NOW) -> None:
        await self.store.settle(settled, now)

    async def wait(self, references: Iterable[InFlight], *, due: datetime = NOW) -> None:
        """Let these wait in rows of their own."""
        await self.settle(*((r, Snooze(due, "throttled_page")) for r in references))

    async def lease(
        self, now: datetime = NOW, *, room: int = 1_000, per_page: int = 1_000
    ) -> tuple[InFlight, ...]:
        return await self.store.lease_due(room, per_page, now)

    async def leased(self, reference: InFlight, now: datetime = NOW) -> InFlight:
        """The one reference, waiting and leased."""
        await self.wait([reference])
        (found,) = await self.lease(now)
        return found

    async def snapshot(self) -> list[dict[str, Any]]:
        """All that anybody can see of the rows, without the turn that guards them."""
        rows = await self.sql("select * from leadgen order by leadgen_id")
        return [{name: value for name, value in row.items() if name != "turn"} for row in rows]


def ids(references: Sequence[InFlight]) -> list[str]:
    return [r.leadgen_id for r in references]


def some(count: int, page_id: str = PAGE, first: int = 1) -> list[InFlight]:
    return [in_flight(n, page_id) for n in range(first, first + count)]


def held(until: datetime, reason: str = "budget") -> Snooze:
    """The budget's refusal of a whole Page."""
    return Snooze(until, reason, whole_page=True)
