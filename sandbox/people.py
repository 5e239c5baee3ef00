"""Answers of simulated people: a form's questions -> a lead's number -> the JSON text of its field_data.

The variety is that of real leads: accents, right-to-left script, emoji and other characters beyond the
basic plane, upper-case and tagged addresses, local and international phone numbers, several values, and the
three ways in which a skipped question shows up. Nobody here exists: addresses are of example domains.

A listing of a million leads passes through here, so each question is turned once into the JSON of all that can
be answered to it; a lead then costs a choice a question. Tracking parameters come behind the answers, the same
for every lead of the form.

Invariant: the same seed, number and questions give the same field_data.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from sandbox.mixing import mix, mixer
from sandbox.questions import PHONE_TYPES, Question
from sandbox.wire import encode

_FIRST: Final = (
    "Anna", "Jürgen", "Søren", "Zoë", "João", "Łukasz", "İbrahim", "محمد", "שרה", "अमित", "美咲", "Олена",
    "Nguyễn", "Ana María", "D'Arcy", "Jo/Ann", "Renée", "Þóra", "👩‍💻 Kim", "𝓛𝓲𝓷𝓪",  # noqa: RUF001
)  # fmt: skip
_LAST: Final = (
    "Müller", "O'Brien", "Özdemir", "Silva e Souza", "Nowak", "الهاشمي", "כהן", "शर्मा", "田中", "Шевченко",
    "Trần", "García-López", "Smith, Jr.", "van der Berg", "Ólafsdóttir", "<b>Bold</b>", "Null", "𠮷野", "Lee",
)  # fmt: skip
_CARS: Final = ("Honda", "Škoda", "Citroën", 'BMW "3"', "Ford\\F-150", "  Fiat ", "日産", "🚗")
_COMMENTS: Final = (
    "Please call after 5 pm.\nThanks!",
    "¿Cuánto cuesta? €1.000 / mês",
    "100 % sicher 👍🏽🎉",
    "اتصل بي غدا من فضلك",
    "https://example.com/?a=1&b=2#x",
    "a" * 400,
)
_DATES: Final = ("2026-08-01T10:00:00+0200", "2026-12-24T08:15:00-0500")
_POST_CODES: Final = ("01067", "EC1A 1BB", "20040-002", "1234 AB")
_NUL_EVERY: Final = 17
"""In a hostile world one lead in so many has a NUL in an answer, and as many a lone surrogate."""
_MASK: Final = (1 << 64) - 1

Say = Callable[[int, int], str]
"""(lead number, luck) -> the JSON text of one answer."""


class _Asked(NamedTuple):
    """A question as people answer it."""

    optional: bool
    skipped: tuple[str, str, str, str]
    """How it looks where it was skipped; empty: not at all."""
    say: Say


class People:
    """The people who filled in one form."""

    def __init__(
        self, seed: int, questions: Sequence[Question], tracking: Sequence[tuple[str, str]], *, hostile: bool
    ) -> None:
        self._seed, self._luck, self._hostile = seed, mixer(seed), hostile
        self._asked = [_asked(question) for question in questions]
        self._tracking = [_entry(key, [value]) for key, value in tracking]
        dummies = [_entry(question.key, [_dummy(question)]) for question in questions]
        self.test_data = f"[{','.join([*dummies, *self._tracking])}]"
        """The answers of a lead that Meta's testing tool makes."""

    def field_data(self, lead_number: int) -> str:
        """The answers of one person."""
        entries: list[str] = []
        state = self._luck(lead_number)
        for optional, skipped, say in self._asked:
            # One step of a linear congruence a question: a full mix for each would be half the cost of a read.
            state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
            luck = state >> 20
            if not (optional and luck % 8 == 0):
                entries.append(say(lead_number, luck >> 8))
            elif entry := skipped[luck >> 8 & 3]:
                entries.append(entry)
        if self._hostile and entries:
            entries[0] = _spoil(entries[0], mix(self._seed, lead_number, 99) % _NUL_EVERY)
        return f"[{','.join(entries + self._tracking)}]"


def _entry(key: str, values: Sequence[str]) -> str:
    return encode({"name": key, "values": values})


def _dummy(question: Question) -> str:
    return "test@meta.com" if question.type == "EMAIL" else f"<test lead: dummy data for {question.key}>"


def _asked(question: Question) -> _Asked:
    key = question.key
    bare, none = encode({"name": key}), encode({"name": key, "values": None})
    return _Asked(question.optional, ("", bare, _entry(key, []), none), _sayer(question))


def _sayer(question: Question) -> Say:
    """What is answered to the question, said in JSON."""
    if question.several:
        return _several(question.key, [key for key, _ in question.options])
    if question.options:
        return _one_of(question.key, [key for key, _ in question.options])
    match question.type:
        case "FULL_NAME":
            return _name(question.key)
        case "EMAIL":
            return _email(question.key)
        case "STORE_LOOKUP":
            before, after = _around(question.key)
            return lambda _, luck: f"{before}{99_000_000 + luck % 1_000_000}{after}"
        case "DATE_TIME":
            return _one_of(question.key, _DATES)
        case "POST_CODE":
            return _one_of(question.key, _POST_CODES)
    if question.type in PHONE_TYPES:
        return _phone(question.key)
    return _one_of(question.key, _CARS if question.key == "car_make" else _COMMENTS)


def _around(key: str) -> tuple[str, str]:
    """What stands before and after the text of a single value."""
    before, _, after = _entry(key, ["0"]).rpartition("0")
    return before, after


def _one_of(key: str, texts: Sequence[str]) -> Say:
    said = [_entry(key, [text]) for text in texts]
    count = len(said)
    return lambda _, luck: said[luck % count]


def _several(key: str, options: Sequence[str]) -> Say:
    masks = (1 << len(options)) - 1

    @lru_cache(maxsize=1_024)
    def said(mask: int) -> str:
        return _entry(key, [option for bit, option in enumerate(options) if mask >> bit & 1] or options[:1])

    return lambda _, luck: said(luck & masks)


def _name(key: str) -> Say:
    before, after = _around(key)
    firsts = [f"{before}{encode(first)[1:-1]} " for first in _FIRST]
    lasts = [f"{encode(last)[1:-1]}{after}" for last in _LAST]
    first_count, last_count = len(firsts), len(lasts)
    return lambda _, luck: firsts[luck % first_count] + lasts[(luck >> 6) % last_count]


def _email(key: str) -> Say:
    before, after = _around(key)
    shapes = [("Lead.", "@EXAMPLE.COM"), ("lead", "+ads@example.org"), ("jürgen", "@bücher.example")]
    shapes += [("lead", "@example.com")] * 5
    said = [(before + encode(start)[1:-1], encode(end)[1:-1] + after) for start, end in shapes]

    def say(number: int, luck: int) -> str:
        start, end = said[luck & 7]
        return f"{start}{number}{end}"

    return say


def _phone(key: str) -> Say:
    before, after = _around(key)

    def say(_: int, luck: int) -> str:
        digits = luck % 10_000_000
        if luck >> 24 & 3 == 0:
            return f"{before}0151 {digits:07d}{after}"
        return f"{before}+4915{digits:08d}{after}"

    return say


def _spoil(entry: str, which: int) -> str:
    """The answer with a NUL (which 0) or a lone surrogate (which 1) in its first value."""
    told = json.loads(entry)
    values = told.get("values")
    if which >= 2 or not values:
        return entry
    values[0] = f"{values[0]}\x00!" if which == 0 else f"\ud83d{values[0]}"
    return encode(told)
