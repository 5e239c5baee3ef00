"""What Graph or the budget answered for references of one Page -> an outcome each.

The common end of reading.py and listing.py, which ask. What an error means is outcomes.py's, and Meta's word on usage
is passed on by granted.py. Invariant: every reference that goes in comes out with exactly one outcome.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.batches import InFlight
from worker.budget.policy import Budget, Refusal
from worker.errors import LeadSyncError, LedgerUnavailable, Transient
from worker.graph.wire import REDUCED_FIELDS
from worker.lead import Lead
from worker.outcomes import Outcome, RetryPolicy, Snooze, Stored, outcome_of

log = structlog.get_logger("reading")

LEDGER_AGAIN: Final = timedelta(seconds=5)
"""When to ask again for a grant that the ledger could not be asked for."""

Settled = tuple[InFlight, Outcome]


class Unexpected(Transient):
    """A fault of ours, met while a lead was being read: the lead is tried again, the fault is logged."""

    reason = "internal_error"


class Verdicts:
    """Judges. `clock` gives aware UTC, `dice` numbers in [0, 1)."""

    def __init__(
        self, budget: Budget, policy: RetryPolicy, clock: Callable[[], datetime], dice: Callable[[], float]
    ) -> None:
        self._budget = budget
        self._policy = policy
        self._clock = clock
        self._dice = dice

    def refused(self, references: Sequence[InFlight], refusal: Refusal) -> list[Settled]:
        """The budget granted nothing."""
        return [(r, Snooze(refusal.not_before, refusal.reason, whole_page=True)) for r in references]

    def no_grant(self, references: Sequence[InFlight], error: LeadSyncError) -> list[Settled]:
        """The budget could not be asked, or its grants ran out unused."""
        until = self._clock() + LEDGER_AGAIN
        return [(r, Snooze(until, error.reason)) for r in references]

    def failed(self, references: Sequence[InFlight], error: LeadSyncError) -> list[Settled]:
        """One error befell all of these."""
        return [(r, self.outcome(r, error)) for r in references]

    async def saved(self, page_id: str, calls: int) -> None:
        """So many calls were not needed."""
        try:
            await self._budget.saved(page_id, calls)
        except LedgerUnavailable:
            log.warning("usage_not_noted", page_id=page_id)

    def stored(
        self,
        reference: InFlight,
        raw: object,
        fields: Sequence[str],
        read_at: datetime | None,
        *,
        is_clean: bool,
    ) -> Outcome:
        """The lead that Graph's JSON describes, which had come at `read_at`; `is_clean` is Lead.from_graph's."""
        in_part = fields is REDUCED_FIELDS
        try:
            lead = Lead.from_graph(raw, leadgen_id=reference.leadgen_id, in_part=in_part, is_clean=is_clean)
        except LeadSyncError as error:
            return self.outcome(reference, error)
        except Exception as error:
            log.error("lead_not_understood", leadgen_id=reference.leadgen_id, error=type(error).__name__)
            return self.outcome(reference, Unexpected("a fault of leadsync"))
        return Stored(lead, read_at)

    def outcome(self, reference: InFlight, error: LeadSyncError) -> Outcome:
        """What the error means for this reference."""
        return outcome_of(
            error,
            attempts=reference.attempts,
            last_reason=reference.failed_for,
            waiting_since=reference.first_seen_at,
            now=self._clock(),
            policy=self._policy,
            dice=self._dice,
        )
