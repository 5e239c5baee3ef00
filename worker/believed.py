"""The wall clocks of this machine and of Postgres, and the steady one -> a moment to erase by for good, or none yet.

    wall, steady, what was noted -> noted for how long they agree -> the smaller of wall and Postgres' clock

It erases nothing. Invariant: no moment is told unless this machine's wall clock and its steady one have agreed within
APART_SECONDS for AGREED_SECONDS; where they differ, that is noted anew and counted from there.

It is weak where a machine boots with a wrong clock that nobody sets for an hour, and Postgres' clock is as wrong.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

log = structlog.get_logger("clock")

APART_SECONDS: Final = 60.0
"""Less is slewing, or a leap second; a clock that is this wrong erases nothing of what is kept for days."""
AGREED_SECONDS: Final = 3_600.0
"""NTP sets a clock within minutes of a boot."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the wall clock (unix seconds) was more than the steady one, and since which moment of the latter."""

    ahead: float
    since: float


class Notes(Protocol):
    """What is noted of each machine, for all its processes."""

    async def noted(self, machine: str) -> Agreement | None: ...
    async def note(self, machine: str, agreement: Agreement) -> None: ...
    async def keep(self, machine: str) -> None: ...


def agreed(noted: Agreement | None, wall: float, steady: float) -> Agreement:
    """Since when the two clocks agree: as was noted, or from now on."""
    ahead = wall - steady
    # A machine that names no boot has the name that it had before, and a steady clock that begins anew.
    if noted is None or abs(ahead - noted.ahead) > APART_SECONDS or steady < noted.since:
        return Agreement(ahead, steady)
    return noted


class BelievedClock:
    """Asked on every machine that erases by age. `clock` and `postgres` give aware UTC."""

    def __init__(
        self,
        notes: Notes,
        postgres: Callable[[], Awaitable[datetime]],
        *,
        clock: Callable[[], datetime],
        steady: Callable[[], float],
        machine: str,
    ) -> None:
        self._notes = notes
        self._postgres = postgres
        self._clock = clock
        self._steady = steady
        self._machine = machine

    async def __call__(self) -> datetime | None:
        """A moment that can be believed, or None. Raises LedgerUnavailable and StoreUnavailable."""
        noted = await self._notes.noted(self._machine)
        wall, steady = self._clock(), self._steady()
        agreement = agreed(noted, wall.timestamp(), steady)
        if agreement is noted:
            await self._notes.keep(self._machine)
        else:
            if noted is not None:
                log.warning("clock_set", seconds=round(agreement.ahead - noted.ahead))
            await self._notes.note(self._machine, agreement)
        if steady - agreement.since < AGREED_SECONDS:
            return None
        return min(wall, await self._postgres())
