"""The commit before this one, beside it: a revision -> a folder that the processes run from, and can be moved on from.

    git archive -> folder/former;  folder/current -> former, and later -> this checkout

A process takes its code from where `current` leads when it starts, so ending each of them in turn is a rolling
restart.
"""

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Release:
    """Where the code of the processes is."""

    current: Path
    revision: str

    def move_on(self) -> None:
        """Processes that start from now on have the code of this checkout."""
        fresh = self.current.with_name("next")
        fresh.symlink_to(ROOT)
        fresh.replace(self.current)


def unpack(revision: str, folder: Path) -> Release | None:
    """That revision, unpacked in `folder`; None where there is no repository or it has no such revision."""
    try:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "--format=tar", revision, "worker", "receiver"],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    former = folder / "former"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(former, filter="data")
    current = folder / "current"
    current.symlink_to(former)
    return Release(current, revision)
