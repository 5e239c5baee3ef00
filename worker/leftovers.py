"""A leftover file of an import -> the same file without the rows of people who were forgotten.

It decides nothing about who that is: it is handed who was erased and the answers that were named. Invariants: rows
that stay keep their cells and their order; the file is replaced whole or not at all; where no row goes it is not
touched. What it writes is tab-separated UTF-8, whatever it read, and readable by its owner only.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import Final

from worker.conditions import Condition, all_met
from worker.destination import whole_file
from worker.errors import LeadSyncError
from worker.export_file import REJECTED_LINE, REJECTED_REASON, ExportedLead, ExportFile, ExportRow
from worker.rejected import line_of

BATCH: Final = 1_000

# An id with the mark that Meta's exports put before a lead's.
_LEAD_ID: Final = re.compile(r"(?:l:)?([0-9]{1,32})\Z", re.ASCII)

_AROUND: Final = ' \t\r\n"'

ErasedAmong = Callable[[Sequence[str]], Awaitable[frozenset[str]]]
"""Which of these ids are erased."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Rows that the file had, and how many of them went."""

    rows: int
    dropped: int


async def clean(
    path: Path, conditions: Sequence[Condition], erased_among: ErasedAmong, *, dry_run: bool = False
) -> Cleaned:
    """Take out rows of erased leads and those that meet all `conditions`. Raises LeadSyncError, NotAnExport."""
    told = await _look(path, conditions, erased_among)
    if told.dropped and not dry_run:
        await _rewrite(path, conditions, erased_among)
    return told


async def _look(path: Path, conditions: Sequence[Condition], erased_among: ErasedAmong) -> Cleaned:
    rows = dropped = 0
    with _opened(path) as export:
        for batch in _batches(export):
            rows += len(batch)
            dropped += sum(await _to_drop(batch, export, conditions, erased_among))
    return Cleaned(rows, dropped)


async def _rewrite(path: Path, conditions: Sequence[Condition], erased_among: ErasedAmong) -> None:
    with _opened(path) as export, whole_file(path) as sink:
        sink.write(line_of(export.header))
        for batch in _batches(export):
            goes = await _to_drop(batch, export, conditions, erased_among)
            for row, is_dropped in zip(batch, goes, strict=True):
                if not is_dropped:
                    sink.write(line_of(row.cells))


async def _to_drop(
    batch: Sequence[ExportRow],
    export: ExportFile,
    conditions: Sequence[Condition],
    erased_among: ErasedAmong,
) -> list[bool]:
    # What the import put before the cells of the origin is no lead's.
    own = 2 if export.header[:2] == (REJECTED_LINE, REJECTED_REASON) else 0
    ids = [_ids(row, own) for row in batch]
    erased = await erased_among(sorted(set().union(*ids)))
    return [
        not erased.isdisjoint(named) or bool(conditions and _meets(row, own, conditions))
        for row, named in zip(batch, ids, strict=True)
    ]


def _ids(row: ExportRow, own: int) -> set[str]:
    """What may be the lead's id: a row that could not be read may have it in any cell."""
    if isinstance(row, ExportedLead):
        return {row.lead.leadgen_id}
    return {found[1] for text in _texts(row, own) if (found := _LEAD_ID.match(text))}


def _meets(row: ExportRow, own: int, conditions: Sequence[Condition]) -> bool:
    if isinstance(row, ExportedLead):
        return all_met(conditions, row.lead.field_data)
    # Its cells may be in the wrong columns, so what was asked does not count.
    values = [value for text in _texts(row, own) for value in (text, text.removeprefix("p:"))]
    return all(any(map(condition.is_value, values)) for condition in conditions)


def _texts(row: ExportRow, own: int) -> Iterator[str]:
    """Each cell as it stands, and without blanks around it and quotes that came along where they made no cells."""
    for cell in row.cells[own:]:
        yield cell
        bare = cell.strip(_AROUND).replace('""', '"')
        if bare != cell:
            yield bare


@contextmanager
def _opened(path: Path) -> Iterator[ExportFile]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise LeadSyncError(f"{path} cannot be read: {error.strerror}") from None
    with stream:
        yield ExportFile(stream, UTC)


def _batches(rows: Iterable[ExportRow]) -> Iterator[list[ExportRow]]:
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        yield batch
