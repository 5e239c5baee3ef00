"""Plant bugs in copies of the product and see which test notices: exit status 0 only where each was caught.

python -m tests.planted --only token_in_url --into docs/planted.md
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tests.planted.copies import CopyUnusable, copy_tree, prove
from tests.planted.patches import ROOT, Bug, PatchUnusable, apply, bugs
from tests.planted.table import Verdict, merged
from tests.planted.trials import run_tests

FRESH = click.Path(dir_okay=False, path_type=Path)


@click.command(help=f"{__doc__}")
@click.option("--only", "wanted", multiple=True, help="This bug alone; repeatable.")
@click.option("--json", "json_file", type=FRESH, help="Write what was found here.")
@click.option("--into", type=FRESH, help="Put the rows into this table, e.g. docs/planted.md.")
def main(wanted: tuple[str, ...], json_file: Path | None, into: Path | None) -> None:
    # A copy, and the tests that run in it, go with this program however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        verdicts = _tried(bugs(wanted), into)
    except (PatchUnusable, CopyUnusable) as error:
        sys.exit(f"error: {error}")
    if json_file is not None:
        json_file.write_text(json.dumps([_told(verdict) for verdict in verdicts], indent=1) + "\n")
    missed = [verdict.bug.name for verdict in verdicts if verdict.caught_by is None]
    click.echo(f"{len(verdicts) - len(missed)} of {len(verdicts)} caught" + f"; not: {missed}" * bool(missed))
    sys.exit(bool(missed))


def _tried(chosen: Sequence[Bug], into: Path | None) -> list[Verdict]:
    """A verdict on each; the table is written as they come."""
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="leadsync-planted-") as folder:
        sound = copy_tree(ROOT, Path(folder).resolve() / "sound")
        for bug in chosen:
            apply(bug, sound, only_check=True)
        _control(chosen, sound)
        for verdict in _verdicts(chosen, sound, Path(folder).resolve()):
            verdicts.append(verdict)
            if into is not None:
                before = into.read_text() if into.exists() else ""
                into.write_text(merged(before, verdicts, [bug.name for bug in bugs()]))
    return verdicts


def _control(chosen: Sequence[Bug], sound: Path) -> None:
    """Ends this program where a test that is named does not pass without a bug: it would prove nothing."""
    tests = sorted({test for bug in chosen for test in bug.tests})
    prove(sound)
    ran = run_tests(sound, tests, up_to_first_failure=False)
    lacking = ran.failed or tuple(test for test in tests if test not in ran.passed)
    if ran.trouble or lacking:
        sys.exit(
            f"error: without any bug {', '.join(lacking)} did not pass ({ran.trouble or 'failed or skipped'})"
        )
    click.echo(f"without a bug: {len(tests)} tests passed, {ran.seconds:.0f} s")


def _verdicts(chosen: Sequence[Bug], sound: Path, folder: Path) -> Iterator[Verdict]:
    commit = _commit()
    for bug in chosen:
        tree = folder / bug.name
        shutil.copytree(sound, tree)
        apply(bug, tree)
        prove(tree)
        ran = run_tests(tree, bug.tests, up_to_first_failure=True)
        shutil.rmtree(tree)
        verdict = Verdict(bug, ran.failed[0] if ran.failed else None, ran.seconds, commit, ran.trouble)
        click.echo(
            f"{bug.name}: {verdict.caught_by or verdict.trouble or 'NOT CAUGHT'}, {verdict.seconds:.1f} s"
        )
        yield verdict


def _told(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.bug.name, "what": verdict.bug.what, "promise": verdict.bug.promise,
        "tests": verdict.bug.tests, "caught_by": verdict.caught_by, "seconds": round(verdict.seconds, 1),
        "commit": verdict.commit, "trouble": verdict.trouble,
    }  # fmt: skip


def _commit() -> str:
    """The commit, with a mark where the tree has more than that but for the table."""
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)docs/planted.md")
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
