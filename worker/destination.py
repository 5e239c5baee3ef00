"""Bytes -> a file that is there whole or not at all, readable by its owner only; or standard output.

It knows nothing of what is written. Invariant: whatever ends the writing early, the named file is as it was before and
no other is left, kill -9 aside.
"""

import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Final

from worker.errors import LeadSyncError

# Names may have 255 bytes, and the temporary one has a few more than the file's own.
_NAME_KEPT: Final = 40
# These would end the process at once, and what it has begun would stay.
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class ReaderGone(Exception):
    """Whoever read our output has enough of it, as `| head` has."""


class Sink:
    """Takes bytes; an error of the file is one line that names it."""

    def __init__(self, name: str, file: "BinaryIO | FileIO") -> None:
        self._name = name
        self._file = file

    def write(self, content: bytes) -> None:
        """All of it. Raises LeadSyncError where the file takes no more, and ReaderGone."""
        left = memoryview(content)
        with _told(self._name):
            while left:
                # A file without a buffer may take a part, as a pipe does, or a disk that is nearly full.
                left = left[self._file.write(left) :]

    def flush(self) -> None:
        """As `write`."""
        with _told(self._name):
            self._file.flush()


@contextmanager
def standard_output(file: BinaryIO) -> Iterator[Sink]:
    """A sink into `file`, which stays open."""
    sink = Sink("standard output", file)
    yield sink
    sink.flush()


@contextmanager
def whole_file(path: Path) -> Iterator[Sink]:
    """A sink into a file of mode 0600 that gets the name `path` in the end, in the place of what has it now.

    A pipe or device of that name is written into instead. Meanwhile SIGTERM and SIGHUP raise SystemExit.
    """
    with _ending_in_order(), _whole_file(path) as sink:
        yield sink


@contextmanager
def _whole_file(path: Path) -> Iterator[Sink]:
    name = str(path)
    temporary = None
    try:
        with _told(name):
            target = Path(os.path.realpath(path))
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                handle = os.open(target, os.O_WRONLY)
            else:
                handle, temporary = tempfile.mkstemp(
                    prefix=f".{target.name[:_NAME_KEPT]}.", suffix=".part", dir=target.parent
                )
        # Without a buffer there is nothing left to fail when it is closed.
        with open(handle, "wb", buffering=0) as file:
            yield Sink(name, file)
            if temporary:
                with _told(name):
                    os.fsync(handle)
                    os.replace(temporary, target)
    finally:
        if temporary:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Signals that end the process raise SystemExit, so that what is unfinished is cleared away.

    One that is ignored, as under nohup, stays so, and so does another's handler; only the main thread may set any.
    """
    ours: list[signal.Signals] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, _end)
                    ours.append(number)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    for each in _ENDING:
        if signal.getsignal(each) is _end:
            signal.signal(each, signal.SIG_IGN)  # a second one would interrupt the clearing away
    raise SystemExit(128 + number)  # what a shell tells of a process that this signal ended


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise LeadSyncError(f"{name} cannot be written: {error.strerror}") from None
