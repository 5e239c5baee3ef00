"""Files that people import, and cells that they open: Meta's export of any origin, our own export of any lead.

Input of `export_file`: the file. Of `cells`: the values of one question, a line each. Of `export`: the lead's JSON, as
Graph would answer it.
"""

import csv
import io
import json
import re
from datetime import UTC
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

from tests.fuzz.graph_targets import LEAD
from tests.fuzz.holdable import check_lead
from tests.fuzz.target import Target, holds
from worker.cells import bare, join, safe, split
from worker.errors import LeadSyncError
from worker.export import FIXED_COLUMNS, Contents, JsonLines, Table
from worker.export_file import ExportedLead, ExportFile
from worker.export_text import NotAnExport
from worker.json_text import read_json, write_json
from worker.lead import TEXT_FIELDS, Lead, answers

_REASON: Final = re.compile(r"[a-zA-Z0-9_ ,;:.+'-]{1,160}\Z", re.ASCII)
_FORMULA: Final = re.compile(r"[\t\r\n]|\s*[=@]|\s*[+-][^\d\s(]", re.ASCII)


class _Pieces(io.BytesIO):
    """A stream that gives less than what is asked for, as pipes do."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = max(61, len(self.getbuffer()) // 8)
        return super().read(min(size, most) if size is not None and size > 0 else size)


def check_export_file(data: bytes) -> None:
    """Each row is a lead that becomes a row of ours, or is refused in words that hold none of it."""
    whole = _rows(io.BytesIO(data))
    holds("a file read in pieces gives the same rows", whole == _rows(_Pieces(data)))
    lines = [row.line for row in whole]
    holds("lines go on", all(a < b for a, b in pairwise(lines)))
    for row in whole:
        if isinstance(row, ExportedLead):
            check_lead(row.lead)
        else:
            holds("a reason names columns only", _REASON.match(row.reason))


def _rows(stream: io.BytesIO) -> list[Any]:
    try:
        return list(ExportFile(stream, ZoneInfo("Europe/Berlin")))
    except NotAnExport:
        return []


def check_cells(data: bytes) -> None:
    """Values survive a cell, and no cell begins as a formula does."""
    values = tuple(data.decode("utf-8", "replace").split("\n"))
    joined = join(values)
    holds("values survive being joined", split(joined) == (() if values == ("",) else values))
    for text in (*values, joined):
        defused = safe(text)
        holds("a text survives being made safe", bare(defused) == text)
        holds("no cell is a formula", not _FORMULA.match(defused))


def check_export(data: bytes) -> None:
    """A lead of any shape comes out of our own export: as a table of whole rows, as JSON that can be read."""
    try:
        raw, is_clean = read_json(data)
        body = {**raw, "id": LEAD} if isinstance(raw, dict) else {"id": LEAD, "field_data": raw}
        lead = Lead.from_graph(body, leadgen_id=LEAD, in_part=False, is_clean=is_clean)
        row = _row_of(lead)
    except (ValueError, RecursionError, LeadSyncError):
        return  # never became a row
    keys = [{"key": answer.name} for answer in answers(lead.field_data)]
    boxes = lead.custom_disclaimer_responses
    ticked = [
        {"key": box.get("checkbox_key") if isinstance(box, dict) else None}
        for box in (boxes if isinstance(boxes, list) else [boxes])
    ]
    ticked = [{"key": tick["key"] if isinstance(tick["key"], str) else None} for tick in ticked]
    contents = Contents.of([], [*keys, {"key": None}], ticked)
    table = Table(contents, UTC, format="csv")
    read = list(csv.reader(io.StringIO(table.header() + table.text([row]), newline="")))
    holds("a lead is one row of the table", [len(cells) for cells in read] == [len(read[0])] * 2)
    json.loads(JsonLines(contents, UTC).text([row]))


def _row_of(lead: Lead) -> dict[str, Any]:
    """As store/export.py gives it: JSON as text."""
    texts = {name: getattr(lead, name) for name in TEXT_FIELDS}
    told = {"field_data": lead.field_data, "custom_disclaimer_responses": lead.custom_disclaimer_responses}
    written = {name: None if value is None else write_json(value).decode() for name, value in told.items()}
    fixed = dict.fromkeys(FIXED_COLUMNS)
    return {
        **fixed, **texts, **written, "leadgen_id": lead.leadgen_id, "created_time": lead.created_time,
        "is_organic": lead.is_organic, "extra": write_json(lead.extra).decode() if lead.extra else None,
    }  # fmt: skip


TARGETS: Final = (
    Target(
        "export_file",
        check_export_file,
        b'id created_time ad_id form_id is_organic platform full_name l:1 f:2 "" \t , ; \xef\xbb\xbf \xff\xfe p:+ z:'
        b" 2026-10-01T14:30:00+02:00 id\tcreated_time rejected_line inbox_url lead_status".split(b" "),
        share=6,
    ),
    Target(
        "cells", check_cells, (b" | ", b"\\|", b"=", b"+", b"@", b"\t", b";", b"'", b"\xef\xbc\x9d"), share=15
    ),
    Target(
        "export",
        check_export,
        b'"field_data" "name" "values" "custom_disclaimer_responses" "checkbox_key" "is_checked" null "=1"'.split(),
        share=5,
    ),
)
