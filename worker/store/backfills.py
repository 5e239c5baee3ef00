"""Backfills: begun with their slices, ended once none of these waits, shown, forgotten.

It decides nothing (plans.py and reconcile.py do) and reads no slice (slices.py). Invariants: the same backfill asked
twice is one; a backfill is over once none of its slices waits, and only one that lacks nothing moves a watermark.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.plans import Plan
from worker.store.statements import Row, Statements

LEASES: Final = 20
"""A slice whose readers died, or hung beyond their lease, so many times in a row is given up."""

SKEW: Final = timedelta(hours=1)
"""A watermark further ahead of now was put there by a clock that was wrong; machines may be a little apart."""

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

GIVE_UP: Final = """
update slices set state = 'failed', due_at = null, finished_at = %(now)s, reason = 'crashed'
where due_at <= %(now)s and leases >= %(most)s
"""
"""Slices that nobody survived, or finished within a lease, so many times in a row."""

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
                -- It was begun by a clock that was wrong.
                or o.until > %(now)s::timestamptz + %(skew)s::interval
                then f.watermark
            when o.purpose = 'backfill' and o.asked_since is null then coalesce(f.watermark, least(o.until, %(now)s))
            -- So was what moved it last, and nobody knows from where.
            when o.purpose <> 'backfill' and o.asked_since is null
                and f.watermark > %(now)s::timestamptz + %(skew)s::interval then o.until
            when o.purpose <> 'backfill' and (o.asked_since is null or f.watermark >= o.since)
                -- Begun by a clock that was a little ahead, it has not read what came since.
                then greatest(f.watermark, least(o.until, %(now)s))
            else f.watermark end,
        reconcile_at = case when u.failed = 0 and f.watermark is null then %(now)s else f.reconcile_at end,
        read_from = case
            when u.failed = 0 and o.purpose = 'reconcile' and f.read_from > %(now)s::timestamptz + %(skew)s::interval
                then o.since
            when u.failed > 0 or o.purpose <> 'backfill' or f.read_from is null or o.asked_until is not null
                then f.read_from
            when o.asked_since is not null then least(f.read_from, o.since) end,
        deep_at = case when o.purpose = 'deep' and o.asked_since is null then %(now)s
            -- What came while the watermark was wrong and nobody compared is found by a full comparison alone.
            when u.failed = 0 and o.purpose = 'reconcile' and f.watermark > %(now)s::timestamptz + %(skew)s::interval
                then null
            else f.deep_at end
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
"""End one backfill, of these or of all, of which no slice waits: say how, move watermarks, and add what was found to
the reconciliations.

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

FORGET: Final = """
delete from backfills where finished_at < %(now)s::timestamptz
    - case when purpose = 'reconcile' then %(quick)s::interval else %(others)s::interval end
"""
"""Forget what is long over."""


class BackfillStore:
    """The rows of backfills. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

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

    async def close(self, now: datetime, backfill_ids: Sequence[int] | None = None) -> list[Row]:
        """End those of these backfills, by default of all, that are over; what ended, with `failed` slices and their
        `failure`. By default slices that nobody survives are given up before.
        """
        if backfill_ids is None:
            await self._rows(GIVE_UP, {"now": now, "most": LEASES})
        ids = None if backfill_ids is None else list(backfill_ids)
        ended: list[Row] = []
        while closed := await self._rows(CLOSE, {"now": now, "ids": ids, "skew": SKEW}):
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

    async def know_pages(self, page_ids: Sequence[str], now: datetime) -> None:
        """There are these Pages."""
        await self._rows(KNOW_PAGES, {"page_ids": list(page_ids), "now": now})

    async def pages_of(self, edge: str, object_id: str) -> tuple[str, ...]:
        """The Pages to which a form or an ad belongs, as far as is known here; at most two."""
        rows = await self._rows(PAGE_OF, {"edge": edge, "object_id": object_id})
        return tuple(row["page_id"] for row in rows)

    async def forget(self, now: datetime, *, quick: timedelta, others: timedelta) -> None:
        """Forget runs that ended so long ago, those of quick reconciliations sooner."""
        await self._rows(FORGET, {"now": now, "quick": quick, "others": others})
