"""How many processes share one console."""

import errno
import io

import pytest

from worker.supervisor.console import LONGEST_LINE, Console, lines, prefixes


class Terminal(io.StringIO):
    """An output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """An output whose reader has left."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def test_names_are_aligned() -> None:
    """Every line begins at the same column, whoever wrote it."""
    assert prefixes(["redis", "worker-10"], coloured=False) == {
        "redis": "redis     | ",
        "worker-10": "worker-10 | ",
    }


def test_a_file_gets_no_colours() -> None:
    """Colour codes go to terminals only."""
    output = io.StringIO()
    Console(output, ["redis"]).say("redis", "up")
    assert output.getvalue() == "redis | up\n"


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the name is coloured and the line is not."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = Terminal()
    Console(output, ["redis"]).say("redis", "up")
    assert output.getvalue() == "\033[36mredis | \033[0mup\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR with any value but none turns colours off."""
    monkeypatch.setenv("NO_COLOR", "1")
    output = Terminal()
    Console(output, ["redis"]).say("redis", "up")
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
    console.say("redis", "up")
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
    console = Console(Failing(number), ["worker"])
    console.say("worker", "a line")
    assert console.closed is gone
