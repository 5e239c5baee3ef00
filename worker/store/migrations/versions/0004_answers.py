"""Answers that people can read: two functions, the views answers and disclaimers, and a schema for a view a form.

The views of schema leads_of are made by store/forms.py and lean on the view leads. A later revision that has to drop
that one drops schema leads_of with everything in it, makes it anew as here, and sets forms.view_at to null: the
views come back by themselves.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
alter table forms add column view_at timestamptz;
create index leadgen_form on leadgen (form_id, created_time);
update pages set forms_asked_at = null
"""

# No function calls another one by its name: whoever selects may have any search_path.
ANSWER = """
create function leadsync_answer(field_data jsonb, key text, options jsonb) returns text
language plpgsql immutable parallel safe as $function$
declare
    -- Strict and silent: an entry that is no object, or has no values, is passed over.
    found jsonb := jsonb_path_query_array(field_data, 'strict $[*] ? (@.name == $key && exists (@.values)).values',
        jsonb_build_object('key', key), true);
    listed jsonb := found -> 0;
    value text;
    parts text[];
begin
    if listed is null or key is null then
        return null;
    end if;
    if jsonb_array_length(found) > 1 or jsonb_typeof(listed) <> 'array' then
        listed := (select jsonb_agg(v order by i, j) from jsonb_array_elements(found) with ordinality as e (x, i)
            cross join lateral jsonb_array_elements(
                case jsonb_typeof(x) when 'array' then x else jsonb_build_array(x) end) with ordinality as n (v, j));
    end if;
    for place in 0 .. coalesce(jsonb_array_length(listed), 0) - 1 loop
        value := listed ->> place;
        continue when value is null;
        if options is not null then
            value := coalesce(nullif(jsonb_path_query_first(options,
                'strict $[*] ? (@.key == $key && @.value.type() == "string" && @.value != "").value',
                jsonb_build_object('key', value), true) #>> '{}', ''), value);
        end if;
        parts := parts || value;
    end loop;
    return array_to_string(parts, ', ');
end
$function$
"""

ANSWER_BY_KEY = """
create function leadsync_answer(field_data jsonb, key text) returns text
language sql immutable parallel safe
return leadsync_answer(field_data, key, null::jsonb)
"""

TICKED = """
create function leadsync_ticked(custom_disclaimer_responses jsonb, key text) returns boolean
language plpgsql immutable parallel safe as $function$
declare
    found jsonb := jsonb_path_query_array(custom_disclaimer_responses,
        'strict $[*] ? (@.checkbox_key == $key && exists (@.is_checked)).is_checked',
        jsonb_build_object('key', key), true);
    ticked boolean := true;
begin
    if key is null or coalesce(jsonb_array_length(found), 0) = 0 then
        return null;
    end if;
    for place in 0 .. jsonb_array_length(found) - 1 loop
        ticked := ticked and case when lower(found ->> place) in ('1', 'true') then true
            when lower(found ->> place) in ('', '0', 'false') then false end;
    end loop;
    return ticked;
end
$function$
"""


def elements(json: str) -> str:
    """The elements of a jsonb that may be anything, with their number from 1."""
    return f"jsonb_array_elements(case jsonb_typeof({json}) when 'array' then {json} else '[]' end) with ordinality"


def string(json: str) -> str:
    """The text of a jsonb that is a string, else null."""
    return f"case jsonb_typeof({json}) when 'string' then {json} #>> '{{}}' end"


ANSWERS = f"""
create view answers as
select l.leadgen_id, l.page_id, l.form_id, l.created_time, a.question, q.label, q.type, q.position,
    case jsonb_typeof(q.options) when 'array' then leadsync_answer(l.field_data, a.question, q.options)
        else array_to_string(nullif(a.values, '{{}}'), ', ') end as answer,
    a.values
from leads l
cross join lateral (
    select e.entry ->> 'name' as question,
        coalesce(array_agg(v.value #>> '{{}}' order by e.place, v.place)
            filter (where jsonb_typeof(v.value) <> 'null'), '{{}}') as values
    from {elements("l.field_data")} as e (entry, place)
    left join lateral jsonb_array_elements(case jsonb_typeof(e.entry -> 'values') when 'array' then e.entry -> 'values'
        else jsonb_build_array(e.entry -> 'values') end) with ordinality as v (value, place) on true
    where jsonb_typeof(e.entry -> 'name') = 'string'
    group by e.entry ->> 'name') as a
left join (
    forms f cross join lateral (
        select distinct on (told.key) told.key, coalesce(nullif(told.label, ''), told.key) as label, told.type,
            told.position, told.options
        from (
            select {string("e.entry -> 'key'")} as key, {string("e.entry -> 'label'")} as label,
                {string("e.entry -> 'type'")} as type, e.place::integer as position, e.entry -> 'options' as options
            from {elements("f.questions")} as e (entry, place)
            union all
            select {string("e.entry -> 'key'")}, null, 'TRACKING', null, null
            from {elements("f.tracking_parameters")} as e (entry, place)
        ) as told
        order by told.key, told.position nulls last) as q
) on f.form_id = l.form_id and q.key = a.question
"""

DISCLAIMERS = f"""
create view disclaimers as
select l.leadgen_id, l.form_id, d.key, d.text, d.is_required,
    leadsync_ticked(l.custom_disclaimer_responses, d.key) as ticked
from leads l
left join forms f on f.form_id = l.form_id
cross join lateral (
    select distinct on (each.key) each.key, each.text, each.is_required
    from (
        select e.entry ->> 'key' as key, {string("e.entry -> 'text'")} as text,
            case jsonb_typeof(e.entry -> 'is_required') when 'boolean' then (e.entry -> 'is_required')::boolean end
                as is_required, e.place
        from {elements("f.disclaimers -> 'checkboxes'")} as e (entry, place)
        where jsonb_typeof(e.entry -> 'key') = 'string'
        union all
        select r.entry ->> 'checkbox_key', null, null, null
        from {elements("l.custom_disclaimer_responses")} as r (entry, place)
        where jsonb_typeof(r.entry -> 'checkbox_key') = 'string'
    ) as each
    order by each.key, each.place nulls last) as d
"""

# A role that may not make a schema has no views of forms, and everything else.
SCHEMA = """
do $do$ begin
    create schema if not exists leads_of;
    comment on schema leads_of is 'One view a form, form_ and its id: a row a lead, a column a question.';
exception when insufficient_privilege then null;
end $do$
"""

COMMENTS = {
    "column forms.view_at": "When the form's view in schema leads_of was last made; null: it is due.",
    "function leadsync_answer(jsonb, text)": "What a lead's field_data answers to a key; several values by comma.",
    "function leadsync_answer(jsonb, text, jsonb)": "The same by labels: options as in forms.questions.",
    "function leadsync_ticked(jsonb, text)": "Whether the checkbox of a custom disclaimer was ticked; null: not told.",
    "view answers": "One row a lead and question that it has an entry for, with the question's label.",
    "column answers.question": "The question's key, as in field_data.",
    "column answers.position": "Its place in the form, from 1; null for what the form does not ask.",
    "column answers.answer": "What was answered, by labels where the form has options; null: skipped.",
    "column answers.values": "The values as Graph has them: keys of options, not their labels.",
    "view disclaimers": "One row a lead and checkbox of its form's custom disclaimer.",
    "column disclaimers.ticked": "null: the lead says nothing of it.",
}


def upgrade() -> None:
    for statement in (*TABLES.split(";"), ANSWER, ANSWER_BY_KEY, TICKED, ANSWERS, DISCLAIMERS, SCHEMA):
        op.execute(statement)
    for named, comment in COMMENTS.items():
        op.execute(f"comment on {named} is $c${comment}$c$")
