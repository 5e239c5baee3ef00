"""Which forms are to be compared with Meta's listing, and what comparing found.

It decides nothing (reconcile.py does) and compares nothing: a comparison is a backfill (backfills.py), whose end writes
what is reported here. Invariant: no watermark moves here, unless that of a form which begins here and now is named.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.store.statements import Row, Statements

FORMS_DUE: Final = """
select f.form_id, f.page_id, f.status, f.created_time, f.found_at, f.watermark, f.read_from, f.deep_at,
    f.reconcile_at,
    greatest(f.leads_count - f.expired_leads_count, 0) as leads, p.limit_calls,
    exists (select from leadgen l where l.page_id = f.page_id and l.form_id = f.form_id
        and l.created_time > %(now)s::timestamptz - %(active)s::interval) as is_active,
    (select count(*) from forms o where o.page_id = f.page_id and o.status = 'ACTIVE') as forms
from forms f left join pages p using (page_id)
where coalesce(f.reconcile_at <= %(due_by)s or f.reconcile_at > %(latest)s, true) and p.parked_at is null
  and (%(page_ids)s::text[] is null or f.page_id = any(%(page_ids)s))
order by case when f.reconcile_at > %(latest)s then f.reconcile_at end desc nulls first, f.reconcile_at nulls first,
    f.form_id
limit %(most)s
"""
"""Forms that are due to be compared with Meta's listing, and what their turn depends on; behind these, the furthest
first, those whose turn is so far ahead that a wrong clock may have put it there."""

DEEP_DUE: Final = """
select f.form_id, f.page_id, f.created_time, f.read_from, greatest(f.leads_count - f.expired_leads_count, 0) as leads
from forms f left join pages p using (page_id)
where f.watermark is not null and coalesce(f.deep_at < %(before)s or f.deep_at > %(latest)s, f.found_at < %(before)s
      or f.found_at > %(latest)s, true)
  and p.parked_at is null
  and not exists (select from backfills b where b.purpose = 'deep' and b.state = 'running' and b.object_id = f.form_id)
order by f.deep_at nulls first, f.form_id limit %(most)s
"""
"""Forms whose last full comparison is too old, or lies in the future."""

RECONCILE_AT: Final = """
update forms set reconcile_at = %(at)s, watermark = coalesce(%(watermark)s, watermark),
    read_from = coalesce(%(read_from)s, read_from)
where form_id = %(form_id)s
"""
"""When a form is compared next; and, of one that is new here, from when on."""

LIVE_LEADS: Final = """
select count(*) as leads from leadgen
where page_id = %(page_id)s and created_time > %(now)s::timestamptz - interval '1 day' and state <> 'erased'
"""
"""Leads of a Page of the last day: about what its live calls are."""

REPORT: Final = """
select c.day, c.form_id, f.name as form, c.metas, c.ours, c.missing, c.repaired, c.unexplained, c.latest, c.checked_at
from reconciliations c left join forms f using (form_id)
where (%(form_ids)s::text[] is null or c.form_id = any(%(form_ids)s))
  and (%(page_ids)s::text[] is null or c.page_id = any(%(page_ids)s)) and c.day >= %(since)s
order by c.day desc, c.form_id
"""
"""What reconciling found, the newest day first."""

REPAIRED: Final = """
select leadgen_id, form_id, was, created_time, repaired_at, repaired_at - created_time as late
from repaired
where (%(form_ids)s::text[] is null or form_id = any(%(form_ids)s))
  and (%(page_ids)s::text[] is null or page_id = any(%(page_ids)s)) and created_time >= %(since)s
order by created_time desc, leadgen_id limit %(most)s
"""
"""The leads that reconciling brought, and how late."""


class ReconciliationStore:
    """The rows of comparisons. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def forms_due(
        self,
        now: datetime,
        *,
        due_by: datetime,
        latest: datetime,
        active: timedelta,
        page_ids: Sequence[str] | None = None,
        most: int = 500,
    ) -> list[Row]:
        """Forms whose turn to be reconciled comes by `due_by`, or after `latest`; `is_active` where a lead came within
        `active`.
        """
        asked = {
            "now": now,
            "due_by": due_by,
            "latest": latest,
            "active": active,
            "page_ids": page_ids and list(page_ids),
            "most": most,
        }
        return await self._rows(FORMS_DUE, asked)

    async def deep_due(self, before: datetime, latest: datetime, most: int = 200) -> list[Row]:
        """Forms that were last compared in full before a moment, or after `latest`."""
        return await self._rows(DEEP_DUE, {"before": before, "latest": latest, "most": most})

    async def reconcile_at(
        self,
        form_id: str,
        at: datetime,
        *,
        watermark: datetime | None = None,
        read_from: datetime | None = None,
    ) -> None:
        """When a form's next turn is; `watermark` and `read_from` of one that begins here and now."""
        told = {"form_id": form_id, "at": at, "watermark": watermark, "read_from": read_from}
        await self._rows(RECONCILE_AT, told)

    async def live_leads(self, page_id: str, now: datetime) -> int:
        """Leads of a Page of the last day."""
        return int((await self._rows(LIVE_LEADS, {"page_id": page_id, "now": now}))[0]["leads"])

    async def report(
        self, form_ids: Sequence[str] | None, since: datetime, *, page_ids: Sequence[str] | None = None
    ) -> list[Row]:
        """What reconciling found, by form and day (UTC), of days since that of `since`."""
        asked = {
            "form_ids": form_ids and list(form_ids),
            "page_ids": page_ids and list(page_ids),
            "since": since.date(),
        }
        return await self._rows(REPORT, asked)

    async def repaired(
        self,
        form_ids: Sequence[str] | None,
        since: datetime,
        most: int,
        *,
        page_ids: Sequence[str] | None = None,
    ) -> list[Row]:
        """The leads that reconciling brought."""
        asked = {
            "form_ids": form_ids and list(form_ids),
            "page_ids": page_ids and list(page_ids),
            "since": since,
            "most": most,
        }
        return await self._rows(REPAIRED, asked)
