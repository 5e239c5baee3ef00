"""Every SQL statement of the worker, named, with a sentence. It runs none of them.

Invariant: rows are locked in the order of leadgen_id or with `skip locked`, so that no two statements deadlock; a
state only moves forward; a verdict changes a waiting row only in the turn in which it was leased.
"""

from typing import Final

from worker.health import BY_HAND, DISCONNECTED
from worker.store.lead_rows import LEAD_ROWS, TOLD_BY_FILES

_LEAD_COLUMNS: Final = (*TOLD_BY_FILES, "partner_name", "retailer_item_id")
_JSON_COLUMNS: Final = ("field_data", "custom_disclaimer_responses", "extra")


def _kept(column: str) -> str:
    """New beats old, null beats nothing; where the old was read in full and the new only in part, old beats new.

    In `extra` that goes for each of its values: an export's and a reading's are others.
    """
    if column == "extra":
        return (
            "extra = case when excluded.extra is null or l.extra is null then coalesce(excluded.extra, l.extra)"
            " when l.state = 'stored' and not l.in_part and excluded.in_part then excluded.extra || l.extra"
            " else l.extra || excluded.extra end"
        )
    new = f"nullif(excluded.{column}, '[]'::jsonb)" if column == "field_data" else f"excluded.{column}"
    return (
        f"{column} = case when l.state = 'stored' and not l.in_part and excluded.in_part"
        f" then coalesce(l.{column}, excluded.{column}) else coalesce({new}, l.{column}, excluded.{column}) end"
    )


_SET_LEAD: Final = ",\n    ".join(_kept(column) for column in (*_LEAD_COLUMNS, *_JSON_COLUMNS))
_NAMES: Final = ", ".join((*_LEAD_COLUMNS, *_JSON_COLUMNS))

SECOND: Final = "floor(extract(epoch from %(now)s::timestamptz))::bigint"
"""The moment of a statement as an entry of a trail begins (worker/trail.py)."""

# What is leased is read by its id, and what a webhook announces too: all else is a listing's.
_TRAIL: Final = f"""trail = case
        when excluded.trail is not null then leadsync_trail(l.trail, excluded.trail[1])
        when l.state <> 'stored' and excluded.turn < 0 and excluded.source <> 'webhook'
            then leadsync_trail(l.trail, {SECOND} || ' stored ' || excluded.source)
        when l.state = 'stored' and l.in_part and not excluded.in_part
            then leadsync_trail(l.trail, {SECOND} || ' completed '
                || case when excluded.turn < 0 and excluded.source <> 'webhook' then excluded.source else 'reading' end)
        else l.trail end"""

INSERT_LEADS: Final = f"""insert into leadgen as l (
    leadgen_id, state, reason, attempts, failed_for, due_at, turn, first_seen_at, last_seen_at, page_id, {_NAMES},
    is_test, in_part, cleaned, source, received_at, announced, taken_ms, read_ms, trail, stored_at, updated_at)
select r.leadgen_id, r.state, r.reason, r.attempts, r.failed_for, r.due_at, coalesce(r.turn, -1), r.first_seen_at,
    r.first_seen_at, r.page_id, {", ".join(f"r.{column}" for column in (*_LEAD_COLUMNS, *_JSON_COLUMNS))},
    r.is_test, r.in_part, r.cleaned, r.source, r.received_at, coalesce(r.announced, 0), r.taken_ms, r.read_ms,
    case when r.trail is not null then array[r.trail] end,
    case when r.state = 'stored' then %(now)s::timestamptz end, %(now)s
from"""

OR_UPDATE_LEADS: Final = f"""on conflict (leadgen_id) do update set
    state = case when l.state = 'stored' then 'stored' else excluded.state end,
    reason = excluded.reason,
    attempts = excluded.attempts,
    failed_for = excluded.failed_for,
    due_at = case when excluded.state = 'stored' and l.state = 'stored' and not l.in_part then null
             else excluded.due_at end,
    turn = l.turn + 1,
    leases = 0,
    {_SET_LEAD},
    is_test = l.is_test or excluded.is_test,
    in_part = case when l.state = 'stored' then l.in_part and (excluded.in_part or excluded.state <> 'stored')
              else excluded.in_part end,
    cleaned = l.cleaned or excluded.cleaned,
    received_at = coalesce(l.received_at, excluded.received_at),
    announced = greatest(l.announced, excluded.announced),
    taken_ms = coalesce(l.taken_ms, excluded.taken_ms),
    read_ms = coalesce(l.read_ms, excluded.read_ms),
    {_TRAIL},
    stored_at = coalesce(l.stored_at, excluded.stored_at),
    updated_at = excluded.updated_at
where l.state <> 'erased'
  and (excluded.state = 'stored'
       or (excluded.turn >= 0 and l.turn = excluded.turn and (l.state = 'waiting' or l.in_part)))"""
"""A lead beats every other state but erased. Any other verdict changes the row that its holder leased, in the same
turn; on a stored row that was read in part it only moves its next reading."""

SETTLE: Final = f"""
{INSERT_LEADS} {LEAD_ROWS}
order by leadgen_id
{OR_UPDATE_LEADS}
"""
"""What became of a batch of references, in one statement; `rows` has one a leadgen_id.

A lead beats every other state. Any other verdict starts a row where there is none, or changes the row that its
holder leased, in the same turn. A verdict on a stored row that was read in part only moves its next reading.
"""

KNOWN: Final = """
select leadgen_id, state, in_part from leadgen where leadgen_id = any(%(ids)s)
"""
"""Which of these ids have a row already, and in which state."""

KNOWN_OR_PARKED: Final = """
select leadgen_id as id, state, in_part from leadgen where leadgen_id = any(%(ids)s)
union all
select page_id, null, false from pages where parked_at is not null and page_id = any(%(page_ids)s)
"""
"""Of these leads those that have a row already, as KNOWN has them; and, without a state, these Pages that are parked.

All that is asked of Postgres before a lead is read: one that comes alone waits for one answer.
"""

SEEN_AGAIN: Final = """
update leadgen l set last_seen_at = %(now)s, announced = l.announced + again.times
from (select leadgen_id, told.times
      from leadgen join (select id, count(*)::integer as times from unnest(%(ids)s::text[]) as each (id) group by id)
          as told on leadgen_id = told.id
      order by leadgen_id for update of leadgen) as again
where l.leadgen_id = again.leadgen_id
"""
"""These known references were announced once more, each as often as it is named."""

_LEASED: Final = """
update leadgen l
set due_at = %(now)s::timestamptz + %(lease)s::interval, turn = turn + 1, leases = leases + 1
from picked where l.leadgen_id = picked.leadgen_id
returning l.leadgen_id, l.page_id, l.form_id, l.ad_id, l.attempts, l.turn, l.leases, l.first_seen_at, l.received_at,
    l.source, l.failed_for, l.in_part, l.created_time, picked.due_at as was_due_at
"""

LEASE_DUE: Final = f"""
with recursive page (page_id, due_at) as (
    (select page_id, due_at from leadgen where due_at is not null order by page_id, due_at limit 1)
    union all
    select next.page_id, next.due_at from page cross join lateral (
        select l.page_id, l.due_at from leadgen l where l.due_at is not null and l.page_id > page.page_id
        order by l.page_id, l.due_at limit 1) as next
),
open_page as (
    select page.page_id from page left join pages using (page_id)
    where page.due_at <= %(now)s and pages.parked_at is null
      and (pages.held_until is null or pages.held_until <= %(now)s)
    -- What other Pages have comes after the first row of each of these. Twice as many as are wanted: some may be leased
    -- by others at this moment.
    order by page.due_at limit 2 * %(room)s
),
share as (
    select greatest(1, least(%(per_page)s, ceil(2.0 * %(room)s / greatest(1, count(*)))))::integer as rows
    from open_page
),
candidate as (
    select due.leadgen_id, due.due_at,
        row_number() over (partition by open_page.page_id order by due.due_at, due.first_seen_at) as place
    from open_page cross join lateral (
        select leadgen_id, due_at, first_seen_at from leadgen
        where page_id = open_page.page_id and due_at <= %(now)s
        order by due_at, first_seen_at limit (select rows from share)) as due
    -- In turns, so that one Page's old backlog does not go before another's first row.
    order by place, due.due_at limit 2 * %(room)s
),
picked as (
    select l.leadgen_id, l.due_at from candidate join leadgen l using (leadgen_id)
    where l.due_at <= %(now)s
    order by candidate.place, candidate.due_at limit %(room)s for update of l skip locked
)
{_LEASED}
"""
"""Lease what is due, the oldest first, at most `per_page` rows of a Page, `room` in all, and nothing of a Page that is
parked or that the budget holds.

The recursion walks the index from Page to Page, so that a Page with a million due rows hides no other. Only what is
leased is locked: a lock is a write, and many Pages have many rows.
"""

NEXT_DUE: Final = """
with recursive page (page_id, due_at) as (
    (select page_id, due_at from leadgen where due_at is not null order by page_id, due_at limit 1)
    union all
    select next.page_id, next.due_at from page cross join lateral (
        select l.page_id, l.due_at from leadgen l where l.due_at is not null and l.page_id > page.page_id
        order by l.page_id, l.due_at limit 1) as next
)
select min(greatest(page.due_at, pages.held_until)) as at
from page left join pages using (page_id) where pages.parked_at is null
"""
"""When the next row is due whose Page is neither parked nor held."""

HOLD: Final = """
insert into pages as p (page_id, held_until, held_reason, updated_at)
select page_id, until, reason, %(now)s
from unnest(%(page_ids)s::text[], %(untils)s::timestamptz[], %(reasons)s::text[]) as held (page_id, until, reason)
order by page_id
on conflict (page_id) do update set held_reason = excluded.held_reason,
    held_until = case when excluded.held_reason = 'budget' and p.limit_at > %(now)s - %(doubt)s::interval
        then least(excluded.held_until, %(now)s + %(doubt)s::interval) else excluded.held_until end
where p.held_until is distinct from excluded.held_until
"""
"""The budget refused these Pages: what waits for them is left alone until then.

Where the limit has just been worked out it may be the one before that refused, whose hold would outlast the raise: then
it is asked again soon.
"""

GIVE_BACK: Final = """
update leadgen set due_at = %(now)s, leases = greatest(leases - 1, 0)
from unnest(%(ids)s::text[], %(turns)s::bigint[]) as held (id, held_turn)
where leadgen_id = held.id and turn = held.held_turn
"""
"""End these leases at once, unread."""

OLDEST_OVERDUE: Final = """
with recursive page (page_id, due_at) as (
    (select page_id, due_at from leadgen where due_at is not null order by page_id, due_at limit 1)
    union all
    select next.page_id, next.due_at from page cross join lateral (
        select l.page_id, l.due_at from leadgen l where l.due_at is not null and l.page_id > page.page_id
        order by l.page_id, l.due_at limit 1) as next
)
select min(greatest(page.due_at, pages.held_until)) as min
from page left join pages using (page_id)
where pages.parked_at is null and page.due_at <= %(now)s and (held_until is null or held_until <= %(now)s)
"""
"""Since when the longest waiting row could have been read."""

PARKED: Final = """
select page_id from pages where parked_at is not null and page_id = any(%(page_ids)s)
"""
"""Which of these Pages are parked."""

UNKNOWN_PAGES: Final = """
select asked.page_id from unnest(%(page_ids)s::text[]) as asked (page_id)
where not exists (select from pages p where p.page_id = asked.page_id)
  and not exists (select from leadgen l where l.page_id = asked.page_id)
"""
"""Of which of these Pages there is neither a connection nor a lead, nor an order."""

PARK: Final = f"""
with held as (
    insert into pages as p (page_id, parked_at, parked_reason, check_at, updated_at)
    values (%(page_id)s, %(now)s, %(reason)s, %(now)s, %(now)s)
    on conflict (page_id) do update set parked_at = excluded.parked_at, parked_reason = excluded.parked_reason,
        -- A Page that is parked again and again is not looked at again and again at once.
        check_at = case when %(by_check)s then p.check_at
                   when p.unparked_at > %(now)s::timestamptz - %(every)s::interval
                   then greatest(excluded.check_at, p.unparked_at + %(every)s::interval) else excluded.check_at end,
        updated_at = excluded.updated_at
    where p.parked_at is null
       or excluded.parked_reason = '{DISCONNECTED}' and p.parked_reason <> '{DISCONNECTED}'
       or excluded.parked_reason = '{BY_HAND}' and p.parked_reason not in ('{BY_HAND}', '{DISCONNECTED}')
    returning page_id
),
told as (
    insert into health_events (at, page_id, aspect, was, became, reason, due_at)
    select %(now)s, page_id, 'page', 'open', 'parked', %(reason)s,
        case when not %(by_order)s then %(now)s::timestamptz end
    from held
)
select page_id from held
"""
"""Hold a Page; answers a row only where it was not held before, or not by order. What an operator ordered needs no
alert."""

UNPARK: Final = """
with was as (
    select page_id, parked_reason from pages
    where page_id = any(%(page_ids)s) and parked_at is not null and parked_reason <> all(%(but)s)
    order by page_id for update
),
freed as (
    update pages p set parked_at = null, parked_reason = null, unparked_at = %(now)s,
        forms_asked_at = null, updated_at = %(now)s
    from was where p.page_id = was.page_id
    returning p.page_id, was.parked_reason
),
gaps as (
    update forms f set reconcile_at = %(now)s from freed where f.page_id = freed.page_id
),
woken as (
    update slices s set due_at = %(now)s from freed
    where s.page_id = freed.page_id and s.state = 'waiting' and s.leases = 0 and s.failed_for is not null
),
told as (
    insert into health_events (at, page_id, aspect, was, became, reason, due_at)
    select %(now)s, page_id, 'page', 'parked', 'open', parked_reason,
        case when parked_reason <> all(%(by_order)s) then %(now)s::timestamptz end
    from freed order by page_id
)
select page_id from freed
"""
"""Take Pages up again, but those parked for one of `but`; what waits for them was due all along, and what nobody
announced meanwhile is found by listing and comparing their forms at once. A slice that failed may have been refused
what the Page was parked for, so it does not wait on, for hours perhaps, while its form is not compared."""

MASS_DEATH: Final = f"""
with alive as (
    select greatest(max(stored_at), %(now)s::timestamptz - interval '1 day') as at
    from leadgen where page_id = %(page_id)s and stored_at is not null
),
suspects as (
    select leadgen_id from leadgen, alive
    where page_id = %(page_id)s and state = 'dead' and reason = %(reason)s
      and updated_at > coalesce(alive.at, %(now)s::timestamptz - interval '1 day')
    order by leadgen_id
    for update of leadgen
)
update leadgen l set state = 'waiting', due_at = %(now)s, turn = l.turn + 1, attempts = 0, updated_at = %(now)s,
    trail = leadsync_trail(l.trail, {SECOND} || ' woken ' || l.reason)
from suspects
where l.leadgen_id = suspects.leadgen_id and ((select count(*) from suspects) >= %(deaths)s
    -- Who was being read when the Page was parked dies after the others.
    or exists (select from pages where page_id = %(page_id)s and parked_reason = %(parked_reason)s))
returning l.leadgen_id
"""
"""Where many references of a Page died of one reason and none was stored since, or the Page is parked for that already,
they wait again: it is the Page."""

REPLAY: Final = f"""
with chosen as (
    select leadgen_id from leadgen
    where state = 'dead' and (%(ids)s::text[] is null or leadgen_id = any(%(ids)s))
      and (%(reason)s::text is null or reason = %(reason)s)
      and (%(page_id)s::text is null or page_id = %(page_id)s)
    order by leadgen_id for update
)
update leadgen l set state = 'waiting', due_at = %(now)s, turn = l.turn + 1, attempts = 0, leases = 0,
    first_seen_at = %(now)s, updated_at = %(now)s, trail = leadsync_trail(l.trail, {SECOND} || ' replayed ' || l.reason)
from chosen where l.leadgen_id = chosen.leadgen_id
returning l.leadgen_id
"""
"""Put dead letters back; `first_seen_at` restarts, so that a lead not yet visible has its full time again."""

COUNT_STATES: Final = """
select state, coalesce(reason, '') as reason, count(*) as count, min(due_at) as oldest_due
from leadgen where state <> 'stored' group by 1, 2
union all
select 'stored', '', count(*), null from leadgen where state = 'stored'
order by 1, 2
"""
"""Rows by state and reason."""

LIST_DEAD: Final = """
select leadgen_id, page_id, form_id, reason, attempts, first_seen_at, last_seen_at, updated_at as died_at
from leadgen
where state = 'dead' and (%(reason)s::text is null or reason = %(reason)s)
  and (%(page_id)s::text is null or page_id = %(page_id)s)
order by updated_at desc limit %(limit)s
"""
"""The newest dead letters."""

SHOW: Final = """
select leadgen_id, state, reason, attempts, due_at, page_id, form_id, ad_id, created_time, source, first_seen_at,
    last_seen_at, received_at, stored_at, updated_at
from leadgen where leadgen_id = %(id)s
"""
"""All about one row but its answers."""

LIST_PAGES: Final = """
select p.page_id, p.parked_at, p.parked_reason, p.check_at,
    case when p.held_until > now() then p.held_until end as held_until,
    (select count(*) from leadgen l where l.page_id = p.page_id and l.state = 'waiting') as waiting
from pages p order by p.page_id
"""
"""The Pages that are known, until when the budget holds them, and how many references wait for each."""

STORED: Final = """
select leadgen_id, page_id, form_id, ad_id, ad_name, adset_id, adset_name, campaign_id, campaign_name, created_time,
    is_organic, platform, partner_name, retailer_item_id, field_data, custom_disclaimer_responses, extra, is_test,
    in_part, cleaned, source, received_at, stored_at
from leads where leadgen_id = any(%(ids)s)
"""
"""These stored leads, whole."""

LATENCY: Final = """
select count(*) as leads,
    percentile_cont(0.5) within group (order by extract(epoch from stored_at - received_at)) as p50,
    percentile_cont(0.99) within group (order by extract(epoch from stored_at - received_at)) as p99
from leads where received_at >= %(since)s
"""
"""Seconds from webhook to row, over what was received since a moment. The commit itself is not in it."""
