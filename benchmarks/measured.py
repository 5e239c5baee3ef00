"""What a benchmark found and printed -> its section of docs/measured.md; the sections there -> the file. Pure.

    JSON of one run, its printed text -> section;  file, section -> file

Each section is of one run and carries its own commit, date and command, so that benchmarks can be run one at a time.
It measures nothing and runs nothing (__main__.py does).

Invariant: a merge changes the section of its own benchmark and no other, and the order is that of `names`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

HEAD: Final = """\
# Measured

Written by `python -m benchmarks --into docs/measured.md`; what is changed here by hand is lost. What each figure means
and how to read it: [benchmarks/README.md](../benchmarks/README.md). A figure with a spread is the median of the pairs
of one interleaved run, with the lowest and the highest; a goal that is missed says so.
"""
_SECTION: Final = re.compile(r"^## (\w+)$", re.M)
_WORDS: Final = {True: "met", False: "**not met**", None: ""}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: `told` is the JSON that the benchmark wrote, `printed` all that it showed, `claim` one sentence."""

    name: str
    claim: str
    command: str
    seconds: float
    told: Mapping[str, Any]
    printed: str


def section(run: Run) -> str:
    """The section of one run, heading included."""
    about = run.told["machine"]
    versions = ", ".join(f"{name} {about[name]}" for name in sorted(about) if name not in _MACHINE)
    lines = [
        f"## {run.name}",
        "",
        run.claim,
        "",
        f"- `{run.command}`, {run.seconds:,.0f} s, {about['at'][:10]}, commit {about['commit']}",
        f"- {about['processor']}, {about['cores']} cores, load {about['load_average_before']:.1f} before; {versions}",
        "",
        *_table(run.told.get("findings", ())),
        "<details><summary>All that it printed</summary>",
        "",
        "```text",
        *(line.rstrip() for line in run.printed.strip("\n").splitlines()),
        "```",
        "",
        "</details>",
    ]
    return "\n".join(lines) + "\n"


_MACHINE: Final = ("at", "commit", "processor", "cores", "load_average_before")


def _table(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    if not findings:
        return []
    rows = [f"| {f['what']} | {f['told']} | {f['goal']} | {_WORDS[f['is_met']]} |" for f in findings]
    return ["| | measured | goal | |", "|---|---|---|---|", *rows, ""]


def merged(document: str, name: str, text: str, names: Sequence[str]) -> str:
    """`document` with `text` in place of the section of benchmark `name`, or in its place among the others."""
    sections = sections_of(document) | {name: text}
    # A benchmark that is no more has no figures.
    return "\n".join([HEAD, *(sections[each] for each in names if each in sections)])


def sections_of(document: str) -> dict[str, str]:
    """The sections by the name of their benchmark, each with its heading."""
    starts = [(found[1], found.start()) for found in _SECTION.finditer(document)]
    return {
        name: document[start:end].strip("\n") + "\n"
        for (name, start), (_, end) in pairwise([*starts, ("", len(document))])
    }
