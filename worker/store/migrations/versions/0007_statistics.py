"""No statistics of what people answered: ANALYZE keeps samples of whole answers, which erasing does not reach.

Statistics that are there stay for ever once no more are gathered, so gathering ends only where they can be cleared: by
Postgres 18, or by a superuser. Elsewhere all stays as it was, and `forget --vacuum` gathers anew from what is left.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

# No query is planned by these: rows are found by ids, Pages, forms and times.
CLEAR = """
do $$
declare
    answers constant name[] := array['field_data', 'custom_disclaimer_responses', 'extra'];
    schema constant text := (
        select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'leadgen'::regclass
    );
begin
    alter table leadgen alter column field_data set statistics 0,
        alter column custom_disclaimer_responses set statistics 0, alter column extra set statistics 0;
    if current_setting('server_version_num')::integer >= 180000 then
        execute 'select pg_clear_attribute_stats($1, ''leadgen'', answer, false) from unnest($2::text[]) as answer'
            using schema, answers;
    else
        delete from pg_statistic s using pg_attribute a
        where s.starelid = 'leadgen'::regclass and a.attrelid = s.starelid and a.attnum = s.staattnum
          and a.attname = any(answers);
    end if;
exception when insufficient_privilege then
    null;
end
$$
"""


def upgrade() -> None:
    op.execute(CLEAR)
