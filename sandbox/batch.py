"""The Batch API: one POST -> up to 50 calls -> one JSON array of their answers, in order.

Each item is a call of its own to graph.py: counted, throttled and struck by faults like any other. Items
that time out are null, and the whole is 200 however its items fare.
https://developers.facebook.com/docs/graph-api/batch-requests

Invariant: the array has as many elements as the request had items.
"""

import json
from functools import lru_cache
from typing import Final

from sandbox import errors
from sandbox.errors import CATALOG, THROTTLES
from sandbox.faults import TRANSPORT, Fault, Target
from sandbox.graph import Graph, throttled
from sandbox.request import Answer, GraphRefusal, Request, query_params, split_path
from sandbox.spoiled import spoil
from sandbox.tokens import Holder
from sandbox.usage import headers_of
from sandbox.wire import plain, quote_json

MOST_ITEMS: Final = 50
_NEVER_CAME: Final = frozenset({"null_items", "timeout", "slow_body", "reset", "close", "cut_body"})
"""Faults of an item that its caller sees as null: the item was not finished in time."""
_INHERITED: Final = ("access_token", "appsecret_proof", "appsecret_time")


def is_batch(request: Request) -> bool:
    """Whether this is a batch request and not a call."""
    return (
        request.method == "POST"
        and "batch" in request.params
        and split_path(request.path)[1] in ((), ("me",))
    )


def answer_batch(graph: Graph, request: Request, now: float, answered_at: float) -> Answer:
    """Answer all items of a batch request."""
    version = split_path(request.path)[0]
    page_id: str | None = None
    holder: Holder | None = None
    fault: Fault | None = None
    try:
        holder = graph.holder(request.params, now)
        page_id = holder.page_id
        fault = graph.plan.strike(Target("batch", page_id), now)
        if fault is not None and fault.name in CATALOG:
            raise GraphRefusal(CATALOG[fault.name].about("", graph.config.app_id))
        items = _items(request.params["batch"])
    except GraphRefusal as refusal:
        error = refusal.error
        if holder is None and (known := graph.known(request.params)):
            page_id = known.page_id
        usages = () if holder is None else graph.app_usage(now)
        if fault is not None and fault.name in THROTTLES:
            usages = (throttled(fault, page_id), *usages)
        graph.journal.called(page_id, "batch", error.name, now, of_token=page_id or "")
        body = error.body(graph.trace())
        return Answer(error.status, body, version, error.name, "batch", page_id, headers_of(usages))
    with_headers = request.params.get("include_headers", "true").lower() not in ("false", "0")
    sent_wrongly = fault if fault is not None and fault.name in TRANSPORT else None
    lost = sent_wrongly.name if sent_wrongly else ""
    answers = [_answer(graph, item, request, now, answered_at, lost) for item in items]
    texts = ["null" if answer is None else _text(answer, with_headers) for answer in answers]
    headers = headers_of(graph.page_usage(page_id, now) if graph.config.usage_on_batch else ())
    return Answer(200, f"[{','.join(texts)}]", version, "200", "batch", page_id, headers, sent_wrongly)


def _items(text: str) -> list[object]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise GraphRefusal(errors.BATCH_UNREADABLE) from None
    if not isinstance(items, list):
        raise GraphRefusal(errors.BATCH_UNREADABLE)
    if len(items) > MOST_ITEMS:
        raise GraphRefusal(errors.BATCH_TOO_LARGE)
    return items


def _answer(
    graph: Graph, item: object, outer: Request, now: float, answered_at: float, lost: str
) -> Answer | None:
    """One item's answer; None where it does not come in time."""
    if not isinstance(item, dict):
        return None
    answer = graph.call(_inner(item, outer), now, answered_at, lost)
    if answer.fault is None:
        return answer
    return None if answer.fault.name in _NEVER_CAME else spoil(answer, answer.fault, graph.trace())


def _text(answer: Answer, with_headers: bool) -> str:
    """One item's answer as JSON."""
    headers = f'"headers":{_headers(answer.version, answer.headers)},' if with_headers else ""
    return f'{{"code":{answer.status},{headers}"body":{quote_json(answer.body)}}}'


def _inner(item: dict[str, object], outer: Request) -> Request:
    """The item as a call. Version and token (with its proof) are the batch's unless it says its own."""
    path, _, query = str(item.get("relative_url", "")).partition("?")
    params = dict(query_params(query))
    if item.get("body"):
        params |= query_params(str(item["body"]))
    if "access_token" in item:
        params["access_token"] = str(item["access_token"])
    if "access_token" not in params:
        params |= {name: outer.params[name] for name in _INHERITED if name in outer.params}
    if not path.lstrip("/").startswith("v"):
        path = f"{split_path(outer.path)[0]}/{path}"
    return Request(str(item.get("method", "GET")).upper(), path, params, outer.base_url, via="batch")


@lru_cache(maxsize=256)
def _headers(version: str, usage: tuple[tuple[str, str], ...]) -> str:
    """An item's headers as Graph writes them, a list of names and values; mostly the same for all items."""
    pairs = [
        ("Content-Type", "text/javascript; charset=UTF-8"),
        ("facebook-api-version", version),
        ("Access-Control-Allow-Origin", "*"),
        ("Cache-Control", "private, no-cache, no-store, must-revalidate"),
        *usage,
    ]
    return plain([{"name": name, "value": value} for name, value in pairs]).replace("/", "\\/")
