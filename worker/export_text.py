"""Bytes of a table -> its header and its records: encoding, lines, separator, quotes.

    bytes -> encoding -> lines -> header -> records

It does not know what a column means: whether a line is the header, and whether cells are a row, it asks. Invariants:
each line after the header is in one record; memory does not grow with the file; a quote that somebody typed and never
closed costs no other row.
"""

import codecs
import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeAlias

from worker.errors import LeadSyncError

_DELIMITERS: Final = ("\t", ",", ";")
_HEAD_BYTES: Final = 4_096
_BLOCK_BYTES: Final = 256 * 1_024
_LONGEST_LINE: Final = 1_024 * 1_024
# A quoted cell may hold line breaks; a quote that is never closed must not take in the rest of the file, nor may lines
# that each close one quote and open another: together they are no longer than one line may be.
_MOST_LINES_A_ROW: Final = 500
_CUT_OFF: Final = "is cut off: the file ends within a character"
NOT_AN_EXPORT: Final = "is not a lead export: its first line names no column `id`"

Cells: TypeAlias = tuple[str, ...]
Line: TypeAlias = tuple[int, str]


class NotAnExport(LeadSyncError):
    """The file as a whole is no lead export."""

    reason = "not_an_export"


@dataclass(frozen=True, slots=True)
class Record:
    """The line where it begins, its cells, and why it is none, if so."""

    line: int
    cells: Cells
    problem: str | None


class Table:
    """A table whose header has been read. Raises NotAnExport where it has none.

    `known` says how many names it knows in a header, or None where that is none; `is_row` whether the cells of a line
    alone are a row.
    """

    def __init__(self, stream: BinaryIO, known: Callable[[Cells], int | None]) -> None:
        head = _read_head(stream)
        encoding, mark = _encoding(head)
        self.is_utf8 = encoding == "utf-8"
        """Else it is UTF-16. Only in UTF-8 a lone surrogate, U+DC80 to U+DCFF, stands for a byte that is none of it."""
        self._lines = _Lines(stream, head, encoding, mark)
        self._delimiter, self.header = _header(self._lines, known)

    @property
    def bytes_read(self) -> int:
        """How far the stream has been read."""
        return self._lines.bytes_read

    def records(self, is_row: Callable[[Cells], bool]) -> Iterator[Record]:
        """The records, blank ones too."""
        lines = self._lines
        for number, text in lines:
            if number == lines.cut_at:
                yield Record(number, self._plain(text), _CUT_OFF)
            elif len(text) > _LONGEST_LINE:
                yield Record(number, self._plain(text), "is longer than a lead can be")
            elif '"' not in text:
                cells = self._plain(text)
                yield Record(number, cells, self._miscounted(cells))
            else:
                yield self._quoted_record((number, text), is_row)

    def _quoted_record(self, first: Line, is_row: Callable[[Cells], bool]) -> Record:
        """A row with quotes: as CSV has them, or, where that gives no row, as plain text that somebody typed."""
        number, text = first
        taken, cells = _quoted(self._lines, first, self._delimiter)
        plain = self._plain(text)
        is_cut = taken[-1][0] == self._lines.cut_at
        if cells is not None and self._fits(cells) and not is_cut:
            alone = (self._plain(line) for _, line in taken)
            # Two quotes in two rows are not one cell.
            if len(taken) == 1 or not all(self._fits(row) and is_row(row) for row in alone):
                return Record(number, cells, None)
        elif cells is not None and not self._fits(plain):
            return Record(number, cells, _CUT_OFF if is_cut else self._miscounted(cells))
        self._lines.put_back(taken[1:])
        return Record(number, plain, None if self._fits(plain) else "has a quote that is not closed")

    def _plain(self, text: str) -> Cells:
        return _plain(text, self._delimiter)

    def _fits(self, cells: Cells) -> bool:
        return len(cells) == len(self.header)

    def _miscounted(self, cells: Cells) -> str | None:
        if self._fits(cells) or not any(cells):
            return None
        return f"has too {'many' if len(cells) > len(self.header) else 'few'} cells"


def _read_head(stream: BinaryIO) -> bytes:
    """The first bytes; a pipe gives them in pieces."""
    head = b""
    while len(head) < _HEAD_BYTES and (block := stream.read(_HEAD_BYTES - len(head))):
        head += block
    return head


def _encoding(head: bytes) -> tuple[str, int]:
    """The encoding of a file that begins so, and the length of its byte order mark."""
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise NotAnExport(
            "is a spreadsheet's workbook; save it as CSV or TSV, or better import Meta's own file"
        )
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8", 3
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16-le" if head.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"), 2
    # Every tab, digit and letter of Meta's column names is half a NUL in UTF-16.
    places = max(1, len(head) // 2)
    high, low = head[0::2].count(0) / places, head[1::2].count(0) / places
    if max(high, low) > 0.2 and max(high, low) > 4 * min(high, low):
        return ("utf-16-le" if low > high else "utf-16-be"), 0
    return "utf-8", 0


class _Lines:
    """The stream as lines with their ends, each with its number, and a few of them put back."""

    def __init__(self, stream: BinaryIO, head: bytes, encoding: str, mark: int) -> None:
        self.bytes_read = len(head)
        self.cut_at: int | None = None
        """The number of the last line, where the file ends within a character of it."""
        self._blocks = self._read(stream, head[mark:])
        # Bytes that are not UTF-8 are carried along, to be refused with their row; UTF-16 has lone surrogates.
        errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._fresh = self._split()
        self._put_back: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._put_back.popleft() if self._put_back else next(self._fresh)

    def put_back(self, lines: list[Line]) -> None:
        """Give these lines again before the others."""
        self._put_back.extendleft(reversed(lines))

    def _read(self, stream: BinaryIO, head: bytes) -> Iterator[bytes]:
        yield head
        while block := stream.read(_BLOCK_BYTES):
            self.bytes_read += len(block)
            yield block

    def _split(self) -> Iterator[Line]:
        number, rest = 0, ""
        for block in self._blocks:
            text = rest + self._decoder.decode(block)
            rest, place = "", 0
            for line in io.StringIO(text, newline=""):
                place += len(line)
                # A carriage return at the end of a block may be half of a line's end.
                if line.endswith("\n") or (line.endswith("\r") and place < len(text)):
                    number += 1
                    yield number, line
                else:
                    rest = line[: _LONGEST_LINE + 1]
        try:
            rest += self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            self.cut_at = number + 1
        if rest or self.cut_at is not None:
            yield number + 1, rest


def _header(lines: _Lines, known: Callable[[Cells], int | None]) -> tuple[str, Cells]:
    """The delimiter and the names of the columns: that which makes most known names of the first line."""
    first = next((numbered for numbered in lines if numbered[1].strip("\ufeff \t\r\n")), None)
    if first is None:
        raise NotAnExport("is empty")
    number, text = first[0], first[1].removeprefix("\ufeff")
    best: tuple[int, str, Cells, int] | None = None
    for delimiter in _DELIMITERS:
        taken, cells = _quoted(lines, (number, text), delimiter)
        lines.put_back(taken[1:])
        cells = _plain(text, delimiter) if cells is None else cells
        names = known(cells)
        if names is not None and (best is None or names > best[0]):
            best = (names, delimiter, cells, len(taken))
    if best is None:
        raise NotAnExport(_what_it_is(text))
    for _ in range(best[3] - 1):
        next(lines)
    return best[1], best[2]


def _what_it_is(text: str) -> str:
    start = text.lstrip()
    if start.startswith("<"):
        return "is a web page, not a lead export: log in to Meta and download the file again"
    if start.startswith(("{", "[", "for (;;);")):
        return "is an error message of Meta, not a lead export: log in to Meta and download the file again"
    return NOT_AN_EXPORT


def _quoted(lines: _Lines, first: Line, delimiter: str) -> tuple[list[Line], Cells | None]:
    """The lines that one CSV record takes, and its cells; None where it is no CSV."""
    taken: list[Line] = []

    def feed() -> Iterator[str]:
        taken.append(first)
        yield first[1]
        room = _LONGEST_LINE - len(first[1])
        while len(taken) < _MOST_LINES_A_ROW and room > 0 and (numbered := next(lines, None)) is not None:
            taken.append(numbered)
            room -= len(numbered[1])
            yield numbered[1]

    try:
        return taken, tuple(next(csv.reader(feed(), delimiter=delimiter, strict=True)))
    except (csv.Error, StopIteration):
        return taken, None


def _plain(text: str, delimiter: str) -> Cells:
    return tuple(text.rstrip("\r\n").split(delimiter))
