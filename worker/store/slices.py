"""Slices of the past, and what their walks brought -> rows: leased, written, ended.

It decides nothing (worker/slices.py and walking.py do), and begins and ends no backfill (backfills.py). Invariants:
what a result page brought, the slice's progress and what a reconciliation found are one statement, so a crash leaves
all of it or nothing; only the holder of a slice's lease changes it.
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
from worker.plans import utc
from worker.slices import Slice
from worker.store.lead_rows import LEAD_ROWS, json_of
from worker.store.leads import LeadStore, row_of
from worker.store.sql import INSERT_LEADS, OR_UPDATE_LEADS
from worker.store.statements import Row, RowsRefused, Statements

log = structlog.get_logger("store")

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

PUT_OFF_PAGE: Final = """
update slices set due_at = %(until)s, reason = %(reason)s
where page_id = %(page_id)s and due_at <= %(now)s and state = 'waiting'
"""
"""The other slices of a Page wait as long as the one that was refused."""


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


class SliceStore:
    """The rows of slices. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool, leads: LeadStore, *, lease_seconds: float) -> None:
        self._rows = Statements(pool).rows
        self._leads = leads
        self._lease = timedelta(seconds=lease_seconds)

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

    async def keep(self, held: Sequence[LeasedSlice], now: datetime) -> None:
        """These are still being read."""
        ids, turns = [s.slice_id for s in held], [s.turn for s in held]
        await self._rows(KEEP, {"ids": ids, "turns": turns, "now": now, "lease": self._lease})

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
