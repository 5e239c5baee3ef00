"""/oauth/access_token: the app's id and secret, and what it has -> the token that it asks for.

    short-lived token of the user -> long-lived        id and secret -> the app's own token

Meta: https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived
The dialogue that people log in with is not simulated; POST /sandbox/tokens makes the token that it would end with.

Invariant: no token goes out to whoever does not know the app's secret.
"""

import hmac
from collections.abc import Mapping

from sandbox import errors
from sandbox.errors import CATALOG
from sandbox.paths import Call
from sandbox.request import GraphRefusal
from sandbox.tokens import Holder, Tokens
from sandbox.wire import encode


class OAuth:
    """The token endpoint of one app."""

    def __init__(self, tokens: Tokens, app_id: str, app_secret: str) -> None:
        self._tokens, self._app_id, self._app_secret = tokens, app_id, app_secret

    def caller(self, params: Mapping[str, str]) -> Holder:
        """The app that asks. Raises GraphRefusal where its id or secret is wrong."""
        if params.get("client_id", "") != self._app_id:
            missing = not params.get("client_id")
            raise GraphRefusal(errors.NO_CLIENT_ID if missing else errors.WRONG_CLIENT_ID)
        secret = params.get("client_secret", "").encode("utf-8", "replace")
        if not hmac.compare_digest(secret, self._app_secret.encode()):
            raise GraphRefusal(errors.WRONG_SECRET if secret else errors.NO_SECRET)
        return Holder("app", None, f"{self._app_id}|{self._app_secret}")

    def answer(self, call: Call) -> str:
        """The token asked for."""
        match call.request.params.get("grant_type", ""):
            case "client_credentials":
                return encode({"access_token": call.holder.token, "token_type": "bearer"})
            case "fb_exchange_token":
                return self._exchange(call.request.params.get("fb_exchange_token", ""), call.now)
        raise GraphRefusal(errors.parameter("Invalid grant_type"))

    def _exchange(self, token: str, now: float) -> str:
        if not token:
            raise GraphRefusal(errors.parameter("The parameter fb_exchange_token is required"))
        holder = self._tokens.holder(token)
        if holder is None or holder.kind != "user":
            raise GraphRefusal(errors.BAD_TOKEN)
        if death := self._tokens.death(holder, now):
            raise GraphRefusal(CATALOG[death].about("", self._app_id))
        long = self._tokens.exchanged(holder, now)
        told: dict[str, object] = {"access_token": long.token, "token_type": "bearer"}
        if long.expires_at:
            told["expires_in"] = long.expires_at - int(now)
        return encode(told)
