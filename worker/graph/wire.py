"""What to ask Graph, as requests; what Graph answered, as leads' JSON or errors. Pure: no socket, no clock of its own.

Invariant: a token is only ever in a header or a POST body, never in a URL; every lead read names its fields. It
sends nothing (client.py does) and decides nothing about a reference (outcomes.py does).
https://developers.facebook.com/docs/graph-api/batch-requests
https://developers.facebook.com/docs/graph-api/guides/secure-requests
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from worker.errors import GraphUnavailable, ItemUnanswered, LeadSyncError
from worker.graph.faults import fault_of, read_error
from worker.graph.usage import USAGE_HEADERS, Usage, read_usage
from worker.json_text import read_json

# https://developers.facebook.com/docs/marketing-api/reference/user-lead-gen-info
REDUCED_FIELDS: Final = (
    "id",
    "created_time",
    "form_id",
    "field_data",
    "custom_disclaimer_responses",
    "is_organic",
    "platform",
)
"""What a token without rights on the ad account can still read."""
FULL_FIELDS: Final = (
    *REDUCED_FIELDS,
    "ad_id",
    "ad_name",
    "adset_id",
    "adset_name",
    "campaign_id",
    "campaign_name",
    "partner_name",
    "retailer_item_id",
    "home_listing",
    "vehicle",
    "post",
    "post_submission_check_result",
)
BATCH_LIMIT: Final = 50
"""Items that Graph takes in one batch request."""
_UNQUOTED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One HTTP request: `query` goes into the URL, `form` into the body; `token` into the Authorization header.

    `kind` is what is asked for, a word of metrics.KINDS; a batch asks for it `items` times.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    token: str | None = field(default=None, repr=False)
    kind: str = "other"
    items: int = 0


@dataclass(frozen=True, slots=True)
class GraphAnswer:
    """One HTTP answer: header names in lower case, the body as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LeadsRead:
    """One entry per asked id, in order: the lead's JSON value, or why there is none."""

    leads: tuple["object | LeadSyncError", ...] = field(repr=False)
    usages: tuple[Usage, ...]
    is_clean: bool = field(default=False, compare=False)
    """Whether it is known that Postgres can hold all of it."""


@dataclass(frozen=True, slots=True)
class ResultPage:
    """One answer of a listing: its entries' JSON, and the cursor of the next result page, or None at the end."""

    entries: tuple[object, ...] = field(repr=False)
    after: str | None
    usages: tuple[Usage, ...]
    is_clean: bool = field(default=False, compare=False)
    """Whether it is known that Postgres can hold all of it."""


@dataclass(frozen=True, slots=True)
class FormRead:
    """One form's JSON, as it was asked for by its id."""

    form: object = field(repr=False)
    usages: tuple[Usage, ...]


def appsecret_proof(app_secret: str, token: str) -> str:
    """The proof that the caller of `token` holds the app's secret: lower-case hex HMAC-SHA256."""
    return hmac.new(app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()


def lead_request(
    leadgen_ids: Sequence[str], fields: Sequence[str], *, version: str, token: str, proof: str
) -> GraphRequest:
    """The request that reads these leads: a plain GET for one, a batch for up to BATCH_LIMIT."""
    wanted = ",".join(fields)
    if len(leadgen_ids) == 1:
        return GraphRequest(
            method="GET",
            path=f"/{version}/{leadgen_ids[0]}",
            query=(("fields", wanted), ("appsecret_proof", proof)),
            token=token,
            kind="lead",
        )
    if not 1 < len(leadgen_ids) <= BATCH_LIMIT:
        raise ValueError(f"a batch reads 1 to {BATCH_LIMIT} leads, not {len(leadgen_ids)}")
    items = [{"method": "GET", "relative_url": f"{leadgen_id}?fields={wanted}"} for leadgen_id in leadgen_ids]
    return GraphRequest(
        method="POST",
        path=f"/{version}/",
        form=(
            ("access_token", token),
            ("appsecret_proof", proof),
            ("include_headers", "true"),
            ("batch", json.dumps(items, separators=(",", ":"))),
        ),
        kind="lead",
        items=len(items),
    )


def form_text(form: Sequence[tuple[str, str]]) -> bytes:
    """A request's `form` as its body, application/x-www-form-urlencoded. Raises ValueError for a lone surrogate."""
    return b"&".join(b"=".join(map(_quote, pair)) for pair in form)


def _quote(text: str) -> bytes:
    """As urllib.parse.quote_plus, but a pass for each kind of character that is to be quoted, of which a batch has
    ten, and not a step for each character: that took a tenth of what a lead costs."""
    quoted = text.encode()
    odd = set(quoted.translate(None, _UNQUOTED))
    if ord("%") in odd:  # before those come that quoting brings
        quoted = quoted.replace(b"%", b"%25")
    for byte in odd - {ord("%"), ord(" ")}:
        quoted = quoted.replace(bytes((byte,)), b"%%%02X" % byte)
    return quoted.replace(b" ", b"+")


@contextmanager
def reading(headers: Mapping[str, str]) -> Iterator[tuple[Usage, ...]]:
    """Read an answer in here, and have what its headers say of usage; an error that it turns out to be carries that.

    Not where Graph seems away and no usage is told: that may be a gateway's word, which says nothing of throttles.
    """
    usages = read_usage(headers)
    try:
        yield usages
    except LeadSyncError as error:
        if usages or not isinstance(error, GraphUnavailable):
            error.usages = usages
        raise


def read_answer(answer: GraphAnswer, leadgen_ids: Sequence[str], now: datetime) -> LeadsRead:
    """What `answer` says of the leads that `lead_request(leadgen_ids, ...)` asked for.

    Raises an error of errors.py where the request as a whole failed; the failure of one item of a batch is that
    item's entry.
    """
    with reading(answer.headers) as usages:
        body, is_clean = _decipher(answer.body, answer.status)
        if len(leadgen_ids) == 1:
            _raise_error(answer.status, body, usages, now)
            return LeadsRead((_with_id(body),), usages, is_clean)
        if not isinstance(body, list):
            _raise_error(answer.status, body, usages, now)
            raise GraphUnavailable("Graph answered a batch with something that is no list")
        if len(body) != len(leadgen_ids):
            raise GraphUnavailable(f"Graph answered {len(body)} items to a batch of {len(leadgen_ids)}")
        leads: list[object | LeadSyncError] = []
        seen: dict[tuple[str | None, str], Usage] = {(u.scope_id, u.kind): u for u in usages}
        item_headers: dict[str, str] = {}
        item_usages: tuple[Usage, ...] = ()
        is_clean = True
        for item in body:
            # Mostly an item says the same of usage as the one before it, and to read that costs more than the lead.
            if (headers := _item_headers(item)) != item_headers:
                item_headers, item_usages = headers, read_usage(headers)
                seen.update({(u.scope_id, u.kind): u for u in item_usages})
            lead, is_clean_lead = _read_item(item, item_usages, now)
            is_clean = is_clean and is_clean_lead
            leads.append(lead)
        return LeadsRead(tuple(leads), tuple(seen.values()), is_clean)


def leads_request(
    form_id: str, since: int, until: int, fields: Sequence[str], *, limit: int, after: str | None, version: str,
    token: str, proof: str,
) -> GraphRequest:  # fmt: skip
    """One result page of a form's leads created in the whole seconds [since, until).

    https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving
    """
    within = (("GREATER_THAN_OR_EQUAL", since), ("LESS_THAN", until))
    filtering = [
        {"field": "time_created", "operator": operator, "value": value} for operator, value in within
    ]
    query = (
        ("fields", ",".join(fields)),
        ("filtering", json.dumps(filtering, separators=(",", ":"))),
        ("limit", str(limit)),
        *((("after", after),) if after else ()),
        ("appsecret_proof", proof),
    )
    return GraphRequest("GET", f"/{version}/{form_id}/leads", query, token=token, kind="leads")


# https://developers.facebook.com/docs/graph-api/reference/page/leadgen_forms/
FORM_COUNT_FIELDS: Final = ("id", "status", "leads_count", "expired_leads_count")
"""What a form is always asked for: Meta's counts of its leads."""
FORM_FIELDS: Final = (
    *FORM_COUNT_FIELDS,
    "name",
    "locale",
    "created_time",
    "questions",
    "legal_content",
    "tracking_parameters",
)
"""A form's counts and its definition."""


def forms_request(
    page_id: str,
    fields: Sequence[str],
    *,
    limit: int,
    after: str | None,
    version: str,
    token: str,
    proof: str,
) -> GraphRequest:
    """One result page of a Page's forms, the archived ones too."""
    query = (
        ("fields", ",".join(fields)),
        ("limit", str(limit)),
        *((("after", after),) if after else ()),
        ("appsecret_proof", proof),
    )
    return GraphRequest("GET", f"/{version}/{page_id}/leadgen_forms", query, token=token, kind="forms")


def form_request(
    form_id: str, fields: Sequence[str], *, version: str, token: str, proof: str
) -> GraphRequest:
    """One form by its id."""
    query = (("fields", ",".join(fields)), ("appsecret_proof", proof))
    return GraphRequest("GET", f"/{version}/{form_id}", query, token=token, kind="form")


def read_form(answer: GraphAnswer, now: datetime) -> FormRead:
    """The form that `answer` holds. Raises an error of errors.py where the request failed."""
    with reading(answer.headers) as usages:
        body, _ = _decipher(answer.body, answer.status)
        _raise_error(answer.status, body, usages, now)
        if not isinstance(body, dict) or "id" not in body:
            raise GraphUnavailable("Graph answered with something that is no form")
        return FormRead(body, usages)


def read_result_page(answer: GraphAnswer, now: datetime) -> ResultPage:
    """What `answer` holds of a listing. Raises an error of errors.py where the request failed.

    Only an absent `next` ends a listing: a result page may be short, or empty, and go on. The URL in `next` carries
    the token and a host, so it is never followed.
    """
    with reading(answer.headers) as usages:
        body, is_clean = _decipher(answer.body, answer.status)
        _raise_error(answer.status, body, usages, now)
        entries = body.get("data") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(entries, list):
            raise GraphUnavailable("Graph answered a listing with something that is none")
        paging = body.get("paging")
        paging = paging if isinstance(paging, dict) else {}
        cursors = paging.get("cursors")
        after = cursors.get("after") if isinstance(cursors, dict) else None
        if not paging.get("next"):
            return ResultPage(tuple(entries), None, usages, is_clean)
        if not isinstance(after, str) or not after:
            raise GraphUnavailable("Graph answered a listing that goes on without saying from where")
        return ResultPage(tuple(entries), after, usages, is_clean)


def read_object(answer: GraphAnswer, now: datetime) -> dict[str, Any]:
    """The object that `answer` holds. Raises an error of errors.py where the request failed."""
    body, _ = _decipher(answer.body, answer.status)
    _raise_error(answer.status, body, read_usage(answer.headers), now)
    if not isinstance(body, dict):
        raise GraphUnavailable("Graph answered with something that is no object")
    return body


def read_items(answer: GraphAnswer, items: int, now: datetime) -> "tuple[object | LeadSyncError, ...]":
    """What Graph answered to each of the `items` of a batch: its JSON value, or the error that it met."""
    body, _ = _decipher(answer.body, answer.status)
    usages = read_usage(answer.headers)
    if not isinstance(body, list):
        _raise_error(answer.status, body, usages, now)
        raise GraphUnavailable("Graph answered a batch with something that is no list")
    if len(body) != items:
        raise GraphUnavailable(f"Graph answered {len(body)} items to a batch of {items}")
    return tuple(_read_item(item, usages, now, with_id=False)[0] for item in body)


def _read_item(
    item: object, usages: tuple[Usage, ...], now: datetime, *, with_id: bool = True
) -> "tuple[object | LeadSyncError, bool]":
    """The item's JSON value or error, and whether it is known that Postgres can hold all of it: an error is no row."""
    if not isinstance(item, dict):
        return ItemUnanswered("Graph left an item of the batch unanswered"), True
    status = item.get("code")
    text = item.get("body")
    if not isinstance(status, int) or not 100 <= status <= 599 or not isinstance(text, str):
        return GraphUnavailable("Graph answered an item of the batch without code or body"), True
    try:
        body, is_clean = _decipher(text, status)
        _raise_error(status, body, usages, now)
        return _with_id(body) if with_id else body, is_clean
    except LeadSyncError as error:
        return error, True


def _with_id(body: object) -> object:
    """An answer without an id is no lead and no refusal either: something on the way garbled it."""
    if not isinstance(body, dict) or "id" not in body:
        raise GraphUnavailable("Graph answered with something that is no lead")
    return body


def _item_headers(item: object) -> dict[str, str]:
    headers = item.get("headers") if isinstance(item, dict) else None
    found: dict[str, str] = {}
    for header in headers if isinstance(headers, list) else ():
        if not isinstance(header, dict) or not isinstance(name := header.get("name"), str):
            continue
        if (lower := name.lower()) in USAGE_HEADERS and isinstance(value := header.get("value"), str):
            found[lower] = value
    return found


def _decipher(body: bytes | str, status: int) -> tuple[object, bool]:
    """The JSON value, and whether it is known that Postgres can hold all of it."""
    try:
        return read_json(body)
    except (ValueError, RecursionError):
        raise GraphUnavailable(f"Graph answered HTTP {status} with a body that is no JSON") from None


def _raise_error(status: int, body: object, usages: tuple[Usage, ...], now: datetime) -> None:
    error = read_error(status, body)
    if error is not None:
        raise fault_of(error, usages, now)
