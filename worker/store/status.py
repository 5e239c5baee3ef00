"""Rows of all tables -> the few counts that tell how it goes, cheap enough to be asked every two seconds.

It changes nothing and judges nothing. Invariant: no statement reads more of a large table than a bound that stands in
it; a count that met its bound says so, and what is worked out from Postgres' own statistics is marked as an estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.store import sql
from worker.store.statements import Row, Statements

PAGES_SHOWN: Final = 1_000
STORED_COUNTED: Final = 100_000
"""Rows that a Page stored between two looks are counted so far."""
DEAD_COUNTED: Final = 20_000
EXACT_BYTES: Final = 16 * 1024 * 1024
"""A table up to this size is counted row by row, which takes some milliseconds."""

PAGES: Final = """
select p.page_id, p.name, p.parked_at, p.parked_reason, p.check_at,
    case when p.held_until > %(now)s then p.held_until end as held_until,
    case when p.held_until > %(now)s then p.held_reason end as held_reason,
    h.token, h.token_reason, h.subscription, h.subscription_reason, h.lead_access, h.lead_access_reason,
    h.webhooks, h.webhooks_reason
from pages p left join page_health h using (page_id)
order by p.parked_at is null, p.page_id limit %(most)s
"""
"""The Pages and how they were when they were last checked, the parked ones first."""

WAITING: Final = """
with recursive page (page_id) as (
    (select page_id from leadgen where due_at is not null order by page_id, due_at limit 1)
    union all
    select next.page_id from page cross join lateral (
        select l.page_id from leadgen l where l.due_at is not null and l.page_id > page.page_id
        order by l.page_id, l.due_at limit 1) as next
),
counted as (
    select row.page_id, row.reason, row.due_at from page cross join lateral (
        select l.page_id, l.reason, l.due_at from leadgen l
        where l.page_id = page.page_id and l.due_at is not null and l.state = 'waiting'
        order by l.due_at limit %(a_page)s) as row
    limit %(most)s
)
select page_id, coalesce(reason, '') as reason, count(*) as count, min(due_at) as oldest_due,
    sum(count(*)) over (partition by page_id) >= %(a_page)s or sum(count(*)) over () >= %(most)s as is_at_least
from counted group by page_id, reason
"""
"""Waiting rows by Page and reason, each Page's longest due ones."""

DEAD: Final = """
with counted as (
    select reason from leadgen where state = 'dead' order by page_id, reason, updated_at limit %(most)s
)
select coalesce(reason, '') as reason, count(*) as count, sum(count(*)) over () >= %(most)s as is_at_least
from counted group by reason
"""
"""Dead letters by reason."""

OTHERS: Final = """
with size as (
    select c.oid, pg_relation_size(c.oid) as bytes, c.relpages,
        greatest(0, c.reltuples) / greatest(1, c.relpages) as rows_a_block
    from pg_class c where c.oid = 'leadgen'::regclass
),
estimated as (
    select told.state, told.part * size.rows_a_block * (size.bytes / current_setting('block_size')::bigint) as rows
    from size
    join pg_stats s on s.schemaname = (select relnamespace::regnamespace::text from pg_class c where c.oid = size.oid)
        and s.tablename = 'leadgen' and s.attname = 'state'
    cross join lateral unnest(s.most_common_vals::text::text[], s.most_common_freqs) as told (state, part)
    where size.bytes > %(exact)s
)
select state, rows::bigint as count, true as is_estimate from estimated where state in ('stored', 'erased')
union all
select state, counted.count, false from (
    select l.state, count(*) as count from leadgen l
    where (select bytes from size) <= %(exact)s and l.state in ('stored', 'erased') group by l.state) as counted
"""
"""Stored and erased rows: counted while the table is small, else by the statistics that the last ANALYZE left."""

STORED_BETWEEN: Final = """
with recursive page (page_id) as (
    (select page_id from leadgen order by page_id, stored_at limit 1)
    union all
    select next.page_id from page cross join lateral (
        select l.page_id from leadgen l where l.page_id > page.page_id order by l.page_id, l.stored_at limit 1) as next
)
select coalesce(sum(stored.count), 0)::bigint as count from page cross join lateral (
    select count(*) as count from (
        select from leadgen l
        where l.page_id = page.page_id and l.stored_at >= %(since)s and l.stored_at < %(until)s
        limit %(most)s) as counted) as stored
"""
"""Rows that were stored in [since, until)."""

RUNNING: Final = """
with chosen as (
    select backfill_id, purpose, edge, object_id, page_id, expected_leads, requested_at from backfills
    where state = 'running' and purpose = 'backfill'
    order by backfill_id desc limit %(most)s
)
select c.*, coalesce(f.name, p.name) as name, s.slices, s.slices_done, s.calls, s.leads, s.stored, s.waits_for
from chosen c
    left join forms f on c.edge = 'form' and f.form_id = c.object_id
    left join pages p on c.edge <> 'form' and p.page_id = c.page_id
    cross join lateral (
        select count(*) filter (where state <> 'divided') as slices,
            count(*) filter (where state in ('done', 'failed')) as slices_done,
            coalesce(sum(calls), 0)::bigint as calls, coalesce(sum(leads), 0)::bigint as leads,
            coalesce(sum(stored), 0)::bigint as stored,
            (array_agg(reason order by due_at) filter (where state = 'waiting' and reason is not null))[1] as waits_for
        from slices where slices.backfill_id = c.backfill_id) as s
order by c.backfill_id desc
"""
"""Backfills that run, with their slices, the newest first."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Waiting rows are counted so far: those of one Page, and all. Each is read from the table, some 20 us apiece."""

    a_page: int
    all: int


class StatusStore:
    """The counts. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def pages(self, now: datetime) -> list[Row]:
        """At most PAGES_SHOWN Pages with what their last check said, the parked ones first."""
        return await self._rows(PAGES, {"now": now, "most": PAGES_SHOWN})

    async def waiting(self, bounds: Bounds) -> list[Row]:
        """Waiting rows by `page_id` and `reason`; `is_at_least` where there may be more."""
        return await self._rows(WAITING, {"a_page": bounds.a_page, "most": bounds.all})

    async def dead(self) -> list[Row]:
        """Dead letters by `reason`; `is_at_least` where there may be more."""
        return await self._rows(DEAD, {"most": DEAD_COUNTED})

    async def others(self) -> list[Row]:
        """Rows by `state`, stored and erased; `is_estimate` where they were not counted."""
        return await self._rows(OTHERS, {"exact": EXACT_BYTES})

    async def stored_between(self, since: datetime, until: datetime) -> int:
        """Rows that were stored in [since, until)."""
        span = {"since": since, "until": until, "most": STORED_COUNTED}
        return int((await self._rows(STORED_BETWEEN, span))[0]["count"])

    async def oldest_overdue(self, now: datetime) -> datetime | None:
        """Since when the longest waiting row of a Page that is not held is due."""
        oldest: datetime | None = (await self._rows(sql.OLDEST_OVERDUE, {"now": now}))[0]["min"]
        return oldest

    async def running(self, most: int) -> Sequence[Row]:
        """The newest backfills that run; how far each is."""
        return await self._rows(RUNNING, {"most": most})
