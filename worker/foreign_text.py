"""Somebody else's text (names of Pages, forms, ads) -> text that a terminal shows and does not obey.

This file does not shorten and does not read markup; that is the screen's. Invariant: what it returns moves no cursor,
starts no line, changes no colour and turns no direction of reading.
"""

import unicodedata
from typing import Final

_STEER: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"
"""They shape letters of some scripts and emoji, and steer nothing."""


def clean(text: str) -> str:
    """`text` without what steers a terminal: control characters, escapes, marks of direction, line breaks."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in _STEER
