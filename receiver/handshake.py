"""The subscription's query -> the challenge to echo, or None. Pure.

This file does not answer HTTP and does not know where the verify token comes from.
"""

import hmac
from collections.abc import Mapping


def answer(query: Mapping[str, str], verify_token: str) -> str | None:
    """The challenge, where the asker knows our verify token; None where it does not, or leaves a parameter
    out.

    https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests
    """
    challenge = query.get("hub.challenge")
    if query.get("hub.mode") != "subscribe" or not challenge:
        return None
    return challenge if _same(query.get("hub.verify_token", ""), verify_token) else None


def _same(given: str, expected: str) -> bool:
    # On bytes: compare_digest refuses text that is not ASCII. surrogatepass: a query may hold lone
    # surrogates.
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )
