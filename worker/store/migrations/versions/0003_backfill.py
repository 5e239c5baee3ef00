"""Reading the past: what is known of each form, backfills and their slices, and what reconciling found."""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
alter table forms
    alter column counted_at drop not null,
    add column name text,
    add column locale text,
    add column created_time timestamptz,
    add column questions jsonb,
    add column disclaimers jsonb,
    add column tracking_parameters jsonb,
    add column definition_at timestamptz,
    add column found_at timestamptz,
    add column listed_at timestamptz,
    add column read_from timestamptz,
    add column watermark timestamptz,
    add column reconcile_at timestamptz,
    add column deep_at timestamptz;
create index forms_reconcile on forms (reconcile_at);
alter table pages add column forms_listed_at timestamptz;
create table backfills (
    backfill_id bigint generated always as identity primary key,
    purpose text not null check (purpose in ('backfill', 'reconcile', 'deep')),
    edge text not null check (edge in ('page', 'form', 'ad')),
    object_id text not null,
    page_id text not null,
    asked_since timestamptz,
    asked_until timestamptz,
    since timestamptz not null,
    until timestamptz not null,
    state text not null default 'running' check (state in ('running', 'done', 'failed', 'cancelled')),
    reason text,
    expected_leads bigint,
    requested_at timestamptz not null,
    finished_at timestamptz
);
create unique index backfills_once on backfills
    (purpose, edge, object_id, coalesce(asked_since, '-infinity'), coalesce(asked_until, 'infinity'))
    where state = 'running';
create index backfills_finished on backfills (finished_at);
create table slices (
    slice_id bigint generated always as identity primary key,
    backfill_id bigint not null references backfills on delete cascade,
    page_id text not null,
    edge text not null check (edge in ('form', 'ad')),
    object_id text not null,
    since bigint not null,
    until bigint not null,
    state text not null default 'waiting' check (state in ('waiting', 'done', 'divided', 'failed', 'cancelled')),
    due_at timestamptz,
    turn bigint not null default 0,
    leases integer not null default 0,
    attempts integer not null default 0,
    reason text,
    failed_for text,
    watermark timestamptz,
    calls integer not null default 0,
    leads integer not null default 0,
    stored integer not null default 0,
    readings integer not null default 0,
    finished_at timestamptz,
    check (since < until),
    check ((state = 'waiting') = (due_at is not null))
);
create index slices_due on slices (page_id, due_at) where due_at is not null;
create index slices_backfill on slices (backfill_id);
create table findings (
    slice_id bigint not null references slices on delete cascade,
    form_id text not null,
    day date not null,
    listed integer not null default 0,
    fresh integer not null default 0,
    unexplained integer not null default 0,
    primary key (slice_id, form_id, day)
);
create table repaired (
    leadgen_id text primary key,
    page_id text not null,
    form_id text not null,
    created_time timestamptz not null,
    was text not null check (was in ('missing', 'waiting', 'dead')),
    backfill_id bigint not null,
    repaired_at timestamptz not null
);
create index repaired_form on repaired (form_id, created_time);
create table reconciliations (
    form_id text not null,
    day date not null,
    page_id text not null,
    metas integer not null,
    ours integer not null,
    missing integer not null,
    repaired integer not null,
    unexplained integer not null,
    latest interval,
    checked_at timestamptz not null,
    primary key (form_id, day)
);
create index reconciliations_day on reconciliations (day)
"""

COMMENTS = {
    "forms.name": "The form's name at Meta.",
    "forms.questions": "The form's questions as Graph tells them: key, label, type, options.",
    "forms.disclaimers": "The custom disclaimer: its title, and its checkboxes with key and text.",
    "forms.tracking_parameters": "Keys that Graph adds to field_data, with their values.",
    "forms.definition_at": "When the definition last changed here.",
    "forms.found_at": "When the form was first seen in its Page's listing.",
    "forms.listed_at": "When the Page's listing last held it.",
    "forms.read_from": "Leads created before are not reconciled; null: all that Meta holds.",
    "forms.watermark": "Every lead created before is stored, as far as Meta listed it.",
    "forms.reconcile_at": "When the form is next compared with Meta's listing.",
    "forms.deep_at": "When the last comparison of all its leads of 90 days ended.",
    "pages.forms_listed_at": "When Meta last told all forms of the Page.",
    "backfills": "Readings of the past: asked for, or begun by a reconciliation; each is cut into slices.",
    "backfills.purpose": "backfill: bring leads; reconcile: since the watermark; deep: 90 days, id by id.",
    "backfills.asked_since": "What was asked for; null: as far back as Meta keeps leads.",
    "slices": "Half-open [since, until) of unix seconds of one form's or ad's listing; together they cover a backfill.",
    "slices.leads": "Leads that the listing brought so far in this reading; stored: those that were not stored before.",
    "slices.readings": "How often it was begun.",
    "slices.attempts": "Failures in a row for the reason in failed_for; waiting for other reasons counts nothing.",
    "slices.watermark": "That of its form when its reading began: a quick run counts what is new since then.",
    "repaired.backfill_id": "The run that brought it; the run itself is forgotten sooner.",
    "findings": "What the open slices of a reconciliation found, by form and day of creation.",
    "repaired": "Leads that a reconciliation brought although no webhook, or no read, had.",
    "repaired.was": "What there was of it before: nothing, a waiting row or a dead letter.",
    "reconciliations": "By form and day of creation (UTC): what Meta listed against what is stored.",
    "reconciliations.missing": "Leads that Meta listed and that were not stored, ever; repaired: those that now are.",
    "reconciliations.unexplained": "Leads that Meta listed and that are still not stored.",
    "reconciliations.latest": "The longest time from a repaired lead's creation to its row.",
}


def upgrade() -> None:
    for statement in TABLES.split(";"):
        op.execute(statement)
    for name, comment in COMMENTS.items():
        kind = "column" if "." in name else "table"
        op.execute(f"comment on {kind} {name} is $c${comment}$c$")
