"""Stored leads and their forms' definitions -> the text of a table (csv, tsv) or of JSON lines. Pure.

    forms, keys, checkboxes -> columns -> header
    a stored row            -> its answers by key -> cells, or one JSON object

It asks no database (store/export.py does) and opens no file. Invariant: every value of every answer is in the text,
in the order in which it was stored, and can be told from its neighbours; what has no column of its own is in
`as_stored`, as Graph told it.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Final, Literal, Protocol, TypeAlias

from worker.cells import join, safe
from worker.lead import Json, answers
from worker.questions import Kind, columns

FIXED_COLUMNS: Final = (
    "leadgen_id",
    "created_time",
    "page_id",
    "form_id",
    "form_name",
    "ad_id",
    "ad_name",
    "adset_id",
    "adset_name",
    "campaign_id",
    "campaign_name",
    "is_organic",
    "platform",
    "partner_name",
    "retailer_item_id",
    "is_test",
    "in_part",
    "cleaned",
    "source",
    "received_at",
    "stored_at",
)
"""What stands before the questions; `form_name` is the definition's, the rest is the row's own."""
EXTRA: Final = "extra"
AS_STORED: Final = "as_stored"
DIALECTS: Final = {"csv": "excel", "tsv": "excel-tab"}

TableFormat: TypeAlias = Literal["csv", "tsv"]
Row: TypeAlias = Mapping[str, Any]

# Graph writes "1" or "".
_CHECKED: Final = {
    "1": True,
    "true": True,
    "True": True,
    "": False,
    "0": False,
    "false": False,
    "False": False,
}
# Python refuses to convert longer numerals; a lead that holds one is exported all the same.
_MOST_DIGITS: Final = 4_000


@dataclass(frozen=True, slots=True)
class FormDefinition:
    """What is known of a form: pairs of key and label, and the labels of a question's options by their keys."""

    form_id: str | None
    name: str | None
    questions: tuple[tuple[str, str], ...] = ()
    checkboxes: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Row) -> "FormDefinition":
        """The definition in a row of table forms."""
        told = columns(row["questions"], row["tracking_parameters"], row["disclaimers"])
        boxes = tuple((c.key, c.label) for c in told if c.kind is Kind.DISCLAIMER)
        asked = [c for c in told if c.kind is not Kind.DISCLAIMER]
        return cls(
            form_id=row["form_id"],
            name=row["name"],
            questions=tuple((c.key, c.label) for c in asked),
            checkboxes=boxes,
            options={c.key: _distinct(c.options) for c in asked if c.options},
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """Which columns the chosen leads need, in order. `whole`: none of their entries is of an unknown shape."""

    forms: tuple[FormDefinition, ...]
    keys: tuple[str, ...]
    checkboxes: tuple[str, ...]
    whole: bool

    @classmethod
    def of(cls, forms: Iterable[Row], keys: Iterable[Row], checkboxes: Iterable[Row]) -> "Contents":
        """From the rows of a snapshot. Keys that the forms define come first, then the others as they appear."""
        defined = tuple(FormDefinition.from_row(row) for row in forms)
        found = [row["key"] for row in keys]
        boxes = [row["key"] for row in checkboxes]
        questions = dict.fromkeys(key for form in defined for key, _ in form.questions)
        ticked = dict.fromkeys(key for form in defined for key, _ in form.checkboxes)
        return cls(
            forms=defined,
            keys=tuple(questions | dict.fromkeys(key for key in found if key is not None)),
            checkboxes=tuple(ticked | dict.fromkeys(key for key in boxes if key is not None)),
            whole=None not in found and None not in boxes,
        )


class Lines(Protocol):
    """A format: how the text begins, and the text of some rows."""

    def header(self) -> str: ...
    def text(self, rows: Sequence[Row]) -> str: ...


class Table:
    """csv or tsv: one row a lead. `labels`: headers and choices as people read them; `raw`: nothing is defused."""

    def __init__(
        self,
        contents: Contents,
        zone: tzinfo,
        *,
        format: TableFormat,
        labels: bool = False,
        raw: bool = False,
    ) -> None:
        self._zone = zone
        self._dialect = DIALECTS[format]
        self._safe = str if raw else safe
        self._names = {form.form_id: form.name or "" for form in contents.forms}
        self._options = {form.form_id: form.options for form in contents.forms} if labels else {}
        self._rest = () if contents.whole else (AS_STORED,)
        self._headers = _headers(contents, labels, {*FIXED_COLUMNS, EXTRA, AS_STORED})
        self._unanswered = [""] * len(self._headers)
        own = [
            *(("question", key) for key in contents.keys),
            *(("disclaimer", key) for key in contents.checkboxes),
        ]
        self._places = {column: place for place, column in enumerate(own, len(FIXED_COLUMNS))}

    def header(self) -> str:
        """The line of column names."""
        return self._lines([[*FIXED_COLUMNS, *self._headers, EXTRA, *self._rest]])

    def text(self, rows: Sequence[Row]) -> str:
        """One line a row, which ends in CR LF; a cell may hold line breaks."""
        return self._lines(map(self._cells, rows))

    def _cells(self, row: Row) -> list[str]:
        told = _Told(row)
        options = self._options.get(row["form_id"], {})
        cells = [self._fixed(row, name) for name in FIXED_COLUMNS]
        # Of many forms together a lead answers few of the questions.
        cells += self._unanswered
        for key, values in told.answers.items():
            if key in options:
                values = [options[key].get(value, value) for value in values]
            cells[self._places["question", key]] = join(values)
        for key, ticks in told.disclaimers.items():
            cells[self._places["disclaimer", key]] = join([_yes_no(tick) for tick in ticks])
        cells.append(row["extra"] or "")
        if self._rest:
            cells.append("" if told.whole else _as_stored(row))
        return cells

    def _fixed(self, row: Row, name: str) -> str:
        value = self._names.get(row["form_id"]) if name == "form_name" else row[name]
        if isinstance(value, datetime):
            return _iso(value, self._zone)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    def _lines(self, rows: Iterable[Sequence[str]]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, self._dialect)
        writer.writerows([self._safe(cell) if cell else cell for cell in row] for row in rows)
        return text.getvalue()


class JsonLines:
    """jsonl: one object a lead, its fields always the same; nothing is altered."""

    def __init__(self, contents: Contents, zone: tzinfo) -> None:
        self._zone = zone
        self._names = {form.form_id: form.name for form in contents.forms}

    def header(self) -> str:
        """There is none."""
        return ""

    def text(self, rows: Sequence[Row]) -> str:
        """One line a row."""
        return "".join(self._line(row) for row in rows)

    def _line(self, row: Row) -> str:
        told = _Told(row)
        fields: dict[str, Any] = {}
        for name in FIXED_COLUMNS:
            value = self._names.get(row["form_id"]) if name == "form_name" else row[name]
            fields[name] = _iso(value, self._zone) if isinstance(value, datetime) else value
        fields["field_data"] = told.answers
        fields["disclaimers"] = {
            key: ticks[0] if len(ticks) == 1 else ticks for key, ticks in told.disclaimers.items()
        }
        text = json.dumps(fields, ensure_ascii=False)
        # Graph's own JSON goes in as it is: a number that passed through Python may come out as another.
        extra = row["extra"] or "null"
        as_stored = "null" if told.whole and told.is_text else _as_stored(row)
        return f'{text[:-1]}, "{EXTRA}": {extra}, "{AS_STORED}": {as_stored}}}\n'


class _Told:
    """What a row tells: answers and disclaimers by key.

    `whole`: no entry of its JSON is of an unknown shape; `is_text`: every answer was text already.
    """

    def __init__(self, row: Row) -> None:
        field_data = _parsed(row["field_data"])
        self.answers: dict[str, list[str]] = {}
        entries = 0
        for answer in answers(field_data):
            entries += 1
            self.answers.setdefault(answer.name, []).extend(answer.values)
        boxes = _parsed(row["custom_disclaimer_responses"])
        self.disclaimers: dict[str, list[bool | str]] = {}
        ticks = 0
        for box in boxes if isinstance(boxes, list) else ():
            if isinstance(box, dict) and isinstance(key := box.get("checkbox_key"), str):
                ticks += 1
                self.disclaimers.setdefault(key, []).append(_tick(box.get("is_checked")))
        self.whole = _count(field_data) == entries and _count(boxes) == ticks
        self._field_data = field_data

    @property
    def is_text(self) -> bool:
        entries = self._field_data if isinstance(self._field_data, list) else ()
        listed = (entry["values"] for entry in entries if isinstance(entry, dict) and entry.get("values"))
        return all(
            isinstance(value, str)
            for values in listed
            for value in (values if isinstance(values, list) else [values])
        )


def _count(entries: Json) -> int:
    """How many entries there are; what is no list is one, and of an unknown shape."""
    return len(entries) if isinstance(entries, list) else 0 if entries is None else 1


def _tick(told: Json) -> bool | str:
    """Whether it is checked; what says neither stays as it was told."""
    text = told if isinstance(told, str) else "" if told is None else json.dumps(told)
    return _CHECKED.get(text, text)


def _yes_no(tick: bool | str) -> str:
    return tick if isinstance(tick, str) else "yes" if tick else "no"


def _parsed(text: str | None) -> Json:
    value: Json = None if text is None else json.loads(text, parse_int=_int)
    return value


def _int(numeral: str) -> int | str:
    return int(numeral) if len(numeral) <= _MOST_DIGITS else numeral


def _as_stored(row: Row) -> str:
    field_data = row["field_data"] or "null"
    boxes = row["custom_disclaimer_responses"] or "null"
    return f'{{"field_data": {field_data}, "custom_disclaimer_responses": {boxes}}}'


def _iso(time: datetime, zone: tzinfo) -> str:
    """ISO 8601 with the zone's offset."""
    try:
        return time.astimezone(zone).isoformat()
    except OverflowError:  # within a day of the year 1 or 9999
        return time.isoformat()


def _distinct(options: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Labels by key, the first of a key; where two keys have the same label each names its key."""
    labels = dict(reversed(options))
    often = Counter(labels.values())
    return {key: label if often[label] == 1 else f"{label} ({key})" for key, label in labels.items()}


def _headers(contents: Contents, labels: bool, taken: set[str]) -> list[str]:
    """A name of its own for each question and then each checkbox: its key, or its label."""
    asked = _labels(form.questions for form in contents.forms) if labels else {}
    ticked = _labels(form.checkboxes for form in contents.forms) if labels else {}
    columns = [("question", key, asked.get(key, key)) for key in contents.keys]
    columns += [("disclaimer", key, ticked.get(key, f"disclaimer:{key}")) for key in contents.checkboxes]
    often = Counter(name for _, _, name in columns)
    clear = [bool(name) and often[name] == 1 and name not in taken for _, _, name in columns]
    names = taken | {name for (_, _, name), alone in zip(columns, clear, strict=True) if alone}
    headers = []
    for (kind, key, name), alone in zip(columns, clear, strict=True):
        header = name
        if not alone:
            header = f"{name} ({key})" if labels and name not in (key, f"{kind}:{key}") else f"{kind}:{key}"
            while header in names:
                header = f"{kind}:{header}"
            names.add(header)
        headers.append(header)
    return headers


def _labels(forms: Iterable[tuple[tuple[str, str], ...]]) -> dict[str, str]:
    """By key the label that all forms agree on; where they do not, the first one's with the key."""
    found: dict[str, dict[str, None]] = {}
    for form in forms:
        for key, label in form:
            if label != key:
                found.setdefault(key, {})[label] = None
    return {
        key: next(iter(told)) if len(told) == 1 else f"{next(iter(told))} ({key})"
        for key, told in found.items()
    }
