"""An input, part of it repeated to several sizes -> whether a reader takes more than its share of time for the larger.

A reader that looks at each byte a fixed number of times needs four times as long for four times as much; one that
begins anew at each byte needs sixteen times. The CPU time is that of the thread: other processes do not count.
"""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from time import thread_time
from typing import Final

from tests.fuzz.target import Target

SIZES: Final = (4_096, 16_384, 65_536)
NOTICEABLE_SECONDS: Final = 0.05
"""Less than this is noise, and harms nobody at these sizes."""
MOST_TIMES: Final = 9.0
"""Between the 4 of what is linear and the 16 of what is quadratic."""
RUNAWAY_SECONDS: Final = 10
_BOUNDS: Final = re.compile(rb"(?<=[,;\n\t &\[\]{}\":|=])|(?=[,;\n\t &\[\]{}\":|=])")


class Runaway(BaseException):
    """An input takes longer than any should. No reader's `except Exception` is to catch it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """`part` repeated between `before` and `after`."""

    before: bytes
    part: bytes
    after: bytes

    def of_size(self, size: int) -> bytes:
        """As many parts as make about `size` bytes in all."""
        times = max(1, (size - len(self.before) - len(self.after)) // len(self.part))
        return self.before + self.part * times + self.after


def stretches(data: bytes, dice: Random) -> Iterator[Stretch]:
    """Without end: a part of `data` between two bounds of words, or any other, or what is not in it at all."""
    while True:
        bounds = [match.start() for match in _BOUNDS.finditer(data)] or [0, len(data)]
        begin = dice.choice(bounds) if dice.random() < 0.7 else dice.randrange(len(data) + 1)
        ends = [bound for bound in bounds if begin < bound <= begin + 400]
        end = dice.choice(ends) if ends and dice.random() < 0.8 else begin + dice.choice((1, 2, 3, 7))
        part = data[begin:end]
        if not part or dice.random() < 0.2:
            part = dice.choice(
                (b" ", b"\t", b"\n", b"\\", b"'", b'"', b"[", b'{"a":', b"9", b";", b"a", b"\x00")
            )
        yield Stretch(data[:end], part, data[end:])


def outgrows(target: Target, stretch: Stretch) -> str | None:
    """How the time grows beyond measure, in words; None where it does not."""
    former = 0.0
    for size in SIZES:
        data = stretch.of_size(size)
        took = min(_seconds(target.run, data), _seconds(target.run, data) if former else 1e9)
        if former and took > NOTICEABLE_SECONDS and took > MOST_TIMES * former:
            return f"{len(data)} bytes take {took:.3f} s, a quarter of them {former:.4f} s"
        former = max(took, NOTICEABLE_SECONDS / 20)
    return None


def _seconds(run: Callable[[bytes], None], data: bytes) -> float:
    with limited(RUNAWAY_SECONDS):
        began_at = thread_time()
        with suppress(Exception):  # what it raises is the business of others
            run(data)
        return thread_time() - began_at


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Runaway in what takes more CPU time than this. In the main thread only."""

    def give_up(*_: object) -> None:
        raise Runaway(f"more than {seconds:g} s of CPU time")

    former = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
