"""How long ago somebody looked at its work -> whether it is silent, and in words. Pure.

A look is noted by the wall clock of whoever looks, and judged by that of whoever asks. Invariant: no look from the
future counts as a fresh one for longer than AHEAD_SECONDS, or a clock that was set back would hide a standstill.
"""

from typing import Final

AHEAD_SECONDS: Final = 60.0
"""Clocks of machines may be so far apart; what lies further ahead was noted by a clock that was wrong."""


def is_silent(age: float, most: float) -> bool:
    """Whether a look `age` seconds ago is too long ago, or not to be believed."""
    return age > most or is_ahead(age)


def is_ahead(age: float) -> bool:
    """Whether it lies further in the future than clocks may be apart."""
    return age < -AHEAD_SECONDS
