"""Rows of an export file -> batches -> rows of table leadgen, and those kept aside with their reasons.

    row -> its Page -> batch of 1,000 -> one statement -> new | completed | unchanged | kept aside

It opens neither file nor socket: rows, store and the place for what is kept aside are handed in. Invariants: each row
of the file is counted once; one that cannot be imported stops no other; memory holds one batch. What was written
before an error stays, and importing the file again goes over it without a change.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from worker.export_file import ExportedLead, ExportRow, Refused
from worker.store.imports import Imported, OfPage

BATCH: Final = 1_000
"""Leads a statement: about half a megabyte."""
_FORMS_REMEMBERED: Final = 10_000

PAGE_UNKNOWN: Final = "page unknown; give --page"


class Rows(Protocol):
    """The store, as far as an import needs it."""

    async def pages_of_forms(self, form_ids: Sequence[str]) -> dict[str, str]: ...

    async def pages_of_leads(self, leadgen_ids: Sequence[str]) -> dict[str, str]: ...

    async def write(self, leads: Sequence[OfPage], now: datetime, *, dry_run: bool) -> Imported: ...


@dataclass(slots=True)
class Summary:
    """What became of the rows of a file. `reasons` counts those kept aside."""

    rows: int = 0
    new: int = 0
    completed: int = 0
    unchanged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def kept_aside(self) -> int:
        return self.reasons.total()


class Importer:
    """Imports one file. `page_id` is the Page of rows whose form is not known, if the operator says so."""

    def __init__(
        self,
        store: Rows,
        keep_aside: Callable[[Refused], None],
        clock: Callable[[], datetime],
        *,
        page_id: str | None = None,
        dry_run: bool = False,
        batch: int = BATCH,
    ) -> None:
        self._store = store
        self._keep_aside = keep_aside
        self._clock = clock
        self._page_id = page_id
        self._dry_run = dry_run
        self._size = batch
        self._batch: dict[str, ExportedLead] = {}
        self._pages: dict[str, str | None] = {}
        self.summary = Summary()

    async def run(self, rows: Iterable[ExportRow], on_progress: Callable[[], None]) -> Summary:
        """Import all rows. Raises StoreUnavailable; `on_progress` is called after each batch."""
        for row in rows:
            self.summary.rows += 1
            if isinstance(row, Refused):
                self._refuse(row)
                continue
            await self._add(row)
            if len(self._batch) >= self._size:
                await self._flush()
                on_progress()
        await self._flush()
        on_progress()
        return self.summary

    async def _add(self, row: ExportedLead) -> None:
        twin = self._batch.get(row.lead.leadgen_id)
        if twin is not None and twin.lead == row.lead:
            self.summary.unchanged += 1
            return
        if twin is not None:
            # One statement writes a row once; the second telling of a lead may fill what the first lacks.
            await self._flush()
        self._batch[row.lead.leadgen_id] = row

    async def _flush(self) -> None:
        batch, self._batch = self._batch, {}
        if not batch:
            return
        pages = await self._find_pages(batch)
        for leadgen_id in (leadgen_id for leadgen_id in batch if leadgen_id not in pages):
            self._refuse(_refused(batch[leadgen_id], PAGE_UNKNOWN))
        if not pages:
            return
        leads = [(batch[leadgen_id].lead, pages[leadgen_id]) for leadgen_id in sorted(pages)]
        done = await self._store.write(leads, self._clock(), dry_run=self._dry_run)
        self.summary.new += done.new
        self.summary.completed += done.completed
        self.summary.unchanged += done.unchanged
        for leadgen_id, sqlstate in done.refused.items():
            self._refuse(_refused(batch[leadgen_id], f"is refused by Postgres (SQLSTATE {sqlstate})"))

    async def _find_pages(self, batch: Mapping[str, ExportedLead]) -> dict[str, str]:
        """The Page of each lead: its form's, else that of its own row, else the operator's."""
        forms = {row.lead.form_id for row in batch.values() if row.lead.form_id is not None}
        if len(self._pages) > _FORMS_REMEMBERED:
            self._pages.clear()
        if asked := sorted(forms - self._pages.keys()):
            found = await self._store.pages_of_forms(asked)
            self._pages.update({form_id: found.get(form_id) for form_id in asked})
        pages = {
            leadgen_id: page_id
            for leadgen_id, row in batch.items()
            if (page_id := self._pages.get(row.lead.form_id or "")) is not None
        }
        if len(pages) < len(batch):
            pages.update(await self._store.pages_of_leads(sorted(batch.keys() - pages.keys())))
        if self._page_id is not None:
            pages = {**dict.fromkeys(batch, self._page_id), **pages}
        return pages

    def _refuse(self, refused: Refused) -> None:
        self.summary.reasons[refused.reason] += 1
        self._keep_aside(refused)


def _refused(row: ExportedLead, reason: str) -> Refused:
    return Refused(row.line, reason, row.cells)
