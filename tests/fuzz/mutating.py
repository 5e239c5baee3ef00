"""An input -> another that is nearly it: words put in, parts lost, doubled and exchanged, JSON made odd. Pure.

Bytes alone, as a fuzzer alters them, rarely reach what lies behind JSON that has to be well formed; so a value of a
document is exchanged for another that is allowed there and that nobody sends.
"""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

LONGEST: Final = 8_192
_MARK: Final = "\u0001odd\u0001"

_ODD: Final[tuple[str, ...]] = (
    *("null", "true", "false", "0", "-0", "-1", "1", "33", "100", "190", "1e400", "-1e400", "NaN", "1e-400"),
    *("0.1", "18446744073709551616", '""', "[]", "{}", "[null]", "[[]]", '"0"', '"1"', '"-1"', '"true"'),
    *(r'"\u0000"', r'"a\u0000"', r'"\ud800"', r'"\udfff\ud800"', '"é"', r'"\r\n"', '"https://x"'),
    "9" * 19,
    "9" * 4_300,
    "-" + "9" * 4_301,
    '"' + "9" * 33 + '"',
    '"' + "9" * 5_000 + '"',
    '"' + "x" * 3_000 + '"',
    '"0001-01-01T00:00:00+2359"',
    '"9999-12-31T23:59:59-2359"',
    '"2026-10-01T24:00:00Z"',
    *("[" * depth + "]" * depth for depth in (33, 250, 900, 980, 1_010, 1_023, 3_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (33, 250, 960, 1_020)),
    "{" + ",".join(rf'"k\ud8{n:02x}":{n}' for n in range(40)) + "}",
    '{"a":1,"a":2}',
)


def mutate(data: bytes, dice: Random, words: Sequence[bytes] = (), other: bytes = b"") -> bytes:
    """Another input; `other` is a second one to take parts of."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        step = dice.choice(_STEPS) if dice.random() < 0.5 else _json
        data = step(data, dice, words, other)
    return data[:LONGEST]


Step = Callable[[bytes, Random, Sequence[bytes], bytes], bytes]


def _word(data: bytes, dice: Random, words: Sequence[bytes], other: bytes) -> bytes:
    begin, end = _span(data, dice)
    word = dice.choice(words) if words else bytes([dice.randrange(256)])
    return data[:begin] + word + data[begin if dice.random() < 0.5 else end :]


def _byte(data: bytes, dice: Random, words: Sequence[bytes], other: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _lose(data: bytes, dice: Random, words: Sequence[bytes], other: bytes) -> bytes:
    begin, end = _span(data, dice)
    return data[:begin] + data[end:]


def _repeat(data: bytes, dice: Random, words: Sequence[bytes], other: bytes) -> bytes:
    begin, end = _span(data, dice)
    return data[:end] + data[begin:end] * dice.choice((1, 2, 50)) + data[end:]


def _cross(data: bytes, dice: Random, words: Sequence[bytes], other: bytes) -> bytes:
    begin, end = _span(data, dice)
    first, last = _span(other, dice)
    return data[:begin] + other[first:last] + data[end:]


def _json(data: bytes, dice: Random, words: Sequence[bytes], other: bytes) -> bytes:
    """The document in it with one value exchanged; as it is where there is none."""
    head, separator, body = data.partition(b"\n\n")
    if not separator:
        head, body = b"", data
    try:
        document = json.loads(body, parse_int=_digits)
        text = _with_odd(document, dice)
    except (ValueError, RecursionError):
        return _STEPS[0](data, dice, words, other)
    return head + separator + text.encode("utf-8", "surrogatepass")


def _with_odd(document: Any, dice: Random) -> str:
    """JSON text of the document, one of its values odd; a text that is JSON itself is altered within as well."""
    places: list[tuple[Any, Any]] = []
    _places(document, places)
    if not places:
        return dice.choice(_ODD)
    holder, key = dice.choice(places)
    inner = holder[key]
    holder[key] = _MARK
    told = dice.choice(_ODD)
    if isinstance(inner, str) and inner[:1] in ("{", "[") and dice.random() < 0.9:
        told = json.dumps(_with_odd(json.loads(inner), dice))
    elif dice.random() < 0.2:
        # Exchanged for another part of the same document.
        other_holder, other_key = dice.choice(places)
        told = json.dumps(other_holder[other_key])
    return json.dumps(document).replace(json.dumps(_MARK), told, 1)


def _places(value: Any, places: list[tuple[Any, Any]]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        places.append((value, key))
        _places(part, places)


def _digits(digits: str) -> int:
    return int(digits[:4_000])


def _span(data: bytes, dice: Random) -> tuple[int, int]:
    begin = dice.randrange(len(data) + 1)
    return begin, min(len(data), begin + dice.choice((0, 1, 2, 4, 8, 32, 256)))


_STEPS: Final[tuple[Step, ...]] = (_word, _byte, _lose, _repeat, _cross)
