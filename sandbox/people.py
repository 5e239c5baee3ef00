"""Answers of simulated people: a mixed number + a form's questions -> field_data.

The variety is that of real leads: accents, right-to-left script, emoji and other characters beyond the
basic plane, upper-case and tagged addresses, local and international phone numbers, several values, and the
three ways in which a skipped question shows up. Nobody here exists: addresses are of example domains.

Invariant: the same number and questions give the same field_data.
"""

from collections.abc import Sequence
from typing import Final

from sandbox.mixing import mix
from sandbox.questions import Question

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
_SOURCES: Final = ("facebook", "ig_story", "{{site_source_name}}", "newsletter+spring")
_NUL_EVERY: Final = 17
"""In a hostile world one lead in so many has a NUL in an answer, and as many a lone surrogate."""


def field_data(
    seed: int, lead_number: int, questions: Sequence[Question], *, hostile: bool
) -> list[dict[str, object]]:
    """The answers of one person."""
    entries: list[dict[str, object]] = []
    state = mix(seed, lead_number)
    for question in questions:
        # One step of a linear congruence a question: a full mix for each would be half the cost of a read.
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        luck = state >> 20
        if question.optional and luck % 8 == 0:
            skipped = luck >> 8 & 3
            if skipped == 0:
                continue
            entry: dict[str, object] = {"name": question.key}
            if skipped > 1:
                entry["values"] = [] if skipped == 2 else None
            entries.append(entry)
        else:
            entries.append({"name": question.key, "values": _values(question, lead_number, luck >> 8)})
    if hostile and entries:
        _spoil(entries, mix(seed, lead_number, 99) % _NUL_EVERY)
    return entries


def test_data(questions: Sequence[Question]) -> list[dict[str, object]]:
    """The answers of a lead that Meta's testing tool makes."""
    return [
        {
            "name": question.key,
            "values": [
                "test@meta.com" if question.key == "email" else f"<test lead: dummy data for {question.key}>"
            ],
        }
        for question in questions
    ]


def _values(question: Question, number: int, luck: int) -> list[str]:
    if question.several:
        chosen = [key for bit, (key, _) in enumerate(question.options) if luck >> bit & 1]
        return chosen or [question.options[0][0]]
    if question.options:
        return [question.options[luck % len(question.options)][0]]
    return [_text(question, number, luck)]


def _text(question: Question, number: int, luck: int) -> str:
    match question.key:
        case "full_name":
            return f"{_FIRST[luck % len(_FIRST)]} {_LAST[(luck >> 6) % len(_LAST)]}"
        case "email":
            return _email(number, luck % 8)
        case "phone_number" | "whatsapp":
            return _phone(luck)
        case "selected_dealer":
            return str(99_000_000 + luck % 1_000_000)
        case "car_make":
            return _CARS[luck % len(_CARS)]
        case "utm_source":
            return _SOURCES[luck % len(_SOURCES)]
    return _COMMENTS[luck % len(_COMMENTS)]


def _email(number: int, style: int) -> str:
    if style == 0:
        return f"Lead.{number}@EXAMPLE.COM"
    if style == 1:
        return f"lead{number}+ads@example.org"
    if style == 2:
        return f"jürgen{number}@bücher.example"
    return f"lead{number}@example.com"


def _phone(luck: int) -> str:
    digits = luck % 10_000_000
    return f"0151 {digits:07d}" if luck >> 24 & 3 == 0 else f"+4915{digits:08d}"


def _spoil(entries: list[dict[str, object]], which: int) -> None:
    """Put a NUL (which 0) or a lone surrogate (which 1) into the first answer."""
    values = entries[0].get("values")
    if isinstance(values, list) and values and which < 2:
        values[0] = f"{values[0]}\x00!" if which == 0 else f"\ud83d{values[0]}"
