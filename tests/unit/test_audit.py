"""`make audit`: green only where every package of a lock was looked up and nothing is known against it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = "flask==3.1.0 \\\n    --hash=sha256:00\nWerkzeug[x]==3.1.0\nold_wheel==1 ; python_version < '3.9' \\\n"
FLASK: dict[str, Any] = {"name": "flask", "version": "3.1.0", "vulns": []}
WERKZEUG: dict[str, Any] = {"name": "werkzeug", "version": "3.1.0", "vulns": []}
KNOWN = {"id": "PYSEC-1", "fix_versions": ["3.1.1"], "aliases": [], "description": "bad"}
SKIPPED = {"name": "werkzeug", "skip_reason": "Dependency not found on PyPI"}


def audited(folder: Path, said: str, *, errors: str = "") -> tuple[int, str, str]:
    """Exit status, output and errors where pip-audit says so."""
    lock, tool = folder / "requirements.lock", folder / "pip-audit"
    lock.write_text(LOCK)
    tool.write_text(f"#!{sys.executable}\nimport sys\nprint({said!r})\nprint({errors!r}, file=sys.stderr)\n")
    tool.chmod(0o755)
    told = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", tool, lock],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return told.returncode, told.stdout, told.stderr


def as_json(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_where_all_were_looked_up_and_nothing_is_known_it_is_green(tmp_path: Path) -> None:
    """What the lock names for other Pythons only need not be told."""
    assert audited(tmp_path, as_json(FLASK, WERKZEUG)) == (
        0, "requirements.lock: 2 packages, no known vulnerability\n", "",
    )  # fmt: skip


def test_a_known_vulnerability_is_one_line_that_says_what_mends_it(tmp_path: Path) -> None:
    """Package, version, its number, and the version to go to."""
    status, told, _ = audited(tmp_path, as_json({**FLASK, "vulns": [KNOWN]}, WERKZEUG))
    assert (status, told) == (1, "requirements.lock: flask 3.1.0: PYSEC-1, mended in 3.1.1\n")


@pytest.mark.parametrize("packages", [(FLASK, SKIPPED), (FLASK,), ()], ids=["skipped", "left out", "none"])
def test_a_package_that_was_not_looked_up_is_no_green(
    tmp_path: Path, packages: tuple[dict[str, Any], ...]
) -> None:
    """pip-audit passes over it and ends well, as behind a mirror that knows no vulnerabilities."""
    status, told, errors = audited(tmp_path, as_json(*packages))
    assert (status, told) == (2, "")
    assert "not audited" in errors
    assert "pypi.org" in errors


def test_a_service_that_is_away_is_one_line(tmp_path: Path) -> None:
    """A traceback is cut to what went wrong."""
    status, told, errors = audited(tmp_path, "", errors="Traceback ...\nConnectionError: no route")
    assert (status, told, errors.count("\n")) == (2, "", 1)
    assert "ConnectionError: no route" in errors
