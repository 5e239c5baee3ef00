"""How many processes share one console."""

import errno
import io
import threading

import pytest

from worker.supervisor.console import LONGEST_LINE, Console, lines, prefixes

SECONDS = 20.0
"""Longer than anything here takes; only a failing test waits for it."""


class Terminal(io.StringIO):
    """An output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Frozen(io.StringIO):
    """A terminal after Ctrl-S: what is written waits, until Ctrl-Q."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck, self.moves = threading.Event(), threading.Event()

    def write(self, text: str, /) -> int:
        self.stuck.set()
        self.moves.wait()
        return super().write(text)


class Gone(io.StringIO):
    """An output whose reader has left."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def shown(console: Console, *lines: str) -> None:
    """Everything that "redis" says is on the screen."""
    for line in lines:
        console.say("redis", line)
    console.finish(SECONDS)


def test_names_are_aligned() -> None:
    """Every line begins at the same column, whoever wrote it."""
    assert prefixes(["redis", "worker-10"], coloured=False) == {
        "redis": "redis     | ",
        "worker-10": "worker-10 | ",
    }


def test_a_file_gets_no_colours() -> None:
    """Colour codes go to terminals only."""
    output = io.StringIO()
    shown(Console(output, ["redis"]), "up")
    assert output.getvalue() == "redis | up\n"


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the name is coloured and the line is not."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = Terminal()
    shown(Console(output, ["redis"]), "up")
    assert output.getvalue() == "\033[36mredis | \033[0mup\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR with any value but none turns colours off."""
    monkeypatch.setenv("NO_COLOR", "1")
    output = Terminal()
    shown(Console(output, ["redis"]), "up")
    assert output.getvalue() == "redis | up\n"


def test_lines_are_whole_and_text() -> None:
    """Line ends are dropped, bytes that are no UTF-8 do not stop the pump, a last line needs no end."""
    pipe = io.BytesIO(b"one\r\n\ntw\xffo\nlast")
    assert list(lines(pipe)) == ["one", "", "tw\ufffdo", "last"]


def test_an_endless_line_is_cut() -> None:
    """A process that never ends its line costs no more memory than one piece."""
    pipe = io.BytesIO(b"x" * (2 * LONGEST_LINE + 1))
    assert [len(line) for line in lines(pipe)] == [LONGEST_LINE, LONGEST_LINE, 1]


def test_a_reader_that_left_is_noticed_once() -> None:
    """A broken pipe is remembered and never raised at who speaks."""
    console = Console(Gone(), ["redis"])
    shown(console, "up")
    assert console.closed
    console.say("redis", "still up")


class Failing(io.StringIO):
    """An output whose writes fail."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "told")


@pytest.mark.parametrize(("number", "gone"), [(errno.EPIPE, True), (errno.EIO, True), (errno.ENOSPC, False)])
def test_a_full_disk_costs_lines_and_a_reader_that_is_gone_ends_it(number: int, gone: bool) -> None:
    """Only where nobody can read any more does the console count as closed."""
    console = Console(Failing(number), ["redis"])
    shown(console, "a line")
    assert console.closed is gone


def test_who_speaks_never_waits_for_the_screen() -> None:
    """A terminal after Ctrl-S once held up each child in its next line, and so the receiver."""
    output = Frozen()
    console = Console(output, ["redis"])
    pumping = threading.Thread(
        target=console.pump, args=("redis", io.BytesIO(b"a line\n" * 200_000)), daemon=True
    )
    pumping.start()
    pumping.join(SECONDS)
    is_stuck = pumping.is_alive()
    output.moves.set()
    console.finish(SECONDS)
    assert not is_stuck


def test_what_the_screen_did_not_take_is_counted_and_the_last_words_are_kept() -> None:
    """The lines that are left are in their order, with the number of the others where those belong."""
    output = Frozen()
    console = Console(output, ["redis"], room=200)
    console.say("redis", "first")
    assert output.stuck.wait(SECONDS)
    for number in range(1_000):
        console.say("redis", f"{number:03}")
    output.moves.set()
    console.finish(SECONDS)
    first, told, *last = output.getvalue().splitlines()
    assert first == "redis | first"
    assert (
        told == f"redis | {1_000 - len(last)} lines were left out here: the screen did not take them in time"
    )
    assert last == [f"redis | {number:03}" for number in range(1_000 - len(last), 1_000)]
    assert len(last) >= 200 // 2 // len("redis | 000\n")


def test_a_screen_that_moves_gets_all() -> None:
    """Nothing is left out where the screen takes what comes."""
    output = io.StringIO()
    shown(Console(output, ["redis"]), *map(str, range(10_000)))
    assert output.getvalue().splitlines() == [f"redis | {number}" for number in range(10_000)]


def test_the_end_waits_for_a_frozen_screen_no_longer_than_it_says() -> None:
    """And what comes later, from whoever still holds a pipe, is shown to nobody."""
    output = Frozen()
    console = Console(output, ["redis"])
    console.say("redis", "first")
    assert output.stuck.wait(SECONDS)
    console.say("redis", "second")
    console.finish(0.0)
    console.say("redis", "third")
    output.moves.set()
    console.finish(SECONDS)
    assert output.getvalue() == "redis | first\n"


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", "Łódź ☕"),
        ("latin-1", "\\u0141ód\\u017a \\u2615"),
        ("ascii", "\\u0141\\xf3d\\u017a \\u2615"),
    ],
)
def test_a_sign_that_the_screen_lacks_costs_no_line_and_ends_nothing(encoding: str, told: str) -> None:
    """It was once taken for a reader that went away, and ended all processes with exit status 0."""
    written = io.BytesIO()
    console = Console(io.TextIOWrapper(written, encoding=encoding), ["redis"])
    shown(console, "Łódź ☕", "next")
    assert not console.closed
    assert written.getvalue().decode(encoding) == f"redis | {told}\nredis | next\n"
