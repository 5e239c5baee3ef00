"""Facts about Graph, the app and its callback -> findings. Pure.

It asks nobody. Invariant: what follows from another finding alone is not red a second time: with a refused app token
nothing is said of the app's webhook, and nothing of a signature made with the same secret.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from worker.doctor.facts import CallbackFacts, MetaFacts, RowsFacts
from worker.doctor.findings import (
    Finding,
    Unknown,
    fail,
    none_checked,
    not_checked,
    ok,
    set_webhook,
    span,
    warn,
)
from worker.errors import Blocked, LeadSyncError, Throttled, Unreadable
from worker.graph.account import LEADGEN, AppSubscription
from worker.handshaking import Trouble
from worker.health import EXPIRES_SOON, REMEDIES
from worker.settings import GRAPH_VERSION
from worker.steps import answered

CLOCK_WARN, CLOCK_FAIL = 30.0, 300.0
"""Seconds. Date headers have whole seconds; a timestamped proof holds five minutes.
https://developers.facebook.com/docs/graph-api/guides/secure-requests"""

META: Final = tuple(f"meta.{each}" for each in ("version", "clock", "app_token", "webhook"))
CALLBACK: Final = ("meta.handshake", "meta.delivery")
_SET_WEBHOOK: Final = "leadsync connect --only webhook"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def is_app_refused(facts: MetaFacts | Unknown) -> bool:
    """Whether Meta refuses the app's own token."""
    return isinstance(facts, MetaFacts) and isinstance(facts.app, Blocked | Unreadable)


def of_meta(
    facts: MetaFacts | Unknown, *, version: str, webhook_url: str, is_asked: bool
) -> Iterator[Finding]:
    """All about Graph and the app. `version` is the one asked for."""
    if isinstance(facts, Unknown):
        yield _unreached(facts.why) if is_asked else not_checked("meta.reachable", facts.why)
        yield from none_checked(META, "Graph was not reached" if is_asked else facts.why)
        return
    yield _reachable(facts)
    yield _version(facts, version)
    yield _clock(facts)
    yield _app_token(facts)
    yield _webhook(facts, webhook_url)


def of_accounts(rows: RowsFacts | Unknown, now: datetime) -> Finding:
    """Whether the tokens of those who connected Pages still hold: Pages' tokens are derived anew from them."""
    check, remedy = (
        "meta.accounts",
        "`leadsync connect` with a new token; that of a system user does not expire",
    )
    if isinstance(rows, Unknown):
        return not_checked(check, f"Postgres tells nothing of it: {rows.why}")
    if not rows.accounts:
        return ok(check, "no account is connected; tokens come from the settings")
    if rows.accounts_refused:
        return warn(
            check, f"Meta refuses the tokens of {rows.accounts_refused} of {rows.accounts} accounts", remedy
        )
    if rows.account_ends_at is not None and rows.account_ends_at - now <= EXPIRES_SOON:
        left = span((rows.account_ends_at - now).total_seconds())
        return warn(
            check, f"the token or data access of an account that connected Pages ends in {left}", remedy
        )
    return ok(check, f"the tokens of all accounts hold ({rows.accounts})")


def of_callback(facts: CallbackFacts | Unknown, *, full: str | None) -> Iterator[Finding]:
    """All about whoever answers where the webhooks go. `full`: the check that tells why the queue takes nothing."""
    if isinstance(facts, Unknown):
        yield from none_checked(CALLBACK, facts.why)
        return
    yield _handshake(facts)
    yield _delivery(facts, full)


def _unreached(why: str) -> Finding:
    remedy = (
        "look at network, proxy and GRAPH_URL: `curl -sI https://graph.facebook.com`; leads wait meanwhile"
    )
    return fail("meta.reachable", f"Graph cannot be reached: {why}", remedy)


def _reachable(facts: MetaFacts) -> Finding:
    app = facts.app
    if isinstance(app, LeadSyncError) and not isinstance(app, Blocked | Unreadable | Throttled):
        remedy = "nothing here: leads wait and are read once Graph is well; https://metastatus.com tells more"
        return warn(
            "meta.reachable", f"Graph answers, and cannot do what it is asked ({answered(app)})", remedy
        )
    return ok("meta.reachable", "Graph answers")


def _version(facts: MetaFacts, asked: str) -> Finding:
    check = "meta.version"
    if facts.served is None:
        return not_checked(check, "Graph's answer does not tell which version it was")
    if facts.served == asked:
        return ok(check, f"{asked} is served as {asked}")
    told = f"GRAPH_VERSION is {asked}, and Graph serves {facts.served}: that one is retired or unknown"
    if asked == GRAPH_VERSION:
        return warn(check, told, "install a newer leadsync, which knows a newer version")
    return warn(check, told, f"set GRAPH_VERSION={GRAPH_VERSION} in .env, then start all of leadsync again")


def _clock(facts: MetaFacts) -> Finding:
    check = "meta.clock"
    if facts.offset is None:
        return not_checked(check, "Graph's answer has no Date")
    off = facts.offset.total_seconds()
    # The header has whole seconds, and the answer took its time.
    if abs(off) <= CLOCK_WARN:
        return ok(check, "this machine's clock agrees with Meta's")
    told = f"this machine's clock is {span(abs(off))} {'behind' if off > 0 else 'ahead of'} Meta's"
    remedy = "set the clock by NTP: `timedatectl set-ntp true`, then look at `timedatectl`"
    return fail(check, told, remedy) if abs(off) >= CLOCK_FAIL else warn(check, told, remedy)


def _app_token(facts: MetaFacts) -> Finding:
    check, app = "meta.app_token", facts.app
    if isinstance(app, Unknown):
        return not_checked(check, app.why)
    if isinstance(app, Blocked | Unreadable):
        remedy = "set META_APP_ID and META_APP_SECRET to those of one app (App settings > Basic) in .env"
        return fail(check, f"Meta refuses the app's own token ({answered(app)})", remedy)
    if isinstance(app, Throttled):
        remedy = "wait: no call is made meanwhile; `leadsync budget` shows until when"
        return warn(check, f"Meta throttles the app ({answered(app)})", remedy)
    if isinstance(app, LeadSyncError):
        return not_checked(check, f"Graph does not tell now ({answered(app)})")
    return ok(check, "Meta takes the app's own token")


def _webhook(facts: MetaFacts, webhook_url: str) -> Finding:
    check, app = "meta.webhook", facts.app
    if isinstance(app, Unknown):
        return not_checked(check, app.why)
    if isinstance(app, LeadSyncError):
        return not_checked(check, "Meta did not tell of the app, see meta.app_token")
    if app is None:
        return fail(check, "the app has no webhook for Pages", _set(webhook_url, "webhook_not_set"))
    if not app.is_active:
        told = f"the webhook to {app.callback_url} is not active"
        return fail(check, told, _set(webhook_url or app.callback_url, "webhook_inactive"))
    if LEADGEN not in app.fields:
        told = f"the webhook to {app.callback_url} has the fields {', '.join(app.fields) or 'none'}"
        return fail(check, told, _set(webhook_url or app.callback_url, "webhook_without_leadgen"))
    return _address(app, webhook_url)


def _address(app: AppSubscription, webhook_url: str) -> Finding:
    check = "meta.webhook"
    if webhook_url and _same(webhook_url) != _same(app.callback_url):
        told = f"the webhook goes to {app.callback_url}, and WEBHOOK_URL is {webhook_url}"
        return warn(
            check, told, "`leadsync connect --only webhook` sets it to WEBHOOK_URL; or correct WEBHOOK_URL"
        )
    parts = urlsplit(app.callback_url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        told = f"the webhook goes to {app.callback_url}, which is not https"
        return warn(check, told, f"let the receiver be reached by https, then `{set_webhook()}`")
    return ok(check, f"leadgen goes to {app.callback_url}, active")


def _set(url: str, reason: str) -> str:
    """What to do about the app's webhook, with the address where that is known; what is wrong with it is told."""
    return REMEDIES[reason].partition(": ")[2].replace(_SET_WEBHOOK, set_webhook(url))


def _same(url: str) -> str:
    """A URL without a path means the receiver's own, as `leadsync connect` takes it."""
    return url.rstrip("/") if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/webhook"


def _handshake(facts: CallbackFacts) -> Finding:
    check, trouble = "meta.handshake", facts.handshake
    if isinstance(trouble, Unknown):
        return not_checked(check, trouble.why)
    if trouble is None:
        return ok(check, f"{facts.url} passes it, asked from this machine")
    if trouble.status == 403:
        remedy = (
            "start the receiver with the META_VERIFY_TOKEN that is set here, or set here the one that it has"
        )
        return fail(check, f"{facts.url} {trouble.told}: it has another verify token", remedy)
    return fail(check, f"{facts.url} {trouble.told}", _reach(facts.url))


def _delivery(facts: CallbackFacts, full: str | None) -> Finding:
    check, trouble = "meta.delivery", facts.delivery
    if isinstance(trouble, Unknown):
        return not_checked(check, trouble.why)
    if trouble is None:
        return ok(check, f"{facts.url} takes a signed, empty delivery")
    if trouble.status == 503 and full is not None:
        return not_checked(check, f"the receiver takes nothing now (503), see {full}")
    return fail(check, f"{facts.url} {trouble.told}", _delivery_remedy(trouble, facts.url))


def _delivery_remedy(trouble: Trouble, url: str) -> str:
    if trouble.status == 403:
        return "start the receiver with the META_APP_SECRET that is set here: it has another, and refuses Meta's too"
    if trouble.status == 503:
        return "look at the receiver's log (`queue_unavailable` says why) and at its REDIS_URL"
    return _reach(url)


def _reach(url: str) -> str:
    return (
        f"start the receiver (`leadsync up`, or `docker compose up -d receiver`) and look at proxy, DNS and"
        f" certificate: `curl -i {url}`"
    )
