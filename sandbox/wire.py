"""Values -> JSON text as Meta writes it: ASCII only, `\\/`, `\\u0040`, lower-case `\\uXXXX`, no spaces.

Both the answers and the webhook bodies go through here, so a client that verifies or compares re-serialised
JSON instead of the bytes fails against the sandbox as it would against Meta. Nothing is read here, only
written.

Invariant: `json.loads(encode(value)) == value`, and the text is ASCII.
"""

import json
from json.encoder import encode_basestring_ascii
from typing import Final

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def encode(value: object) -> str:
    """`value` as one JSON text. Lone surrogates survive as escapes, since Meta sends those too."""
    return _ENCODER.encode(value).replace("/", "\\/").replace("@", "\\u0040")


def quote_json(json_text: str) -> str:
    """JSON text as a JSON string (a batch item's body): the inner text's escapes are escaped once more."""
    return encode_basestring_ascii(json_text).replace("/", "\\/")


def plain(value: object) -> str:
    """JSON without Meta's extra escapes, for headers and for our own control routes."""
    return _ENCODER.encode(value)
