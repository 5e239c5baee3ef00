"""What to ask Graph about tokens, Pages, subscriptions and test leads, as requests; what it answered, as values. Pure.

The lead path's own requests are wire.py's; it sends nothing (client.py does). Invariants: a token is only ever in a
header or a POST body, never in a URL, so debug_token is asked by batch; no value that holds a token shows it.
https://developers.facebook.com/docs/graph-api/reference/debug_token/
https://developers.facebook.com/docs/pages-api/webhooks-for-pages
https://developers.facebook.com/docs/graph-api/reference/app/subscriptions
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from worker.errors import GraphUnavailable, LeadSyncError, RequestRefused
from worker.graph.faults import read_error
from worker.graph.wire import BATCH_LIMIT, GraphAnswer, GraphRequest, appsecret_proof, read_items, read_object
from worker.inbox import is_id
from worker.lead import clean_text

ACCOUNTS_LIMIT: Final = 100
ACCOUNT_FIELDS: Final = ("id", "name", "access_token", "tasks")
LEADGEN: Final = "leadgen"
"""The webhook field that announces leads."""


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What Meta knows of a token. `expires_at` None: never, as far as is known.

    `kind` is USER, SYSTEM_USER, PAGE or APP; `targets` says for which objects a scope is granted, where it is not for
    all. `code` and `subcode` say why it is not valid.
    """

    app_id: str | None
    kind: str
    user_id: str | None
    profile_id: str | None
    is_valid: bool
    expires_at: datetime | None
    data_access_expires_at: datetime | None
    scopes: tuple[str, ...]
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: int | None = None
    subcode: int | None = None


@dataclass(frozen=True, slots=True)
class PageAccount:
    """A Page that the token's owner has a role on, with the Page's own token."""

    page_id: str
    name: str
    tasks: tuple[str, ...]
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AppSubscription:
    """An app's webhook for an object."""

    object: str
    callback_url: str
    is_active: bool
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """In whose name, and at which version, Graph is asked. `app_secret` signs tokens and is half of the app's own."""

    app_id: str
    version: str
    app_secret: str = field(repr=False)

    @property
    def app_token(self) -> str:
        """https://developers.facebook.com/docs/facebook-login/guides/access-tokens#apptokens"""
        return f"{self.app_id}|{self.app_secret}"

    def request(
        self,
        method: str,
        path: str,
        token: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        form: Sequence[tuple[str, str]] = (),
        kind: str,
        items: int = 0,
    ) -> GraphRequest:
        """A request under `token`, with its proof."""
        proof = ("appsecret_proof", appsecret_proof(self.app_secret, token))
        if method == "POST":
            return GraphRequest(
                method,
                f"/{self.version}/{path}",
                form=(("access_token", token), proof, *form),
                kind=kind,
                items=items,
            )
        return GraphRequest(method, f"/{self.version}/{path}", query=(*query, proof), token=token, kind=kind)


def exchange_request(caller: Caller, token: str) -> GraphRequest:
    """A person's short-lived token for a long-lived one.

    https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived
    """
    return GraphRequest(
        "POST",
        f"/{caller.version}/oauth/access_token",
        form=(
            ("grant_type", "fb_exchange_token"),
            ("client_id", caller.app_id),
            ("client_secret", caller.app_secret),
            ("fb_exchange_token", token),
        ),
        kind="oauth",
    )


def read_exchange(answer: GraphAnswer, now: datetime) -> str:
    """The long-lived token. Raises an error of errors.py."""
    token = _token(read_object(answer, now).get("access_token"))
    if token is None:
        raise GraphUnavailable("Graph answered an exchange of tokens without a token")
    return token


def debug_request(caller: Caller, tokens: Sequence[str]) -> GraphRequest:
    """What Meta knows of these tokens, 1 to BATCH_LIMIT."""
    if not 1 <= len(tokens) <= BATCH_LIMIT:
        raise ValueError(f"a batch asks about 1 to {BATCH_LIMIT} tokens, not {len(tokens)}")
    items = [
        {"method": "GET", "relative_url": f"debug_token?{urlencode({'input_token': token})}"}
        for token in tokens
    ]
    return caller.request(
        "POST", "", caller.app_token, form=(("batch", json.dumps(items, separators=(",", ":"))),),
        kind="debug_token", items=len(items),
    )  # fmt: skip


def read_debug(answer: GraphAnswer, tokens: int, now: datetime) -> "tuple[TokenFacts | LeadSyncError, ...]":
    """One entry per asked token: what Meta knows of it, or why that is not known."""
    return tuple(
        told if isinstance(told, LeadSyncError) else _token_facts(told)
        for told in read_items(answer, tokens, now)
    )


def accounts_request(caller: Caller, token: str, *, after: str | None) -> GraphRequest:
    """One result page of the Pages that the token's owner has a role on."""
    query = (
        ("fields", ",".join(ACCOUNT_FIELDS)),
        ("limit", str(ACCOUNTS_LIMIT)),
        *((("after", after),) if after else ()),
    )
    return caller.request("GET", "me/accounts", token, query=query, kind="accounts")


def read_account(entry: object) -> PageAccount | None:
    """An entry of that listing, or None where it is no Page."""
    if not isinstance(entry, dict):
        return None
    page_id, token, tasks = _id(entry.get("id")), entry.get("access_token"), entry.get("tasks")
    if page_id is None:
        return None
    return PageAccount(
        page_id,
        _word(entry.get("name")),
        _words(tasks),
        _token(token),
    )


def page_request(caller: Caller, page_id: str, fields: Sequence[str], token: str) -> GraphRequest:
    """A Page's own fields; its `access_token` too, where `token` is its owner's."""
    return caller.request("GET", page_id, token, query=(("fields", ",".join(fields)),), kind="page")


def subscribed_apps_request(caller: Caller, page_id: str, token: str) -> GraphRequest:
    """Which apps are installed on a Page."""
    return caller.request("GET", f"{page_id}/subscribed_apps", token, kind="subscribed_apps")


def subscribe_request(caller: Caller, page_id: str, fields: Sequence[str], token: str) -> GraphRequest:
    """Install the app on a Page; `fields` take the place of those that were there."""
    form = (("subscribed_fields", ",".join(fields)),)
    return caller.request("POST", f"{page_id}/subscribed_apps", token, form=form, kind="subscribed_apps")


def unsubscribe_request(caller: Caller, page_id: str, token: str) -> GraphRequest:
    """Take the app off a Page."""
    return caller.request("DELETE", f"{page_id}/subscribed_apps", token, kind="subscribed_apps")


def read_subscribed(answer: GraphAnswer, app_id: str, now: datetime) -> tuple[str, ...] | None:
    """The fields that the app is subscribed to on the Page; None where it is not installed."""
    for entry in _data(answer, now):
        if _id(entry.get("id")) == app_id:
            return _words(entry.get("subscribed_fields"))
    return None


def subscriptions_request(caller: Caller) -> GraphRequest:
    """The app's webhooks."""
    return caller.request("GET", f"{caller.app_id}/subscriptions", caller.app_token, kind="subscriptions")


def set_webhook_request(
    caller: Caller, *, callback_url: str, verify_token: str, fields: Sequence[str]
) -> GraphRequest:
    """Set the app's webhook for Pages, which makes Meta do the handshake with whoever answers at `callback_url`."""
    form = (
        ("object", "page"),
        ("callback_url", callback_url),
        ("fields", ",".join(fields)),
        ("verify_token", verify_token),
        ("include_values", "true"),
    )
    return caller.request(
        "POST", f"{caller.app_id}/subscriptions", caller.app_token, form=form, kind="subscriptions"
    )


def read_subscriptions(answer: GraphAnswer, now: datetime) -> tuple[AppSubscription, ...]:
    """The app's webhooks, one an object."""
    return tuple(
        AppSubscription(
            _word(entry.get("object")),
            _word(entry.get("callback_url")),
            entry.get("active") is True,
            _field_names(entry.get("fields")),
        )
        for entry in _data(answer, now)
    )


def _field_names(fields: object) -> tuple[str, ...]:
    """Each is an object with name and version, or a name."""
    listed = fields if isinstance(fields, list) else []
    return _words([each.get("name") if isinstance(each, dict) else each for each in listed])


def test_leads_request(caller: Caller, form_id: str, token: str) -> GraphRequest:
    """The form's test lead, if there is one. https://developers.facebook.com/docs/marketing-api/guides/lead-ads/testing-troubleshooting"""
    return caller.request(
        "GET", f"{form_id}/test_leads", token, query=(("fields", "id,created_time"),), kind="test_leads"
    )


def make_test_lead_request(caller: Caller, form_id: str, token: str) -> GraphRequest:
    """Make the form's test lead, with Meta's own dummy answers."""
    return caller.request("POST", f"{form_id}/test_leads", token, kind="test_leads")


SECOND_TEST_LEAD: Final = 1892058
"""A form has one test lead at a time; whether this comes as code or as subcode is not written anywhere."""


def read_made(answer: GraphAnswer, now: datetime) -> str | None:
    """The id of the test lead that was made, where Graph says it. Raises SecondTestLead, or an error of errors.py.

    What Graph answers is not documented; an id is what it was seen to answer to other objects that are made.
    """
    try:
        error = read_error(answer.status, json.loads(answer.body))
    except (ValueError, RecursionError):
        error = None
    if error is not None and SECOND_TEST_LEAD in (error.code, error.subcode):
        raise SecondTestLead("the form has a test lead already")
    return _id(read_object(answer, now).get("id"))


class SecondTestLead(RequestRefused):
    """The form has a test lead, which must be deleted before there can be another."""

    reason = "second_test_lead"


def delete_lead_request(caller: Caller, leadgen_id: str, token: str) -> GraphRequest:
    """Take a test lead away."""
    return caller.request("DELETE", leadgen_id, token, kind="lead")


def read_ids(answer: GraphAnswer, now: datetime) -> tuple[str, ...]:
    """The ids of a listing's entries."""
    return _ids([entry.get("id") for entry in _data(answer, now)])


def read_success(answer: GraphAnswer, now: datetime) -> None:
    """Raises an error of errors.py where Graph did not do what was asked."""
    told = read_object(answer, now).get("success", True)
    if told not in (True, "true"):
        raise RequestRefused("Graph answered that it did not do what was asked")


def _data(answer: GraphAnswer, now: datetime) -> list[dict[str, Any]]:
    data = read_object(answer, now).get("data")
    if not isinstance(data, list):
        raise GraphUnavailable("Graph answered a listing with something that is none")
    return [entry for entry in data if isinstance(entry, dict)]


def _token_facts(told: object) -> "TokenFacts | LeadSyncError":
    data = told.get("data") if isinstance(told, dict) else None
    if not isinstance(data, dict):
        return GraphUnavailable("Graph answered about a token with something that says nothing of it")
    error = data.get("error")
    error = error if isinstance(error, dict) else {}
    granular = data.get("granular_scopes")
    targets = {
        _word(each.get("scope")): _ids(each["target_ids"])
        for each in (granular if isinstance(granular, list) else ())
        if isinstance(each, dict) and isinstance(each.get("target_ids"), list)
    }
    return TokenFacts(
        app_id=_id(data.get("app_id")),
        kind=_word(data.get("type")) or "USER",
        user_id=_id(data.get("user_id")),
        profile_id=_id(data.get("profile_id")),
        is_valid=data.get("is_valid") is True,
        expires_at=_time(data.get("expires_at")),
        data_access_expires_at=_time(data.get("data_access_expires_at")),
        scopes=_words(data.get("scopes")),
        targets=targets,
        code=_code(error.get("code")),
        subcode=_code(error.get("subcode")),
    )


def _id(value: object) -> str | None:
    """Graph writes ids as strings, and here and there as numbers."""
    text = str(value) if isinstance(value, str | int) else ""
    return text if is_id(text) else None


def _ids(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(found for value in values if (found := _id(value)) is not None)


def _word(value: object) -> str:
    """Text that can be kept, and nothing in the place of what is none: what is nested deeply cannot be written out."""
    return clean_text(value) if isinstance(value, str) else ""


def _words(values: object) -> tuple[str, ...]:
    return tuple(clean_text(v) for v in values if isinstance(v, str)) if isinstance(values, list) else ()


def _token(value: object) -> str | None:
    """A token, or None for what cannot be one: a header could not hold it."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() and value else None


def _code(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: object) -> datetime | None:
    """0 is never. https://developers.facebook.com/docs/graph-api/reference/debug_token/"""
    seconds = _code(value)
    if not seconds or not 0 < seconds < 253_402_300_800:
        return None
    return datetime.fromtimestamp(seconds, UTC)
