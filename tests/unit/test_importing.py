"""Rows of a file as batches: whose Page they are of, what is counted, what is kept aside."""

import asyncio
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.fakes.time import NOW
from worker.export_file import ExportFile, Refused
from worker.importing import PAGE_UNKNOWN, Importer, Summary
from worker.rejected import RejectedRows
from worker.store.imports import Imported, OfPage

HEADER = "id\tform_id\tq\n"


class MemoryRows:
    """A store that holds ids and Pages; Postgres would refuse the leads in `refused`."""

    def __init__(
        self,
        forms: dict[str, str] | None = None,
        rows: dict[str, str] | None = None,
        refused: Iterable[str] = (),
    ) -> None:
        self.forms = forms or {}
        self.rows = rows or {}
        self.refused = frozenset(refused)
        self.asked: list[tuple[str, ...]] = []
        self.batches: list[list[str]] = []

    async def pages_of_forms(self, form_ids: Sequence[str]) -> dict[str, str]:
        self.asked.append(tuple(form_ids))
        return {form_id: self.forms[form_id] for form_id in form_ids if form_id in self.forms}

    async def pages_of_leads(self, leadgen_ids: Sequence[str]) -> dict[str, str]:
        return {leadgen_id: self.rows[leadgen_id] for leadgen_id in leadgen_ids if leadgen_id in self.rows}

    async def write(self, leads: Sequence[OfPage], now: datetime, *, dry_run: bool) -> Imported:
        assert now == NOW
        ids = [lead.leadgen_id for lead, _ in leads]
        assert len(set(ids)) == len(ids)
        self.batches.append(ids)
        fresh = [(lead, page) for lead, page in leads if lead.leadgen_id not in self.rows]
        bad = self.refused.intersection(ids)
        if not dry_run:
            self.rows |= {lead.leadgen_id: page for lead, page in fresh if lead.leadgen_id not in bad}
        new = sum(lead.leadgen_id not in bad for lead, _ in fresh)
        return Imported(new, 0, len(ids) - new - len(bad), dict.fromkeys(bad, "23514"))


def imported(
    rows: MemoryRows,
    text: str,
    *,
    page_id: str | None = None,
    dry_run: bool = False,
    batch: int = 1_000,
) -> tuple[Summary, list[Refused]]:
    """What became of a file, and what was kept aside."""
    aside: list[Refused] = []
    importer = Importer(rows, aside.append, lambda: NOW, page_id=page_id, dry_run=dry_run, batch=batch)
    export = ExportFile(io.BytesIO((HEADER + text).encode()), UTC)
    return asyncio.run(importer.run(export, lambda: None)), aside


def test_a_page_is_found_by_the_form_then_by_the_row_then_by_the_operator() -> None:
    """What Meta or our rows say goes before what the operator says."""
    rows = MemoryRows({"12": "100"}, {"2": "200"})
    imported(rows, "l:1\tf:12\ta\nl:2\tf:13\ta\nl:3\tf:13\ta\nl:4\t\ta\n", page_id="300")
    assert rows.rows == {"1": "100", "2": "200", "3": "300", "4": "300"}


def test_a_row_of_an_unknown_page_is_kept_aside() -> None:
    """Without --page there is nobody to ask; the row is kept with its cells as they stand."""
    rows = MemoryRows({"12": "100"})
    summary, aside = imported(rows, "l:1\tf:13\ta\nl:2\tf:12\ta\nl:3\t\tb\n")
    assert aside == [
        Refused(2, PAGE_UNKNOWN, ("l:1", "f:13", "a")),
        Refused(4, PAGE_UNKNOWN, ("l:3", "", "b")),
    ]
    assert (summary.rows, summary.new, summary.kept_aside) == (3, 1, 2)


def test_a_form_is_asked_for_once() -> None:
    """Also where it is not known: finding its Page may read the whole table."""
    rows = MemoryRows({"12": "100"})
    imported(rows, "1\t12\t\n2\t13\t\n3\t12\t\n4\t13\t\n5\t14\t\n", page_id="1", batch=2)
    assert rows.asked == [("12", "13"), ("14",)]


def test_rows_go_in_batches() -> None:
    """A statement takes so many, the last one what is left."""
    rows = MemoryRows()
    imported(rows, "".join(f"{n}\t\t\n" for n in range(1, 8)), page_id="1", batch=3)
    assert rows.batches == [["1", "2", "3"], ["4", "5", "6"], ["7"]]


def test_a_lead_that_is_twice_in_the_file_is_never_twice_in_a_statement() -> None:
    """The same once more is unchanged; one that tells something else comes in the next statement."""
    rows = MemoryRows()
    summary, _ = imported(rows, "1\t\ta\n2\t\tb\n1\t\ta\n1\t\tc\n3\t\td\n", page_id="9")
    assert rows.batches == [["1", "2"], ["1", "3"]]
    assert (summary.rows, summary.new, summary.unchanged) == (5, 3, 2)


def test_each_row_is_counted_once() -> None:
    """New, completed, unchanged and kept aside make up all rows, whatever is wrong with some."""
    rows = MemoryRows({"12": "100"}, {"1": "100"}, refused=["4"])
    summary, aside = imported(rows, "1\t12\t\n2\t12\t\nx\t12\t\n4\t12\t\n5\t13\t\n6\t12\n7\t12\t\n")
    assert (summary.rows, summary.new, summary.completed, summary.unchanged) == (7, 2, 0, 1)
    assert dict(summary.reasons) == {
        "id is not an id": 1,
        "has too few cells": 1,
        PAGE_UNKNOWN: 1,
        "is refused by Postgres (SQLSTATE 23514)": 1,
    }
    assert sorted(refused.line for refused in aside) == [4, 5, 6, 7]


def test_a_dry_run_is_told_to_the_store() -> None:
    """It counts the same and writes nothing."""
    rows = MemoryRows()
    summary, _ = imported(rows, "1\t\t\n2\t\t\n", page_id="9", dry_run=True)
    assert (summary.new, rows.rows) == (2, {})


def test_rejected_rows_can_be_mended_and_imported(tmp_path: Path) -> None:
    """The file has line and reason before the row's own cells, which an import passes over; only its owner reads it."""
    path = tmp_path / "leads.rejected.tsv"
    with RejectedRows(path, ("id", "form_id", "q")) as kept:
        kept.keep(Refused(7, "has no id", ("", "f:12", 'a "quoted"\r\nline\ttab \udcfc')))
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert content.startswith(b"rejected_line\trejected_reason\tid\tform_id\tq\r\n7\thas no id\t\tf:12\t")
    mended = content.replace(b"\xfc", "ü".encode()).replace(b"no id\t\t", b"no id\tl:5\t")
    (row,) = ExportFile(io.BytesIO(mended), UTC)
    assert not isinstance(row, Refused)
    assert row.lead.field_data == [{"name": "q", "values": ['a "quoted"\r\nline\ttab ü']}]


def test_where_nothing_is_rejected_there_is_no_file(tmp_path: Path) -> None:
    """An empty file would look like a finding."""
    with RejectedRows(tmp_path / "rejected.tsv", ("id",)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_rejected_rows_are_there_also_where_the_import_breaks_off(tmp_path: Path) -> None:
    """What was kept aside before is of use."""
    path = tmp_path / "rejected.tsv"
    try:
        with RejectedRows(path, ("id",)) as kept:
            kept.keep(Refused(2, "has no id", ("",)))
            raise RuntimeError
    except RuntimeError:
        pass
    assert path.read_text().splitlines()[1:] == ["2\thas no id\t"]
