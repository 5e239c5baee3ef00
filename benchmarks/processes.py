"""Process ids -> CPU seconds, of whole process trees and of the machine. Linux only: it reads /proc.

What a tree used includes its children that have ended and were waited for. It says nothing of memory or of waiting.
Invariant: a figure never falls while its root process lives. It comes in clock ticks (10 ms on most machines), so
only differences of a second and more mean much.

Where this is weak: a child that leaves its tree (a daemon) is no longer counted, and a tree is not read in one instant.
"""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")
# Fields of /proc/<pid>/stat behind the command's name. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
_PARENT, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 11, 12, 13, 14
_IDLE_COLUMNS: Final = (4, 5)
"""`idle` and `iowait` in the first line of /proc/stat."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a stretch of time cost: CPU seconds by name of a process tree, and of the whole machine."""

    seconds: float
    by_name: Mapping[str, float]
    machine: float

    def cores(self, name: str) -> float:
        """How many cores `name` kept busy on average."""
        return self.by_name[name] / self.seconds

    @property
    def others(self) -> float:
        """Cores kept busy by processes that are no part of the measurement."""
        return max(0.0, self.machine - sum(self.by_name.values())) / self.seconds


class Stopwatch:
    """Measures from its making to `stop`: the trees of `roots` (name -> process id) and, as `name`, this process."""

    def __init__(self, roots: Mapping[str, int], name: str = "load generator") -> None:
        self._roots, self._name = dict(roots), name
        self._before = self._read()
        self._began = time.monotonic()

    def stop(self) -> Spent:
        """What was spent until now."""
        seconds = time.monotonic() - self._began
        after = self._read()
        spent = {name: after[name] - self._before[name] for name in after}
        return Spent(seconds, spent, spent.pop(""))

    def _read(self) -> dict[str, float]:
        stats = _stats()
        used = {name: _tree_seconds(pid, stats) for name, pid in self._roots.items()}
        return used | {self._name: time.process_time(), "": _machine_seconds()}


def tree_seconds(pid: int) -> float:
    """CPU seconds that a process, its descendants and its waited-for children have used so far."""
    return _tree_seconds(pid, _stats())


def pin(pid: int, cores: Collection[int]) -> None:
    """Keep a process, its descendants and all their threads on these cores; what they start later stays there too."""
    stats = _stats()
    todo = [pid]
    while todo:
        one = todo.pop()
        todo += [child for child, (parent, _) in stats.items() if parent == one]
        for thread in (_PROC / str(one) / "task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _tree_seconds(root: int, stats: Mapping[int, tuple[int, int]]) -> float:
    if root not in stats:
        raise ProcessLookupError(f"process {root} is gone, and what it used with it")
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    ticks, todo = 0, [root]
    while todo:
        pid = todo.pop()
        ticks += stats[pid][1]
        todo += children.get(pid, [])
    return ticks / TICKS_PER_SECOND


def _stats() -> dict[int, tuple[int, int]]:
    """Every process' parent, and the ticks of itself and of its waited-for children."""
    found: dict[int, tuple[int, int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            # The command's name may hold anything, brackets included.
            fields = text.rpartition(")")[2].split()
            used = (fields[place] for place in (_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM))
            found[int(folder.name)] = int(fields[_PARENT]), sum(map(int, used))
    return found


def _machine_seconds() -> float:
    fields = (_PROC / "stat").read_text().splitlines()[0].split()
    # Guest time is part of user time already.
    busy = sum(int(ticks) for place, ticks in enumerate(fields[1:9], 1) if place not in _IDLE_COLUMNS)
    return busy / TICKS_PER_SECOND
