"""Access tokens and proofs of the simulated world.

seed + Page id -> that Page's token, and back. Tokens follow from the seed, so that a restarted sandbox
still knows those it gave out. Whether a token may read a thing is decided in graph.py; expiry is simulated
by faults.

Invariant: a token names at most one Page, and no two Pages share one.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

PROOF_LIFE_SECONDS = 300
"""A proof with a time is refused after five minutes.
https://developers.facebook.com/docs/graph-api/guides/secure-requests"""


def page_token(seed: int, page_id: str) -> str:
    """The one token of this Page."""
    return "EAAG" + _digest(seed, f"page:{page_id}") + "ZD"


def user_token(seed: int) -> str:
    """A user's token that may read every Page of this world."""
    return "EAAU" + _digest(seed, "user") + "ZD"


def _digest(seed: int, text: str) -> str:
    return hashlib.blake2b(
        text.encode(), key=seed.to_bytes(16, "big", signed=True), digest_size=40
    ).hexdigest()


def proof(app_secret: str, token: str, proof_time: str = "") -> str:
    """The appsecret_proof of `token`; with `proof_time` the variant that expires."""
    message = f"{token}|{proof_time}" if proof_time else token
    return hmac.new(app_secret.encode(), message.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def proof_holds(app_secret: str, token: str, given: str, proof_time: str, now: float) -> bool:
    """Whether `given` is the proof of `token`, and not too old where it has a time."""
    if proof_time and not (
        proof_time.isascii() and proof_time.isdigit() and abs(now - int(proof_time)) <= PROOF_LIFE_SECONDS
    ):
        return False
    return hmac.compare_digest(
        proof(app_secret, token, proof_time).encode(), given.encode("utf-8", "replace")
    )


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a token speaks for: one Page, or (page_id None) the user or the app."""

    kind: str
    page_id: str | None


class Tokens:
    """Every token of one world."""

    def __init__(self, seed: int, page_ids: Iterable[str], app_id: str, app_secret: str) -> None:
        self.of_page = {page_id: page_token(seed, page_id) for page_id in page_ids}
        self.of_user = user_token(seed)
        self._holders = {token: Holder("page", page_id) for page_id, token in self.of_page.items()}
        self._holders[self.of_user] = Holder("user", None)
        self._holders[f"{app_id}|{app_secret}"] = Holder("app", None)

    def holder(self, token: str) -> Holder | None:
        """Whom `token` speaks for; None if it is none of ours."""
        return self._holders.get(token)
