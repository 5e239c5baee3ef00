"""What a person answered, as an order names it -> whether a lead's field_data has it. Pure.

It asks no database. Invariants: e-mail addresses and texts are compared without case, surrounding blanks and letters
that nobody sees, phone numbers by their digits; a needle is in every lead that matches, so looking for it first loses
none; no message and no repr holds an answer.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.lead import Answer, Json, answers

ANY_KEY: Final = "*"
FEWEST_DIGITS: Final = 7
"""A text of so many digits and what people write between them is compared as a phone number."""
PHONE_MARKS: Final = " +-()./"

_PHONE: Final = re.compile(r"[0-9 +().\/-]+\Z", re.ASCII)
# Characters that JSON never escapes and that no normalization brings forth from others within ASCII.
_RUN: Final = re.compile(r"[a-z0-9@._+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Condition:
    """An answer that a lead must have: to the question `key`, or to any where that is ANY_KEY."""

    key: str
    text: str = field(repr=False)
    digits: str = field(repr=False)

    @classmethod
    def of(cls, key: str, value: str) -> "Condition":
        """Raises ValueError where key or value is empty; its message has neither."""
        text = _plain(value)
        if not key.strip():
            raise ValueError("names no question before the =")
        if not text:
            raise ValueError("has no value: it would find leads that did not answer")
        return cls(key.strip().casefold(), text, _digits(text))

    def is_met(self, given: Iterable[Answer]) -> bool:
        """Whether one of these answers is the one."""
        return any(
            self.is_value(value)
            for answer in given
            if self.key in (ANY_KEY, answer.name.casefold())
            for value in answer.values
        )

    def is_value(self, value: str) -> bool:
        """Whether this very answer is the one, whatever was asked."""
        text = _plain(value)
        return text == self.text or bool(self.digits and _digits(text) == self.digits)


@dataclass(frozen=True, slots=True)
class Needle:
    """What is in the JSON text of each lead that matches, unless that has letters beyond ASCII.

    `is_phone`: once PHONE_MARKS are taken out of the text; else once it is in small letters.
    """

    text: str = field(repr=False)
    is_phone: bool


def needle_of(conditions: Sequence[Condition]) -> Needle:
    """The longest of these conditions' needles; the empty one is in every text."""
    return max(map(_needle, conditions), key=lambda needle: len(needle.text))


def all_met(conditions: Sequence[Condition], field_data: Json) -> bool:
    """Whether a lead with this field_data meets all conditions."""
    given = tuple(answers(field_data))
    return all(condition.is_met(given) for condition in conditions)


def _needle(condition: Condition) -> Needle:
    if condition.digits:
        return Needle(condition.digits, is_phone=True)
    return Needle(max(_RUN.findall(condition.text), key=len, default=""), is_phone=False)


def _plain(text: str) -> str:
    # What is copied from a phone's contacts or a web page often has marks of direction that nobody sees.
    seen = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).strip().casefold())


def _digits(text: str) -> str:
    """The digits of a phone number, without the 00 that some dial for +; empty where `text` is none."""
    text = "".join("-" if unicodedata.category(letter) == "Pd" else letter for letter in text)
    if not _PHONE.match(text):
        return ""
    digits = "".join(filter(str.isdigit, text)).removeprefix("00")
    return digits if len(digits) >= FEWEST_DIGITS else ""
