"""How often a process looks for garbage: seldom, since nearly all that it makes is freed at once or stays to its end.

It frees nothing by itself. Invariant: the collector stays on, so what is garbage in cycles goes in the end.
https://docs.python.org/3/library/gc.html
"""

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 50)
"""Objects made and not freed before the young ones are looked at; how often that, before older ones are."""


def collect_seldom() -> None:
    """For the start: imports stay, and to look through them again and again was a sixth of the start of a worker."""
    gc.set_threshold(*_THRESHOLDS)


def keep_all() -> None:
    """For when all is there that stays: look at it once more and never again, and at what is new seldom."""
    gc.collect()
    gc.freeze()
    collect_seldom()
