"""A tree and the names of tests -> what became of each test, and how long that took.

One pytest in a process of its own. It decides nothing about bugs. Invariant: a test counts as failed only where its own
body failed; a fixture that breaks, or a run that does not end, tells nothing of the bug.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import killpg
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as Xml

from tests.planted.copies import env_of

MOST_SECONDS: Final = 600.0
"""A run of a few tests that takes longer hangs."""
GRACE_SECONDS: Final = 60.0
"""In which an interrupted pytest ends the servers that it has started."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of tests: names without parameters, and wall seconds. `trouble` is why it says nothing, if so."""

    passed: frozenset[str]
    failed: tuple[str, ...]
    seconds: float
    trouble: str | None = None


def run_tests(tree: Path, tests: Sequence[str], *, up_to_first_failure: bool) -> Ran:
    """Run these tests in `tree`."""
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leadsync-planted-") as folder:
        told = Path(folder) / "told.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={told}"]
        command += [*(["-x"] if up_to_first_failure else []), *tests]
        printed = _finished(command, tree)
        seconds = time.monotonic() - began_at
        if printed is None:
            return Ran(frozenset(), (), seconds, f"did not end in {MOST_SECONDS:.0f} s")
        if not told.exists():
            return Ran(frozenset(), (), seconds, _last_line(printed))
        return _read(told, seconds, printed)


def _finished(command: Sequence[str], tree: Path) -> str | None:
    """What it printed, or None where it had to be ended."""
    with subprocess.Popen(
        command, cwd=tree, env=env_of(tree), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            return process.communicate(timeout=MOST_SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GRACE_SECONDS)
        finally:
            # What a test has left behind would disturb the next trial.
            with suppress(ProcessLookupError):
                killpg(process.pid, signal.SIGKILL)
    return None


def _read(told: Path, seconds: float, printed: str) -> Ran:
    passed: dict[str, None] = {}
    failed: dict[str, None] = {}
    broken: dict[str, None] = {}
    for case in Xml.parse(told).getroot().iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        results = {child.tag for child in case}
        if "error" in results:
            broken[name] = None
        elif "failure" in results:
            failed[name] = None
        elif "skipped" not in results:
            passed[name] = None
    trouble = None
    if not failed and (broken or not passed):
        trouble = f"{next(iter(broken), 'no test')} could not be run: {_last_line(printed)}"
    return Ran(frozenset(passed), tuple(failed), seconds, trouble)


def _last_line(printed: str) -> str:
    return next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "nothing printed")
