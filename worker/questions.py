"""A form's definition -> the columns by which people read its answers. Pure; store/forms.py makes a view of them.

    questions, tracking parameters, disclaimers -> Columns: a name, the key in the lead, a label, options by key

Names are the keys as they are, so that what stands in a query is what stands in the form. Only what Postgres cannot
have as a name is altered: it is cut to 63 bytes, and what clashes gets `_2`, `_3` and so on. Invariant: the names of
a form are distinct and fit Postgres, and the same definition gives the same names in the same order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from worker.lead import Json, answers

NAME_BYTES: Final = 63
"""Postgres' NAMEDATALEN, less the end.
https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS"""
MOST_COLUMNS: Final = 1_000
"""A view has at most 1,600; what a form asks beyond this is in the view `answers` only."""
LEAD_COLUMNS: Final = (
    "leadgen_id",
    "created_time",
    "ad_name",
    "adset_name",
    "campaign_name",
    "platform",
    "is_organic",
    "is_test",
)
"""What stands before a form's own columns."""
# A view may have columns of these names, but the table that somebody makes of it may not.
_SYSTEM_COLUMNS: Final = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
_NAMELESS: Final = "question"
"""The name of a column whose key is empty: Postgres knows no empty name."""


class Kind(StrEnum):
    """Where a column's content comes from."""

    QUESTION = "question"
    TRACKING = "tracking"
    DISCLAIMER = "disclaimer"


@dataclass(frozen=True, slots=True)
class Column:
    """One question, tracking parameter or checkbox. `key` finds it in the lead; `options`: pairs of key and label."""

    name: str
    key: str
    label: str
    kind: Kind
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def columns(
    questions: Json, tracking_parameters: Json = None, disclaimers: Json = None
) -> tuple[Column, ...]:
    """The columns of a form with this definition, in its own order. A key that comes again is the same column."""
    taken = {*LEAD_COLUMNS, *_SYSTEM_COLUMNS}
    found: dict[tuple[bool, str], Column] = {}
    for kind, key, label, options in _told(questions, tracking_parameters, disclaimers):
        place = (kind is Kind.DISCLAIMER, key)
        if place not in found and len(found) < MOST_COLUMNS:
            found[place] = Column(_name(key, taken), key, label or key, kind, options)
    return tuple(found.values())


def answer_text(field_data: Json, column: Column) -> str | None:
    """What was answered, readable: every value by its label, joined by a comma. As leadsync_answer() in SQL."""
    values = [value for answer in answers(field_data) if answer.name == column.key for value in answer.values]
    labels = dict(reversed(column.options))
    return ", ".join(labels.get(value, value) for value in values) if values else None


def _told(
    questions: Json, tracking_parameters: Json, disclaimers: Json
) -> Iterator[tuple[Kind, str, str, tuple[tuple[str, str], ...]]]:
    for question in _objects(questions):
        if isinstance(key := question.get("key"), str):
            yield Kind.QUESTION, key, _text(question.get("label")), _options(question.get("options"))
    for parameter in _objects(tracking_parameters):
        if isinstance(key := parameter.get("key"), str):
            yield Kind.TRACKING, key, "", ()
    boxes = disclaimers.get("checkboxes") if isinstance(disclaimers, dict) else None
    for box in _objects(boxes):
        if isinstance(key := box.get("key"), str):
            yield Kind.DISCLAIMER, key, _text(box.get("text")), ()


def _options(options: Json) -> tuple[tuple[str, str], ...]:
    """Pairs of key and label; the first of a key holds, and one without a label says nothing."""
    pairs = ((option.get("key"), _text(option.get("value"))) for option in _objects(options))
    return tuple((key, label) for key, label in pairs if isinstance(key, str) and label)


def _objects(value: Json) -> Sequence[Mapping[str, Json]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _name(key: str, taken: set[str]) -> str:
    """A name for `key` that nobody has yet; it is taken from then on."""
    wanted = key or _NAMELESS
    name, number = _cut(wanted, NAME_BYTES), 1
    while name in taken:
        number += 1
        suffix = f"_{number}"
        name = _cut(wanted, NAME_BYTES - len(suffix)) + suffix
    taken.add(name)
    return name


def _cut(text: str, size: int) -> str:
    """The longest beginning of `text` of at most `size` bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore")
