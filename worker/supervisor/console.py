"""Output of many processes on one console: whole lines, each behind the name of who wrote it.

    bytes of a child -> lines -> a bounded queue -> one writer -> "name   | line"

This file starts and ends nothing. It shows lines as they come and keeps none of them.

Invariants: no line is torn by another process' line; one without an end is shown in pieces of LONGEST_LINE. Whoever
speaks never waits for the screen: where that is not read, the oldest lines are left out, and their number is told.
"""

import errno
import itertools
import os
import select
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final, TextIO

LONGEST_LINE: Final = 64 * 1024
ROOM: Final = 1024 * 1024
"""Characters that wait for the screen at most."""
AT_ONCE: Final = 64 * 1024
"""Characters that are handed to the screen together: what a pipe holds, too."""
COLOURS: Final = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
"""ANSI foreground colours that can be read on dark and light ground; red is left to errors."""


class Console:
    """Where all lines go. May be called from any thread; nobody else writes to `output` meanwhile."""

    def __init__(
        self, output: TextIO, names: Iterable[str], *, colour: bool | None = None, room: int = ROOM
    ) -> None:
        """`names` are all that will speak; under the first it is told how many lines were left out."""
        names = list(names)
        coloured = _wants_colour(output) if colour is None else colour
        self._output = output
        self._prefixes = prefixes(names, coloured=coloured)
        self._own_name = names[0]
        self._room = room
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._size = 0
        self._left_out = 0
        self._is_finished = False
        self._writer: threading.Thread | None = None
        self.closed = False
        """Whether the reader of our output went away."""

    def say(self, name: str, line: str) -> None:
        """Show one line of `name`, once the screen takes it; returns at once."""
        text = f"{self._prefixes[name]}{line}\n"
        with self._changed:
            if self.closed or self._is_finished:
                return
            if self._size + len(text) > self._room:
                self._leave_out()
            self._waiting.append(text)
            self._size += len(text)
            self._changed.notify()
            if self._writer is None:
                # A daemon: a screen that is never read again holds up nobody's end.
                self._writer = threading.Thread(target=self._write, name="console", daemon=True)
                self._writer.start()

    def pump(self, name: str, pipe: BinaryIO) -> None:
        """Show what comes out of `pipe` until it ends."""
        for line in lines(pipe):
            self.say(name, line)

    def finish(self, seconds: float) -> None:
        """Return once all is shown that was said, or after `seconds`; from here on nothing more is."""
        with self._changed:
            self._is_finished = True
            self._changed.notify()
        if self._writer is not None:
            self._writer.join(seconds)
        with self._changed:
            self._waiting.clear()

    def _leave_out(self) -> None:
        # The oldest, so that the last words are kept; half of all, so that not every line brings a word on it.
        while self._waiting and self._size > self._room // 2:
            self._size -= len(self._waiting.popleft())
            self._left_out += 1

    def _write(self) -> None:
        with _descriptor(self._output) as descriptor:
            while texts := self._take():
                try:
                    _show(texts, self._output, descriptor)
                except OSError as error:
                    # `| head` has seen enough, or the terminal is gone. A disk that is full for a while is no reason
                    # to end: the lines are lost, and the processes go on.
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        self.closed = True
                        return
                    with self._changed:
                        self._left_out += len(texts)
                except ValueError:  # closed from our side
                    self.closed = True
                    return

    def _take(self) -> list[str]:
        """The lines that are to be shown next; none where all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_finished)
            texts: list[str] = []
            if self._waiting and self._left_out:
                told = f"{self._left_out:,} lines were left out here: the screen did not take them in time"
                texts.append(f"{self._prefixes[self._own_name]}{told}\n")
                self._left_out = 0
            size = 0
            while self._waiting and size < AT_ONCE:
                texts.append(self._waiting.popleft())
                size += len(texts[-1])
            self._size -= size
            return texts


@contextmanager
def _descriptor(output: TextIO) -> Iterator[int | None]:
    """A descriptor of our own for `output`, where it has one.

    A thread that is stuck in a write of Python's own file holds a lock of it, and an interpreter that ends meanwhile
    aborts. And `output` may be closed while we are stuck, and its number be another file's.
    """
    try:
        descriptor = os.dup(output.fileno())
    except (OSError, ValueError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _show(texts: Sequence[str], output: TextIO, descriptor: int | None) -> None:
    """Write `texts`; what the encoding of `output` lacks is written as \\N or \\u and its number."""
    encoding = output.encoding or "utf-8"
    shown = [text.encode(encoding, "backslashreplace") for text in texts]
    if descriptor is None:
        for each in shown:
            output.write(each.decode(encoding))
        output.flush()
        return
    rest = memoryview(b"".join(shown))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody who shares the terminal has made it so
            select.select([], [descriptor], [])


def lines(pipe: BinaryIO) -> Iterator[str]:
    """The lines in `pipe` as text; what is no UTF-8 is marked as such, an overlong line cut into pieces."""
    while line := pipe.readline(LONGEST_LINE):
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def prefixes(names: Iterable[str], *, coloured: bool) -> dict[str, str]:
    """What stands before each name's lines: all of one width, each name in a colour of its own."""
    names = list(names)
    width = max(map(len, names), default=0)
    plain = {name: f"{name:<{width}} | " for name in names}
    if not coloured:
        return plain
    colours = itertools.cycle(COLOURS)
    return {name: f"\033[{next(colours)}m{prefix}\033[0m" for name, prefix in plain.items()}


def _wants_colour(output: TextIO) -> bool:
    # https://no-color.org: set and not empty, whatever its value.
    return output.isatty() and not os.environ.get("NO_COLOR")
