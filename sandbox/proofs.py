"""Proofs of a call: app secret + token -> appsecret_proof, and whether one that came holds.

Pure; the clock is handed in. Whether a proof is demanded is decided in graph.py.

Invariant: a proof holds only for the token it was made of.
https://developers.facebook.com/docs/graph-api/guides/secure-requests
"""

import hashlib
import hmac

PROOF_LIFE_SECONDS = 300
"""A proof with a time is refused after five minutes."""


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
