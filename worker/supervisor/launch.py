"""The last step before a child becomes its program. Run as a script, never imported.

    launch.py PARENT UID GID PROGRAM ARGUMENTS... -> that program, under the same process id

In a script of its own and not in a function between fork and exec, because other threads of the supervisor
may hold locks at the fork. Standard library only: it runs without site-packages, some 20 ms.

Invariant: on Linux the program is killed when the supervisor dies, however that comes about.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): this signal comes when the thread that started us ends."""


def main(parent: int, uid: int, gid: int, command: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which would clear it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the supervisor has ended meanwhile")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
