"""What each step of a guided command came to, as a value that can be shown as a line of a checklist or as JSON. Pure.

It shows nothing (cli does). Invariant: no step holds a token or an answer of a person.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from worker.errors import LeadSyncError


class State(StrEnum):
    """How a step ended."""

    DONE = "done"
    """It was changed now, and looked at afterwards."""
    ALREADY = "already"
    """It was so before; nothing was changed."""
    LEFT = "left"
    """It was not asked for, or cannot be done from here; nothing was changed."""
    MISSING = "missing"
    """Somebody has to grant or give something at Meta."""
    FAILED = "failed"
    """It was tried, and did not succeed."""


@dataclass(frozen=True, slots=True)
class Step:
    """`what` was done, one word; `told` in a sentence; `remedy`: what to do next where something is to be done.

    `details` are lines for a person to read.
    """

    what: str
    state: State
    told: str
    remedy: str | None = None
    page_id: str | None = None
    details: tuple[str, ...] = ()

    @property
    def is_achieved(self) -> bool:
        """Whether nothing that was asked for is left to be done."""
        return self.state not in (State.MISSING, State.FAILED)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, without the details."""
        told = {**asdict(self), "state": str(self.state)}
        del told["details"]
        return told


def answered(error: LeadSyncError) -> str:
    """What Graph answered, without what that means for a worker's calls."""
    return str(error).partition(": ")[0]


def failed(what: str, error: LeadSyncError, remedy: str, page_id: str | None = None) -> Step:
    """A step that met an error of errors.py."""
    return Step(what, State.FAILED, str(error), remedy, page_id)


class Stopped(Exception):
    """Without the step that was told last nothing further can be done."""


class Checklist:
    """The steps so far, each told as it ends."""

    def __init__(self, tell: Callable[[Step], None] = lambda _: None) -> None:
        self._tell = tell
        self.steps: list[Step] = []

    def add(self, step: Step) -> None:
        """Note a step that has ended."""
        self.steps.append(step)
        self._tell(step)

    def extend(self, steps: Iterable[Step]) -> None:
        """Note several."""
        for step in steps:
            self.add(step)

    def stop(self, step: Step) -> Stopped:
        """Note a step without which nothing further can be done; what is answered is to be raised."""
        self.add(step)
        return Stopped()
