"""Time that tests own: a clock that stands still until it is moved, and an event loop that jumps to its next timer.

On such a loop `asyncio.sleep(600)` takes no time at all, and a wait for what can never come is an error at once
instead of a test that hangs. It opens nothing but the loop's own self-pipe.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BEGINNING = 1_000.0
"""Where a jumping loop's clock starts: not at 0, which code may take for "never"."""


@dataclass
class FrozenClock:
    """Stands still until it is moved."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class NothingWillHappen(RuntimeError):
    """Everybody waits and no timer is left: in real time this would hang for ever."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody waits, and then at once."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = BEGINNING

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingWillHappen
            self._loop.now += max(0.0, timeout)
        return ready


def run_jumping(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a loop that jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


def loop_time() -> float:
    """What `time.monotonic` is to code that runs on a jumping loop."""
    return asyncio.get_running_loop().time()
