"""One reader of foreign bytes, as the fuzzers see it: bytes -> nothing, or Violation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TYPICAL_SECONDS: Final = 0.5
"""CPU time that an input may take, however small it is; with a collection of garbage in the middle of it."""
SECONDS_A_BYTE: Final = 50e-6
"""What it may take more for each of its bytes; the slowest reader needs a fiftieth of it under coverage."""


class Violation(AssertionError):
    """A reader broke its word: what it accepted is not what it promises. The message names the rule."""


@dataclass(frozen=True, slots=True)
class Target:
    """A reader with all the checks on what it gives.

    `run` returns where the input is read or refused as documented, and raises anything else where a promise is
    broken. `words` are bytes that mean something to the reader. `share`: of the inputs of a run, relative to the
    other targets; a reader that needs a file for each input gets fewer. `is_stretched`: whether its time is held
    against the size of the input.
    """

    name: str
    run: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()
    share: int = 10
    is_stretched: bool = True


def holds(rule: str, is_true: object) -> None:
    """Raise Violation of `rule` unless it holds."""
    if not is_true:
        raise Violation(rule)


def allowed_seconds(size: int) -> float:
    """CPU seconds that an input of `size` bytes may take."""
    return TYPICAL_SECONDS + size * SECONDS_A_BYTE
