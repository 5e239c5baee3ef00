"""Bytes of Meta's lead export (Ads Manager, Leads Centre) -> leads, and rows that cannot be read.

    bytes -> records (export_text.py) -> columns by header -> Lead | Refused

It opens no file and writes nothing. Nothing is known of this format but samples, so it is read by its header: tab,
comma or semicolon, UTF-8 or UTF-16, any order of columns. Invariants: each line after the header is in one lead or
in one Refused, unless it is blank; memory does not grow with the file; a reason names columns and never holds what
is in them; an answer is kept as it stands but for the marks `p:` and `z:` that Meta puts before phones and zip codes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import BinaryIO, Final, TypeAlias

from worker.export_text import Cells, Table
from worker.inbox import is_id
from worker.lead import Json, Lead
from worker.when import in_zone, iso_time

ID_COLUMNS: Final = ("id", "ad_id", "adset_id", "campaign_id", "form_id")
NAME_COLUMNS: Final = ("ad_name", "adset_name", "campaign_name", "form_name")
TRAILING_COLUMNS: Final = ("inbox_url", "lead_status")
KNOWN_COLUMNS: Final = frozenset(
    (*ID_COLUMNS, *NAME_COLUMNS, *TRAILING_COLUMNS, "created_time", "is_organic", "platform")
)
REJECTED_LINE: Final = "rejected_line"
REJECTED_REASON: Final = "rejected_reason"
"""What a file of rejected rows has before the columns of its origin; importing it passes them over."""

# What the export writes before ids, so that spreadsheets take them for text.
_MARKED_ID: Final = re.compile(r"(?:l|ag|as|c|f|p):", re.ASCII)
_SPREADSHEET_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)?E\+?\d+\Z|\d+[.,]\d+\Z", re.ASCII | re.IGNORECASE)
_MARKED_PHONE: Final = re.compile(r"p:(?:(?=[^0-9]*[0-9])[+0-9\s()\[\]-]+\Z|<test lead)", re.ASCII)
_MARKED_ZIP: Final = re.compile(
    r"z:(?:(?=[^0-9]*[0-9])[0-9A-Za-z][0-9A-Za-z -]{1,11}\Z|<test lead)", re.ASCII
)
_ISO_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)? ?(?:Z|[+-]\d{2}:?\d{2})?\Z", re.ASCII
)
_FLAGS: Final[Mapping[str, bool]] = {
    "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False
}  # fmt: skip
_PLATFORMS: Final[Mapping[str, str]] = {"facebook": "fb", "instagram": "ig"}
_ESCAPED_BYTE: Final = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class ExportedLead:
    """A lead, the line of the file where it begins, and its cells. It is in part: Graph would have told more."""

    line: int
    lead: Lead
    cells: Cells


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that is no lead, as it stands in the file, and why."""

    line: int
    reason: str
    cells: Cells


ExportRow: TypeAlias = "ExportedLead | Refused"


class _Unreadable(Exception):
    """A row cannot be read; the text is the reason."""


class ExportFile:
    """An export whose header has been read. Raises export_text.NotAnExport where it is none.

    `stream` is read to its end, once; `zone` is where a time without an offset was told.
    """

    def __init__(self, stream: BinaryIO, zone: tzinfo) -> None:
        self._table = Table(stream, _known_names)
        self._columns = _Columns.of(self._table.header)
        self._zone = zone
        self._other_header = False

    @property
    def header(self) -> Cells:
        """The names of the columns as they stand."""
        return self._table.header

    @property
    def bytes_read(self) -> int:
        """How far the stream has been read."""
        return self._table.bytes_read

    def __iter__(self) -> Iterator[ExportRow]:
        for record in self._table.records(self._has_id):
            if any(record.cells) or record.problem is not None:
                yield self._row(record.line, record.cells, record.problem)

    def _has_id(self, cells: Cells) -> bool:
        try:
            return _id("id", cells[self._columns.at["id"]]) is not None
        except _Unreadable:
            return False

    def _row(self, line: int, cells: Cells, problem: str | None) -> ExportRow:
        try:
            if self._other_header:
                raise _Unreadable("comes after a second, different header; split the file there")
            if problem is not None:
                raise _Unreadable(problem)
            return ExportedLead(line, self._lead(cells), cells)
        except _Unreadable as unreadable:
            return Refused(line, self._second_header(cells) or str(unreadable), cells)

    def _second_header(self, cells: Cells) -> str | None:
        """Files that were joined bring their headers along, and what follows another header is read by none."""
        names = [_column(cell) for cell in cells]
        if names == [_column(name) for name in self.header]:
            return "is the header once more"
        if "id" not in names or len(KNOWN_COLUMNS.intersection(names)) < 2:
            return None
        self._other_header = True
        return "is a second, different header; split the file there"

    def _lead(self, cells: Cells) -> Lead:
        columns = self._columns
        if self._table.is_utf8 and any(map(_ESCAPED_BYTE.search, cells)):
            cells = tuple(map(_unescaped, cells))
        if any(cells[index] for index in columns.nameless):
            raise _Unreadable("has a value in a column without a name")
        raw: dict[str, Json] = {
            name: cells[index] for name, index in columns.at.items() if cells[index] and name in columns.texts
        }
        for name in ID_COLUMNS:
            raw[name] = _id(name, cells[columns.at[name]]) if name in columns.at else None
        leadgen_id = raw["id"]
        if not isinstance(leadgen_id, str):
            raise _Unreadable("has no id")
        if "created_time" in columns.at:
            raw["created_time"] = _time(cells[columns.at["created_time"]], self._zone)
        if "is_organic" in columns.at:
            raw["is_organic"] = _flag(cells[columns.at["is_organic"]])
        if "platform" in columns.at:
            platform = cells[columns.at["platform"]].strip()
            raw["platform"] = _PLATFORMS.get(platform.lower(), platform)
        raw["field_data"] = [
            {"name": name, "values": [_answer(cell)] if (cell := cells[index]) else []}
            for index, name in columns.questions
        ]
        return Lead.from_graph(raw, leadgen_id=leadgen_id, in_part=True)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where each of Meta's columns is, and every other as a question by its index."""

    at: Mapping[str, int]
    texts: frozenset[str]
    questions: tuple[tuple[int, str], ...]
    nameless: tuple[int, ...]

    @classmethod
    def of(cls, header: Cells) -> "_Columns":
        """Of two columns with one of Meta's names the other is a question: Meta's are first, two of them last."""
        at: dict[str, int] = {}
        for index, cell in enumerate(header):
            name = _column(cell)
            if name in TRAILING_COLUMNS or (name in KNOWN_COLUMNS and name not in at):
                at[name] = index
        ours = {i for i, cell in enumerate(header) if _column(cell) in (REJECTED_LINE, REJECTED_REASON)}
        nameless = tuple(index for index, cell in enumerate(header) if not cell.strip())
        taken = {*at.values(), *ours, *nameless}
        questions = tuple((index, cell) for index, cell in enumerate(header) if index not in taken)
        return cls(at, frozenset((*NAME_COLUMNS, *TRAILING_COLUMNS)), questions, nameless)


def _known_names(cells: Cells) -> int | None:
    names = set(map(_column, cells))
    return len(KNOWN_COLUMNS & names) if "id" in names else None


def _column(cell: str) -> str:
    return "_".join(cell.replace("\ufeff", "").lower().split())


def _id(column: str, cell: str) -> str | None:
    text = cell.strip()
    if mark := _MARKED_ID.match(text):
        text = text[mark.end() :]
    if not text:
        return None
    if is_id(text):
        return text
    if _SPREADSHEET_NUMBER.match(text):
        raise _Unreadable(f"{column} was damaged by a spreadsheet, which took it for a number")
    raise _Unreadable(f"{column} is not an id")


def _time(cell: str, zone: tzinfo) -> str | None:
    text = cell.strip()
    if not text:
        return None
    if not _ISO_TIME.match(text):
        raise _Unreadable(
            "created_time is not ISO 8601 like 2026-10-01T14:30:00+02:00; a spreadsheet may have rewritten it"
        )
    try:
        return in_zone(iso_time(text), zone).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise _Unreadable("created_time is no time that there is") from None


def _flag(cell: str) -> bool | None:
    text = cell.strip().lower()
    if not text:
        return None
    if text not in _FLAGS:
        raise _Unreadable("is_organic is none of 0, 1, true, false, yes, no")
    return _FLAGS[text]


def _answer(cell: str) -> str:
    if cell[1:2] == ":" and (_MARKED_PHONE.match(cell) or _MARKED_ZIP.match(cell)):
        return cell[2:]
    return cell


def _unescaped(cell: str) -> str:
    """A cell with bytes that are not UTF-8. Lone surrogates are let pass: Lead cleans them."""
    try:
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise _Unreadable("holds bytes that are not UTF-8; save the file as UTF-8") from None
