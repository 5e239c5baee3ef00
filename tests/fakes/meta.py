"""A small Meta without a socket: tokens, Pages, subscriptions and a webhook, which can be told to refuse.

It answers the requests that graph/account.py builds, as bytes; what it was asked stands in `asked`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from worker.budget.policy import Grant
from worker.errors import LeadSyncError
from worker.graph.wire import GraphAnswer, GraphRequest

APP_ID, APP_SECRET, USER = "4242", "secret-of-the-app", "3000"
PAGE, OTHER = "153125381133", "153125381134"
SCOPES = (
    "leads_retrieval", "pages_manage_metadata", "pages_show_list", "pages_read_engagement", "pages_manage_ads",
    "ads_management",
)  # fmt: skip
NEVER = 0


def refusal(code: int, subcode: int | None = None) -> dict[str, Any]:
    """An error answer."""
    error = {"message": "told", "type": "OAuthException", "code": code}
    return {"error": error if subcode is None else {**error, "error_subcode": subcode}}


def of_token(**facts: Any) -> dict[str, Any]:
    """What debug_token tells: a good token of a person that never expires, but for `facts`."""
    good = {"app_id": APP_ID, "type": "USER", "user_id": USER, "is_valid": True, "expires_at": NEVER}
    return {**good, "scopes": list(SCOPES), **facts}


def of_page(page_id: str = PAGE, **facts: Any) -> dict[str, Any]:
    """An entry of /me/accounts."""
    told = {"id": page_id, "name": f"Page {page_id[-1]}", "access_token": f"token-of-{page_id}"}
    return {**told, "tasks": ["ADVERTISE", "MANAGE"], **facts}


@dataclass
class FakeMeta:
    """`refuses`: (method, end of the path) -> the answer, or the error on the wire, instead of any other."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=lambda: {"user-token": of_token()})
    exchanges: dict[str, str] = field(default_factory=dict)
    listings: list[list[dict[str, Any]]] = field(default_factory=lambda: [[of_page()]])
    leads_back: bool = False
    unlisted: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscribed: dict[str, list[str]] = field(default_factory=dict)
    forgets: bool = False
    """A change is answered with success and is none."""
    webhook: dict[str, Any] | None = None
    refuses: dict[tuple[str, str], Mapping[str, Any] | LeadSyncError] = field(default_factory=dict)
    asked: list[GraphRequest] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer:
        """Answer as Graph does."""
        self.asked.append(request)
        self.grants.append(grant)
        path = request.path.partition("/v26.0/")[2]
        told = self.refuses.get((request.method, path.rpartition("/")[2]))
        if isinstance(told, LeadSyncError):
            raise told
        body = told if told is not None else self._answer(request, path)
        status = 400 if isinstance(body, dict) and "error" in body else 200
        return GraphAnswer(status, {}, json.dumps(body).encode())

    def changes(self) -> list[str]:
        """Method and path of what was asked to be changed."""
        told = [f"{each.method} {each.path.partition('/v26.0/')[2]}" for each in self.asked]
        return [
            each
            for each in told
            if not each.startswith("GET") and each not in ("POST ", "POST oauth/access_token")
        ]

    def _answer(self, request: GraphRequest, path: str) -> Any:
        form, query = dict(request.form), dict(request.query)
        match request.method, path.split("/"):
            case "POST", [""]:
                return [self._debug(item) for item in json.loads(form["batch"])]
            case "POST", ["oauth", "access_token"]:
                token = self.exchanges.get(form["fb_exchange_token"])
                return {"access_token": token} if token else refusal(190)
            case "GET", ["me", "accounts"]:
                return self._listing(query)
            case method, [page_id, "subscribed_apps"]:
                return self._subscribed_apps(method, page_id, form)
            case method, [_, "subscriptions"]:
                return self._subscriptions(method, form)
            case "GET", [page_id]:
                return self.unlisted.get(page_id, refusal(100, 33))
        raise AssertionError(f"nobody asks {request.method} {path}")

    def _debug(self, item: dict[str, str]) -> dict[str, Any]:
        (token,) = parse_qs(urlsplit(item["relative_url"]).query)["input_token"]
        told = self.tokens.get(token, {"is_valid": False, "error": {"code": 190}, "scopes": []})
        body = told if "error" in told and "is_valid" not in told else {"data": told}
        return {"code": 400 if "data" not in body else 200, "body": json.dumps(body)}

    def _listing(self, query: dict[str, str]) -> dict[str, Any]:
        number = int(query.get("after", "0"))
        told: dict[str, Any] = {"data": self.listings[number]}
        if number + 1 < len(self.listings) or self.leads_back:
            told["paging"] = {
                "cursors": {"after": str((number + 1) % len(self.listings))},
                "next": "https://elsewhere/?access_token=x",
            }
        return told

    def _subscribed_apps(self, method: str, page_id: str, form: dict[str, str]) -> dict[str, Any]:
        if method == "GET":
            fields = self.subscribed.get(page_id)
            others = [{"id": "1", "subscribed_fields": ["leadgen"]}]
            return {
                "data": others + ([] if fields is None else [{"id": APP_ID, "subscribed_fields": fields}])
            }
        if not self.forgets:
            self.subscribed.pop(page_id, None)
            if method == "POST":
                self.subscribed[page_id] = form["subscribed_fields"].split(",")
        return {"success": "true"}

    def _subscriptions(self, method: str, form: dict[str, str]) -> dict[str, Any]:
        if method == "GET":
            return {
                "data": [
                    {"object": "user", "callback_url": "x", "active": True, "fields": []},
                    *filter(None, [self.webhook]),
                ]
            }
        if not self.forgets:
            self.webhook = webhook_at(form["callback_url"], *form["fields"].split(","))
        return {"success": True}


def webhook_at(url: str, *fields: str, active: bool = True) -> dict[str, Any]:
    """An app's webhook as Meta tells it."""
    told = [{"name": name, "version": "v26.0"} for name in fields]
    return {"object": "page", "callback_url": url, "active": active, "fields": told}
