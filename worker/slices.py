"""A stretch of time -> half-open slices that cover it exactly, and whether a slice turned out too dense. Pure.

A slice is one walk through a listing that is filtered by time, so slices are read side by side and a walk that breaks
off costs no more than its slice. It reads nothing (walking.py does). Invariant: the slices of a cover, and the parts
of a division, touch and never overlap; a second is never divided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SIDE_BY_SIDE: Final = 16
"""A backfill is cut into about so many slices at least, so that there is something to read side by side."""
LEAST_LEADS: Final = 2_500
"""A slice for fewer leads is not worth the result page that each walk leaves half empty."""
MOST_LEADS: Final = 10_000
"""A walk of some 20 result pages: seconds, and not much to read again."""
EVIDENCE: Final = 100
"""So many leads tell how dense a slice is where its walk begins."""
WORTH_READING_AGAIN: Final = 8
"""A walk that has brought far more than a slice should hold is begun anew in parts where so many times more is left."""
UNKNOWN_PARTS: Final = 16
"""Into so many parts goes a dense slice of which nothing tells where it is dense."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The whole unix seconds [since, until); at least one."""

    since: int
    until: int

    def __post_init__(self) -> None:
        if self.since >= self.until:
            raise ValueError(f"a slice has at least one second, not [{self.since}, {self.until})")

    @property
    def seconds(self) -> int:
        """Its length."""
        return self.until - self.since


def slice_size(leads: int) -> int:
    """How many leads a slice of a backfill of `leads` should hold."""
    return min(MOST_LEADS, max(LEAST_LEADS, math.ceil(leads / SIDE_BY_SIDE)))


def cover(since: int, until: int, *, leads: int, size: int, begins: int | None = None) -> tuple[Slice, ...]:
    """[since, until) as slices of about `size` leads, where `leads` came evenly since `begins` (by default `since`)."""
    whole = Slice(since, until)
    first = max(since, min(begins, until - 1)) if begins is not None else since
    parts = _cut(first, until, math.ceil(leads / size))
    return (Slice(whole.since, parts[0].until), *parts[1:])


def divide(dense: Slice, parts: int) -> tuple[Slice, ...]:
    """The slice in `parts` of equal length, fewer where it has not so many seconds."""
    return _cut(dense.since, dense.until, parts)


def _cut(since: int, until: int, parts: int) -> tuple[Slice, ...]:
    seconds = until - since
    count = max(1, min(parts, seconds))
    edges = [since + seconds * step // count for step in range(count + 1)]
    return tuple(Slice(edge, edges[step + 1]) for step, edge in enumerate(edges[:-1]))


def parted(read: Slice, times: Sequence[int], *, new: int) -> tuple[Slice, ...]:
    """What to read instead of a slice that goes on and is too dense; nothing where it is to be read on.

    `times`: of the leads that its walk has brought so far, as they came; `new` of them with the last result page.

    What Graph's order is, nobody says. One that held for every lead so far is believed, but only to decide where to
    cut: as read counts nothing before the end of its own walk. So the time to cut is early, when as much came as tells
    something, and the part that is cut off is that of whose density it tells. Later, what came would be read again, so
    that is only done for far more.
    """
    count, before = len(times), len(times) - new
    if read.seconds == 1 or not all(read.since <= at < read.until for at in times[before:]):
        return ()
    if before < EVIDENCE <= count:
        return _peel(read, times, 2 * MOST_LEADS, worth=3 * MOST_LEADS)
    if before < 2 * MOST_LEADS <= count:
        if _order(times) is None:
            return divide(read, UNKNOWN_PARTS)
        return _peel(read, times, count, worth=WORTH_READING_AGAIN * count)
    return ()


def _peel(read: Slice, times: Sequence[int], leads: int, *, worth: int) -> tuple[Slice, ...]:
    """The slice in two: where the walk began, so much that it holds about `leads`, and the rest.

    Nothing where fewer than `worth` leads are foreseen by the last EVIDENCE of them, or they came in no order.
    """
    order = _order(times)
    if order is None:
        return ()
    edge = read.until if order < 0 else read.since - 1
    lately = min(len(times) - 1, EVIDENCE)
    rate = lately / max(1, abs(times[-1] - times[-1 - lately]))
    passed = min(read.seconds, max(1, abs(edge - times[-1])))
    if len(times) + rate * (read.seconds - passed) < worth:
        return ()
    cut = passed + math.ceil(max(0, leads - len(times)) / rate)
    if cut >= read.seconds:
        return ()
    if order < 0:
        return (Slice(read.since, read.until - cut), Slice(read.until - cut, read.until))
    return (Slice(read.since, read.since + cut), Slice(read.since + cut, read.until))


def _order(times: Sequence[int]) -> int | None:
    """1: the oldest lead came first, -1: the newest did; None: there is no order. Of several leads, as always here."""
    if all(one >= other for one, other in pairwise(times)):
        return -1
    return 1 if all(one <= other for one, other in pairwise(times)) else None
