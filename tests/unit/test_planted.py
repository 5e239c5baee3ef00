"""Each planted bug can still be planted and names tests that there are, and the table tells of each."""

import ast
from pathlib import Path

import pytest

from tests.planted.patches import BUGS, ROOT, Bug, PatchUnusable, apply, bugs, read
from tests.planted.table import HEAD, NOT_CAUGHT, Verdict, merged, row, rows_of

NAMES = sorted(path.stem for path in BUGS.glob("*.patch"))


def a_patch(folder: Path, header: str) -> Path:
    patch = folder / "some.patch"
    patch.write_text(f"{header}\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
    return patch


def verdict(name: str, caught_by: str | None = "tests/unit/test_x.py::test_y") -> Verdict:
    return Verdict(Bug(name, "a | b", "p", ("t",), Path(f"{name}.patch")), caught_by, 1.6, "abc")


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_can_be_planted_in_this_tree(name: str) -> None:
    """A patch that the code has outgrown is told at once, not when somebody wants to know what the tests notice."""
    apply(read(BUGS / f"{name}.patch"), ROOT, only_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_names_tests_that_there_are(name: str) -> None:
    """Whoever renames a test renames it here too."""
    for test in read(BUGS / f"{name}.patch").tests:
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        assert function in {
            n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        }


def test_the_table_tells_of_each_bug_and_of_no_other() -> None:
    """docs/planted.md has a row a bug, with what its patch says, and each was caught."""
    document = (ROOT / "docs" / "planted.md").read_text()
    rows = rows_of(document)
    assert sorted(rows) == NAMES
    for bug in bugs():
        assert f"| {bug.what} | {bug.promise} |" in rows[bug.name]
    assert NOT_CAUGHT not in document


def test_a_patch_that_does_not_apply_is_told_and_changes_nothing(tmp_path: Path) -> None:
    """The error names the patch and what to do."""
    (tmp_path / "x").write_text("c\n")
    bug = read(a_patch(tmp_path, "what: w\npromise: p\ntest: t"))
    with pytest.raises(
        PatchUnusable, match=r"^some\.patch does not apply any more \(.*x.*\); make its diff anew"
    ):
        apply(bug, tmp_path)
    assert (tmp_path / "x").read_text() == "c\n"
    (tmp_path / "x").write_text("a\n")
    apply(bug, tmp_path)
    assert (tmp_path / "x").read_text() == "b\n"


@pytest.mark.parametrize(
    "header",
    ["what: w\npromise: p", "what: w\ntest: t", "what: w\npromise: p\ntest: t\nwhy: y", "what: w\nhm"],
)
def test_a_header_that_lacks_something_is_refused(header: str, tmp_path: Path) -> None:
    """Each bug says what it breaks, which promise that is, and what should notice."""
    with pytest.raises(PatchUnusable, match="header"):
        read(a_patch(tmp_path, header))


def test_a_bug_that_is_not_there_is_refused() -> None:
    """A misspelt name does not pass for a trial in which everything was caught."""
    with pytest.raises(PatchUnusable, match="no_such"):
        bugs(["no_such"])


def test_a_row_is_replaced_alone_and_in_its_place() -> None:
    """Trying one bug again changes its own row; a row without a bug goes."""
    names = ["first", "second", "third"]
    document = merged("", [verdict("third"), verdict("first"), verdict("gone")], names)
    assert list(rows_of(document)) == ["first", "third"]
    anew = merged(document, [verdict("first", None)], names)
    assert rows_of(anew) == {"first": row(verdict("first", None)), "third": rows_of(document)["third"]}
    assert anew.startswith(HEAD)


def test_a_row_says_which_test_noticed_and_a_bar_in_a_text_breaks_no_table() -> None:
    """What nobody noticed stands out."""
    told = row(verdict("first"))
    assert "| a / b | p | [test_y](../tests/unit/test_x.py) | 2 | abc |" in told
    assert NOT_CAUGHT in row(verdict("first", None))
