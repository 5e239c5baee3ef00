"""A clock that jumps, for leadsync's processes alone: a C compiler -> a preloaded library -> an offset in a file.

The product reads the machine's clock and has no seam for another, so the library answers in the system's place, as
libfaketime does. Redis, Postgres, the sandbox and the soak itself keep the true time. Where the machine has no C
compiler or no such loader there is no clock to move, and faults of that kind find nobody.
"""

import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("jump.c")


@dataclass(frozen=True, slots=True)
class Clock:
    """The file that holds the offset, and the variables with which a process obeys it."""

    offset_file: Path
    library: Path

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_OFFSET_FILE": str(self.offset_file)}

    def jump(self, seconds: float) -> None:
        """From now on the clock is off by so much; 0: it is right."""
        # In place and in one write: the processes have the file mapped.
        with self.offset_file.open("r+b") as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))


def make_clock(folder: Path) -> Clock | None:
    """A clock in this folder; None where the machine cannot build one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    clock = Clock(folder / "clock", folder / "jump.so")
    clock.offset_file.write_bytes(bytes(8))
    words = [compiler, "-O2", "-shared", "-fPIC", "-o", str(clock.library), str(SOURCE), "-ldl"]
    built = subprocess.run(words, capture_output=True, check=False)
    return clock if built.returncode == 0 and _obeyed(clock) else None


def _obeyed(clock: Clock) -> bool:
    """Whether a Python that is started with it really sees another time."""
    question = "import time; print(time.time())"
    clock.jump(1e6)
    try:
        told = [
            float(
                subprocess.run(
                    [sys.executable, "-c", question], env=env, capture_output=True, check=True
                ).stdout
            )
            for env in (clock.env, {})
        ]
    except (subprocess.CalledProcessError, ValueError, OSError):
        return False
    finally:
        clock.jump(0)
    return told[0] - told[1] > 9e5
