"""Connected Pages: sealed tokens, health and its events, the way of each lead, and what was erased by order."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
create table accounts (
    user_id text primary key,
    kind text not null check (kind in ('USER', 'SYSTEM_USER')),
    key_id text not null,
    sealed bytea not null,
    scopes text[] not null default '{}',
    expires_at timestamptz,
    data_access_expires_at timestamptz,
    refused_at timestamptz,
    connected_at timestamptz not null
);
create table page_tokens (
    page_id text primary key,
    user_id text references accounts on delete set null,
    key_id text not null,
    sealed bytea not null,
    refused_at timestamptz,
    derived_at timestamptz not null
);
create index page_tokens_account on page_tokens (user_id);
alter table pages
    add column name text,
    add column connected_at timestamptz,
    add column check_at timestamptz,
    add column unparked_at timestamptz,
    add column retention_days integer check (retention_days > 0);
update pages set check_at = probe_at where parked_at is not null;
alter table pages drop column probe_at;
alter table forms add column retention_days integer check (retention_days > 0);
create table page_health (
    page_id text primary key,
    checked_at timestamptz not null,
    token text not null,
    token_reason text,
    token_expires_at timestamptz,
    data_access_expires_at timestamptz,
    missing_scopes text[] not null default '{}',
    subscription text not null,
    subscription_reason text,
    lead_access text not null,
    lead_access_reason text,
    webhooks text not null,
    webhooks_reason text
);
create table health_events (
    event_id bigint generated always as identity primary key,
    at timestamptz not null,
    page_id text,
    aspect text not null,
    was text,
    became text not null,
    reason text,
    told_at timestamptz,
    tries integer not null default 0,
    due_at timestamptz
);
create index health_events_page on health_events (page_id, at);
create index health_events_due on health_events (due_at) where due_at is not null;
alter table leadgen
    add column announced integer not null default 0,
    add column taken_ms integer,
    add column read_ms integer,
    add column trail text[];
create table erasures (
    erasure_id bigint generated always as identity primary key,
    at timestamptz not null,
    by_order_of text not null check (by_order_of in ('id', 'answer', 'retention', 'restore')),
    question text,
    page_id text,
    form_id text,
    leads integer not null,
    took_from jsonb not null default '{}'
);
create index erasures_at on erasures (at);
create index leadgen_erased on leadgen (leadgen_id) where state = 'erased' and reason = 'by_order'
"""

TRAIL = """
create function leadsync_trail(trail text[], entry text) returns text[]
language plpgsql immutable parallel safe as $$
declare
    length constant integer := coalesce(cardinality(trail), 0);
    new constant text[] := string_to_array(entry, ' ');
    former text[];
    after text[];
begin
    if entry is null then
        return trail;
    end if;
    former := string_to_array(trail[length], ' ');
    if former[2] = new[2] and former[3] = new[3] then
        trail[length] := concat_ws(' ', former[1], former[2], former[3], coalesce(former[4]::integer, 1) + 1, new[1]);
        return trail;
    end if;
    if length >= 24 then
        former := string_to_array(trail[13], ' ');
        after := string_to_array(trail[14], ' ');
        trail := trail[1:12]
            || concat_ws(' ', former[1], 'others', '-',
                coalesce(former[4]::integer, 1) + coalesce(after[4]::integer, 1), coalesce(after[5], after[1]))
            || trail[15:length];
    end if;
    return trail || entry;
end
$$
"""

COMMENTS = {
    "accounts": "Persons and system users whose token connects Pages; the tokens are sealed.",
    "accounts.key_id": "Which key opens `sealed`; the keys themselves are never in the database.",
    "accounts.refused_at": "When Meta was last seen to refuse the token.",
    "page_tokens": "The sealed token of each connected Page.",
    "page_tokens.user_id": "Whose token it was derived from, and can be again.",
    "page_tokens.refused_at": "When Meta was last seen to refuse the token; null: it is good as far as is known.",
    "pages": "The Pages that are known: parked or held, their limit, and when they are next looked at.",
    "pages.name": "The Page's name at Meta.",
    "pages.connected_at": "When it was connected by command; null: its token comes from the settings, or it is not.",
    "pages.check_at": "When its health is next looked at; null: at once.",
    "pages.unparked_at": "When it was last taken up again.",
    "pages.retention_days": "Its leads' answers are erased so many days after their creation; null: they are kept.",
    "forms.retention_days": "The same of one form; it goes before that of the Page.",
    "page_health": "How each Page was when it was last looked at; each aspect is one word, and why.",
    "health_events": "Each change of a Page's health, told once.",
    "health_events.told_at": "When the alert went out; null and no due_at: nobody wanted it.",
    "leadgen.announced": "How often a webhook announced it.",
    "leadgen.taken_ms": "Milliseconds from receiving the webhook until a worker took the reference up.",
    "leadgen.read_ms": "Milliseconds from receiving the webhook until Graph's answer was there.",
    "leadgen.trail": "What befell it when it did not go straight through: `<unix> <word> <reason> [<times> <unix>]`.",
    "erasures": "What was erased, by whose order and where it was found; no personal data.",
    "erasures.question": "Key of the answer by which leads were found; the answer itself is not kept.",
    "erasures.took_from": "Leads by their state before; set_aside: bodies in Redis; files: rows of leftover files.",
    "leadgen.reason": "Why it waits or is dead, or by what it was erased: a fixed word.",
    "leadgen.source": "What brought the row: webhook, listing, backfill, reconcile, import; forget: it was never here.",
}


def upgrade() -> None:
    for statement in TABLES.split(";"):
        op.execute(statement)
    op.execute(TRAIL)
    for name, comment in COMMENTS.items():
        kind = "column" if "." in name else "table"
        op.execute(f"comment on {kind} {name} is $c${comment}$c$")
