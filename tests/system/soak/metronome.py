"""A clockwork in a process of its own: how late it was, how slow the disk -> when the machine stood still.

    python -m tests.system.soak.metronome FILE      one line a moment: unix time, seconds

On a machine that others use, an answer may be late though nobody is to blame. This says when, knowing nothing of
leadsync.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICK_SECONDS = 0.1
LATE_SECONDS = 0.25
"""A quarter of what a receiver may take: beyond it the machine is slow for everybody."""
SYNC_EVERY = 3


STALL_SECONDS = 2.0
"""Around a moment in which the machine stood still."""


@contextmanager
def ticking(folder: Path) -> Iterator[Path]:
    """One in a process of its own, and the file that it writes in this folder."""
    path = folder / "stalls"
    words = [sys.executable, "-m", "tests.system.soak.metronome", str(path)]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[3])
    try:
        yield path
    finally:
        process.kill()
        process.wait()


def stood_still(path: Path) -> list[tuple[float, float]]:
    """Stretches of unix time in which the machine itself stood still."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(float(at) - float(late) - STALL_SECONDS, float(at) + STALL_SECONDS) for at, late in lines]


def main(path: Path) -> None:
    """Tick until killed."""
    scratch = os.open(path.with_suffix(".sync"), os.O_WRONLY | os.O_CREAT, 0o600)
    with path.open("a") as out:
        for tick in range(10**9):
            began = time.monotonic()
            time.sleep(TICK_SECONDS)
            if tick % SYNC_EVERY == 0:
                os.pwrite(scratch, b"tick", 0)
                os.fsync(scratch)
            late = time.monotonic() - began - TICK_SECONDS
            if late > LATE_SECONDS:
                out.write(f"{time.time():.3f} {late:.3f}\n")
                out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
