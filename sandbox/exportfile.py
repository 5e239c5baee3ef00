"""The export file of a form: leads with their fields -> the text of a table, as Ads Manager downloads it.

    form -> header;   lead, its fields -> one line

The file's encoding, the way it tells true from false and its clock are not documented or were seen to differ, so
they are settings. Which leads stand in it, and who may have it, is told in download.py.

Invariant: every line has as many cells as the header.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, Literal

from sandbox.questions import PHONE_TYPES
from sandbox.world import Form

ExportEncoding = Literal["utf-8", "utf-8-sig", "utf-16"]
ENCODINGS: Final[tuple[ExportEncoding, ...]] = ("utf-8", "utf-8-sig", "utf-16")
ExportSeparator = Literal["tab", "comma"]
SEPARATORS: Final[tuple[ExportSeparator, ...]] = ("tab", "comma")
ExportFlags = Literal["digits", "words"]
FLAGS: Final[tuple[ExportFlags, ...]] = ("digits", "words")
ZONE: Final = re.compile(r"[+-](0[0-9]|1[0-4]):[0-5][0-9]\Z")

_AD_PREFIXES: Final = {
    "ad_id": "ag:",
    "ad_name": "",
    "adset_id": "as:",
    "adset_name": "",
    "campaign_id": "c:",
    "campaign_name": "",
}
"""The prefixes keep spreadsheets from reading ids as numbers."""


@dataclass(frozen=True, slots=True)
class ExportStyle:
    """How the file is written."""

    encoding: ExportEncoding
    separator: ExportSeparator
    zone: str
    flags: ExportFlags
    status: bool

    def encode(self, text: str, *, first: bool) -> bytes:
        """A piece of the file; the first one begins with the byte order mark, if there is one."""
        mark = "\ufeff" if first and self.encoding != "utf-8" else ""
        codec = "utf-16-le" if self.encoding == "utf-16" else "utf-8"
        return (mark + text).encode(codec, "replace")


class ExportTable:
    """The table of one form."""

    def __init__(self, form: Form, style: ExportStyle) -> None:
        self._form, self._style = form, style
        self._zone = _zone(style.zone)
        self._keys = [question.key for question in form.questions] + [key for key, _ in form.tracking]
        self._phones = {question.key for question in form.questions if question.type in PHONE_TYPES}

    def header(self) -> str:
        """The names of the columns: the lead's own, then the form's questions in their order."""
        last = ["inbox_url", "lead_status"] if self._style.status else []
        own = ["id", "created_time", *_AD_PREFIXES, "form_id", "form_name", "is_organic", "platform"]
        return self._line([*own, *self._keys, *last])

    def line(self, lead: Mapping[str, Any], created_time: int) -> str:
        """One lead; a cell of what it does not have is empty."""
        at = datetime.fromtimestamp(created_time, UTC).astimezone(self._zone)
        ads = [f"{mark}{lead[name]}" if name in lead else "" for name, mark in _AD_PREFIXES.items()]
        answers = {entry["name"]: entry.get("values") or () for entry in lead["field_data"]}
        cells = [f"l:{lead['id']}", at.isoformat(), *ads]
        cells += [
            f"f:{self._form.form_id}",
            self._form.name,
            self._flag(lead["is_organic"]),
            lead["platform"],
        ]
        cells += [self._answer(key, answers.get(key, ())) for key in self._keys]
        if self._style.status:
            cells += [f"https://business.facebook.com/latest/inbox/leads?id={lead['id']}", "complete"]
        return self._line(cells)

    def _answer(self, key: str, values: Sequence[str]) -> str:
        text = ", ".join(values)
        return f"p:{text}" if text and key in self._phones else text

    def _flag(self, value: bool) -> str:
        return str(int(value)) if self._style.flags == "digits" else str(value).lower()

    def _line(self, cells: Sequence[str]) -> str:
        line = io.StringIO()
        csv.writer(
            line, delimiter="\t" if self._style.separator == "tab" else ",", lineterminator="\n"
        ).writerow(cells)
        return line.getvalue()


def _zone(offset: str) -> timezone:
    hours, minutes = offset[1:].split(":")
    delta = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-delta if offset[0] == "-" else delta)
