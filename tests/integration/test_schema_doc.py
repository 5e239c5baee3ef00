"""docs/schema.md against a migrated Postgres: everything that is there, with its comment, and nothing else."""

import re
from pathlib import Path

import psycopg
import pytest

MANUAL = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
SECTION = re.compile(r"^### (\w+) \((table|view)\)\n\n(.*?)(?=^##|\Z)", re.M | re.S)
COLUMN = re.compile(r"^\| `(\w+)` \| ([^|]+?) \| (.+) \|$", re.M)
FUNCTION = re.compile(r"^\| `(\w+\([\w\[\],]*\))` \| (.+) \|$", re.M)
TYPES = {"timestamp with time zone": "timestamptz", "character varying(32)": "varchar(32)"}
KINDS = {"r": "table", "v": "view"}

RELATIONS = """
select relname, relkind::text, obj_description(oid, 'pg_class') from pg_class
where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm', 'p', 'f')
"""
COLUMNS = """
select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(c.oid, a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f')
"""
FUNCTIONS = """
select oid::regprocedure::text, obj_description(oid, 'pg_proc') from pg_proc
where pronamespace = 'public'::regnamespace
"""


def differences(manual: str, url: str) -> list[str]:
    """What the manual lacks, has too much of, or says otherwise than the database at `url`."""
    told: dict[str, tuple[str, str]] = {}
    for name, kind, text in SECTION.findall(manual):
        told[name] = (f"{kind} {name}", text)
        for column, typed, says in COLUMN.findall(text):
            told[f"{name}.{column}"] = (typed, says)
    told |= {name: ("function", says) for name, says in FUNCTION.findall(manual)}
    with psycopg.connect(url) as connection:
        real = {n: (f"{KINDS.get(k, k)} {n}", c) for n, k, c in connection.execute(RELATIONS).fetchall()}
        for relation, column, typed, is_needed, comment in connection.execute(COLUMNS).fetchall():
            kind = TYPES.get(typed, typed) + (" not null" if is_needed else "")
            real[f"{relation}.{column}"] = (kind, comment)
        real |= {name: ("function", comment) for name, comment in connection.execute(FUNCTIONS).fetchall()}
    found = [f"{name} is not told" for name in sorted(real.keys() - told.keys())]
    found += [f"{name} is not there" for name in sorted(told.keys() - real.keys())]
    for name in sorted(real.keys() & told.keys()):
        (kind, comment), (told_kind, says) = real[name], told[name]
        if kind != told_kind:
            found.append(f"{name} is {kind}, told as {told_kind}")
        if (comment or "") not in says.replace("\\|", "|") or not says.strip():
            found.append(f"{name} is told as something else than its comment says: {comment}")
    return found


def test_the_manual_tells_the_whole_schema_and_nothing_else(database: str) -> None:
    """Each table, view, column and function of the migrated schema stands in it with its type and its comment."""
    assert differences(MANUAL, database) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("create table more (id int)", "more is not told"),
        ("alter table leadgen add column more int", "leadgen.more is not told"),
        ("drop view dead_letters", "dead_letters is not there"),
        ("alter table pages drop column name", "pages.name is not there"),
        ("alter table forms alter column locale type varchar(9)", "forms.locale is character varying(9)"),
        ("comment on column leadgen.cleaned is 'otherwise'", "leadgen.cleaned is told as something else"),
        ("comment on view leads is 'otherwise'", "leads is told as something else"),
    ],
)
def test_a_schema_that_differs_is_noticed(database: str, change: str, says: str) -> None:
    """The comparison itself can fail."""
    with psycopg.connect(database) as connection:
        connection.execute(change.encode())
    assert any(each.startswith(says) for each in differences(MANUAL, database))
