"""JSON as Graph sent it -> its value; a value -> JSON as Postgres reads it. Pure.

orjson does both at a third of json's CPU, which was half of what a backfill spends on a lead. It gives no meaning to
what it reads. Invariant: what is read is what json reads. Where the two differ (integers beyond 64 bits, NaN, 1e400,
lone surrogates, deep nesting), orjson refuses or is not asked, and json does the work.
https://github.com/ijl/orjson
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import orjson

DEEPEST: Final = 254
"""So deep orjson writes. What json alone could write would fail whoever reads it back from further down the stack."""
_MAX_INT_DIGITS: Final = 4_000  # Python refuses to convert longer ones.
_TO_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG: Final = b"0" * 19
"""So many digits may be more than 64 bits hold, of which orjson makes a float."""
_LONG_NUMBERS: Final = tuple(before + _LONG for before in (b":", b",", b"[", b"-", b" ", b"\t", b"\n", b"\r"))
"""Text may hold as many digits, but there a quote, a letter or the like stands before them."""


def read_json(text: bytes | str) -> tuple[object, bool]:
    """The value, and whether it is known that Postgres can hold all of it. Raises ValueError and RecursionError.

    An integer too long for Python is given as its digits.
    """
    try:
        body = text if isinstance(text, bytes) else text.encode()
        if not _has_long_number(body):
            # A lone surrogate and a number that is none would have been refused, so only NUL is left.
            return orjson.loads(body), rb"\u0000" not in body
    except ValueError:
        pass
    return json.loads(text, parse_int=_parse_int), False


def write_json(value: object) -> bytes:
    """The shortest JSON, as bytes, of a value without NaN and infinities. Raises RecursionError beyond DEEPEST.

    A datetime is written as its ISO 8601 text.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        if _is_deep(value):
            raise RecursionError(f"nested deeper than {DEEPEST} levels") from None
        return json.dumps(value, check_circular=False, separators=(",", ":"), default=_iso_text).encode()


def _iso_text(value: datetime) -> str:
    return value.isoformat()


def _is_deep(value: object) -> bool:
    level, levels = [value], 0
    while level and levels <= DEEPEST:
        level = [part for whole in level for part in _parts(whole)]
        levels += 1
    return levels > DEEPEST


def _parts(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _has_long_number(body: bytes) -> bool:
    digits = body.translate(_TO_ZEROS)
    return _LONG in digits and any(number in b" " + digits for number in _LONG_NUMBERS)


def _parse_int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else digits
