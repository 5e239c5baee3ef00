"""Output of many processes on one console: whole lines, each behind the name of who wrote it.

    bytes of a child -> lines -> "name   | line"

This file starts and ends nothing. It shows lines as they come and keeps none of them.

Invariant: no line is torn by another process' line; one without an end is shown in pieces of LONGEST_LINE.
"""

import errno
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, TextIO

LONGEST_LINE: Final = 64 * 1024
COLOURS: Final = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
"""ANSI foreground colours that can be read on dark and light ground; red is left to errors."""


class Console:
    """Where all lines go. May be called from any thread."""

    def __init__(self, output: TextIO, names: Iterable[str], *, colour: bool | None = None) -> None:
        names = list(names)
        coloured = _wants_colour(output) if colour is None else colour
        self._output = output
        self._lock = threading.Lock()
        self._prefixes = prefixes(names, coloured=coloured)
        self.closed = False
        """Whether the reader of our output went away."""

    def say(self, name: str, line: str) -> None:
        """Show one line of `name`."""
        with self._lock:
            if self.closed:
                return
            try:
                self._output.write(f"{self._prefixes[name]}{line}\n")
                self._output.flush()
            except OSError as error:
                # `| head` has seen enough, or the terminal is gone. A disk that is full for a while is no reason to
                # end: the line is lost, and the processes go on.
                self.closed = error.errno not in (errno.ENOSPC, errno.EDQUOT)
            except ValueError:
                self.closed = True

    def pump(self, name: str, pipe: BinaryIO) -> None:
        """Show what comes out of `pipe` until it ends."""
        for line in lines(pipe):
            self.say(name, line)


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
