"""Health of Pages, its changes and its alerts <-> rows of page_health, health_events and pages.check_at.

It judges nothing (health.py does) and sends nothing (alerts.py does). Invariants: what a check found and what of it is
news are one statement, so that a change is noted once, whoever is killed; a check is leased by `check_at`, an alert by
its `due_at`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg_pool import AsyncConnectionPool

from worker.health import DISCONNECTED
from worker.store.statements import Row, Statements

WEBHOOK_LEADS: Final = 500
"""The newest leads of a Page among which its last webhook is looked for."""
ANNOUNCED_LEADS: Final = 20
"""So many of those that a webhook told of are looked at: the webhook of an older lead may have come last."""
PROBED_FORMS: Final = 2
PROBED_ROWS: Final = 3

LEASE_CHECKS: Final = f"""
with due as (
    select page_id from pages
    where parked_reason is distinct from '{DISCONNECTED}'
      and case when %(page_ids)s::text[] is null then check_at is null or check_at <= %(now)s or check_at > %(latest)s
          else page_id = any(%(page_ids)s) end
    order by check_at nulls first, page_id limit %(most)s for update skip locked
)
update pages p set check_at = %(until)s from due where p.page_id = due.page_id
returning p.page_id, p.parked_reason
"""
"""Pages whose check is due, or those named; nobody else checks them until the lease ends. One that is due later than
any check is set for was put there by a clock that was wrong."""

NEXT_CHECK: Final = """
update pages set check_at = %(next)s where page_id = %(page_id)s and check_at = %(until)s
"""
"""When a Page is checked next, unless it was made due meanwhile."""

DOUBT: Final = """
update pages p set check_at = %(now)s
where p.page_id = any(%(page_ids)s) and p.parked_at is null and p.check_at > %(now)s
  and not exists (select from page_health h where h.page_id = p.page_id and h.lead_access <> 'ok'
                  and h.checked_at > %(now)s::timestamptz - %(every)s::interval)
  and %(leads)s <= (
    select count(*) from (
        select from (
            select updated_at, first_seen_at from leadgen l
            where l.page_id = p.page_id and l.due_at is not null and l.state = 'waiting'
              and l.failed_for = 'not_visible' and l.attempts > 1
            union all
            select updated_at, first_seen_at from leadgen l
            where l.page_id = p.page_id and l.state = 'dead' and l.reason = 'not_visible'
        ) as unseen
        where updated_at > coalesce(
                (select max(stored_at) from leadgen l where l.page_id = p.page_id), '-infinity')
          and first_seen_at > coalesce(
                (select checked_at from page_health h where h.page_id = p.page_id and h.lead_access = 'ok'),
                '-infinity')
        limit %(leads)s) as enough)
"""
"""Several leads that came since the last check are not shown by Graph, asked twice, and none was stored since: it may
be the Page, so its check is due. Leads that an earlier check has cleared it of do not count again; a check that
could not tell is not made again at once."""

PROBES: Final = """
select
    array(select form_id from forms where page_id = %(page_id)s and coalesce(status, 'ACTIVE') in ('ACTIVE', 'ARCHIVED')
          order by coalesce(status, 'ACTIVE'), created_time desc nulls last, form_id limit %(forms)s) as forms,
    array(select leadgen_id from (
              select leadgen_id, row_number() over (order by first_seen_at desc) as age from leadgen
              where page_id = %(page_id)s and due_at is not null and state = 'waiting') as waiting
          order by age > 1, random() limit %(rows)s) as rows
"""
"""Forms and waiting leads by which it is seen whether a Page's leads can be read: the newest, which is there if any is,
and others at random."""

WEBHOOKS: Final = """
with last as (
    select max(received_at) as at from (
        select received_at from (
            select received_at from leadgen
            where page_id = %(page_id)s and created_time is not null and state <> 'erased'
            order by created_time desc limit %(newest)s) as newest
        where received_at is not null limit %(announced)s) as announced
)
select last.at as last_webhook, missed.leads as unannounced, missed.oldest
from last cross join lateral (
    select count(*)::integer as leads, min(r.created_time) as oldest
    from forms f join repaired r using (form_id)
    where f.page_id = %(page_id)s and r.was = 'missing'
      and r.created_time > greatest(last.at, %(now)s::timestamptz - interval '1 day')) as missed
"""
"""When a webhook last told of a lead of the Page, and how many leads created since only reconciling found.

Of an announced Page a few of the newest rows are read, of one without webhooks all of `newest`, however many it has.
Rows of which nobody told the creation are no part of it: descending, they would stand before the newest."""

KNOWN: Final = """
select (select checked_at from page_health where page_id = %(page_id)s) as checked_at,
    coalesce((select jsonb_object_agg(aspect, became) from (
        select distinct on (aspect) aspect, became from health_events where page_id = %(page_id)s
        order by aspect, event_id desc) as last), '{}') as told
"""
"""What was last told of each aspect of a Page, and when it was last checked."""

KEEP: Final = """
with kept as (
    insert into page_health (page_id, checked_at, token, token_reason, token_expires_at, data_access_expires_at,
        missing_scopes, subscription, subscription_reason, lead_access, lead_access_reason, webhooks, webhooks_reason)
    values (%(page_id)s, %(now)s, %(token)s, %(token_reason)s, %(token_expires_at)s, %(data_access_expires_at)s,
        %(missing_scopes)s, %(subscription)s, %(subscription_reason)s, %(lead_access)s, %(lead_access_reason)s,
        %(webhooks)s, %(webhooks_reason)s)
    on conflict (page_id) do update set checked_at = excluded.checked_at, token = excluded.token,
        token_reason = excluded.token_reason, token_expires_at = excluded.token_expires_at,
        data_access_expires_at = excluded.data_access_expires_at, missing_scopes = excluded.missing_scopes,
        subscription = excluded.subscription, subscription_reason = excluded.subscription_reason,
        lead_access = excluded.lead_access, lead_access_reason = excluded.lead_access_reason,
        webhooks = excluded.webhooks, webhooks_reason = excluded.webhooks_reason
    -- Two statements at once see the same last events: only this row is looked at anew by the one that waits.
    where page_health.checked_at is not distinct from %(known_at)s::timestamptz
    returning page_id
)
insert into health_events (at, page_id, aspect, was, became, reason, due_at)
select %(now)s, page_id, c.aspect, c.was, c.became, c.reason, case when c.is_told then %(now)s::timestamptz end
from kept cross join jsonb_to_recordset(%(changes)s::jsonb) as c (
    aspect text, was text, became text, reason text, is_told boolean)
where c.became is distinct from (
    select e.became from health_events e where e.page_id = %(page_id)s and e.aspect = c.aspect
    order by e.event_id desc limit 1)
returning aspect, was, became, reason
"""
"""What a check found, and what of it is news; answers the latter. Nothing is kept where another check has kept what it
found since `known_at`."""

LEASE_ALERTS: Final = """
with due as (
    select event_id from health_events where due_at <= %(now)s
    order by due_at, event_id limit %(most)s for update skip locked
)
update health_events e set due_at = %(until)s, tries = tries + 1
from due where e.event_id = due.event_id
returning e.event_id, e.at, e.page_id, e.aspect, e.was, e.became, e.reason, e.tries
"""
"""Alerts that are due; nobody else sends them until the lease ends."""

SETTLE_ALERT: Final = """
update health_events set due_at = %(due_at)s, told_at = %(told_at)s where event_id = %(event_id)s and told_at is null
"""
"""An alert went out, or is tried again later, or no more."""

UNWANTED: Final = """
update health_events set due_at = null where due_at <= %(now)s
"""
"""Nobody wants alerts."""

EVENTS: Final = """
select event_id, at, aspect, was, became, reason, told_at, tries, due_at from health_events
where page_id = %(page_id)s order by event_id desc limit %(most)s
"""
"""A Page's last changes, the newest first."""

FORGET: Final = """
with ranked as (
    select event_id, row_number() over (partition by page_id, aspect order by event_id desc) as age from health_events
),
old as (
    delete from health_events e using ranked
    where e.event_id = ranked.event_id and ranked.age > 1 and e.at < %(before)s and e.due_at is null
    returning 1
)
select count(*) as events from old
"""
"""Drop old changes, but those still to be told and the last of each aspect of a Page: what it became is what a check
compares with, and without it a change of long ago would be news again."""

OVERVIEW: Final = """
select p.page_id, p.name, p.parked_at, p.parked_reason, p.connected_at, p.check_at,
    case when p.held_until > %(now)s then p.held_until end as held_until,
    case when p.held_until > %(now)s then p.held_reason end as held_reason,
    h.checked_at, h.token, h.token_reason, h.token_expires_at, h.data_access_expires_at,
    coalesce(h.missing_scopes, '{}') as missing_scopes, h.subscription, h.subscription_reason, h.lead_access,
    h.lead_access_reason, h.webhooks, h.webhooks_reason, p.limit_calls,
    f.active as forms_active, f.archived as forms_archived,
    l.stored, l.waiting, l.dead, l.last_lead, l.last_webhook
from pages p left join page_health h using (page_id)
    cross join lateral (
        select count(*) filter (where coalesce(status, 'ACTIVE') = 'ACTIVE')::integer as active,
            count(*) filter (where status = 'ARCHIVED')::integer as archived
        from forms where forms.page_id = p.page_id) as f
    cross join lateral (
        select count(*) filter (where state = 'stored') as stored, count(*) filter (where state = 'waiting') as waiting,
            count(*) filter (where state = 'dead') as dead, max(stored_at) as last_lead,
            max(received_at) as last_webhook
        from leadgen where leadgen.page_id = p.page_id) as l
where %(page_ids)s::text[] is null or p.page_id = any(%(page_ids)s)
order by p.parked_at is null, p.page_id
"""
"""All about Pages, the parked ones first."""


@dataclass(frozen=True, slots=True)
class LeasedCheck:
    """A Page that this process may check until `until`, aware UTC."""

    page_id: str
    parked_reason: str | None
    until: datetime


class HealthStore:
    """The rows of health. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def lease_checks(
        self,
        now: datetime,
        until: datetime,
        *,
        most: int,
        latest: datetime | None = None,
        page_ids: Sequence[str] | None = None,
    ) -> tuple[LeasedCheck, ...]:
        """At most `most` Pages whose check is due, or due after `latest`; of `page_ids` whether due or not.

        None that is disconnected.
        """
        asked = {
            "now": now,
            "until": until,
            "most": most,
            "latest": latest or datetime.max.replace(tzinfo=UTC),
            "page_ids": None if page_ids is None else list(page_ids),
        }
        rows = await self._rows(LEASE_CHECKS, asked)
        return tuple(LeasedCheck(row["page_id"], row["parked_reason"], until) for row in rows)

    async def next_check(self, leased: LeasedCheck, at: datetime) -> None:
        """The check is over; when the next is."""
        await self._rows(NEXT_CHECK, {"page_id": leased.page_id, "until": leased.until, "next": at})

    async def probes(self, page_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A few forms, the newest active ones first, and a few waiting leads: the newest, and any others."""
        asked = {"page_id": page_id, "forms": PROBED_FORMS, "rows": PROBED_ROWS}
        row = (await self._rows(PROBES, asked))[0]
        return tuple(row["forms"]), tuple(row["rows"])

    async def webhooks(self, page_id: str, now: datetime) -> Row:
        """`last_webhook`, and `unannounced` leads created since with the `oldest` of them."""
        asked = {"page_id": page_id, "now": now, "newest": WEBHOOK_LEADS, "announced": ANNOUNCED_LEADS}
        return (await self._rows(WEBHOOKS, asked))[0]

    async def known(self, page_id: str) -> tuple[datetime | None, dict[str, str]]:
        """When the Page was last checked, and the last word that was told of each aspect."""
        row = (await self._rows(KNOWN, {"page_id": page_id}))[0]
        return row["checked_at"], row["told"]

    async def keep(
        self,
        page_id: str,
        found: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]],
        now: datetime,
        *,
        known_at: datetime | None,
    ) -> list[Row]:
        """Note what a check found, as columns of page_health, and its changes; those that are news indeed.

        Nothing where the Page was checked by somebody else since `known_at`.
        """
        told = {"page_id": page_id, "now": now, "known_at": known_at, "changes": json.dumps(list(changes))}
        return await self._rows(KEEP, {**found, **told})

    async def lease_alerts(self, now: datetime, lease: timedelta, most: int) -> list[Row]:
        """Alerts that are due."""
        return await self._rows(LEASE_ALERTS, {"now": now, "until": now + lease, "most": most})

    async def alert_told(self, event_id: int, now: datetime) -> None:
        """It went out."""
        await self._rows(SETTLE_ALERT, {"event_id": event_id, "due_at": None, "told_at": now})

    async def alert_failed(self, event_id: int, again: datetime | None) -> None:
        """It did not; when it is tried again, or None: no more."""
        await self._rows(SETTLE_ALERT, {"event_id": event_id, "due_at": again, "told_at": None})

    async def alerts_unwanted(self, now: datetime) -> None:
        """Nobody wants those that are due."""
        await self._rows(UNWANTED, {"now": now})

    async def events(self, page_id: str, most: int) -> list[Row]:
        """A Page's last changes, the newest first."""
        return await self._rows(EVENTS, {"page_id": page_id, "most": most})

    async def forget(self, before: datetime) -> int:
        """Drop changes that are older, as far as nothing depends on them; how many."""
        return int((await self._rows(FORGET, {"before": before}))[0]["events"])

    async def overview(self, page_ids: Sequence[str] | None, now: datetime) -> list[Row]:
        """All about these Pages, by default all, the parked ones first."""
        asked = {"page_ids": None if page_ids is None else list(page_ids), "now": now}
        return await self._rows(OVERVIEW, asked)
