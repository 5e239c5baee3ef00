"""Leftover files of imports lose the rows of people who were forgotten, and nothing else."""

import asyncio
import io
import stat
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

import pytest

from worker.conditions import Condition
from worker.export_file import ExportFile, Refused
from worker.export_text import NotAnExport
from worker.leftovers import Cleaned, clean
from worker.rejected import RejectedRows

HEADER = ("id", "created_time", "form_id", "email", "phone", "note")


def erased(*ids: str) -> object:
    """Whoever knows which leads are erased."""

    async def among(asked: Sequence[str]) -> frozenset[str]:
        return frozenset(ids).intersection(asked)

    return among


def leftover(path: Path, *rows: tuple[str, ...]) -> Path:
    """A file as an import leaves it."""
    with RejectedRows(path, HEADER) as kept:
        for number, cells in enumerate(rows, 2):
            kept.keep(Refused(number, "page unknown; give --page", cells))
    return path


def cleaned(path: Path, among: object, *conditions: Condition, dry_run: bool = False) -> Cleaned:
    return asyncio.run(clean(path, conditions, among, dry_run=dry_run))  # type: ignore[arg-type]


def ids(path: Path) -> list[str]:
    """What the first cell after line and reason of each row is."""
    return [row.cells[2] for row in ExportFile(io.BytesIO(path.read_bytes()), UTC)]


ANN = ("l:1", "2026-11-01T12:00:00+01:00", "f:7", "ann@example.org", "p:+491701234567", 'says "hi"\nand more')
BOB = ("l:2", "2026-11-01T12:00:00+01:00", "f:7", "bob@example.org", "p:+491707654321", "ü \udcff")
DAMAGED = ("1.2E+15", "01/11/2026", "f:7", "ann@example.org", "", "")
SHORT = ("l:3", "2026-11-01", "ann@example.org")


def test_rows_of_erased_leads_go_and_the_others_keep_their_cells(tmp_path: Path) -> None:
    """Also one that could not be read; bytes of what stays are as they were, and the file is its owner's."""
    path = leftover(tmp_path / "x.rejected.tsv", ANN, BOB, DAMAGED, SHORT)
    alone = leftover(tmp_path / "y.tsv", BOB).read_bytes().splitlines()
    assert cleaned(path, erased("1", "3")) == Cleaned(4, 2)
    assert ids(path) == ["l:2", "1.2E+15"]
    lines = path.read_bytes().splitlines()
    assert lines[0] == alone[0]
    assert lines[1].split(b"\t")[2:] == alone[1].split(b"\t")[2:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b'"hi"' not in path.read_bytes()


def test_rows_whose_id_was_lost_go_by_their_answers(tmp_path: Path) -> None:
    """A row with cells in the wrong columns too: what was asked does not count there."""
    path = leftover(tmp_path / "x.rejected.tsv", ANN, BOB, DAMAGED, SHORT)
    assert cleaned(path, erased(), Condition.of("email", "ANN@example.org")) == Cleaned(4, 3)
    assert ids(path) == ["l:2"]
    assert cleaned(path, erased(), Condition.of("phone", "+49 170 7654321")) == Cleaned(1, 1)
    assert ids(path) == []


@pytest.mark.parametrize(
    "line",
    [
        '"l:123","2026-10-01T00:00:00Z","f:7","ann@example.org","p:+491701234567","of "York"',
        ' "l:123" ,"2026-10-01T00:00:00Z","f:7", "ann@example.org" ," p:+491701234567",not closed"',
        '"l:123,"f:7"," ann@example.org,"p:+491701234567"',
    ],
    ids=["a quote within", "blanks around", "quotes that open only"],
)
@pytest.mark.parametrize(
    ("gone", "conditions"),
    [
        (erased("123"), ()),
        (erased(), (Condition.of("email", "ann@example.org"),)),
        (erased(), (Condition.of("*", "+49 170 1234567"),)),
    ],
    ids=["id", "text", "phone"],
)
def test_quotes_that_came_along_hide_nobody(
    tmp_path: Path, line: str, gone: object, conditions: tuple[Condition, ...]
) -> None:
    """A row whose quotes give no cells is kept aside with them: its id and answers are found all the same."""
    export = ExportFile(io.BytesIO(f"{','.join(HEADER)}\r\n{line}\r\n".encode()), UTC)
    (row,) = export
    assert isinstance(row, Refused)
    path = leftover(tmp_path / "x.rejected.tsv", row.cells, BOB)
    assert cleaned(path, gone, *conditions) == Cleaned(2, 1)
    assert ids(path) == ["l:2"]


def test_doubled_quotes_are_one(tmp_path: Path) -> None:
    """An answer with quotes of its own has them doubled where its cell's quotes came along."""
    path = leftover(tmp_path / "x.rejected.tsv", ('"l:1"', '"Ann ""the"" Doe"', "of York"), BOB)
    assert cleaned(path, erased(), Condition.of("name", 'Ann "the" Doe')) == Cleaned(2, 1)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_file_that_loses_nothing_is_not_touched(tmp_path: Path, dry_run: bool) -> None:
    """Nor by a dry run, which counts the same."""
    path = leftover(tmp_path / "x.rejected.tsv", ANN, BOB)
    before = path.read_bytes(), path.stat().st_ino
    told = cleaned(path, erased("1") if dry_run else erased("9"), dry_run=dry_run)
    assert told == Cleaned(2, int(dry_run))
    assert (path.read_bytes(), path.stat().st_ino) == before


def test_what_is_no_export_is_told(tmp_path: Path) -> None:
    """And stays as it is."""
    path = tmp_path / "x"
    path.write_text("hello")
    with pytest.raises(NotAnExport):
        cleaned(path, erased("1"))
    assert path.read_text() == "hello"
