"""/debug_token: a token -> what is known of it.

Meta: https://developers.facebook.com/docs/graph-api/reference/debug_token
Which fields stand there for a dead token is seen in third-party code, not documented.

Invariant: what is told of a token is what a call with it would meet.
"""

from typing import Final

from sandbox import errors
from sandbox.errors import CATALOG, GraphError
from sandbox.paths import Call
from sandbox.request import GraphRefusal
from sandbox.tokens import Holder, Tokens
from sandbox.wire import encode

APP_NAME: Final = "Sandbox CRM"
_OF_PAGES: Final = frozenset(
    {
        "leads_retrieval",
        "pages_manage_metadata",
        "pages_show_list",
        "pages_read_engagement",
        "pages_manage_ads",
    }
)
"""Scopes that are granted for some Pages; the others are told without targets, which means all."""


class Inspection:
    """Every token of one world, looked at."""

    def __init__(self, tokens: Tokens, app_id: str, user_id: str, data_access_seconds: int) -> None:
        self._tokens, self._app_id, self._user_id = tokens, app_id, user_id
        self._data_access_seconds = data_access_seconds

    def answer(self, call: Call) -> str:
        """What is known of input_token."""
        call.need_get()
        token = call.request.params.get("input_token", "")
        if not token:
            raise GraphRefusal(errors.parameter("The parameter input_token is required"))
        holder = self._tokens.holder(token)
        if holder is None:
            return encode({"data": {"error": _error(errors.BAD_TOKEN), "is_valid": False, "scopes": []}})
        about = {"app_id": self._app_id, "type": self._type(holder), "application": APP_NAME}
        if holder.kind == "app":
            return encode({"data": {**about, "is_valid": True, "scopes": []}})
        return encode({"data": {**about, **self._person(holder, call.now)}})

    def _person(self, holder: Holder, now: float) -> dict[str, object]:
        """What is known of a token that speaks for the user or for one of their Pages."""
        death = self._tokens.death(holder, now)
        told: dict[str, object] = {}
        if death:
            told["error"] = _error(CATALOG[death].about("", self._app_id))
        system = self._tokens.user_kind == "system_user"
        told |= {
            "data_access_expires_at": 0 if system else holder.issued_at + self._data_access_seconds,
            "expires_at": holder.expires_at,
            "is_valid": not death,
            "issued_at": holder.issued_at,
        }
        if holder.page_id:
            told["profile_id"] = holder.page_id
        grants = self._tokens.grants
        told["scopes"] = list(grants.scopes)
        pages = grants.pages()
        told["granular_scopes"] = [
            {"scope": scope, "target_ids": pages} if scope in _OF_PAGES else {"scope": scope}
            for scope in grants.scopes
        ]
        return {**told, "user_id": self._user_id}

    def _type(self, holder: Holder) -> str:
        if holder.kind != "user":
            return holder.kind.upper()
        return self._tokens.user_kind.upper()


def _error(error: GraphError) -> dict[str, object]:
    told: dict[str, object] = {"code": error.code, "message": error.message}
    return told if error.subcode is None else {**told, "subcode": error.subcode}
