"""A run of the sync path with fake neighbours, by its loop's own time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from tests.fakes.leads import PAGE, in_flight
from tests.fakes.pipeline import FakeReader, FakeSource, FakeStore, in_batches
from tests.fakes.time import FrozenClock, run_jumping
from worker.batches import InFlight
from worker.budget.policy import Lane
from worker.sync import Limits, Run

TOO_LONG = 600.0
"""Seconds of the loop's own time in which every run must have ended."""


class Bench:
    """A run with its neighbours."""

    def __init__(self, references: Iterable[InFlight] = (), /, *, at_once: int = 500, **limits: Any) -> None:
        self.store = FakeStore()
        self.source = FakeSource(in_batches(references, at_once), self.store)
        self.reader: Any = FakeReader()
        self.limits = Limits(**limits)
        self.stop: Callable[[], bool] = lambda: False
        self.landed: list[float] = []
        self.on_landed: Callable[[Sequence[float]], None] = self.landed.extend

    def run_of(self) -> Run:
        return Run(
            source=self.source,
            reader=self.reader,
            store=self.store,
            lane=Lane.LIVE,
            limits=self.limits,
            clock=FrozenClock(),
            stop=lambda: self.stop(),
            landed=lambda each: self.on_landed(each),
        )

    def run(self, meanwhile: Coroutine[Any, Any, None] | None = None) -> Counter[str]:
        """Run to the end; everything taken is accounted for."""

        async def both() -> Counter[str]:
            beside = asyncio.ensure_future(meanwhile) if meanwhile else None
            try:
                return await asyncio.wait_for(self.run_of().run(), TOO_LONG)
            finally:
                if beside:
                    await beside

        counts = run_jumping(both())
        self.check_accounts()
        return counts

    def check_accounts(self) -> None:
        accounted = Counter(r.entry_id or r for r in [*self.source.finished, *self.source.returned])
        assert accounted == Counter(r.entry_id or r for r in self.source.taken)


def some(count: int, page_id: str = PAGE, first: int = 1) -> list[InFlight]:
    return [in_flight(n, page_id) for n in range(first, first + count)]


def ids(references: Iterable[InFlight]) -> list[str]:
    return [r.leadgen_id for r in references]
