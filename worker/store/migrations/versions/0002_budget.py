"""What the budget remembers: reserved calls, limits, the forms' counts, and Pages that wait as a whole."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
create table budget_blocks (
    block_id bigint generated always as identity primary key,
    page_id text not null,
    lane text not null check (lane in ('live', 'waiting', 'backfill', 'upkeep')),
    calls integer not null check (calls >= 0),
    reserved_at timestamptz not null default clock_timestamp(),
    machine text not null,
    steady double precision not null
);
create index budget_blocks_page on budget_blocks (page_id);
create index budget_blocks_reserved on budget_blocks using brin (reserved_at);
create table forms (
    form_id text primary key,
    page_id text not null,
    status text,
    leads_count bigint,
    expired_leads_count bigint,
    counted_at timestamptz not null
);
create index forms_page on forms (page_id);
alter table pages
    add column held_until timestamptz,
    add column held_reason text,
    add column limit_override bigint check (limit_override >= 0),
    add column limit_calls bigint,
    add column limit_told bigint,
    add column limit_origin text,
    add column limit_at timestamptz,
    add column forms_asked_at timestamptz;
drop index leadgen_due;
create index leadgen_due on leadgen (page_id, due_at, first_seen_at) where due_at is not null;
"""

WAITING = """
create or replace view waiting as
    select leadgen_id, l.page_id, form_id, reason, attempts, greatest(due_at, p.held_until) as due_at, first_seen_at,
        last_seen_at, received_at
    from leadgen l left join pages p using (page_id)
    where state = 'waiting'
"""

COMMENTS = {
    "budget_blocks": "Calls reserved before they were spent, so that a ledger that Redis lost can be made anew.",
    "budget_blocks.machine": "Whose steady clock `steady` is (seconds): ages hold through jumps of the wall clock.",
    "forms": "The forms of each Page, with Meta's own count of their leads.",
    "forms.leads_count": "Leads the form ever had; less expired_leads_count, those of the last 90 days.",
    "pages.held_until": "The budget refused the Page: nothing that waits for it is tried before.",
    "pages.held_reason": "Why: budget, or throttled_ and the scope that Meta closed.",
    "pages.limit_override": "Calls a window by order of the operator, instead of what was worked out.",
    "pages.limit_calls": "Calls a window that are granted at most.",
    "pages.limit_told": "Calls a window that Meta allows, as far as is known.",
    "pages.limit_origin": "Where limit_told comes from: our rows, Meta's forms, floor or override.",
}


def upgrade() -> None:
    for statement in (*TABLES.split(";"), WAITING):
        if statement.strip():
            op.execute(statement)
    for name, comment in COMMENTS.items():
        kind = "column" if "." in name else "table"
        op.execute(f"comment on {kind} {name} is $c${comment}$c$")
