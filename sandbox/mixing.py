"""Seeded numbers: a few integers -> one well mixed 64-bit integer.

What a lead looks like must follow from the seed and its number alone, whatever was asked before, and in
about a microsecond: `random.Random(seed)` costs ten times that. Not for secrets.

Invariant: the same integers give the same number on every machine and Python version.
"""

from collections.abc import Callable
from typing import Final

_MASK: Final = (1 << 64) - 1


def mix(*parts: int) -> int:
    """An integer of 64 bits that looks random and depends on every part (splitmix64's finalizer per part)."""
    x = 0x9E3779B97F4A7C15
    for part in parts:
        x = (x ^ (part & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ (x >> 29)) * 0x94D049BB133111EB & _MASK
        x ^= x >> 32
    return x


def mixer(*first: int) -> Callable[[int], int]:
    """`mix(*first, last)` as a function of `last`, its first parts mixed beforehand: a listing asks it per lead."""
    begun = mix(*first)

    def mixed(last: int) -> int:
        x = (begun ^ (last & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ (x >> 29)) * 0x94D049BB133111EB & _MASK
        return x ^ (x >> 32)

    return mixed


def share(*parts: int) -> float:
    """The same as a number in [0, 1)."""
    return mix(*parts) / (1 << 64)
