"""Documents name files, statements and other documents that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANUALS = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
NAMED_FILE = re.compile(r"`((?:worker|receiver|sandbox|tests|docs|benchmarks)/[\w./-]*)`")
STATEMENT = re.compile(r"`([A-Z]{4,}(?:_[A-Z]+)*)`")


def lacking(manual: Path, text: str) -> list[str]:
    """Links and files that a document names and that are not there."""
    links = [link for link in LINK.findall(text) if not (manual.parent / link).exists()]
    return links + [name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()]


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.name)
def test_what_a_document_points_to_is_there(manual: Path) -> None:
    """Links lead to files of the repository, and files that are named exist."""
    assert lacking(manual, manual.read_text()) == []


def test_a_dead_end_is_noticed() -> None:
    """The look itself can fail."""
    assert lacking(ROOT / "README.md", "[x](docs/none.md) `worker/none.py` [y](docs/states.md)") == [
        "docs/none.md",
        "worker/none.py",
    ]


def test_the_statements_that_move_a_reference_are_those_of_the_code() -> None:
    """Each statement that docs/states.md names is one of the store's."""
    named = set(STATEMENT.findall((ROOT / "docs" / "states.md").read_text())) - {"LEADGEN_ID"}
    there: set[str] = set()
    for path in (ROOT / "worker" / "store").glob("*.py"):
        there |= set(re.findall(r"^([A-Z_]+): Final", path.read_text(), re.M))
    settings = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert named - settings - there == set()
    assert {"SETTLE", "LEASE_DUE", "REPLAY", "ERASE"} <= named


def test_every_decision_is_in_the_index() -> None:
    """docs/decisions/README.md lists each file beside it, under its own title."""
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        title = re.sub(r"^# (\d+\. )?", "", path.read_text().splitlines()[0])
        assert f"[{title}]({path.name})" in index
