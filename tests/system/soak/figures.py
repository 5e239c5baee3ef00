"""Samples, stretches of time and a log -> the figures and lines that a report shows. Pure, but for reading the log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def greatest(samples: Sequence[Any]) -> dict[str, float]:
    """The greatest that each size ever was, and the memory and descriptors of each kind of process."""
    told: dict[str, float] = {}
    for sample in samples:
        for name, value in sample.sizes.items():
            told[f"most {name}"] = max(told.get(f"most {name}", 0.0), value)
        for each in sample.processes:
            for kind, value in (("MB", each.rss / 1e6), ("descriptors", float(each.descriptors))):
                key = f"most {kind} of a {each.name}"
                told[key] = max(told.get(key, 0.0), value)
    return told


def covered(stretches: Sequence[tuple[float, float]]) -> float:
    """Seconds that the stretches cover together."""
    total, until = 0.0, float("-inf")
    for since, end in sorted(stretches):
        total += max(0.0, end - max(since, until))
        until = max(until, end)
    return total


def tail(path: Path, lines: int) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
