"""What the pipelines need of their neighbours, as protocols: they are handed these and import no I/O. Pure.

Invariant: a fake that keeps a protocol can stand wherever the real neighbour does.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from worker.asks import Ask
from worker.batches import InFlight
from worker.budget.policy import Lane
from worker.outcomes import Outcome


class Source(Protocol):
    """Where references come from and where it is told that they are done."""

    async def take(self, room: int, *, busy: bool) -> tuple[InFlight, ...] | None:
        """More references, at most `room`; none for now; or None: there is nothing more to take in this run.

        `busy`: slow calls are in flight, so the run cannot end yet and might as well go on.
        """

    async def done(self, references: Sequence[InFlight]) -> None:
        """What became of these is committed."""

    async def give_back(self, references: Sequence[InFlight]) -> None:
        """These were not read."""

    async def keep(self, references: Sequence[InFlight]) -> None:
        """These are still being worked on."""

    async def begin_alone(self, leadgen_id: str) -> int:
        """This lead is begun with nothing else in the process; how often that was so before and did not end."""

    async def end_alone(self, leadgen_id: str) -> None:
        """It ended, however."""

    async def reserve(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        """Which of these leads this process may read now."""


class Reader(Protocol):
    """Reads one ask."""

    def plan(
        self, page_id: str, references: tuple[InFlight, ...], listing: Collection[str] = ()
    ) -> tuple[Ask, ...]:
        """How to ask for these references of `page_id`; those of forms that are being listed are in no ask."""

    async def spared(self, page_id: str, leads: int) -> None:
        """So many leads that came along are stored: nobody has to ask for them any more."""

    async def read(self, page_id: str, ask: Ask, lane: Lane) -> list[tuple[InFlight, Outcome]]:
        """An outcome for each reference, and for leads (`unasked`) that came along."""


class Store(Protocol):
    """What this file needs of the rows."""

    async def known(self, leadgen_ids: Sequence[str]) -> dict[str, str]: ...
    async def seen_again(self, leadgen_ids: Sequence[str], now: datetime) -> None: ...
    async def known_and_parked(
        self, leadgen_ids: Sequence[str], page_ids: Sequence[str]
    ) -> tuple[dict[str, str], frozenset[str]]: ...
    async def settle(self, settled: Sequence[tuple[InFlight, Outcome]], now: datetime) -> None: ...
