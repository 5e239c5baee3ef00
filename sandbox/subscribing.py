"""Calls about subscriptions: /{page}/subscribed_apps and /{app}/subscriptions -> what changes, and the answer.

    POST /{app}/subscriptions -> handshake with the callback (app.py, before) -> subscribed, or error 2200

What follows from a subscription is told in subscriptions.py.
https://developers.facebook.com/docs/graph-api/reference/page/subscribed_apps
https://developers.facebook.com/docs/graph-api/reference/app/subscriptions

Invariant: an app is subscribed only with a callback that has echoed its challenge.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from sandbox import errors
from sandbox.errors import CATALOG
from sandbox.grants import Grants
from sandbox.inspection import APP_NAME
from sandbox.paths import Call
from sandbox.request import GraphRefusal
from sandbox.subscriptions import AppSubscription, Subscriptions
from sandbox.wire import encode

PAGE_FIELDS: Final = (
    "leadgen", "leadgen_fat", "leadgen_update", "feed", "messages", "messaging_postbacks", "mention", "ratings",
)  # fmt: skip
"""Of the fields that Meta has, those that somebody who reads leads may meet."""
_VERSION: Final = "v26.0"
_DONE: Final = encode({"success": True})
_YES: Final = ("1", "true")


class Subscribing:
    """The calls of one app about its subscriptions."""

    def __init__(self, subscriptions: Subscriptions, grants: Grants, app_id: str) -> None:
        self._subscriptions, self._grants, self._app_id = subscriptions, grants, app_id

    def subscribed_apps(self, call: Call) -> str:
        """What the Page tells the app."""
        page_id = call.asked.page_id or ""
        match call.method:
            case "GET":
                return encode({"data": self._apps(page_id)})
            case "POST":
                self._subscriptions.subscribe_page(page_id, self._wanted(call.request.params))
                return _DONE
            case "DELETE":
                self._subscriptions.drop_page(page_id)
                return _DONE
        raise GraphRefusal(errors.NO_POST.about(call.asked.name))

    def subscriptions(self, call: Call) -> str:
        """What the app listens to."""
        params = call.request.params
        match call.method:
            case "GET":
                return encode({"data": self._objects()})
            case "POST":
                subscription = app_subscription(params)
                if not call.request.verified:
                    raise GraphRefusal(CATALOG["2200"])
                self._subscriptions.subscribe_app(subscription)
                return _DONE
            case "DELETE":
                self._drop(params)
                return _DONE
        raise GraphRefusal(errors.NO_POST.about(call.asked.name))

    def _wanted(self, params: Mapping[str, str]) -> tuple[str, ...]:
        fields = _fields(params, "subscribed_fields")
        if "leadgen" in fields and not self._grants.has("leads_retrieval"):
            raise GraphRefusal(CATALOG["200/leadgen"])
        return fields

    def _apps(self, page_id: str) -> list[dict[str, object]]:
        fields = self._subscriptions.of_page(page_id)
        if not fields:
            return []
        app = {
            "category": "Business",
            "link": "https://example.com/",
            "name": APP_NAME,
            "id": self._app_id,
        }
        return [{**app, "subscribed_fields": fields}]

    def _objects(self) -> list[dict[str, object]]:
        app = self._subscriptions.app
        if app is None:
            return []
        fields = [{"name": name, "version": _VERSION} for name in app.fields]
        return [{"object": "page", "callback_url": app.callback_url, "active": True, "fields": fields}]

    def _drop(self, params: Mapping[str, str]) -> None:
        """The fields named, or without any the whole object, or without that everything."""
        if params.get("object", "page") != "page":
            raise GraphRefusal(errors.parameter("Param object must be one of {page}"))
        app = self._subscriptions.app
        dropped = _fields(params, "fields") if params.get("fields") else PAGE_FIELDS
        left = tuple(name for name in (app.fields if app else ()) if name not in dropped)
        if app and left:
            self._subscriptions.subscribe_app(replace(app, fields=left))
        else:
            self._subscriptions.drop_app()


def app_subscription(params: Mapping[str, str]) -> AppSubscription:
    """What POST /{app}/subscriptions asks for. Raises GraphRefusal where a part is missing or wrong."""
    for name in ("object", "callback_url", "verify_token"):
        if not params.get(name):
            raise GraphRefusal(errors.parameter(f"The parameter {name} is required"))
    if params["object"] != "page":
        raise GraphRefusal(errors.parameter("Param object must be one of {page}"))
    if not _is_url(params["callback_url"]):
        raise GraphRefusal(errors.parameter("Param callback_url must be a valid URL"))
    values = params.get("include_values", "").lower() in _YES
    fields = _fields(params, "fields")
    return AppSubscription(params["callback_url"], fields, params["verify_token"], values)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _fields(params: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Names with commas between, or a JSON list of them as the official SDK sends it."""
    text = params.get(name, "")
    try:
        given = json.loads(text) if text.startswith("[") else text.split(",")
    except (ValueError, RecursionError):
        raise GraphRefusal(errors.parameter(f"param {name} must be an array.")) from None
    fields = tuple(dict.fromkeys(str(each).strip() for each in given if str(each).strip()))
    if not fields:
        raise GraphRefusal(errors.parameter(f"The parameter {name} is required"))
    for place, each in enumerate(fields):
        if each not in PAGE_FIELDS:
            text = f"Param {name}[{place}] must be one of {{{', '.join(PAGE_FIELDS)}}}"
            raise GraphRefusal(errors.parameter(text))
    return fields
