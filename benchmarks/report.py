"""Measured values -> medians with their spread, ratios of pairs, tables for a person, JSON for a program.

It measures nothing. Invariant: a ratio is taken within each pair and the median over the pairs, never the ratio of
two medians, so that whatever slowed the machine for a while slowed both sides of it.
"""

import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.processes import Spent

ROOT: Final = Path(__file__).resolve().parent.parent
_PACKAGES: Final = ("celery", "kombu", "redis", "aiohttp", "psycopg", "requests", "flask", "waitress")
FULL_MACHINE: Final = 0.9
"""From this share of all cores on, rates are the machine's limit rather than the program's."""
json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures here too.",
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    of: int

    @classmethod
    def over(cls, values: Iterable[float]) -> "Spread":
        """The spread of these values, one at least."""
        measured = list(values)
        return cls(statistics.median(measured), min(measured), max(measured), len(measured))

    def show(self, digits: int = 0, unit: str = "") -> str:
        """`median (low-high)`."""
        median, low, high = (f"{value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return f"{median}{unit} ({low}-{high})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure that is told, and its goal where there is one: a bound that its median keeps to.

    `at_least` says on which side of the goal the good is.
    """

    what: str
    measured: Spread
    unit: str = " x"
    digits: int = 2
    goal: float | None = None
    at_least: bool = True

    @property
    def is_met(self) -> bool | None:
        """Whether the goal was met; None where there is none."""
        if self.goal is None:
            return None
        return self.measured.median >= self.goal if self.at_least else self.measured.median <= self.goal

    @property
    def told_goal(self) -> str:
        """The goal in words; empty where there is none."""
        if self.goal is None:
            return ""
        return f"at {'least' if self.at_least else 'most'} {self.goal:g}{self.unit}"

    @property
    def told(self) -> str:
        """What was measured, with its spread."""
        return self.measured.show(self.digits, self.unit)

    def as_json(self) -> dict[str, Any]:
        """For the JSON file, and from there for docs/measured.md."""
        return {"what": self.what, "told": self.told, "goal": self.told_goal, "is_met": self.is_met} | {
            "spread": asdict(self.measured)
        }


def judge(findings: Iterable[Finding], console: Console) -> None:
    """Print what was found against each goal; nothing depends on it."""
    for finding in findings:
        if finding.goal is not None:
            colour, word = ("green", "met") if finding.is_met else ("red", "not met")
            console.print(f"{finding.what}: goal {finding.told_goal}: [{colour}]{word}[/], {finding.told}")


def as_help(docstring: str | None) -> str:
    """A module's docstring as click's help, lines kept as they are."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in (docstring or "").strip().split("\n\n"))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times theirs ours is, pair by pair."""
    return Spread.over(our / their for our, their in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def machine() -> dict[str, Any]:
    """What a figure must be read with: the machine, versions, commit, load from elsewhere."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
        "commit": _commit(),
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        # A section that was just written says nothing of the code.
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs/measured.md"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def print_machine(about: Mapping[str, Any], console: Console) -> None:
    """One line, so that no figure stands alone."""
    console.print(
        f"[dim]{about['processor']}, {about['cores']} cores, load {about['load_average_before']:.1f}; "
        f"Python {about['python']}, Celery {about['celery']}, commit {about['commit']}"
    )


def shares(runs: Mapping[str, Sequence[Spent]], of: str = "") -> Table:
    """A table of who used the CPU while what ran: sandbox and load generator must not be what is measured."""
    table = Table(title=f"Cores kept busy{f': {of}' if of else ''}", title_justify="left")
    table.add_column("")
    for label in runs:
        table.add_column(label, justify="right")
    for name in dict.fromkeys(name for spents in runs.values() for name in spents[0].by_name):
        cells = (_cores(spents, name) if name in spents[0].by_name else "" for spents in runs.values())
        table.add_row(name, *cells)
    others = (f"{Spread.over(s.others for s in spents).median:.2f}" for spents in runs.values())
    table.add_row("[dim]others on this machine", *others)
    return table


def _cores(spents: Sequence[Spent], name: str) -> str:
    return f"{Spread.over(s.cores(name) for s in spents).median:.2f}"


def remark_full_machine(runs: Mapping[str, Sequence[Spent]], console: Console) -> None:
    """Say where the machine itself was the limit."""
    cores = os.cpu_count() or 1
    for label, spents in runs.items():
        busy = Spread.over(s.machine / s.seconds for s in spents).median
        if busy > FULL_MACHINE * cores:
            console.print(
                f"[yellow]{label}: {busy:.1f} of {cores} cores were busy, so its leads/s are the machine's limit, "
                "which it shares with sandbox and servers[/]; CPU seconds suffer less"
            )


def spent_as_json(spents: Iterable[Spent]) -> list[dict[str, Any]]:
    """For the JSON file."""
    return [asdict(spent) | {"others_cores": spent.others} for spent in spents]


def write_json(path: Path | None, name: str, about: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Write the figures to `path`, if there is one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"benchmark": name, "machine": about, **figures}, indent=1, default=str) + "\n"
        )
