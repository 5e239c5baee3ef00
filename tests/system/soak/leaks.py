"""Samples over time -> what grows without bound. Pure.

A process is judged over its own life, for kills hide what grows slowly across lives. Early samples do not count:
caches and pools fill. Invariant: too few samples judge nothing.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.system.soak.watch import Process, Sample

LEAST_SAMPLES = 20
"""Of one process; with fewer, its second and its last quarter say nothing."""
MEMORY_GROWTH = 48 * 1024 * 1024
"""Bytes from the second quarter of a life to the last one."""
BACKFILL_GROWTH = 96 * 1024 * 1024
"""The same of whoever walks slices: they are small while forms are, and full ones in flight take up to so much."""
MOST_MEMORY = 600 * 1024 * 1024
"""Bytes of any process of ours at any moment."""
DESCRIPTOR_GROWTH = 80
"""As many connections to Graph as a process may have open, and a few: its pool of them fills when there is work."""
MOST_DESCRIPTORS = 400
NOT_OURS = ("sandbox", "redis", "postgres")
"""The sandbox keeps every call and every lead in memory, and the servers what they are given."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a size may be: at any moment, and at the end when all is settled."""

    most: float
    at_rest: float


BOUNDS = {
    "Redis connections": Bound(150, 100),
    "Postgres connections": Bound(60, 50),
    "doorbells": Bound(1_000, 200),
    "consumers": Bound(2_000, 2_000),
    "bodies set aside": Bound(1_000, 1_000),
    "stream entries": Bound(1_000_000, 0),
    # One for each reference in flight, and for an hour one for each process that ever was.
    "Redis keys": Bound(20_000, 1_500),
}
A_ROW_A_LEAD = ("table leadgen", "table repaired")
BLOCKS = "table budget_blocks"
BLOCKS_TIMES = 2.0
"""Where a Page's limit is small each request for calls is a row: twice as many a minute as any other table gains."""
BLOCKS_KEPT_MINUTES = 12.0
"""Two windows, and the time until the next tidying: from then on as many go as come."""


def growing(samples: Sequence[Sample], tables_per_minute: float) -> list[str]:
    """A sentence for each thing that grew beyond its bound; tables but those with a row a lead may gain so many rows a
    minute."""
    found = [*_processes(samples), *_sizes(samples)]
    found += _tables(samples, tables_per_minute)
    return found


def _processes(samples: Sequence[Sample]) -> Iterable[str]:
    lives: dict[tuple[str, int], list[Process]] = defaultdict(list)
    for sample in samples:
        for each in sample.processes:
            if each.name not in NOT_OURS:
                lives[each.name, each.pid].append(each)
    for (name, _), life in lives.items():
        most = max(each.rss for each in life)
        if most > MOST_MEMORY:
            yield f"{name} took {most / 1e6:.0f} MB"
        if (files := max(each.descriptors for each in life)) > MOST_DESCRIPTORS:
            yield f"{name} had {files} descriptors"
        if len(life) >= LEAST_SAMPLES:
            allowed = BACKFILL_GROWTH if name == "backfill child" else MEMORY_GROWTH
            if (grown := _growth([each.rss for each in life])) > allowed:
                yield f"{name} grew by {grown / 1e6:.0f} MB in {len(life)} looks"
            if (grown := _growth([each.descriptors for each in life])) > DESCRIPTOR_GROWTH:
                yield f"{name} gained {grown:.0f} descriptors in {len(life)} looks"


def _growth(values: Sequence[float]) -> float:
    """From the second quarter to the last, by medians."""
    quarter = len(values) // 4
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


def _sizes(samples: Sequence[Sample]) -> Iterable[str]:
    for name, bound in BOUNDS.items():
        values = [sample.sizes[name] for sample in samples if name in sample.sizes]
        if values and max(values) > bound.most:
            yield f"{name} came to {max(values):,.0f}, more than {bound.most:,.0f}"
        if values and values[-1] > bound.at_rest:
            yield f"{name} were {values[-1]:,.0f} at the end, more than {bound.at_rest:,.0f}"


def _tables(samples: Sequence[Sample], per_minute: float) -> Iterable[str]:
    if not samples:
        return
    minutes = samples[-1].at / 60
    for name, rows in samples[-1].sizes.items():
        most = 200 + per_minute * minutes
        if name == BLOCKS:
            most = 200 + BLOCKS_TIMES * per_minute * min(minutes, BLOCKS_KEPT_MINUTES)
        if name.startswith("table ") and name not in A_ROW_A_LEAD and rows > most:
            yield f"{name} has {rows:,.0f} rows after {minutes:.0f} minutes, more than {most:,.0f}"
