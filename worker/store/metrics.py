"""What Postgres tells of how it goes -> numbers for whoever watches. It changes nothing.

Each statement is cheap however many leads are stored: it reads what waits, is dead or runs by an index that holds
nothing else, or a table of one row a Page, form or day. Invariant: what could be many is counted up to MOST_COUNTED, so
a count that reaches it is a lower bound; no row that leaves here holds an answer or a token.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.store import sql
from worker.store.statements import Row, Statements

MOST_COUNTED: Final = 100_000
"""Rows that are counted one by one; beyond it a scrape would cost more than it tells."""
MOST_PAGES: Final = 200
"""Pages that have series of their own."""
MOST_BUDGETS: Final = 2_000
"""Pages whose budget is looked at."""
RECONCILED_DAYS: Final = 7

WAITING: Final = """
select coalesce(reason, '') as reason, count(*) as count, min(first_seen_at) as oldest
from (select reason, first_seen_at from leadgen where due_at is not null and state = 'waiting' limit %(most)s) as those
group by 1
"""
"""References that wait, by reason, and since when the oldest of each does."""

DEAD: Final = """
select coalesce(reason, '') as reason, count(*) as count
from (select reason from leadgen where state = 'dead' limit %(most)s) as those
group by 1
"""
"""Dead letters by reason."""

PAGES: Final = """
select count(*) as known, count(*) filter (where parked_at is not null) as parked,
    count(*) filter (where held_until > %(now)s) as held
from pages
"""
"""How many Pages there are, are parked, and are held by their budget."""

PARKED: Final = """
select page_id, coalesce(parked_reason, '') as reason, parked_at from pages where parked_at is not null
order by parked_at limit %(pages)s
"""
"""Pages that are parked, the longest ones first."""

BUDGETED: Final = """
select page_id from pages where limit_at is not null
order by held_until > %(now)s desc nulls last, limit_calls desc, page_id limit %(budgets)s
"""
"""Pages that have a limit, those first that are held, then those that spend most."""

HEALTH: Final = """
select page_id, token, subscription, lead_access, webhooks, checked_at,
    least(token_expires_at, data_access_expires_at) as expires_at
from page_health
order by array['ok'] @> array[token, subscription, lead_access, webhooks],
    least(token_expires_at, data_access_expires_at) nulls last, page_id
limit %(pages)s
"""
"""How Pages were when they were last looked at, first those of which something is not known to be right."""

HEALTH_COUNTS: Final = """
select aspect, word, count(*) as count
from page_health cross join lateral (values ('token', token), ('subscription', subscription),
    ('lead_access', lead_access), ('webhooks', webhooks)) as each (aspect, word)
group by 1, 2
"""
"""All Pages by aspect and how it is."""

ALERTS: Final = """
select count(*) as waiting, min(at) as oldest from health_events where due_at is not null
"""
"""Alerts that have not gone out yet."""

RUNNING: Final = """
select purpose, count(*) as count from backfills where state = 'running' group by 1
"""
"""Readings of the past that are not over, by purpose."""

SLICES: Final = """
select count(*) as waiting, count(*) filter (where due_at <= %(now)s) as due
from (select due_at from slices where due_at is not null limit %(most)s) as those
"""
"""Slices of the past that wait or are being read."""

RECONCILED: Final = """
select coalesce(sum(metas), 0)::bigint as listed, coalesce(sum(missing), 0)::bigint as missing,
    coalesce(sum(repaired), 0)::bigint as repaired, coalesce(sum(unexplained), 0)::bigint as unexplained
from reconciliations where day > (%(now)s::timestamptz at time zone 'UTC')::date - %(days)s::integer
"""
"""What the last comparisons found of the leads created in the last days."""

ESTIMATE: Final = """
select greatest(reltuples, 0)::bigint as rows from pg_class where oid = 'leadgen'::regclass
"""
"""About how many leads there are, as Postgres last estimated."""


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What the statements of this file answer; `overdue_since` is aware UTC, or None where nothing is overdue."""

    waiting: tuple[Row, ...]
    overdue_since: datetime | None
    dead: tuple[Row, ...]
    pages: Row
    parked: tuple[Row, ...]
    budgeted: tuple[str, ...]
    health: tuple[Row, ...]
    health_counts: tuple[Row, ...]
    alerts: Row
    running: tuple[Row, ...]
    slices: Row
    reconciled: Row
    estimate: int


class MetricStore:
    """The rows as a watcher sees them. `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def facts(self, now: datetime) -> RowFacts:
        """All of it. Raises StoreUnavailable."""
        asked = {
            "now": now,
            "most": MOST_COUNTED,
            "pages": MOST_PAGES,
            "budgets": MOST_BUDGETS,
            "days": RECONCILED_DAYS,
        }
        budgeted = await self._rows(BUDGETED, asked)
        return RowFacts(
            waiting=tuple(await self._rows(WAITING, asked)),
            overdue_since=(await self._rows(sql.OLDEST_OVERDUE, asked))[0]["min"],
            dead=tuple(await self._rows(DEAD, asked)),
            pages=(await self._rows(PAGES, asked))[0],
            parked=tuple(await self._rows(PARKED, asked)),
            budgeted=tuple(row["page_id"] for row in budgeted),
            health=tuple(await self._rows(HEALTH, asked)),
            health_counts=tuple(await self._rows(HEALTH_COUNTS, asked)),
            alerts=(await self._rows(ALERTS, asked))[0],
            running=tuple(await self._rows(RUNNING, asked)),
            slices=(await self._rows(SLICES, asked))[0],
            reconciled=(await self._rows(RECONCILED, asked))[0],
            estimate=int((await self._rows(ESTIMATE, asked))[0]["rows"]),
        )
