"""What a trial of planted bugs makes of its tests, in processes of their own."""

from pathlib import Path

import pytest

from tests.planted.copies import PACKAGES, CopyUnusable, prove
from tests.planted.trials import run_tests

TESTS = """
import pytest

@pytest.fixture
def broken(): raise OSError

def test_sound(): pass

@pytest.mark.parametrize("n", [1, 2])
def test_wrong(n): assert n == 1

def test_skipped(): pytest.skip("no server")

def test_unasked(broken): pass
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_a_trial_tells_the_test_that_failed(tree: Path) -> None:
    """Only a test whose own body failed has noticed a bug; parameters are not told apart."""
    ran = run_tests(
        tree, ["tests/test_it.py::test_sound", "tests/test_it.py::test_wrong"], up_to_first_failure=True
    )
    assert (ran.failed, ran.trouble) == (("tests/test_it.py::test_wrong",), None)
    assert "tests/test_it.py::test_sound" in ran.passed


@pytest.mark.parametrize("test", ["test_skipped", "test_unasked", "test_of_no_such_name"])
def test_a_trial_that_says_nothing_is_told_as_such(test: str, tree: Path) -> None:
    """A skip, a broken fixture and a name that is gone are no bug caught, and no sound copy either."""
    ran = run_tests(tree, [f"tests/test_it.py::{test}"], up_to_first_failure=True)
    assert (ran.passed, ran.failed) == (frozenset(), ())
    assert ran.trouble


def test_a_copy_whose_code_would_not_run_is_refused(tmp_path: Path) -> None:
    """An editable install leads to the original: without the copy's own packages in front nothing may be tried."""
    for package in PACKAGES[1:]:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    with pytest.raises(CopyUnusable, match="would run instead of the copy"):
        prove(tmp_path)
    (tmp_path / PACKAGES[0]).mkdir()
    (tmp_path / PACKAGES[0] / "__init__.py").touch()
    prove(tmp_path)
