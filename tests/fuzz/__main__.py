"""All targets, or some, one after the other -> a table of figures, and the finds.

    python -m tests.fuzz --minutes 10
    python -m tests.fuzz --inputs 10000000 --seed 7
    python -m tests.fuzz --target when --target cells --minutes 5

Each target is fuzzed in a process of its own (guided.py), and then what it collected is stretched in another
(growing.py). What was collected stays in the folder, so that the next run goes on from there. Exit status 1 where there
is a find; a find becomes a sample once it is mended (docs/fuzzing.md).
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.table import TARGETS
from tests.fuzz.target import Target

GROWTH_SHARE: Final = 0.1
"""Of a target's time, for stretching."""
GROWTH_SECONDS: Final = 10
"""The same where inputs are counted instead."""
DEATHS: Final = 5
"""So often is a target begun anew after its process died."""
_STATUS: Final = re.compile(r"#\d+\s+(INITED|DONE)\s+cov: (\d+)")
_STAT: Final = re.compile(r"stat::(\w+):\s+(\d+)")


@dataclass(slots=True)
class Summary:
    """What came of one target. `edges`: places in the code that were reached, with the samples alone and at the end."""

    target: str
    inputs: int = 0
    cpu_seconds: float = 0.0
    edges: tuple[int, int] = (0, 0)
    new_units: int = 0
    longest: tuple[float, int] = (0.0, 0)
    megabytes: int = 0
    stretches: int = 0
    finds: list[Path] = field(default_factory=list)

    def line(self) -> str:
        """One row of the table."""
        rate = self.inputs / self.cpu_seconds if self.cpu_seconds else 0
        seconds, size = self.longest
        return (
            f"| {self.target} | {self.inputs:,} | {rate:,.0f} | {self.edges[0]} → {self.edges[1]} | {self.new_units:,}"
            f" | {seconds * 1000:.1f} ms, {size:,} bytes | {self.stretches:,} | {self.megabytes} | {len(self.finds)} |"
        )


HEADER: Final = (
    "| target | inputs | a CPU second | edges | new units | longest input | stretches | MB | finds |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Run what the command line names."""
    args = _arguments()
    chosen = [TARGETS[name] for name in args.target or TARGETS]
    shares = sum(target.share for target in chosen)
    summaries = []
    print(f"{_version()}, Python {platform.python_version()}, seed {args.seed}\n{HEADER}", flush=True)
    for target in chosen:
        inputs = args.inputs * target.share // shares if args.inputs else -1
        seconds = 0 if args.inputs else max(5, int(args.minutes * 60 / len(chosen)))
        summary = fuzz(target, args.folder / target.name, inputs, seconds, args.seed)
        summaries.append(summary)
        print(summary.line(), flush=True)
    finds = [find for summary in summaries for find in summary.finds]
    print(f"{sum(summary.inputs for summary in summaries):,} inputs, {len(finds)} finds")
    for find in finds:
        told = find.with_name(f"{find.name}.txt")
        print(f"  {find}: {told.read_text().splitlines()[0] if told.exists() else 'the process died of it'}")
    sys.exit(1 if finds else 0)


def fuzz(target: Target, folder: Path, inputs: int, seconds: int, seed: int) -> Summary:
    """Fuzz one target, until so many inputs or seconds are over, and stretch what it has collected."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = Summary(target.name)
    guided = max(1, int(seconds * (1 - GROWTH_SHARE))) if seconds else 0
    began_at = time.monotonic()
    for death in range(DEATHS):
        (folder / "figures.json").unlink(missing_ok=True)
        left = inputs - summary.inputs if inputs > 0 else -1
        rest = max(1, int(guided - (time.monotonic() - began_at))) if seconds else 0
        output = _run(
            "guided", target, folder, f"--inputs={left}", f"--seconds={rest}", f"--seed={seed + death}"
        )
        _add(summary, folder, output)
        if "DONE" in output:
            break
    if not summary.inputs:
        sys.exit(f"error: {target.name} was fed nothing; {folder / 'guided.log'} says why")
    growth = seconds * GROWTH_SHARE if seconds else GROWTH_SECONDS
    _run("growing", target, folder, f"--seconds={growth}", f"--seed={seed}")
    summary.stretches = _json(folder / "grown.json").get("stretches", 0)
    summary.finds = sorted(
        path for pattern in ("finds/*", "died-*") for path in folder.glob(pattern) if path.suffix != ".txt"
    )
    return summary


def _run(what: str, target: Target, folder: Path, *options: str) -> str:
    """What the process said. The output of libFuzzer goes to the folder as well."""
    argv = (sys.executable, "-m", f"tests.fuzz.{what}", target.name, str(folder), *options)
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    (folder / f"{what}.log").write_text(done.stdout + done.stderr)
    if "ModuleNotFoundError: No module named 'atheris'" in done.stderr:
        sys.exit("error: atheris is not installed; run `make fuzz`, which installs it")
    return done.stdout + done.stderr


def _add(summary: Summary, folder: Path, output: str) -> None:
    """Add what one process came to."""
    figures = _json(folder / "figures.json")
    edges = {word: int(count) for word, count in _STATUS.findall(output)}
    stats = {name: int(value) for name, value in _STAT.findall(output)}
    summary.inputs += max(stats.get("number_of_executed_units", 0), int(figures.get("inputs", 0)))
    summary.cpu_seconds += figures.get("seconds", 0.0)
    summary.edges = (summary.edges[0] or edges.get("INITED", 0), edges.get("DONE", summary.edges[1]))
    summary.new_units += stats.get("new_units_added", 0)
    summary.megabytes = max(summary.megabytes, stats.get("peak_rss_mb", 0))
    longest = (figures.get("longest_seconds", 0.0), int(figures.get("longest_bytes", 0)))
    summary.longest = max(summary.longest, longest)


def _json(path: Path) -> dict[str, float]:
    return json.loads(path.read_text()) if path.exists() else {}


def _version() -> str:
    git = ("git", "describe", "--always", "--dirty")
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return f"commit {done.stdout.strip() or 'unknown'}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Feed every reader of foreign bytes.")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="may be given several times"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10, help="for all targets together")
    length.add_argument("--inputs", type=int, help="for all targets together, instead of minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where what was collected stays")
    return parser.parse_args()


if __name__ == "__main__":
    main()
