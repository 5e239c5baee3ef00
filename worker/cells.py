"""The values of one question -> one cell of a table that people open in a spreadsheet, and back. Pure.

Two steps, each with its way back: several values are joined by " | ", and what a spreadsheet would take for a formula
gets an apostrophe. It knows nothing of leads, columns or quoting (the csv module quotes).
Invariant: `split(join(values)) == values`, but for a single empty value, which reads as none; and
`bare(safe(text)) == text`.
https://owasp.org/www-community/attacks/CSV_Injection
"""

import re
from collections.abc import Sequence
from typing import Final

SEPARATOR: Final = " | "

# A pipe that stands alone between blanks, or at an end, is what could be taken for a separator.
_LONE_PIPE: Final = re.compile(r"(?<![^ ])(\\*)\|(?![^ ])")
_ESCAPED_PIPE: Final = re.compile(r"(?<![^ ])\\(\\*)\|(?![^ ])")

# With the forms that Excel turns into ASCII where the keyboard is Japanese or Chinese.
_PLUS_MINUS: Final = "+\\-\uff0b\uff0d\ufe62\ufe63"
_EQUALS_AT: Final = "=@\uff1d\uff20\ufe66\ufe6b"
_BLANK: Final = "[\\s\u200b\u2060\ufeff]"
_BLANKS: Final = f"{_BLANK}*"
_AT_START: Final = re.compile(rf"'*(?:[\t\r\n]|{_BLANKS}[{_PLUS_MINUS}{_EQUALS_AT}])")
_MAY_START: Final = re.compile(rf"['\s\u200b\u2060\ufeff{_PLUS_MINUS}{_EQUALS_AT}]")
# A spreadsheet that takes another character for the separator, as Excel does where the comma is the decimal sign,
# cuts a cell in the middle. Without a letter and one of ( | ! a sum can neither call, nor run, nor reach elsewhere.
_EDGES: Final = ";\t\r\n"
# The blanks after the last edge only: else each of many line breaks would look through all that follow it.
_IN_THE_MIDDLE: Final = re.compile(
    rf"([{_EDGES}](?:(?![{_EDGES}]){_BLANK})*)('*)"
    rf"(?=[{_EQUALS_AT}]|[{_PLUS_MINUS}](?=[^{_EDGES}]*[^\W\d_])[^{_EDGES}]*[(|!])"
)
# Of a plain number or a phone number a spreadsheet can at worst make another number.
_PLAIN: Final = re.compile(
    r"[+-][0-9]+(?:[.,][0-9]+)*(?:[eE][+-]?[0-9]+)?%?|\+ ?\(?[0-9][0-9 \u00a0().\u2010\u2011/-]*"
)


def join(values: Sequence[str]) -> str:
    r"""All values in one text: `a | b`. A lone pipe within a value becomes `\|`, what is `\|` already `\\|`."""
    return SEPARATOR.join(_LONE_PIPE.sub(r"\\\1|", value) if "|" in value else value for value in values)


def split(text: str) -> tuple[str, ...]:
    """The values that `join` made `text` of; none where it is empty."""
    return tuple(_ESCAPED_PIPE.sub(r"\1|", value) for value in text.split(SEPARATOR)) if text else ()


def safe(text: str) -> str:
    """`text`, with an apostrophe before whatever a spreadsheet would take for a formula.

    That is a text that begins with = + - @, a tab or a line break, also behind blanks, unless it is plainly a number
    or a phone number; and the same within a text, behind a semicolon, a tab or a line break.
    """
    if _MAY_START.match(text) and _AT_START.match(text) and not _PLAIN.fullmatch(text):
        text = f"'{text}"
    if ";" in text or "\n" in text or "\r" in text or "\t" in text:
        text = _IN_THE_MIDDLE.sub(r"\1'\2", text)
    return text


def bare(text: str) -> str:
    """The text that `safe` made `text` of."""
    text = _IN_THE_MIDDLE.sub(lambda found: found[1] + found[2][1:], text)
    return text[1:] if text.startswith("'") and _AT_START.match(text) else text
