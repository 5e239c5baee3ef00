"""One row a leadgen_id, the Pages, and the views that people query."""

from alembic import op

revision = "0001"
down_revision = None

LEADGEN = """
create table leadgen (
    leadgen_id text primary key,
    state text not null check (state in ('waiting', 'stored', 'dead', 'erased')),
    reason text,
    attempts integer not null default 0,
    failed_for text,
    due_at timestamptz,
    turn bigint not null default 0,
    leases integer not null default 0,
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    page_id text not null,
    form_id text,
    ad_id text,
    ad_name text,
    adset_id text,
    adset_name text,
    campaign_id text,
    campaign_name text,
    created_time timestamptz,
    is_organic boolean,
    platform text,
    partner_name text,
    retailer_item_id text,
    field_data jsonb,
    custom_disclaimer_responses jsonb,
    extra jsonb,
    is_test boolean not null default false,
    in_part boolean not null default false,
    cleaned boolean not null default false,
    source text not null,
    received_at timestamptz,
    stored_at timestamptz,
    updated_at timestamptz not null
)
"""

COMMENTS = {
    "leadgen": "One row a leadgen_id, from its first announcement on; views: leads, waiting, dead_letters.",
    "leadgen.state": "waiting -> stored | dead; dead -> stored or, by replay, waiting; erased is final.",
    "leadgen.reason": "Why it waits or is dead, a fixed word.",
    "leadgen.attempts": "Failed reads in a row for the reason in failed_for; waiting for other reasons counts nothing.",
    "leadgen.due_at": "Not before this moment; also the end of the lease while a worker holds the row.",
    "leadgen.turn": "Raised by every lease and verdict, so that a verdict of an older lease changes nothing.",
    "leadgen.leases": "Leases since the last verdict; several mean that workers died holding it.",
    "leadgen.in_part": "Read without the ad fields, which were refused; read again when due.",
    "leadgen.cleaned": "NUL or lone surrogates were replaced by U+FFFD.",
    "leadgen.source": "What brought the row: webhook, backfill, reconcile or import.",
    "leadgen.stored_at": "When the row was written; its commit follows within milliseconds.",
    "leadgen.received_at": "When the receiver had the webhook; null for leads that no webhook announced.",
}

INDEXES = """
create index leadgen_due on leadgen (page_id, due_at) where due_at is not null;
create index leadgen_created on leadgen (page_id, created_time);
create index leadgen_dead on leadgen (page_id, reason, updated_at) where state = 'dead';
create index leadgen_stored_at on leadgen (page_id, stored_at);
"""

PAGES = """
create table pages (
    page_id text primary key,
    parked_at timestamptz,
    parked_reason text,
    probe_at timestamptz,
    updated_at timestamptz not null
)
"""

LEAD_COLUMNS = """
    leadgen_id, page_id, form_id, ad_id, ad_name, adset_id, adset_name, campaign_id, campaign_name, created_time,
    is_organic, platform, partner_name, retailer_item_id, field_data, custom_disclaimer_responses, extra,
    is_test, in_part, cleaned, source, received_at, stored_at, updated_at
"""

VIEWS = f"""
create view leads as select {LEAD_COLUMNS} from leadgen where state = 'stored';
create view waiting as
    select leadgen_id, page_id, form_id, reason, attempts, due_at, first_seen_at, last_seen_at, received_at
    from leadgen where state = 'waiting';
create view dead_letters as
    select leadgen_id, page_id, form_id, reason, attempts, first_seen_at, last_seen_at, updated_at as died_at
    from leadgen where state = 'dead';
"""


def upgrade() -> None:
    for statement in (LEADGEN, PAGES, *INDEXES.split(";"), *VIEWS.split(";")):
        if statement.strip():
            op.execute(statement)
    for name, comment in COMMENTS.items():
        kind = "column" if "." in name else "table"
        op.execute(f"comment on {kind} {name} is $c${comment}$c$")
