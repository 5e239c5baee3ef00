"""Backfills, their slices, and the leads that a listing brought -> rows.

It decides nothing (slices.py and backfill.py do). Invariants: what a result page brought, the slice's progress and what
a reconciliation found are one statement, so a crash leaves all of it or nothing; only the holder of a slice's lease
changes it; a backfill is over once none of its slices waits, and only one that lacks nothing moves a watermark.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from psycopg_pool import AsyncConnectionPool

from worker.batches import InFlight
from worker.errors import StoreUnavailable
from worker.outcomes import DeadLetter, Stored
from worker.plans import Plan, utc
from worker.slices import Slice
from worker.store.lead_rows import LEAD_ROWS, json_of
from worker.store.leads import LeadStore, row_of
from worker.store.sql import INSERT_LEADS, OR_UPDATE_LEADS
from worker.store.statements import Row, RowsRefused, Statements

log = structlog.get_logger("store")

LEASES: Final = 20
"""A slice whose readers died, or hung beyond their lease, so many times in a row is given up."""

OPEN: Final = """
with begun as (
    insert into backfills (purpose, edge, object_id, page_id, asked_since, asked_until, since, until, expected_leads,
        requested_at)
    values (%(purpose)s, %(edge)s, %(object_id)s, %(page_id)s, %(asked_since)s, %(asked_until)s,
        to_timestamp(%(since)s), to_timestamp(%(until)s), %(expected)s, %(now)s)
    on conflict do nothing
    returning backfill_id
),
cut as (
    insert into slices (backfill_id, page_id, edge, object_id, since, until, due_at)
    select backfill_id, %(page_id)s, s.edge, s.object_id, s.since, s.until, %(now)s
    from begun cross join jsonb_to_recordset(%(slices)s::jsonb) as s (
        edge text, object_id text, since bigint, until bigint)
)
select backfill_id, true as is_new from begun
union all
select backfill_id, false from backfills
where state = 'running' and purpose = %(purpose)s and edge = %(edge)s and object_id = %(object_id)s
  and asked_since is not distinct from %(asked_since)s and asked_until is not distinct from %(asked_until)s
"""
"""Begin a backfill with its slices, unless the same is running: then that one's id."""

LEASE: Final = """
with recursive page (page_id, due_at) as (
    (select page_id, due_at from slices where due_at is not null order by page_id, due_at limit 1)
    union all
    select next.page_id, next.due_at from page cross join lateral (
        select s.page_id, s.due_at from slices s where s.due_at is not null and s.page_id > page.page_id
        order by s.page_id, s.due_at limit 1) as next
),
open_page as (
    select page.page_id, %(per_page)s - coalesce(w.walks, 0) as room, coalesce(w.walks, 0) as walks
    from page left join pages using (page_id)
        left join jsonb_to_recordset(%(walked)s::jsonb) as w (page_id text, walks integer) using (page_id)
    where page.due_at <= %(now)s and pages.parked_at is null and coalesce(w.walks, 0) < %(per_page)s
    -- What other Pages have comes after the first of each of these. Twice as many as are wanted: some may be leased by
    -- others at this moment.
    order by walks, page.due_at limit 2 * %(room)s
),
candidate as (
    select due.slice_id, due.due_at,
        open_page.walks + row_number() over (partition by open_page.page_id order by due.due_at, due.slice_id) as place
    from open_page cross join lateral (
        select s.slice_id, s.due_at from slices s join backfills b using (backfill_id)
        where s.page_id = open_page.page_id and s.due_at <= %(now)s and b.state = 'running'
        order by s.due_at, s.slice_id limit open_page.room) as due
    -- Pages in turns, those first of which fewer slices are being walked.
    order by place, due.due_at limit 2 * %(room)s
),
picked as (
    select s.slice_id from candidate join slices s using (slice_id)
    where s.due_at <= %(now)s
    order by candidate.place, candidate.due_at limit %(room)s for update of s skip locked
),
leased as (
    update slices s set due_at = %(now)s::timestamptz + %(lease)s::interval, turn = s.turn + 1, leases = s.leases + 1,
        readings = s.readings + 1, leads = 0, stored = 0,
        watermark = (select f.watermark from forms f where s.edge = 'form' and f.form_id = s.object_id)
    from picked where s.slice_id = picked.slice_id
    returning s.*
),
cleared as (
    delete from findings f using leased where f.slice_id = leased.slice_id
)
select l.slice_id, l.backfill_id, l.page_id, l.edge, l.object_id, l.since, l.until, l.turn, l.attempts,
    l.failed_for, l.watermark, b.purpose
from leased l join backfills b using (backfill_id)
order by l.slice_id
"""
"""Lease slices that are due, Pages in turns and none of a parked one; what an earlier reading of them had found is
forgotten. Only what is leased is locked: a lock is a write, and many Pages have many slices."""

WRITE: Final = f"""
with r as materialized (select * from {LEAD_ROWS}),
prior as (
    select l.leadgen_id, l.state, l.in_part from leadgen l where l.leadgen_id = any(array(select leadgen_id from r))
),
written as (
    {INSERT_LEADS} r left join prior p using (leadgen_id)
    where p.leadgen_id is null or (p.state <> 'erased' and (p.state <> 'stored' or (p.in_part and not r.in_part)))
    order by r.leadgen_id
    {OR_UPDATE_LEADS}
    returning l.leadgen_id, l.state
),
repairs as (
    insert into repaired (leadgen_id, page_id, form_id, created_time, was, backfill_id, repaired_at)
    select r.leadgen_id, r.page_id, r.form_id, r.created_time, coalesce(p.state, 'missing'), %(backfill_id)s, %(now)s
    from written w join r using (leadgen_id) left join prior p using (leadgen_id)
    where %(purpose)s <> 'backfill' and w.state = 'stored' and r.created_time is not null and r.form_id is not null
      and coalesce(p.state, 'missing') <> 'stored'
    order by r.leadgen_id
    on conflict (leadgen_id) do nothing
),
held as (
    update slices s set leads = s.leads + %(listed)s, calls = s.calls + %(calls)s, attempts = 0, reason = null,
        failed_for = null, stored = s.stored + (select count(*) from written w left join prior p using (leadgen_id)
                             where w.state = 'stored' and p.state is distinct from 'stored'),
        due_at = %(now)s::timestamptz + %(lease)s::interval
    where s.slice_id = %(slice_id)s and s.turn = %(turn)s and s.state = 'waiting'
    returning s.slice_id
),
found as (
    insert into findings as f (slice_id, form_id, day, listed, fresh, unexplained)
    select held.slice_id, r.form_id, (r.created_time at time zone 'UTC')::date,
        count(*), count(*) filter (where r.created_time >= coalesce(%(watermark)s::timestamptz, '-infinity')),
        count(*) filter (where r.state <> 'stored' and coalesce(p.state, 'missing') not in ('stored', 'erased'))
    from r cross join held left join prior p using (leadgen_id)
    where %(purpose)s <> 'backfill' and r.created_time is not null and r.form_id is not null
    group by 1, 2, 3
    on conflict (slice_id, form_id, day) do update set listed = f.listed + excluded.listed,
        fresh = f.fresh + excluded.fresh, unexplained = f.unexplained + excluded.unexplained
)
select slice_id from held
where not exists (select from pages p where p.page_id = %(page_id)s and p.parked_at is not null)
"""
"""One result page of a slice: leads that were not stored, or in part only, become rows; the others are left alone.

All parts see the rows as they were before. A lead that was erased is known: Meta lists it and it is not missing.
Nothing comes back where the slice is no longer ours, or its Page was parked meanwhile, yet the leads are stored: they
are paid for."""

WRITE_PLAN: Final = """
select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true)
"""
"""How WRITE is planned: once a connection, since that takes as long as writing a hundred leads, and so that it finds
its rows by the index: a plan from when the table was small is kept, and would read all of a large one each time."""

RESTART: Final = """
with held as (
    update slices set leads = 0, stored = 0, calls = calls + %(calls)s, readings = readings + 1,
        due_at = %(now)s::timestamptz + %(lease)s::interval
    where slice_id = %(slice_id)s and turn = %(turn)s and state = 'waiting'
    returning slice_id
)
delete from findings f using held where f.slice_id = held.slice_id
"""
"""A walk begins anew within its lease; what it had found so far is forgotten."""

KEEP: Final = """
update slices set due_at = %(now)s::timestamptz + %(lease)s::interval
from unnest(%(ids)s::bigint[], %(turns)s::bigint[]) as held (id, held_turn)
where slice_id = held.id and turn = held.held_turn and state = 'waiting'
"""
"""These slices are still being read."""

FINISH: Final = """
update slices set state = 'done', due_at = null, finished_at = %(now)s, leases = 0
where slice_id = %(slice_id)s and turn = %(turn)s and state = 'waiting'
returning slice_id
"""
"""The walk through a slice came to its end."""

FAIL: Final = """
update slices set state = 'failed', due_at = null, finished_at = %(now)s, reason = %(reason)s,
    attempts = attempts + 1, calls = calls + %(calls)s
where slice_id = %(slice_id)s and turn = %(turn)s and state = 'waiting'
"""
"""A slice that cannot be read: its backfill goes on without it and says so."""

DIVIDE: Final = """
with running as (
    select b.backfill_id from backfills b join slices s using (backfill_id)
    where s.slice_id = %(slice_id)s and b.state = 'running' for share of b
),
divided as (
    update slices s set state = 'divided', due_at = null, finished_at = %(now)s, calls = calls + %(calls)s, leads = 0
    from running
    where s.backfill_id = running.backfill_id and slice_id = %(slice_id)s and turn = %(turn)s and state = 'waiting'
    returning s.*
),
cleared as (
    delete from findings f using divided d where f.slice_id = d.slice_id
)
insert into slices (backfill_id, page_id, edge, object_id, since, until, due_at)
select d.backfill_id, d.page_id, d.edge, d.object_id, part.since, part.until, %(now)s
from divided d cross join unnest(%(sinces)s::bigint[], %(untils)s::bigint[]) as part (since, until)
"""
"""A slice gives way to its parts, which are read from their beginnings."""

PUT_OFF: Final = """
update slices set due_at = %(until)s, reason = %(reason)s, attempts = %(attempts)s, failed_for = %(failed_for)s,
    calls = calls + %(calls)s, leases = 0
where slice_id = %(slice_id)s and turn = %(turn)s and state = 'waiting'
"""
"""A slice is begun again later."""

GIVE_UP: Final = """
update slices set state = 'failed', due_at = null, finished_at = %(now)s, reason = 'crashed'
where due_at <= %(now)s and leases >= %(most)s
"""
"""Slices that nobody survived, or finished within a lease, so many times in a row."""

PUT_OFF_PAGE: Final = """
update slices set due_at = %(until)s, reason = %(reason)s
where page_id = %(page_id)s and due_at <= %(now)s and state = 'waiting'
"""
"""The other slices of a Page wait as long as the one that was refused."""

CLOSE: Final = """
with over as materialized (
    select b.* from backfills b
    where b.state = 'running' and (%(ids)s::bigint[] is null or b.backfill_id = any(%(ids)s))
      and not exists (select from slices s where s.backfill_id = b.backfill_id and s.state = 'waiting')
    order by b.backfill_id limit 1 for update skip locked
),
summed as materialized (
    select min(s.reason) filter (where s.state = 'failed') as failure,
        count(*) filter (where s.state = 'failed') as failed
    from over o join slices s using (backfill_id)
),
-- A quick run counts what is new since the watermark at which it began. Where another run moved that meanwhile, it has
-- counted it too.
sound as materialized (
    select coalesce(bool_and(s.watermark is not distinct from f.watermark), true) as is_so
    from over o join slices s using (backfill_id) left join forms f on f.form_id = s.object_id
    where s.edge = 'form' and s.state = 'done'
),
closed as (
    update backfills b set state = case when u.failed > 0 then 'failed' else 'done' end, reason = u.failure,
        finished_at = %(now)s
    from over o, summed u where b.backfill_id = o.backfill_id
),
moved as (
    update forms f set
        watermark = case
            when u.failed > 0 or o.asked_until is not null or o.purpose = 'reconcile' and not sound.is_so
                then f.watermark
            when o.purpose = 'backfill' and o.asked_since is null then coalesce(f.watermark, o.until)
            when o.purpose <> 'backfill' and (o.asked_since is null or f.watermark >= o.since)
                then greatest(f.watermark, o.until)
            else f.watermark end,
        reconcile_at = case when u.failed = 0 and f.watermark is null then %(now)s else f.reconcile_at end,
        read_from = case
            when u.failed > 0 or o.purpose <> 'backfill' or f.read_from is null or o.asked_until is not null
                then f.read_from
            when o.asked_since is not null then least(f.read_from, o.since) end,
        deep_at = case when o.purpose = 'deep' and o.asked_since is null then %(now)s else f.deep_at end
    from over o, summed u, sound
    where f.form_id in (select s.object_id from slices s where s.backfill_id = o.backfill_id and s.edge = 'form')
),
days as (
    select f.form_id, f.day, sum(f.listed)::integer as listed, sum(f.fresh)::integer as fresh,
        sum(f.unexplained)::integer as unexplained
    from over o join slices s using (backfill_id) join findings f using (slice_id)
    group by 1, 2
),
counted as (
    select d.form_id, d.day, o.page_id, rep.latest, rep.repaired,
        case when o.purpose <> 'deep' then coalesce(c.metas, 0)
                 + case when sound.is_so then rep.lately else 0 end
                 + case when sound.is_so and u.failed = 0 then d.fresh else 0 end
             -- Days that were seen in part: they go on growing (a quick run may have looked further by now), or lie
             -- at the edge of what was asked for or is kept.
             when d.day >= (o.until at time zone 'UTC')::date - 1 or d.day <= (o.since at time zone 'UTC')::date
                 or d.day <= (o.until at time zone 'UTC')::date - 89 then greatest(c.metas, d.listed)
             else d.listed end as metas,
        case when o.purpose = 'deep' then d.unexplained else greatest(c.unexplained, d.unexplained) end as unexplained
    from over o cross join summed u cross join sound cross join days d
        left join forms f on f.form_id = d.form_id
        left join reconciliations c on c.form_id = d.form_id and c.day = d.day
        cross join lateral (
            select count(*)::integer as repaired, max(repaired_at - created_time) as latest,
                count(*) filter (where x.backfill_id = o.backfill_id and created_time < f.watermark)::integer as lately
            from repaired x
            where x.form_id = d.form_id and x.created_time >= d.day::timestamp at time zone 'UTC'
              and x.created_time < (d.day + 1)::timestamp at time zone 'UTC') as rep
),
reported as (
    insert into reconciliations (form_id, day, page_id, metas, ours, missing, repaired, unexplained, latest,
        checked_at)
    select form_id, day, page_id, metas, metas - unexplained, repaired + unexplained, repaired, unexplained, latest,
        %(now)s
    from counted order by form_id, day
    on conflict (form_id, day) do update set metas = excluded.metas, ours = excluded.ours, missing = excluded.missing,
        repaired = excluded.repaired, unexplained = excluded.unexplained, latest = excluded.latest,
        checked_at = excluded.checked_at
),
cleared as (
    delete from findings f using over o join slices s using (backfill_id) where f.slice_id = s.slice_id
)
select o.backfill_id, o.purpose, o.edge, o.object_id, o.page_id, u.failed, u.failure from over o, summed u
"""
"""End one backfill, of these or of all, of which no slice waits: say how, move watermarks, and add what was found to the
reconciliations.

A quick run adds what is new since the watermark and what came late; a deep one has seen whole days."""

CANCEL: Final = """
with chosen as (
    update backfills set state = 'cancelled', finished_at = %(now)s
    where state = 'running' and backfill_id = any(%(ids)s)
    returning backfill_id
),
stopped as (
    update slices s set state = 'cancelled', due_at = null, finished_at = %(now)s
    from chosen where s.backfill_id = chosen.backfill_id and s.state = 'waiting'
)
select backfill_id from chosen
"""
"""Stop backfills; what they stored stays."""

PROGRESS: Final = """
select b.backfill_id, b.purpose, b.edge, b.object_id, b.page_id, b.state, b.reason, b.since, b.until, b.requested_at,
    b.finished_at, b.expected_leads, count(s.slice_id) filter (where s.state <> 'divided') as slices,
    count(*) filter (where s.state = 'done') as slices_done,
    count(*) filter (where s.state = 'failed') as slices_failed, coalesce(sum(s.calls), 0)::bigint as calls,
    coalesce(sum(s.leads), 0)::bigint as leads, coalesce(sum(s.stored), 0)::bigint as stored,
    min(s.due_at) filter (where s.state = 'waiting') as due_at,
    (array_agg(s.reason order by s.due_at) filter (where s.state = 'waiting' and s.reason is not null))[1] as waits_for
from backfills b left join slices s using (backfill_id)
where (%(ids)s::bigint[] is null or b.backfill_id = any(%(ids)s))
  and (%(purposes)s::text[] is null or b.purpose = any(%(purposes)s))
  and (not %(running)s or b.state = 'running')
group by b.backfill_id order by b.backfill_id desc limit %(most)s
"""
"""How far backfills are, the newest first."""

FORMS_DUE: Final = """
select f.form_id, f.page_id, f.status, f.created_time, f.found_at, f.watermark, f.read_from, f.deep_at,
    greatest(f.leads_count - f.expired_leads_count, 0) as leads, p.limit_calls,
    exists (select from leadgen l where l.page_id = f.page_id and l.form_id = f.form_id
        and l.created_time > %(now)s::timestamptz - %(active)s::interval) as is_active,
    (select count(*) from forms o where o.page_id = f.page_id and o.status = 'ACTIVE') as forms
from forms f left join pages p using (page_id)
where coalesce(f.reconcile_at <= %(due_by)s, true) and p.parked_at is null
  and (%(page_ids)s::text[] is null or f.page_id = any(%(page_ids)s))
order by f.reconcile_at nulls first, f.form_id limit %(most)s
"""
"""Forms that are due to be compared with Meta's listing, and what their turn depends on."""

DEEP_DUE: Final = """
select f.form_id, f.page_id, f.created_time, f.read_from, greatest(f.leads_count - f.expired_leads_count, 0) as leads
from forms f left join pages p using (page_id)
where f.watermark is not null and coalesce(f.deep_at < %(before)s, f.found_at < %(before)s, true)
  and p.parked_at is null
  and not exists (select from backfills b where b.purpose = 'deep' and b.state = 'running' and b.object_id = f.form_id)
order by f.deep_at nulls first, f.form_id limit %(most)s
"""
"""Forms whose last full comparison is too old."""

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

KNOW_PAGES: Final = """
insert into pages (page_id, updated_at) select page_id, %(now)s from unnest(%(page_ids)s::text[]) as p (page_id)
order by page_id on conflict do nothing
"""
"""There are these Pages, whether or not a webhook told of them."""

PAGE_OF: Final = """
select page_id from forms where %(edge)s = 'form' and form_id = %(object_id)s
union
select page_id from leadgen where %(edge)s = 'ad' and ad_id = %(object_id)s
   or %(edge)s = 'form' and form_id = %(object_id)s
limit 2
"""
"""The Pages to which a form or an ad belongs, as far as is known here."""

IS_DUE: Final = """
select exists (select from slices s left join pages p using (page_id)
    where s.due_at <= %(now)s and p.parked_at is null) as due
"""
"""Whether some slice could be read now."""

FORGET: Final = """
delete from backfills where finished_at < %(now)s::timestamptz
    - case when purpose = 'reconcile' then %(quick)s::interval else %(others)s::interval end
"""
"""Forget what is long over."""


@dataclass(frozen=True, slots=True)
class LeasedSlice:
    """A slice that this process may read until its lease ends. `watermark` is its form's, aware UTC."""

    slice_id: int
    backfill_id: int
    purpose: str
    page_id: str
    edge: str
    object_id: str
    span: Slice
    turn: int
    attempts: int = 0
    failed_for: str | None = None
    watermark: datetime | None = None


class BackfillStore:
    """The rows of backfills. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool, leads: LeadStore, *, lease_seconds: float) -> None:
        self._rows = Statements(pool).rows
        self._leads = leads
        self._lease = timedelta(seconds=lease_seconds)

    async def open(self, plan: Plan, now: datetime) -> tuple[int, bool]:
        """Begin it; its id, and whether it is new: the same backfill asked twice is one."""
        slices = [
            {"edge": edge, "object_id": object_id, "since": part.since, "until": part.until}
            for edge, object_id, part in plan.slices
        ]
        asked = {
            "purpose": plan.purpose,
            "edge": plan.edge,
            "object_id": plan.object_id,
            "page_id": plan.page_id,
            "asked_since": plan.asked_since,
            "asked_until": plan.asked_until,
            "since": plan.since,
            "until": plan.until,
            "expected": plan.expected_leads,
            "slices": json.dumps(slices),
            "now": now,
        }
        for _ in range(3):  # the same one may end between the two looks
            rows = await self._rows(OPEN, asked)
            if rows:
                return int(rows[0]["backfill_id"]), bool(rows[0]["is_new"])
        raise AssertionError("a backfill neither begins nor runs")

    async def lease(
        self, room: int, per_page: int, now: datetime, *, walked: Mapping[str, int]
    ) -> tuple[LeasedSlice, ...]:
        """At most `room` slices that are due; of a Page at most `per_page`, less those that are `walked` already."""
        asked = {
            "room": room,
            "per_page": per_page,
            "now": now,
            "lease": self._lease,
            "walked": json.dumps([{"page_id": page_id, "walks": n} for page_id, n in walked.items()]),
        }
        return tuple(
            LeasedSlice(
                slice_id=row["slice_id"],
                backfill_id=row["backfill_id"],
                purpose=row["purpose"],
                page_id=row["page_id"],
                edge=row["edge"],
                object_id=row["object_id"],
                span=Slice(row["since"], row["until"]),
                turn=row["turn"],
                attempts=row["attempts"],
                failed_for=row["failed_for"],
                watermark=row["watermark"],
            )
            for row in await self._rows(LEASE, asked)
        )

    async def park(self, page_id: str, reason: str, now: datetime) -> bool:
        """Hold a Page; false where it was held already."""
        return await self._leads.park(page_id, reason, now)

    async def write_leads(
        self,
        leased: LeasedSlice,
        leads: Sequence[tuple[InFlight, Stored | DeadLetter]],
        *,
        calls: int,
        now: datetime,
    ) -> bool:
        """Commit one result page, each leadgen_id once; whether the slice is still ours.

        A row that Postgres refuses becomes a dead letter without its content.
        """
        rows = [row_of(reference, outcome, now) for reference, outcome in leads]
        for row in rows:
            # What the listing brought in part is completed by the listing, not by a call a lead.
            row["due_at"] = None
        return await self._write_rows(leased, rows, calls, now)

    async def _write_rows(self, leased: LeasedSlice, rows: Sequence[Row], calls: int, now: datetime) -> bool:
        try:
            return await self._write(leased, rows, calls, now)
        except RowsRefused as refused:
            if len(rows) > 1:
                middle = len(rows) // 2
                first = await self._write_rows(leased, rows[:middle], calls, now)
                return await self._write_rows(leased, rows[middle:], 0, now) and first
            row = rows[0]
            log.error(
                "row_refused", leadgen_id=row["leadgen_id"], page_id=row["page_id"], sqlstate=refused.sqlstate
            )
            kept = ("leadgen_id", "page_id", "first_seen_at", "source")
            dead = {name: row[name] for name in kept} | {
                "form_id": leased.object_id if leased.edge == "form" else None,
                "created_time": row["created_time"] or utc(leased.span.since),
                "state": "dead",
                "reason": f"row_refused_{refused.sqlstate}",
                "attempts": 1,
                "is_test": False,
                "in_part": False,
                "cleaned": False,
            }
            try:
                return await self._write(leased, [dead], calls, now)
            except RowsRefused as again:
                raise StoreUnavailable(
                    f"Postgres refuses even the bare row of {row['leadgen_id']} (SQLSTATE {again.sqlstate});"
                    " look at the constraints and triggers on table leadgen"
                ) from None

    async def _write(self, leased: LeasedSlice, rows: Sequence[Row], calls: int, now: datetime) -> bool:
        told = {
            "rows": json_of(rows),
            "listed": len(rows),
            "calls": calls,
            "purpose": leased.purpose,
            "page_id": leased.page_id,
            "backfill_id": leased.backfill_id,
            "watermark": leased.watermark,
            **self._held(leased, now),
        }
        return bool(await self._rows(WRITE, told, under=WRITE_PLAN))

    def _held(self, leased: LeasedSlice, now: datetime) -> Row:
        return {"slice_id": leased.slice_id, "turn": leased.turn, "now": now, "lease": self._lease}

    async def restart(self, leased: LeasedSlice, *, calls: int, now: datetime) -> None:
        """Its walk begins anew."""
        await self._rows(RESTART, {**self._held(leased, now), "calls": calls})

    async def keep(self, held: Sequence[LeasedSlice], now: datetime) -> None:
        """These are still being read."""
        ids, turns = [s.slice_id for s in held], [s.turn for s in held]
        await self._rows(KEEP, {"ids": ids, "turns": turns, "now": now, "lease": self._lease})

    async def finish(self, leased: LeasedSlice, now: datetime) -> bool:
        """Its walk came to its end; false where the slice was no longer ours."""
        return bool(await self._rows(FINISH, self._held(leased, now)))

    async def fail(self, leased: LeasedSlice, reason: str, *, calls: int, now: datetime) -> None:
        """It cannot be read."""
        await self._rows(FAIL, {**self._held(leased, now), "reason": reason, "calls": calls})

    async def divide(self, leased: LeasedSlice, parts: Sequence[Slice], *, calls: int, now: datetime) -> None:
        """It gives way to its parts."""
        sinces, untils = [part.since for part in parts], [part.until for part in parts]
        await self._rows(
            DIVIDE, {**self._held(leased, now), "sinces": sinces, "untils": untils, "calls": calls}
        )

    async def put_off(
        self,
        leased: LeasedSlice,
        until: datetime,
        reason: str | None,
        *,
        attempts: int,
        failed_for: str | None,
        calls: int,
    ) -> None:
        """It is begun again, not before `until`; it has failed `attempts` times in a row, for `failed_for`."""
        told = {
            "slice_id": leased.slice_id,
            "turn": leased.turn,
            "until": until,
            "reason": reason,
            "attempts": attempts,
            "failed_for": failed_for,
            "calls": calls,
        }
        await self._rows(PUT_OFF, told)

    async def put_off_page(self, page_id: str, until: datetime, reason: str, now: datetime) -> None:
        """All slices of a Page that are due and nobody reads wait until then."""
        await self._rows(PUT_OFF_PAGE, {"page_id": page_id, "until": until, "reason": reason, "now": now})

    async def close(self, now: datetime, backfill_ids: Sequence[int] | None = None) -> list[Row]:
        """End those of these backfills, by default of all, that are over; what ended, with `failed` slices and their
        `failure`. By default slices that nobody survives are given up before.
        """
        if backfill_ids is None:
            await self._rows(GIVE_UP, {"now": now, "most": LEASES})
        ids = None if backfill_ids is None else list(backfill_ids)
        ended: list[Row] = []
        while closed := await self._rows(CLOSE, {"now": now, "ids": ids}):
            ended += closed
        return ended

    async def cancel(self, backfill_ids: Sequence[int], now: datetime) -> frozenset[int]:
        """Stop these; those that were running."""
        rows = await self._rows(CANCEL, {"ids": list(backfill_ids), "now": now})
        return frozenset(row["backfill_id"] for row in rows)

    async def progress(
        self,
        backfill_ids: Sequence[int] | None = None,
        *,
        purposes: Sequence[str] | None = None,
        running: bool = False,
        most: int = 100,
    ) -> list[Row]:
        """How far these (by default all) are, the newest first."""
        return await self._rows(
            PROGRESS,
            {
                "ids": None if backfill_ids is None else list(backfill_ids),
                "purposes": None if purposes is None else list(purposes),
                "running": running,
                "most": most,
            },
        )

    async def forms_due(
        self,
        now: datetime,
        *,
        due_by: datetime,
        active: timedelta,
        page_ids: Sequence[str] | None = None,
        most: int = 500,
    ) -> list[Row]:
        """Forms whose turn to be reconciled comes by `due_by`; `is_active` where a lead came within `active`."""
        asked = {
            "now": now,
            "due_by": due_by,
            "active": active,
            "page_ids": page_ids and list(page_ids),
            "most": most,
        }
        return await self._rows(FORMS_DUE, asked)

    async def deep_due(self, before: datetime, most: int = 200) -> list[Row]:
        """Forms that were last compared in full before a moment."""
        return await self._rows(DEEP_DUE, {"before": before, "most": most})

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

    async def know_pages(self, page_ids: Sequence[str], now: datetime) -> None:
        """There are these Pages."""
        await self._rows(KNOW_PAGES, {"page_ids": list(page_ids), "now": now})

    async def pages_of(self, edge: str, object_id: str) -> tuple[str, ...]:
        """The Pages to which a form or an ad belongs, as far as is known here; at most two."""
        rows = await self._rows(PAGE_OF, {"edge": edge, "object_id": object_id})
        return tuple(row["page_id"] for row in rows)

    async def is_due(self, now: datetime) -> bool:
        """Whether some slice could be read now."""
        return bool((await self._rows(IS_DUE, {"now": now}))[0]["due"])

    async def forget(self, now: datetime, *, quick: timedelta, others: timedelta) -> None:
        """Forget runs that ended so long ago, those of quick reconciliations sooner."""
        await self._rows(FORGET, {"now": now, "quick": quick, "others": others})
