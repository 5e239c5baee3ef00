"""Bytes, the signature header and our app secrets -> nothing, or Unsigned. Pure.

Invariant: the proof is over the bytes as they came. Nothing is decoded, parsed or put in order before it
holds.
"""

import hmac
import re
from collections.abc import Iterable
from typing import Final

from receiver.errors import Unsigned

HEADER: Final = "X-Hub-Signature-256"

_FORM = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)


def verify(body: bytes, header: str | None, secrets: Iterable[bytes]) -> None:
    """Raise Unsigned unless `header` signs exactly `body` with one of `secrets`.

    Several header lines reach us joined by a comma, which is not the form either.
    https://developers.facebook.com/docs/graph-api/webhooks/getting-started#event-notifications
    """
    form = _FORM.fullmatch(header or "")
    if form is None:
        raise Unsigned
    given = form[1].encode("ascii")
    if not any(hmac.compare_digest(_sign(body, secret), given) for secret in secrets):
        raise Unsigned


def _sign(body: bytes, secret: bytes) -> bytes:
    return hmac.new(secret, body, "sha256").hexdigest().encode("ascii")
