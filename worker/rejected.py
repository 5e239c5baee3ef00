"""Rows of an export that were kept aside -> a file of them with line and reason, to be mended and imported again.

It decides nothing. Invariants: there is a file only where a row was kept aside, readable by its owner only, since it
holds personal data; its cells are those of the origin, unaltered.
"""

import csv
import io
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from worker.destination import Sink, whole_file
from worker.export_file import REJECTED_LINE, REJECTED_REASON, Refused


class RejectedRows:
    """A context in which rows are kept; the file is there when it ends, also where an error ends it."""

    def __init__(self, path: Path, header: tuple[str, ...]) -> None:
        self._path = path
        self._header = header
        self._held = ExitStack()
        self._sink: Sink | None = None

    def __enter__(self) -> "RejectedRows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was kept aside so far is of use whatever went wrong later.
        self._held.close()

    def keep(self, refused: Refused) -> None:
        """Add a row. Raises LeadSyncError where the file takes no more."""
        if self._sink is None:
            self._sink = self._held.enter_context(whole_file(self._path))
            self._sink.write(line_of((REJECTED_LINE, REJECTED_REASON, *self._header)))
        self._sink.write(line_of((str(refused.line), refused.reason, *refused.cells)))


def line_of(cells: tuple[str, ...]) -> bytes:
    """Cells as a line of the file."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", lineterminator="\r\n").writerow(cells)
    written = text.getvalue()
    try:
        return written.encode("utf-8", "surrogateescape")  # bytes that were no UTF-8 come out as they went in
    except UnicodeEncodeError:
        return written.encode("utf-8", "surrogatepass")
