"""What became of planted bugs -> the table in docs/planted.md, and rows that are there -> the same table. Pure.

Each row carries its own commit, so that single bugs can be tried again. Invariants: a row is of a bug that there is;
only the rows of the bugs that were tried change.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.planted.patches import Bug

HEAD: Final = """\
# Broken on purpose

Written by `make planted`; what is changed here by hand is lost. Each row is a bug that was planted in a copy of the
product, by the patch of that name in [tests/planted/bugs](../tests/planted/bugs), and the test that noticed it. The
same tests passed on an unpatched copy in the same run. Seconds are of the run of these tests up to the first failure,
its servers and processes included; where a machine is busy they are many.

`make planted ARGS="--only NAME"` tries one again. A new promise gets a patch that breaks it; one that no test notices
is a test that is missing. `tests/unit/test_planted.py` holds each patch to the tree, and this table to the patches.

| bug | what is broken | the promise | caught by | seconds | commit |
|---|---|---|---|---|---|
"""
NOT_CAUGHT: Final = "**not caught**"
_ROW: Final = re.compile(r"^\| \[(\w+)\]\(.*\|$", re.M)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a bug: the test that caught it, or None, and then perhaps why the trial says nothing."""

    bug: Bug
    caught_by: str | None
    seconds: float
    commit: str
    trouble: str | None = None


def row(verdict: Verdict) -> str:
    """The row of one verdict."""
    bug = verdict.bug
    file, _, test = (verdict.caught_by or "").partition("::")
    caught = f"[{test}](../{file})" if verdict.caught_by else NOT_CAUGHT
    name = f"[{bug.name}](../tests/planted/bugs/{bug.patch.name})"
    cells = (name, bug.what, bug.promise, caught, f"{verdict.seconds:.0f}", verdict.commit)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def rows_of(document: str) -> dict[str, str]:
    """The rows by the name of their bug."""
    return {found[1]: found[0] for found in _ROW.finditer(document)}


def merged(document: str, verdicts: Sequence[Verdict], names: Sequence[str]) -> str:
    """`document` with the rows of these verdicts anew, in the order of `names`, which are all that there are."""
    rows: Mapping[str, str] = rows_of(document) | {verdict.bug.name: row(verdict) for verdict in verdicts}
    return HEAD + "".join(f"{rows[name]}\n" for name in names if name in rows)
