"""A callback URL -> whether whoever answers there passes Meta's handshake. The only file that calls the receiver.

It verifies as Meta does and subscribes nothing. Invariant: the verify token is sent to the callback alone, whoever
that names as another place to ask, and is in no message.
https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests
"""

import asyncio
import secrets
import urllib.request
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode

SECONDS: Final = 10.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other, and none that passes."""

    def redirect_request(self, *_: Any) -> None:
        return None


async def handshake(callback_url: str, verify_token: str) -> str | None:
    """What is wrong with the callback, in a few words; None where it passes."""
    return await asyncio.to_thread(_shake, callback_url, verify_token)


def _shake(callback_url: str, verify_token: str) -> str | None:
    challenge = str(secrets.randbelow(10**9))
    words = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": verify_token}
    url = f"{callback_url}{'&' if '?' in callback_url else '?'}{urlencode(words)}"
    if not callback_url.startswith(("http://", "https://")):
        return "is no URL of the web"
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=SECONDS) as answer:
            body = answer.read(1_000)
    except HTTPError as error:
        return f"answers the handshake with {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return f"cannot be reached ({type(error).__name__})"
    return (
        None if body == challenge.encode() else "answers the handshake with something else than its challenge"
    )
