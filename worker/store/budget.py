"""The budget's long memory: calls reserved before they are spent, and what a Page's limit follows from.

Blocks are only ever added, so no two workers meet on a row. It works out no limit (policy.py does) and grants nothing.
Invariant: the sum of a Page's blocks is never less than the calls that were made for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.budget.policy import COUNTED_LEADS, FORMS_COUNTED_FOR, LEADS_OF, Lane, Limit, Spent
from worker.store.statements import Row, Statements

RESERVE: Final = """
with former as (
    update budget_blocks set calls = greatest(0, calls - %(unspent)s::integer) where block_id = %(instead_of)s::bigint
)
insert into budget_blocks (page_id, lane, calls, machine, steady)
values (%(page_id)s, %(lane)s, %(calls)s, %(machine)s, %(steady)s)
returning block_id
"""
"""Calls that may be made from now on; those of the caller's former block that were not made, will not be."""

GIVE_BACK: Final = """
with unused as (
    delete from budget_blocks where block_id = %(block_id)s and calls <= %(unspent)s
)
update budget_blocks set calls = calls - %(unspent)s where block_id = %(block_id)s and calls > %(unspent)s
"""
"""Calls of a block that were not made and will not be; a block of which none was made is no more."""

SPENT: Final = """
with block as (
    select lane, calls - coalesce((%(unspent)s::jsonb ->> block_id::text)::integer, 0) as calls,
        greatest(0, least(
            extract(epoch from clock_timestamp() - reserved_at)::double precision,
            case when machine = %(machine)s and steady <= %(now)s then %(now)s - steady end) - %(life)s) as age
    from budget_blocks where page_id = %(page_id)s
)
select lane, sum(calls)::bigint as calls, min(age) as age
from block where calls > 0 and age < %(window)s
group by lane, floor(age / %(bucket)s)
"""
"""What a Page may have spent, as if at the last moment at which it could: by lane and bucket.

Of two ages the smaller holds: the database's clock may have jumped, a machine's steady one cannot.
"""

FORGET_BLOCKS: Final = """
with old as (
    delete from budget_blocks
    where reserved_at < clock_timestamp() - %(older)s::interval
      and not (machine = %(machine)s and steady > %(steady)s)
    returning 1
)
select count(*) as blocks from old
"""
"""Drop blocks whose calls have long left every window."""

LIMIT_FACTS: Final = """
select
    (select count(*) from (
        select from leadgen
        where page_id = %(page_id)s and state = 'stored' and not is_test
          and created_time > %(now)s::timestamptz - %(leads_of)s::interval
          and created_time < %(now)s::timestamptz + interval '1 day'
        limit %(most)s) as counted) as ours,
    (select coalesce(sum(greatest(leads_count - coalesce(expired_leads_count, 0), 0)), 0)::bigint from forms
        where page_id = %(page_id)s and counted_at > %(now)s::timestamptz - %(counted_for)s::interval) as metas,
    (select limit_override from pages where page_id = %(page_id)s) as override
"""
"""What the limit of a Page follows from."""

KEEP_LIMIT: Final = """
insert into pages as p (page_id, limit_calls, limit_told, limit_origin, limit_at, updated_at)
values (%(page_id)s, %(calls)s, %(told)s, %(origin)s, %(now)s, %(now)s)
on conflict (page_id) do update set limit_calls = excluded.limit_calls, limit_told = excluded.limit_told,
    limit_origin = excluded.limit_origin, limit_at = excluded.limit_at,
    held_until = case when excluded.limit_calls > p.limit_calls and p.held_reason = 'budget' then null
                 else p.held_until end
"""
"""Note a Page's limit; what waits for a larger one is let go."""

OVERRIDE: Final = """
insert into pages as p (page_id, limit_override, updated_at) values (%(page_id)s, %(calls)s, %(now)s)
on conflict (page_id) do update set limit_override = excluded.limit_override, updated_at = excluded.updated_at
"""
"""The operator's own limit for a Page, or none."""

STALE_LIMITS: Final = """
select page_id from pages
where coalesce(limit_at < greatest(%(before)s::timestamptz, forms_listed_at), true)
order by limit_at nulls first limit %(most)s
"""
"""Pages whose limit is old, or older than Meta's counts."""

FORM_COUNTS: Final = """
select greatest(leads_count - coalesce(expired_leads_count, 0), 0) as leads from forms
where page_id = %(page_id)s and leads_count is not null
  and counted_at > %(now)s::timestamptz - %(counted_for)s::interval
"""
"""Leads that Meta still holds of each form of a Page."""

BUDGETED: Final = """
select p.page_id, limit_calls, limit_told, limit_origin, limit_at, limit_override, parked_reason,
    case when held_until > %(now)s then held_until end as held_until,
    case when held_until > %(now)s then held_reason end as held_reason, coalesce(w.waiting, 0) as waiting, w.oldest,
    w.due_at
from pages p left join lateral (
    select count(*) as waiting, min(first_seen_at) as oldest, min(due_at) as due_at
    from leadgen l where l.page_id = p.page_id and l.due_at is not null and l.state = 'waiting') as w on true
where %(page_id)s::text is null or p.page_id = %(page_id)s
order by w.waiting desc nulls last, p.page_id
limit %(most)s
"""
"""Pages with their limits and what waits for them, the longest queue first."""


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """Leads of LEADS_OF in our rows, Meta's own count from its forms, and the operator's order."""

    ours: int
    metas: int
    override: int | None


class BudgetStore:
    """The budget's rows. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def reserve(
        self, page_id: str, lane: Lane, calls: int, *, machine: str, steady: float,
        instead_of: tuple[int, int] | None = None,
    ) -> int:  # fmt: skip
        """Note calls that may be made from now on; the block's id. `steady`: the machine's steady clock, seconds.

        `instead_of`: the caller's former block and its calls that it gives up.
        """
        former, unspent = instead_of or (None, 0)
        block = {
            "page_id": page_id,
            "lane": lane.value,
            "calls": calls,
            "machine": machine,
            "steady": steady,
            "instead_of": former,
            "unspent": unspent,
        }
        return int((await self._rows(RESERVE, block))[0]["block_id"])

    async def give_back(self, block_id: int, unspent: int) -> None:
        """So many calls of the caller's block were not made and will not be."""
        await self._rows(GIVE_BACK, {"block_id": block_id, "unspent": unspent})

    async def spent(
        self, page_id: str, unspent: Mapping[int, int], *, machine: str, steady: float, window: float,
        life: float, bucket: float,
    ) -> tuple[Spent, ...]:  # fmt: skip
        """What may have been spent in the last `window` seconds; of the caller's blocks `unspent` calls were not."""
        rows = await self._rows(
            SPENT,
            {
                "page_id": page_id,
                "unspent": _object(unspent),
                "machine": machine,
                "now": steady,
                "window": window,
                "life": life,
                "bucket": bucket,
            },
        )
        return tuple(Spent(float(row["age"]), Lane(row["lane"]), int(row["calls"])) for row in rows)

    async def forget_blocks(self, older: float, *, machine: str, steady: float) -> int:
        """Drop blocks older than so many seconds, by both clocks."""
        told = {"older": timedelta(seconds=older), "machine": machine, "steady": steady - older}
        return int((await self._rows(FORGET_BLOCKS, told))[0]["blocks"])

    async def limit_facts(self, page_id: str, now: datetime) -> LimitFacts:
        """What the Page's limit follows from."""
        asked = {
            "page_id": page_id,
            "now": now,
            "leads_of": LEADS_OF,
            "most": COUNTED_LEADS,
            "counted_for": FORMS_COUNTED_FOR,
        }
        row = (await self._rows(LIMIT_FACTS, asked))[0]
        return LimitFacts(row["ours"], row["metas"], row["override"])

    async def keep_limit(self, page_id: str, limit: Limit, now: datetime) -> None:
        """Note the limit now in force."""
        await self._rows(
            KEEP_LIMIT,
            {
                "page_id": page_id,
                "calls": limit.calls,
                "told": limit.told,
                "origin": limit.origin,
                "now": now,
            },
        )

    async def override(self, page_id: str, calls: int | None, now: datetime) -> None:
        """Set or (None) lift the operator's own limit."""
        await self._rows(OVERRIDE, {"page_id": page_id, "calls": calls, "now": now})

    async def stale_limits(self, *, before: datetime, most: int) -> tuple[str, ...]:
        """Pages whose limit was worked out before a moment, or before Meta's counts came; the oldest first."""
        asked = {"before": before, "most": most}
        return tuple(row["page_id"] for row in await self._rows(STALE_LIMITS, asked))

    async def form_counts(self, page_id: str, now: datetime) -> list[int]:
        """Leads that Meta holds of each form of a Page, where it was asked lately."""
        asked = {"page_id": page_id, "now": now, "counted_for": FORMS_COUNTED_FOR}
        return [int(row["leads"]) for row in await self._rows(FORM_COUNTS, asked)]

    async def budgeted(self, page_id: str | None, now: datetime, most: int = 1_000) -> list[Row]:
        """Pages with their limits and what waits for them, the longest queue first."""
        return await self._rows(BUDGETED, {"page_id": page_id, "now": now, "most": most})


def _object(unspent: Mapping[int, int]) -> str:
    return json.dumps({str(block): calls for block, calls in unspent.items()})
