"""Moments that a wrong clock put far ahead -> due now. Rare; it runs beside the statements that look at what is due.

A process whose clock jumped for one tick leases rows, holds Pages and notes looks a year ahead, and nobody looks at
those until then. It judges no watermark (reconcile.py does), and no check of a Page (health.py). Invariant: what may
wait for so long by right is left alone, within MARGIN; who is brought back too early is refused as before and waits on.
"""

from datetime import datetime, timedelta
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.outcomes import IN_PART_AGAIN
from worker.store.statements import Statements

MARGIN: Final = timedelta(hours=1)
"""Clocks of machines that are less apart disturb each other in nothing here."""
AT_ONCE: Final = 5_000

ROWS: Final = """
with recursive page (page_id) as (
    (select page_id from leadgen where due_at is not null order by page_id, due_at limit 1)
    union all
    select next.page_id from page cross join lateral (
        select l.page_id from leadgen l where l.due_at is not null and l.page_id > page.page_id
        order by l.page_id, l.due_at limit 1) as next
),
ahead as (
    select l.leadgen_id from page cross join lateral (
        select leadgen_id from leadgen
        where page_id = page.page_id and due_at > %(latest)s and (state = 'waiting' or due_at > %(latest_in_part)s)
        limit %(most)s) as l
    limit %(most)s
),
picked as (
    select l.leadgen_id from ahead join leadgen l using (leadgen_id)
    where l.due_at > %(latest)s
    order by l.leadgen_id for update of l skip locked
),
back as (
    update leadgen l set due_at = %(now)s from picked where l.leadgen_id = picked.leadgen_id
    returning l.leadgen_id
)
select count(*)::integer as back from back
"""
"""Rows that are due later than any wait is long: of each Page only those are read, from the end of its index."""

SLICES: Final = """
with picked as (
    select slice_id from slices where due_at > %(latest)s order by slice_id limit %(most)s for update skip locked
),
back as (
    update slices s set due_at = %(now)s from picked where s.slice_id = picked.slice_id returning s.slice_id
)
select count(*)::integer as back from back
"""
"""The same of slices of the past."""

PAGES: Final = """
with picked as (
    select page_id from pages
    where held_until > %(latest)s or forms_asked_at > %(margin)s or limit_at > %(margin)s
    order by page_id for update skip locked
),
back as (
    update pages p set held_until = case when held_until > %(latest)s then null else held_until end,
        forms_asked_at = case when forms_asked_at > %(margin)s then null else forms_asked_at end,
        limit_at = case when limit_at > %(margin)s then null else limit_at end
    from picked where p.page_id = picked.page_id returning p.page_id
)
select count(*)::integer as back from back
"""
"""Pages held for longer than any limit's window, or whose forms were listed or limit worked out in the future."""

ALERTS: Final = """
with back as (
    update health_events set due_at = %(now)s where due_at > %(latest)s returning event_id
)
select count(*)::integer as back from back
"""
"""Alerts that are to be told later than they are ever put off."""


class AheadStore:
    """Whatever lies ahead. `longest`: what a waiting row, a slice, a held Page or an alert may wait by right."""

    def __init__(self, pool: AsyncConnectionPool, longest: timedelta) -> None:
        self._rows = Statements(pool).rows
        self._longest = longest

    async def bring_back(self, now: datetime) -> int:
        """Make due what lies further ahead than anything may; how many. Safe to repeat."""
        latest = now + self._longest + MARGIN
        asked = {
            "now": now,
            "latest": latest,
            # A stored lead that lacks its ad fields is asked for again after days.
            "latest_in_part": max(latest, now + IN_PART_AGAIN[-1] + MARGIN),
            "margin": now + MARGIN,
            "most": AT_ONCE,
        }
        back = 0
        for statement in (ROWS, SLICES):
            while some := int((await self._rows(statement, asked))[0]["back"]):
                back += some
                if some < AT_ONCE:
                    break
        for statement in (PAGES, ALERTS):
            back += int((await self._rows(statement, asked))[0]["back"])
        return back
