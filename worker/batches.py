"""References in flight -> batches of one Page, deduplicated and capped. Pure; it reads and writes nothing.

Invariant: every reference put in is either queued once or joined to the one that is already in flight for its
leadgen_id; none is dropped.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from worker.inbox import LeadReference
from worker.quick_dataclass import quick_dataclass
from worker.trail import MOST_MS

_ANNOUNCED_WITHIN: Final = 92 * 86_400


@quick_dataclass(frozen=True, slots=True)
class InFlight:
    """One reference that this process has taken up: from the stream (`entry_id`) or leased from a row (`turn`).

    `crashes`: how often it was taken up before and neither finished nor given back; that somebody died holding it
    says nothing of this reference as long as it was held together with others. `attempts` are failures
    for `failed_for`. `in_part`: the lead is stored already, without its ad fields. `created_time` is what the webhook
    said of the lead; `due_at` since when a leased row was due. `unasked`: a listing brought the lead along, and nobody
    has taken its reference up. `taken_ms`: from the webhook until a worker first took the reference up.
    """

    leadgen_id: str
    page_id: str
    form_id: str | None
    ad_id: str | None
    received_at: datetime | None
    first_seen_at: datetime
    attempts: int = 0
    entry_id: bytes | None = None
    turn: int | None = None
    source: str = "webhook"
    crashes: int = 0
    failed_for: str | None = None
    in_part: bool = False
    created_time: datetime | None = None
    due_at: datetime | None = None
    unasked: bool = False
    taken_ms: int | None = None

    @classmethod
    def from_entry(
        cls, reference: LeadReference, entry_id: bytes, *, crashes: int = 0, now_ms: int | None = None
    ) -> "InFlight":
        """A stream entry, taken up at `now_ms` (unix milliseconds)."""
        received_ms = reference.received_at
        received_at = datetime.fromtimestamp(received_ms / 1000, UTC)
        return cls(
            reference.leadgen_id,
            reference.page_id,
            reference.form_id,
            reference.ad_id,
            received_at,
            received_at,
            entry_id=entry_id,
            crashes=crashes,
            created_time=_plausible(reference.created_time, received_ms),
            taken_ms=None if now_ms is None else min(max(0, now_ms - received_ms), MOST_MS),
        )

    @classmethod
    def listed(cls, leadgen_id: str, page_id: str, form_id: str, now: datetime) -> "InFlight":
        """A lead that was listed beside those that were asked for."""
        return cls(
            leadgen_id, page_id, form_id, None, None, first_seen_at=now, source="listing", unasked=True
        )


def _plausible(created_time: int | None, received_ms: int) -> datetime | None:
    """When the lead was created, if that can be true: it is announced within 36 hours, or repeated within 90 days."""
    if created_time is None or not 0 <= received_ms // 1000 + 3_600 - created_time <= _ANNOUNCED_WITHIN:
        return None
    return datetime.fromtimestamp(created_time, UTC)


@dataclass(slots=True)
class Held:
    """What a run has taken and not yet ended, by lead: the first reference of each, and those that joined it."""

    _by_lead: dict[str, list[InFlight]] = field(default_factory=dict)
    _joined: int = 0

    def add(self, reference: InFlight) -> bool:
        """Whether it is the first of its lead."""
        of_lead = self._by_lead.setdefault(reference.leadgen_id, [])
        of_lead.append(reference)
        self._joined += len(of_lead) > 1
        return len(of_lead) == 1

    def pop(self, leadgen_id: str) -> Sequence[InFlight]:
        """All of a lead, which are held no longer; none where none are."""
        of_lead = self._by_lead.pop(leadgen_id, [])
        self._joined -= max(0, len(of_lead) - 1)
        return of_lead

    def of(self, leadgen_id: str) -> Sequence[InFlight]:
        """All of a lead, the first first."""
        return self._by_lead.get(leadgen_id, ())

    @property
    def have_joined(self) -> bool:
        """Whether there is more than one reference of any lead."""
        return self._joined > 0

    def __contains__(self, leadgen_id: str) -> bool:
        return leadgen_id in self._by_lead

    def __iter__(self) -> Iterator[InFlight]:
        return (reference for of_lead in self._by_lead.values() for reference in of_lead)

    def __len__(self) -> int:
        return len(self._by_lead) + self._joined


@dataclass(slots=True)
class PageQueues:
    """What is taken up and not yet being read, a queue a Page."""

    _queues: dict[str, deque[InFlight]] = field(default_factory=dict)

    def put(self, references: Iterable[InFlight]) -> None:
        """Queue references behind those of their Page."""
        for reference in references:
            self._queues.setdefault(reference.page_id, deque()).append(reference)

    def take(self, page_id: str, most: int) -> tuple[InFlight, ...]:
        """The oldest references of a Page, at most `most`, off the queue."""
        queue = self._queues.get(page_id, deque())
        taken = tuple(queue.popleft() for _ in range(min(most, len(queue))))
        if not queue:
            self._queues.pop(page_id, None)
        return taken

    def put_back(self, references: Iterable[InFlight]) -> None:
        """Queue references of one Page again, ahead of the others."""
        kept = tuple(references)
        if kept:
            self._queues.setdefault(kept[0].page_id, deque()).extendleft(reversed(kept))

    def take_all(self, page_ids: Iterable[str] | None = None) -> tuple[InFlight, ...]:
        """Everything of these Pages (by default of all), off the queues."""
        chosen = list(self._queues) if page_ids is None else [p for p in page_ids if p in self._queues]
        return tuple(reference for page_id in chosen for reference in self._queues.pop(page_id))

    def pages(self) -> tuple[str, ...]:
        """The Pages with something queued."""
        return tuple(self._queues)

    def size(self, page_id: str) -> int:
        """How many of a Page are queued."""
        return len(self._queues.get(page_id, ()))

    def oldest(self, page_id: str) -> InFlight:
        """The next reference of a Page with something queued."""
        return self._queues[page_id][0]

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[InFlight]:
        return (reference for queue in self._queues.values() for reference in queue)


def halves(references: tuple[InFlight, ...]) -> tuple[tuple[InFlight, ...], tuple[InFlight, ...]]:
    """Two parts of nearly the same size, for an ask that was too large."""
    middle = len(references) // 2
    return references[:middle], references[middle:]
