"""A callback URL -> whether whoever answers there passes Meta's handshake, and takes a signed delivery.

The only file that calls the receiver. It verifies and signs as Meta does and subscribes nothing; the delivery that it
sends announces no lead. Invariant: the verify token is sent to the callback alone, whoever that names as another place
to ask, the app secret to nobody, and neither is in a message.
https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests
https://developers.facebook.com/docs/graph-api/webhooks/getting-started#event-notifications
"""

import asyncio
import hmac
import secrets
import ssl
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

SECONDS: Final = 10.0
EMPTY_DELIVERY: Final = b'{"object":"page","entry":[]}'


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a callback, in a few words; `status` is what it answered, None where it answered nothing."""

    told: str
    status: int | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other, and none that passes."""

    def redirect_request(self, *_: Any) -> None:
        return None


async def handshake(callback_url: str, verify_token: str) -> str | None:
    """What is wrong with the callback, in a few words; None where it passes."""
    trouble = await shake(callback_url, verify_token)
    return trouble.told if trouble else None


async def shake(callback_url: str, verify_token: str) -> Trouble | None:
    """What is wrong with the callback's answer to the handshake; None where it passes."""
    return await asyncio.to_thread(_shake, callback_url, verify_token)


async def deliver_nothing(callback_url: str, app_secret: str) -> Trouble | None:
    """What is wrong with the callback's answer to a signed delivery without a change; None where it takes it."""
    return await asyncio.to_thread(_deliver, callback_url, app_secret)


def _shake(callback_url: str, verify_token: str) -> Trouble | None:
    challenge = str(secrets.randbelow(10**9))
    words = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": verify_token}
    url = f"{callback_url}{'&' if '?' in callback_url else '?'}{urlencode(words)}"
    body = _ask(callback_url, urllib.request.Request(url), "the handshake")
    if isinstance(body, Trouble):
        return body
    told = "answers the handshake with something else than its challenge"
    return None if body == challenge.encode() else Trouble(told, 200)


def _deliver(callback_url: str, app_secret: str) -> Trouble | None:
    signed = hmac.new(app_secret.encode(), EMPTY_DELIVERY, "sha256").hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signed}"}
    request = urllib.request.Request(callback_url, data=EMPTY_DELIVERY, headers=headers)
    body = _ask(callback_url, request, "a signed delivery")
    return body if isinstance(body, Trouble) else None


def _ask(callback_url: str, request: urllib.request.Request, what: str) -> bytes | Trouble:
    if not callback_url.startswith(("http://", "https://")):
        return Trouble("is no URL of the web")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
            body: bytes = answer.read(1_000)
            return body if answer.status == 200 else Trouble(f"answers {what} with {answer.status}")
    except HTTPError as error:
        return Trouble(f"answers {what} with {error.code}", error.code)
    except (OSError, HTTPException, ValueError) as error:
        return Trouble(f"cannot be reached ({_kind(error)})")


def _kind(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "its certificate is not valid"
    return type(cause).__name__ if isinstance(cause, Exception) else type(error).__name__
