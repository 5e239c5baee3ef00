"""Files in `bugs/` -> bugs; a bug -> a tree that has it. It runs no test.

    what: one line, what is broken              then an empty line and a unified diff against the product's code,
    promise: one line, what no longer holds     with two lines of context, so that it survives small changes
    test: a test that should notice             (as many lines as tests; the cheapest first)

Invariant: a patch that does not apply is an error that names the patch and changes nothing.
"""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUGS: Final = Path(__file__).with_name("bugs")


class PatchUnusable(Exception):
    """A file in `bugs/` that is no bug, or no bug of this tree any more; one line."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug. `tests` are pytest's names of tests, `tests/unit/test_x.py::test_y`."""

    name: str
    what: str
    promise: str
    tests: tuple[str, ...]
    patch: Path


def bugs(names: Iterable[str] = ()) -> tuple[Bug, ...]:
    """The bugs of these names, by default all, by name. Raises PatchUnusable."""
    there = {path.stem: path for path in sorted(BUGS.glob("*.patch"))}
    chosen = sorted(set(names)) or list(there)
    for name in chosen:
        if name not in there:
            raise PatchUnusable(f"there is no bug {name!r}; those in {BUGS.relative_to(ROOT)} are the choice")
    return tuple(read(there[name]) for name in chosen)


def read(patch: Path) -> Bug:
    """The bug that a file describes. Raises PatchUnusable."""
    told: dict[str, list[str]] = {"what": [], "promise": [], "test": []}
    for line in patch.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(": ")
        if name not in told or not value:
            raise PatchUnusable(f"{patch.name}: the header has a line {line!r}; it knows {', '.join(told)}")
        told[name].append(value)
    if len(told["what"]) != 1 or len(told["promise"]) != 1 or not told["test"]:
        raise PatchUnusable(f"{patch.name}: the header needs one `what`, one `promise` and a `test` at least")
    return Bug(patch.stem, told["what"][0], told["promise"][0], tuple(told["test"]), patch)


def apply(bug: Bug, tree: Path, *, only_check: bool = False) -> None:
    """Give the tree this bug, or only see whether it can be given. Raises PatchUnusable."""
    command = ["git", "apply", *(["--check"] if only_check else []), str(bug.patch)]
    # A repository further up would make git pass over a tree that is not its own.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()[0].removeprefix("error: ")
        raise PatchUnusable(
            f"{bug.patch.name} does not apply any more ({why}); make its diff anew against this tree"
        )
