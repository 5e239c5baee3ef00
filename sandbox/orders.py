"""Orders over HTTP, read: JSON body -> leads made, limits set, a run of the sender.

Bodies are checked in full before anything changes. Serving them is control.py's, carrying out a run
sender.py's.

Invariant: an order is carried out whole or raises OrderRefused.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import Final

from sandbox.deliveries import VARIANTS, Mix
from sandbox.given import OrderRefused, limit_of, number, only, share_of, texts, whole
from sandbox.parts import Sandbox
from sandbox.sender import Run
from sandbox.world import KINDS, Form, Kind, Lead

_MOST_LEADS: Final = 1_000_000


def create_leads(sandbox: Sandbox, order: Mapping[str, object], now: float) -> list[Lead]:
    """Make the leads that the order asks for, without announcing them."""
    only(order, {"count", "page", "pages", "forms", "kind", "created_time", "age_seconds", "visible_in"})
    count = whole(order, "count", 1, most=_MOST_LEADS)
    make = _maker(sandbox, order)
    return [make(number) for number in range(count)]


def set_limits(sandbox: Sandbox, order: Mapping[str, object], now: float) -> None:
    """Set limits (null: as at the start), forget calls, or pretend that some were made.

    They are a Page's and its ad account's, for all Pages unless some are named; `app_limit` is the app's.
    """
    only(order, {"page", "pages", "limit", "ads_limit", "app_limit", "reset", "used"})
    pages = _pages(sandbox, order)
    limit, ads_limit, app_limit = (limit_of(order, name) for name in ("limit", "ads_limit", "app_limit"))
    used = whole(order, "used", 0)
    meters = sandbox.graph.meters
    if "app_limit" in order:
        meters.set_app_limit(app_limit)
    if order.get("reset") is True and not order.keys() & {"page", "pages"}:
        meters.reset_shared()
    for page_id in pages:
        if "limit" in order:
            meters.set_limit(page_id, limit)
        if "ads_limit" in order:
            meters.set_ads_limit(page_id, ads_limit)
        if order.get("reset") is True:
            meters.reset(page_id)
        if used:
            meters.preset(page_id, used, now)
            sandbox.journal.pretended(page_id, used, now)


def log_range(sandbox: Sandbox, query: Mapping[str, str]) -> tuple[str | None, float]:
    """The Page whose calls are asked for (None: all) and from when on."""
    only(query, {"page", "since"})
    if "page" in query:
        _pages(sandbox, query)
    try:
        since = float(query.get("since", 0))
    except ValueError:
        since = math.nan
    if not math.isfinite(since):
        raise OrderRefused("since is a unix time")
    return query.get("page"), since


def truth_numbers(sandbox: Sandbox, query: Mapping[str, str]) -> Iterable[int]:
    """The numbers of the leads whose truth is asked for, in the order in which the world came to know them."""
    only(query, {"page", "form", "origin"})
    world = sandbox.world
    page_id, form_id, origin = (query.get(name) for name in ("page", "form", "origin"))
    if origin not in (None, "created", "historic"):
        raise OrderRefused("origin is created or historic")
    first = world.historic if origin == "created" else 0
    numbers = range(first, world.historic if origin == "historic" else len(world))
    if form_id is None and page_id is None:
        return numbers
    # By number alone, for a million leads are not made to be left out.
    ids = {
        form.form_id
        for form in world.forms
        if page_id in (None, form.page_id) and form_id in (None, form.form_id)
    }
    return (number for number in numbers if world.form_of(number).form_id in ids)


RUN_KEYS: Final = {
    "count", "page", "pages", "forms", "kind", "created_time", "age_seconds", "visible_in", "leads", "batch",
    "vary_batch", "duplicates", "reorder", "variants", "sample_pings", "updates", "other_fields",
    "changed_fields", "drop", "rate", "concurrency", "url", "secret", "seed",
}  # fmt: skip


def run_from(sandbox: Sandbox, order: Mapping[str, object]) -> Run:
    """The run that the order asks for; its leads are made while it goes."""
    only(order, RUN_KEYS)
    config = sandbox.config
    if config.subscriptions and "url" in order:
        raise OrderRefused("with subscriptions=true deliveries go to the app's callback, not to url")
    leads = _known_leads(sandbox, order)
    make: Callable[[int], Lead] = leads.__getitem__ if leads else _maker(sandbox, order)
    mix = Mix(
        count=len(leads) if leads else whole(order, "count", 1, most=_MOST_LEADS),
        duplicates=number(order, "duplicates"),
        drop=share_of(order, "drop"),
        batch=whole(order, "batch", 1),
        vary_batch=order.get("vary_batch") is True,
        reorder=order.get("reorder") is True,
        sample_pings=whole(order, "sample_pings", 0),
        updates=whole(order, "updates", 0),
        other_fields=whole(order, "other_fields", 0),
        changed_fields=whole(order, "changed_fields", 0),
        variants=_variants(order),
        seed=whole(order, "seed", config.seed),
    )
    return Run(
        mix=mix,
        make=make,
        url=str(order.get("url", config.webhook_url)),
        secret=str(order.get("secret", config.app_secret)),
        rate=number(order, "rate"),
        subscriptions=sandbox.graph.subscriptions if config.subscriptions else None,
        concurrency=max(1, whole(order, "concurrency", config.delivery_concurrency)),
    )


def _maker(sandbox: Sandbox, order: Mapping[str, object]) -> Callable[[int], Lead]:
    """ordinal -> a new lead, dealt to the order's forms in turn."""
    forms = _forms(sandbox, order)
    kind = _kind(order)
    delay = number(order, "visible_in", sandbox.config.visibility_delay)
    created_time = whole(order, "created_time", 0) or None
    age = number(order, "age_seconds")

    def make(ordinal: int) -> Lead:
        now = time.time()
        at = int(now - age) if created_time is None else created_time
        lead = sandbox.world.create(
            forms[ordinal % len(forms)], now=now, delay=delay, created_time=at, kind=kind
        )
        sandbox.journal.lead(lead.leadgen_id).created_at = now
        return lead

    return make


def _forms(sandbox: Sandbox, order: Mapping[str, object]) -> list[Form]:
    """The forms to fill, so ordered that Pages take turns; none that was archived meanwhile unless it is named."""
    if "forms" in order:
        ids = texts(order, "forms")
        unknown = [each for each in ids if each not in sandbox.world.form_by_id]
        if unknown or not ids:
            raise OrderRefused(f"no such forms: {', '.join(unknown)}")
        return [sandbox.world.form_by_id[each] for each in ids]
    world = sandbox.world
    open_forms = [
        [form for form in world.page_by_id[page_id].forms if not world.closed(form)]
        for page_id in _pages(sandbox, order)
    ]
    forms = [form for turn in zip_longest(*open_forms) for form in turn if form is not None]
    if not forms:
        raise OrderRefused("all forms of these pages are archived")
    return forms


def _pages(sandbox: Sandbox, order: Mapping[str, object]) -> list[str]:
    """The Pages that the order names, or all."""
    ids = texts(order, "pages") + texts(order, "page")
    unknown = [each for each in ids if each not in sandbox.world.page_by_id]
    if unknown:
        raise OrderRefused(f"no such pages: {', '.join(unknown)}")
    return ids or list(sandbox.world.page_by_id)


def _known_leads(sandbox: Sandbox, order: Mapping[str, object]) -> list[Lead]:
    leads = []
    for leadgen_id in texts(order, "leads"):
        lead = sandbox.world.find(leadgen_id) if leadgen_id.isascii() and leadgen_id.isdigit() else None
        if lead is None:
            raise OrderRefused(f"no such lead: {leadgen_id}")
        leads.append(lead)
    return leads


def _kind(order: Mapping[str, object]) -> Kind | None:
    given = order.get("kind")
    for kind in KINDS:
        if given == kind:
            return kind
    if given is None:
        return None
    raise OrderRefused(f"kind is one of {', '.join(KINDS)}")


def _variants(order: Mapping[str, object]) -> tuple[str, ...]:
    given = order.get("variants", False)
    if isinstance(given, bool):
        return VARIANTS if given else VARIANTS[:1]
    names = tuple(texts(order, "variants"))
    if not names or not set(names) <= set(VARIANTS):
        raise OrderRefused(f"variants is true, false or a list of {', '.join(VARIANTS)}")
    return names
