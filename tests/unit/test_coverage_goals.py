"""The goals of `make coverage`: what is missed is told, and what is pure is told by what it imports."""

from pathlib import Path
from typing import Any

import pytest

from tests.coverage_goals import misses, pure_files

WHOLE: dict[str, Any] = {"missing_lines": [], "missing_branches": []}


def told(lines: int = 100, branches: int = 100, **file: list[Any]) -> dict[str, Any]:
    """What was found: so many of 100 statements and branches, and this of the one pure file."""
    totals = {
        "covered_lines": lines,
        "num_statements": 100,
        "covered_branches": branches,
        "num_branches": 100,
    }
    return {"totals": totals, "files": {"worker/lead.py": {**WHOLE, **file}}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (told(89), "statements: 89.0%"),
        (told(100, 79), "branches: 79.0%"),
        (told(missing_lines=[7]), "worker/lead.py: no test runs 7,"),
        (told(missing_branches=[[7, -3]]), "worker/lead.py: no test runs 7 to the end,"),
        ({**told(), "files": {}}, "worker/lead.py: not measured"),
    ],
)
def test_each_goal_that_is_missed_is_one_line(found: dict[str, Any], words: str) -> None:
    """Statements, branches, and each line or branch of a pure file."""
    (line,) = misses(found, {"worker/lead.py"})
    assert line.startswith(words)


def test_where_all_goals_are_reached_nothing_is_told() -> None:
    """90% of statements and 80% of branches are enough elsewhere."""
    assert misses(told(90, 80), {"worker/lead.py"}) == []


def test_a_file_is_pure_by_all_that_it_runs(tmp_path: Path) -> None:
    """What it imports, at the top or in a function, knows no world, nor does what that imports."""
    files = {
        "pure": "import json\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import redis\n",
        "leaning": "from worker import pure\nfrom worker.pure import x\n",
        "sly": "def f():\n    import socket\n",
        "misled": "from worker.sly import f\n",
        "timed": "import time\n",
    }
    (tmp_path / "worker").mkdir()
    for name, text in files.items():
        (tmp_path / "worker" / f"{name}.py").write_text(text)
    assert pure_files(tmp_path) == {"worker/pure.py", "worker/leaning.py"}


def test_the_files_that_decide_are_pure() -> None:
    """The design calls them so; one that takes an import of the world would leave the list without a word."""
    named = (
        "lead batches slices outcomes graph/usage graph/wire graph/faults budget/policy trail inbox reconcile"
    )
    assert {f"worker/{name}.py" for name in named.split()} <= pure_files()
    assert {f"receiver/{name}.py" for name in ("handshake", "signature", "delivery")} <= pure_files()
