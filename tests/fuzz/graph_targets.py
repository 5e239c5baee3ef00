"""What Graph answers, whole: status, headers, body -> leads, forms, tokens, subscriptions, usages, errors.

Input: an HTTP answer as it would stand on the wire, but for line feeds alone: the status, the headers a line each, an
empty line, the body; a body alone is an answer of 200 without headers. Everything that reads such an answer reads it.
"""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from tests.fuzz.holdable import check_error, check_form, check_json, check_lead, check_text, check_time
from tests.fuzz.target import Target, Violation, holds
from worker.errors import LeadSyncError, Throttled
from worker.export import FormDefinition
from worker.form import Form
from worker.graph import account
from worker.graph.usage import read_usage
from worker.graph.wire import GraphAnswer, read_answer, read_form, read_result_page
from worker.inbox import is_id
from worker.json_text import read_json
from worker.lead import Lead
from worker.outcomes import RetryPolicy, listing_outcome_of, outcome_of
from worker.questions import MOST_COLUMNS, NAME_BYTES, answer_text, columns
from worker.scopes import missing_scopes, scopes_without

NOW: Final = datetime(2026, 10, 1, tzinfo=UTC)
LEAD: Final = "123123123123"
LEADS: Final = (LEAD, "123123123124")
PAGE: Final = "153125381133"
APP: Final = "900000000000001"
_POLICY: Final = RetryPolicy()


def answer_of(data: bytes) -> GraphAnswer:
    """The answer that the input stands for."""
    head, separator, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    if not separator or not (first.isascii() and first.isdigit() and len(first) == 3):
        return GraphAnswer(200, {}, data)
    pairs = (line.partition(":") for line in lines)
    return GraphAnswer(int(first), {name.lower(): value.strip() for name, _, value in pairs}, body)


def check_lead_answer(data: bytes) -> None:
    """One lead asked for by its id: a lead that becomes a row, or an error that has an outcome."""
    raw = _read(lambda: read_answer(answer_of(data), [LEAD], NOW))
    if raw is not None:
        _check_leads(raw.leads, [LEAD])


def check_batch_answer(data: bytes) -> None:
    """Two leads asked for in a batch: each is a lead or an error of its own."""
    raw = _read(lambda: read_answer(answer_of(data), LEADS, NOW))
    if raw is not None:
        holds("each asked lead has its entry", len(raw.leads) == len(LEADS))
        _check_leads(raw.leads, LEADS)


def check_lead_listing(data: bytes) -> None:
    """A result page of leads; what is known to be clean is not looked at again, so it has to be."""
    page = _read(lambda: read_result_page(answer_of(data), NOW))
    for entry in page.entries if page is not None else ():
        leadgen_id = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(leadgen_id, str) and is_id(leadgen_id):
            lead = _read(lambda e=entry, i=leadgen_id: Lead.from_graph(
                e, leadgen_id=i, in_part=True, is_clean=page.is_clean
            ))  # fmt: skip
            if lead is not None:
                check_lead(lead)
    if page is not None and page.is_clean:
        check_json(list(page.entries))


def check_form_answer(data: bytes) -> None:
    """A form by its id: its definition fits a row, and its columns a view."""
    told = _read(lambda: read_form(answer_of(data), NOW))
    form = Form.from_graph(told.form) if told is not None else None
    if form is not None:
        _check_form(form)


def check_form_listing(data: bytes) -> None:
    """A result page of forms."""
    page = _read(lambda: read_result_page(answer_of(data), NOW))
    for entry in page.entries if page is not None else ():
        form = Form.from_graph(entry)
        if form is not None:
            _check_form(form)


def check_account(data: bytes) -> None:
    """What is asked about tokens, Pages, subscriptions and test leads, each read by its own reader."""
    answer = answer_of(data)
    for facts in _read(lambda: account.read_debug(answer, 2, NOW)) or ():
        if isinstance(facts, LeadSyncError):
            _check_error(facts)
        else:
            check_time(facts.expires_at)
            check_time(facts.data_access_expires_at)
            missing_scopes(facts), scopes_without(facts, PAGE)
            for text in (facts.kind, *facts.scopes, *facts.targets):
                check_text(text)
    page = _read(lambda: read_result_page(answer, NOW))
    for entry in page.entries if page is not None else ():
        found = account.read_account(entry)
        if found is not None:
            holds("a Page has an id", is_id(found.page_id))
            for text in (found.name, found.token or "", *found.tasks):
                check_text(text)
    for reader in (
        account.read_made,
        account.read_ids,
        account.read_success,
    ):
        _read(lambda read=reader: read(answer, NOW))
    check_text(_read(lambda: account.read_exchange(answer, NOW)) or "")
    for subscription in _read(lambda: account.read_subscriptions(answer, NOW)) or ():
        for text in (subscription.object, subscription.callback_url, *subscription.fields):
            check_text(text)
    for text in _read(lambda: account.read_subscribed(answer, APP, NOW)) or ():
        check_text(text)


def check_usage(data: bytes) -> None:
    """Three headers, a line each; none of them fails an answer, and what they say is a percentage and a wait."""
    names = ("x-business-use-case-usage", "x-app-usage", "x-ad-account-usage")
    lines = data.decode("latin-1").split("\n", 2)
    for usage in read_usage(dict(zip(names, lines, strict=False))):
        for number in (usage.percent, usage.call_count, usage.regain_minutes):
            holds("a usage is a finite number", math.isfinite(number) and number >= 0)
        holds("a usage names what it is of", isinstance(usage.kind, str) and isinstance(usage.scope, str))
        check_text(usage.scope_id or "")  # it becomes a key of the ledger


def check_json_text(data: bytes) -> None:
    """What is read is what json reads, and what is known to be clean is."""
    theirs = _tolerant(lambda: (json.loads(data, parse_int=lambda d: int(d) if len(d) <= 4_000 else d),))
    try:
        value, is_clean = read_json(data)
    except RecursionError:
        return  # how deep json reads depends on how deep it is called
    except ValueError:
        holds("what json reads is read", theirs is None)
        return
    # Text is compared since NaN equals nothing.
    pair = None if theirs is None else _tolerant(lambda: (repr(value), repr(theirs[0])))
    holds("what is read is what json reads", pair is None or pair[0] == pair[1])
    if is_clean:
        check_json(value)


def _tolerant(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, RecursionError):
        return None


def _read(read: Callable[[], Any]) -> Any:
    """What a reader gives; None where it refuses, which has to have an outcome."""
    try:
        return read()
    except LeadSyncError as error:
        _check_error(error)
        return None


def _check_error(error: LeadSyncError) -> None:
    check_error(error)
    if isinstance(error, Throttled):
        holds("a throttle ends", error.until >= NOW)
    outcome_of(
        error, attempts=0, last_reason=None, waiting_since=NOW, now=NOW, policy=_POLICY, dice=lambda: 0.5
    )
    if not isinstance(error, Throttled):
        listing_outcome_of(error, attempts=0, now=NOW, policy=_POLICY, dice=lambda: 0.5)


def _check_leads(told: tuple[object, ...], leadgen_ids: tuple[str, ...] | list[str]) -> None:
    for leadgen_id, raw in zip(leadgen_ids, told, strict=True):
        if isinstance(raw, LeadSyncError):
            _check_error(raw)
            continue
        lead = _read(lambda r=raw, i=leadgen_id: Lead.from_graph(r, leadgen_id=i, in_part=False))
        if lead is not None:
            check_lead(lead)


def _check_form(form: Form) -> None:
    check_form(form)
    holds("a form's id is an id", is_id(form.form_id))
    found = columns(form.questions, form.tracking_parameters, form.disclaimers)
    names = [column.name for column in found]
    holds("names of columns are distinct", len(set(names)) == len(names) <= MOST_COLUMNS)
    for column in found:
        holds("a name of a column fits", 0 < len(column.name.encode()) <= NAME_BYTES)
        check_text(column.name)
    answered = [{"name": column.key, "values": ["a"]} for column in found[:3]]
    if any(answer_text(answered, column) is None for column in found[:3] if column.kind != "disclaimer"):
        raise Violation("an answered question has an answer")
    FormDefinition.from_row(
        {"form_id": form.form_id, "name": form.name, "questions": form.questions}
        | {"tracking_parameters": form.tracking_parameters, "disclaimers": form.disclaimers}
    )


_JSON: Final = (b"null", b"true", b"1e400", b"-0", b"NaN", b'"\\u0000"', b'"\\ud800"', b"[]", b"{}", b'""')
_ENVELOPE: Final = (
    b'"error" "message" "code" "error_subcode" "is_transient" "fbtrace_id" "data" "paging" "cursors" "after" "next"'
    b' "id" 190 100 33 80005 613 x-business-use-case-usage: x-app-usage:'.split()
)
_LEAD: Final = (
    b'"created_time" "field_data" "name" "values" "is_organic" "platform" "form_id" "ad_id" "ad_name" "email"'
    b' "custom_disclaimer_responses" "checkbox_key" "is_checked" "123123123123" "2015-02-28T08:49:14+0000"'.split()
)
_FORM: Final = (
    b'"questions" "key" "label" "type" "options" "value" "legal_content" "custom_disclaimer" "checkboxes" "text"'
    b' "tracking_parameters" "leads_count" "expired_leads_count" "status" "locale"'.split()
)
_ACCOUNT: Final = (
    b'"access_token" "tasks" "app_id" "type" "user_id" "profile_id" "is_valid" "expires_at" "scopes" "success"'
    b' "data_access_expires_at" "granular_scopes" "scope" "target_ids" "subscribed_fields" "callback_url" "active"'
    b' "fields" "object" "code" "body" "900000000000001"'.split()
)
_USAGE: Final = (
    b'"type" "leadgen" "call_count" "total_cputime" "total_time" "estimated_time_to_regain_access"'
    b' "acc_id_util_pct" "reset_time_duration"'.split()
)

TARGETS: Final = (
    Target("lead", check_lead_answer, (*_JSON, *_ENVELOPE, *_LEAD)),
    Target("batch", check_batch_answer, (*_JSON, *_ENVELOPE, *_LEAD, b'"code"', b'"body"', b'"headers"')),
    Target("lead_listing", check_lead_listing, (*_JSON, *_ENVELOPE, *_LEAD)),
    Target("form", check_form_answer, (*_JSON, *_ENVELOPE, *_FORM)),
    Target("form_listing", check_form_listing, (*_JSON, *_ENVELOPE, *_FORM)),
    Target("account", check_account, (*_JSON, *_ENVELOPE, *_ACCOUNT), share=6),
    Target("usage", check_usage, (*_JSON, *_USAGE), share=15),
    Target("json_text", check_json_text, _JSON, share=15),
)
