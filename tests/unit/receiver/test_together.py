"""Who writes for whom, and what becomes of those who wait."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from receiver.together import Together

PATIENT = 60.0
"""Seconds that no test takes."""


class Writes:
    """A write that can be held up, and made to fail; it keeps what it was given."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.failures: list[BaseException | None] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, items: Sequence[str]) -> None:
        self.groups.append(list(items))
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENT)
        failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure


class Callers:
    """Threads that put, in the order in which they are begun, and what each of them met."""

    def __init__(self, together: Together[str]) -> None:
        self._together = together
        self._threads: list[threading.Thread] = []
        self.met: dict[str, BaseException | None] = {}

    def begin(self, item: str, *, is_in: Callable[[], bool]) -> None:
        """Let a thread put `item`, and return once it `is_in`."""
        thread = threading.Thread(target=self._put, args=(item,), daemon=True)
        self._threads.append(thread)
        thread.start()
        for _ in iter(is_in, True):
            thread.join(0.001)

    def _put(self, item: str) -> None:
        try:
            self._together.put(item)
            self.met[item] = None
        except BaseException as failure:
            self.met[item] = failure

    def end(self) -> None:
        for thread in self._threads:
            thread.join(PATIENT)


@pytest.fixture
def writes() -> Writes:
    return Writes()


def held_up(writes: Writes, *, most: int = 10, patience: float = PATIENT) -> tuple[Together[str], Callers]:
    """A line whose first write, of `a`, is under way."""
    together: Together[str] = Together(writes, len, most, patience)
    callers = Callers(together)
    callers.begin("a", is_in=lambda: writes.begun.acquire(blocking=False))
    return together, callers


def stand_in_line(together: Together[str], callers: Callers, items: Sequence[str]) -> None:
    for place, item in enumerate(items, 1):
        callers.begin(item, is_in=lambda place=place: len(together._line) == place)  # type: ignore[misc]


def let_go(writes: Writes, times: int) -> None:
    for _ in range(times):
        writes.go_on.release()


def test_who_comes_while_nobody_writes_is_written_at_once(writes: Writes) -> None:
    """Two that do not meet are two writes, and neither waits."""
    together: Together[str] = Together(writes, len, 10, PATIENT)
    let_go(writes, 2)
    together.put("a")
    together.put("b")
    assert writes.groups == [["a"], ["b"]]


def test_those_who_come_meanwhile_are_written_together(writes: Writes) -> None:
    """All that stood in line during one write are the next one, in their order."""
    together, callers = held_up(writes)
    stand_in_line(together, callers, ["b", "c", "d"])
    let_go(writes, 2)
    callers.end()
    assert writes.groups == [["a"], ["b", "c", "d"]]
    assert callers.met == dict.fromkeys("abcd")


@pytest.mark.parametrize("lost", [OSError("lost"), SystemExit(1)], ids=repr)
def test_a_failure_reaches_all_whose_write_it_was(writes: Writes, lost: BaseException) -> None:
    """Each of a group learns that its write failed, and nobody else does; so too where its thread is to end."""
    writes.failures = [None, lost, None]
    together, callers = held_up(writes, most=2)
    stand_in_line(together, callers, ["b", "c", "d"])
    let_go(writes, 3)
    callers.end()
    assert writes.groups == [["a"], ["b", "c"], ["d"]]
    assert callers.met == {"a": None, "b": lost, "c": lost, "d": None}


def test_nothing_is_heavier_than_the_most_but_one_by_itself(writes: Writes) -> None:
    """A group ends before it grows too heavy; what is too heavy alone is written alone."""
    together, callers = held_up(writes, most=4)
    stand_in_line(together, callers, ["bb", "cc", "d", "eeeeeeee", "f"])
    let_go(writes, 5)
    callers.end()
    assert writes.groups == [["a"], ["bb", "cc"], ["d"], ["eeeeeeee"], ["f"]]


@pytest.fixture
def hanging(writes: Writes) -> Iterator[Callers]:
    _, callers = held_up(writes, patience=0.0)
    yield callers
    let_go(writes, 9)
    callers.end()


def test_who_has_waited_long_enough_writes_alone(writes: Writes, hanging: Callers) -> None:
    """A write that hangs holds up no other: who ran out of patience is written beside it, and once."""
    hanging.begin("b", is_in=lambda: writes.begun.acquire(blocking=False))
    assert writes.groups == [["a"], ["b"]]
    let_go(writes, 2)
    hanging.end()
    assert writes.groups == [["a"], ["b"]]
