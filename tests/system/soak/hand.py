"""What every strike works with: the rig, luck, what must be seen through; and what it answers.

It strikes nothing. Invariant: `undo` may be called at any time, twice, and while the thing that it mends is away.
"""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tests.system.soak.errands import Errands, Orders
from tests.system.soak.rig import Rig

Undo = Callable[[], None]


def nothing() -> None:
    """There is nothing to undo."""


@dataclass(frozen=True, slots=True)
class Struck:
    """Whether somebody was hit, and what ends it."""

    hit: bool
    undo: Undo = nothing


class Hand:
    """`luck` chooses among what is there at that moment, such as which child; only `pages` have troubles of their own;
    `latency` is the sandbox's in seconds when nothing slows it."""

    def __init__(self, rig: Rig, luck: random.Random, pages: tuple[str, ...], latency: float) -> None:
        self.rig, self.stack = rig, rig.stack
        self.orders, self.errands = Orders(), Errands()
        self._luck = luck
        self._pages, self._latency = pages, latency

    def _page(self) -> str:
        return self._luck.choice(self._pages)

    def _postgres(self) -> "psycopg.Connection":
        return psycopg.connect(self.stack.settings.database_url, autocommit=True, connect_timeout=3)

    def _stopped(self, pid: int | None) -> Struck:
        hit = self.stack.kill(pid, signal.SIGSTOP)
        return Struck(hit, lambda: (self.stack.kill(pid, signal.SIGCONT), None)[1])
