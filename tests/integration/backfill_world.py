"""The stores of backfills on a real Postgres, and a look at their tables beside them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from psycopg_pool import AsyncConnectionPool

from tests.fakes.backfills import DAY, SECOND
from tests.fakes.leads import FORM, PAGE, a_lead
from tests.fakes.time import NOW, FrozenClock
from tests.integration.tables import Tables
from worker.batches import InFlight
from worker.outcomes import DeadLetter, Stored
from worker.plans import Plan, utc
from worker.reconcile import Reconciler, ReconcileSettings
from worker.slices import Slice
from worker.store.backfills import BackfillStore
from worker.store.leads import LeadStore
from worker.store.reconciliations import ReconciliationStore
from worker.store.slices import LeasedSlice, SliceStore

LEASE = 120.0
LEASE_TIME = timedelta(seconds=LEASE)
SPAN = Slice(SECOND - DAY, SECOND)
TODAY = NOW.date()


def a_plan(
    purpose: str = "backfill", *, forms: Iterable[str] = (FORM,), parts: int = 1, **changed: Any
) -> Plan:
    """A plan of each form's day before NOW, in equal parts."""
    told = {
        "page_id": PAGE,
        "edge": "form",
        "object_id": FORM,
        "since": SPAN.since,
        "until": SPAN.until,
        **changed,
    }
    since, until = int(told["since"]), int(told["until"])
    edges = [since + (until - since) * n // parts for n in range(parts + 1)]
    cut = tuple(("form", f, Slice(edges[n], edges[n + 1])) for f in forms for n in range(parts))
    return Plan(purpose, slices=cut, **told)  # type: ignore[arg-type]


def stored(leadgen_id: int | str, second: int = SECOND - 60, **changed: Any) -> tuple[InFlight, Stored]:
    """A lead as a listing brings it."""
    in_part = changed.pop("in_part", False)
    created = utc(second).strftime("%Y-%m-%dT%H:%M:%S+0000")
    lead = a_lead(leadgen_id, in_part=in_part, created_time=created, **changed)
    return reference(leadgen_id), Stored(lead)


def reference(leadgen_id: int | str) -> InFlight:
    return InFlight(str(leadgen_id), PAGE, FORM, None, None, NOW, source="reconcile", unasked=True)


@dataclass
class World(Tables):
    """The stores under test and a look at their tables beside them."""

    backfills: BackfillStore
    slices: SliceStore
    reconciliations: ReconciliationStore
    leads: LeadStore
    pool: AsyncConnectionPool

    def reconciler(self, settings: ReconcileSettings, clock: FrozenClock) -> Reconciler:
        return Reconciler(self.reconciliations, self.backfills.open, settings, clock)

    async def form(self, form_id: str = FORM, **changed: Any) -> None:
        """A form that is known here, reconciled up to `watermark`."""
        told = {
            "page_id": PAGE,
            "status": "ACTIVE",
            "watermark": None,
            "read_from": None,
            "found_at": NOW,
            **changed,
        }
        names, places = ", ".join(told), ", ".join(["%s"] * len(told))
        await self.sql(f"insert into forms (form_id, {names}) values (%s, {places})", form_id, *told.values())

    async def form_row(self, form_id: str = FORM) -> dict[str, Any]:
        return (await self.sql("select * from forms where form_id = %s", form_id))[0]

    async def row(self, leadgen_id: int | str) -> dict[str, Any]:
        return (await self.sql("select * from leadgen where leadgen_id = %s", str(leadgen_id)))[0]

    async def states(self) -> Counter[str]:
        return Counter(row["state"] for row in await self.sql("select state from slices"))

    async def slice_row(self, leased: LeasedSlice) -> dict[str, Any]:
        return (await self.sql("select * from slices where slice_id = %s", leased.slice_id))[0]

    async def lease(
        self, now: datetime = NOW, *, room: int = 100, per_page: int = 100, **walked: int
    ) -> tuple[LeasedSlice, ...]:
        return await self.slices.lease(room, per_page, now, walked=walked)

    async def leased(self, plan: Plan, now: datetime = NOW) -> LeasedSlice:
        """The one slice of a plan that is begun now."""
        await self.backfills.open(plan, now)
        (one,) = await self.lease(now)
        return one

    async def run(
        self, plan: Plan, *leads: tuple[InFlight, Stored | DeadLetter], now: datetime = NOW
    ) -> None:
        """Begin, walk and end a plan of one slice."""
        one = await self.leased(plan, now)
        await self.slices.write_leads(one, leads, calls=1, now=now)
        await self.slices.finish(one, now)
        await self.backfills.close(now)

    async def repaired(self) -> dict[str, str]:
        return {
            row["leadgen_id"]: row["was"] for row in await self.sql("select leadgen_id, was from repaired")
        }

    async def metas(self) -> dict[date, int]:
        return {row["day"]: row["metas"] for row in await self.sql("select day, metas from reconciliations")}

    async def report(self) -> dict[str, Any]:
        (row,) = await self.sql("select * from reconciliations")
        return row
