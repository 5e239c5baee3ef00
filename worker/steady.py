"""This machine's clock that never jumps, and the machine's name, by which readings of it can be compared.

Nothing here says what time it is. Invariant: two readings with the same machine name are as far apart as the time that
passed between them, suspended or not, whatever is done to the wall clock.
"""

import socket
import time
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def steady() -> float:
    """Seconds since some moment of this machine's own, time in suspension included where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def machine() -> str:
    """A name of this machine since it was booted; containers of one machine share clock and name."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        # The clock begins anew at each boot here too, which shows as a jump against what was noted before.
        return socket.gethostname()
