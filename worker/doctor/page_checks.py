"""Facts about a Page -> findings. Pure; how its token, subscription and webhooks are is health.py's judgement.

It asks nobody. Invariant: what follows from another finding of the same Page alone is not red a second time: with a
refused token nothing is said of what the token would have shown, with a missing scope nothing of what needs it.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from worker.doctor.facts import PageFacts, PageRows, PageTold
from worker.doctor.findings import Finding, Unknown, ago, fail, none_checked, not_checked, ok, span, warn
from worker.errors import Blocked, ProofRefused
from worker.graph.account import TokenFacts
from worker.health import (
    BY_HAND,
    DISCONNECTED,
    EXPIRING,
    MISSING,
    NO_FORM,
    OK,
    REFUSED,
    SILENT,
    Health,
    judge,
    remedy,
)
from worker.scopes import PURPOSES, scopes_without, with_purposes
from worker.steps import answered

CRITICAL_SCOPES: Final = ("leads_retrieval", "pages_manage_metadata", "pages_manage_ads")
"""Without these leads are not read, not announced, or not reconciled."""
OVERDUE: Final = 300.0
LONG_WAIT: Final = 3_600.0
BY_ORDER: Final = (BY_HAND, DISCONNECTED)

TOLD: Final = tuple(
    f"page.{each}" for each in ("token", "scopes", "subscription", "lead_access", "forms", "webhooks")
)
ROWS: Final = tuple(f"page.{each}" for each in ("parked", "waiting", "dead_letters", "gaps"))


def of_page(facts: PageFacts, now: datetime, *, app_refused: bool) -> Iterator[Finding]:
    """All about a Page. `app_refused`: Meta refuses the app's own token, so of a refused proof it is told there."""
    page_id = facts.page_id
    if isinstance(facts.told, Unknown):
        yield from none_checked(TOLD, facts.told.why, page_id)
    elif app_refused and isinstance(facts.told.health.refusal, ProofRefused):
        yield from none_checked(TOLD, "META_APP_SECRET is refused, see meta.app_token", page_id)
    else:
        yield from _told(facts.told, page_id, now, app_refused=app_refused)
    if isinstance(facts.rows, Unknown):
        yield from none_checked(ROWS, facts.rows.why, page_id)
        return
    yield _parked(facts.rows, page_id, now)
    yield _waiting(facts.rows, page_id, now)
    yield _dead(facts.rows, page_id)
    yield _gaps(facts.rows, page_id)


def _told(told: PageTold, page_id: str, now: datetime, *, app_refused: bool) -> Iterator[Finding]:
    health = judge(told.health)
    yield _token(health, told, page_id, now)
    if health.token.word == REFUSED:
        yield from none_checked(TOLD[1:-1], "its token is refused", page_id)
    else:
        lacking = _lacking(told, page_id)
        yield _scopes(told, lacking, page_id)
        if app_refused:
            yield not_checked("page.subscription", "META_APP_ID may be wrong, see meta.app_token", page_id)
        else:
            yield _subscription(health, lacking, page_id)
        yield _lead_access(health, told, lacking, page_id)
        yield _forms(told, lacking, page_id)
    yield _webhooks(health, told, page_id, now)


def _token(health: Health, told: PageTold, page_id: str, now: datetime) -> Finding:
    check, verdict = "page.token", health.token
    if verdict.word == REFUSED:
        why = f"{_words(verdict.reason)}{_codes(told)}"
        return fail(check, f"it cannot be used: {why}", _do(verdict.reason, page_id), page_id)
    if verdict.word == EXPIRING:
        ends = health.token_expires_at if verdict.reason == "expires_soon" else health.data_access_expires_at
        left = span((ends - now).total_seconds()) if ends else "days"
        what = "it expires" if verdict.reason == "expires_soon" else "its data access ends"
        return warn(check, f"{what} in {left}", _do(verdict.reason, page_id), page_id)
    if verdict.word == OK:
        until = f"until {health.token_expires_at:%Y-%m-%d}" if health.token_expires_at else "for ever"
        known = isinstance(told.health.token, TokenFacts)
        return ok(check, f"valid {until}" if known else "its calls are answered", page_id)
    return not_checked(check, f"Meta does not tell now ({_words(verdict.reason)})", page_id)


def _codes(told: PageTold) -> str:
    token = told.health.token
    if not isinstance(token, TokenFacts) or token.code is None:
        return ""
    return f" (code {token.code}{f', subcode {token.subcode}' if token.subcode else ''})"


def _lacking(told: PageTold, page_id: str) -> tuple[str, ...] | None:
    """Scopes that the token lacks for this Page; None where that is not known."""
    token = told.health.token
    if not isinstance(token, TokenFacts) or not token.is_valid:
        return None
    without = scopes_without(token, page_id)
    return tuple(scope for scope in PURPOSES if scope not in token.scopes or scope in without)


def _scopes(told: PageTold, lacking: tuple[str, ...] | None, page_id: str) -> Finding:
    check = "page.scopes"
    if lacking is None:
        why = "META_APP_ID is not set" if not told.health.has_app else "Meta does not tell now"
        return not_checked(check, why, page_id)
    if not lacking:
        return ok(check, "all that are needed are granted for this Page", page_id)
    to_do = (
        f"make a token with them for this Page and run `leadsync connect --page {page_id}` (docs/connect.md)"
    )
    told_ = f"missing for this Page: {with_purposes(lacking)}"
    build = fail if set(lacking) & set(CRITICAL_SCOPES) else warn
    return build(check, told_, to_do, page_id)


def _subscription(health: Health, lacking: tuple[str, ...] | None, page_id: str) -> Finding:
    check, verdict = "page.subscription", health.subscription
    if verdict.word == OK:
        return ok(check, "its leads are announced to the app", page_id)
    if verdict.word == MISSING:
        why = (
            "the app is not installed on it" if verdict.reason == "app_not_installed" else "it lacks leadgen"
        )
        return fail(check, why, _do(verdict.reason, page_id), page_id)
    if "pages_manage_metadata" in (lacking or ()):
        return not_checked(check, "that needs pages_manage_metadata", page_id)
    if verdict.reason == "permission_refused":
        return fail(check, "Meta does not let the token see it", _do(verdict.reason, page_id), page_id)
    return not_checked(check, _words(verdict.reason), page_id)


def _lead_access(health: Health, told: PageTold, lacking: tuple[str, ...] | None, page_id: str) -> Finding:
    check, verdict = "page.lead_access", health.lead_access
    if verdict.word == OK:
        return ok(check, "its leads can be listed", page_id)
    needed = [scope for scope in ("leads_retrieval", "pages_manage_ads") if scope in (lacking or ())]
    if needed:
        return not_checked(check, f"that needs {needed[0]}", page_id)
    if verdict.word == REFUSED:
        return fail(check, "Meta refuses its leads", _do(verdict.reason, page_id), page_id)
    if verdict.reason == NO_FORM:
        return not_checked(
            check, "it has no form" if told.forms == 0 else "its forms could not be listed", page_id
        )
    return not_checked(check, _words(verdict.reason), page_id)


def _forms(told: PageTold, lacking: tuple[str, ...] | None, page_id: str) -> Finding:
    check, forms = "page.forms", told.forms
    if isinstance(forms, int):
        return ok(check, f"{forms} readable" if forms else "it has none yet", page_id)
    if "pages_manage_ads" in (lacking or ()):
        return not_checked(check, "that needs pages_manage_ads", page_id)
    if isinstance(forms, Blocked):
        to_do = f"grant pages_manage_ads for this Page, then `leadsync connect --page {page_id}`"
        return fail(check, f"Meta refuses to list them ({answered(forms)})", to_do, page_id)
    return not_checked(check, answered(forms) if forms else "nobody asked", page_id)


def _webhooks(health: Health, told: PageTold, page_id: str, now: datetime) -> Finding:
    check, verdict, last = "page.webhooks", health.webhooks, told.health.last_webhook
    when = f"the last came {ago((now - last).total_seconds())}" if last else "none ever came"
    if verdict.word == SILENT:
        to_do = f"see meta.webhook, meta.handshake and page.subscription; then `leadsync test-lead --page {page_id}`"
        return fail(check, f"leads come of which no webhook tells; {when}", to_do, page_id)
    if verdict.word == OK:
        return ok(check, f"leads are announced; {when}", page_id)
    return not_checked(check, "no lead came lately that would tell", page_id)


def _parked(rows: PageRows, page_id: str, now: datetime) -> Finding:
    check = "page.parked"
    if rows.parked_at is None:
        return ok(check, "it is not parked", page_id)
    told = f"parked {ago((now - rows.parked_at).total_seconds())}: {_words(rows.parked_reason)}"
    build = warn if rows.parked_reason in BY_ORDER else fail
    to_do = remedy(rows.parked_reason, page_id) or f"`leadsync pages show {page_id}`"
    return build(check, told, to_do, page_id)


def _waiting(rows: PageRows, page_id: str, now: datetime) -> Finding:
    check = "page.waiting"
    if not rows.waiting or rows.waiting_since is None:
        return ok(check, "no lead waits", page_id)
    age = (now - rows.waiting_since).total_seconds()
    told = f"{rows.waiting:,} wait, the oldest for {span(age)}, most for: {_words(rows.waiting_for)}"
    if rows.parked_at is not None:
        return ok(check, f"{told}; until the Page is taken up again", page_id)
    if rows.held_until is not None and rows.held_until > now:
        told += f"; no call before {rows.held_until:%m-%d %H:%M} UTC ({_words(rows.held_reason)})"
        return warn(check, told, "`leadsync budget` shows what was spent on what", page_id)
    if rows.overdue_since is not None and (late := (now - rows.overdue_since).total_seconds()) > OVERDUE:
        to_do = "look at work.worker_upkeep and work.schedule: nobody reads what waits"
        return fail(check, f"{told}; overdue for {span(late)}", to_do, page_id)
    if age > LONG_WAIT:
        return warn(
            check, told, f"`leadsync pages show {page_id}`; `leadsync trace LEAD` tells of one lead", page_id
        )
    return ok(check, told, page_id)


def _dead(rows: PageRows, page_id: str) -> Finding:
    check = "page.dead_letters"
    if not rows.dead_lately:
        return ok(check, f"none lately, {rows.dead:,} older" if rows.dead else "none", page_id)
    told = f"{rows.dead_lately:,} in the last 7 days, most of: {_words(rows.dead_of)}"
    to_do = (
        f"`leadsync dead-letters list --page {page_id}`; mend the reason, then `leadsync dead-letters replay`"
    )
    return warn(check, told, to_do, page_id)


def _gaps(rows: PageRows, page_id: str) -> Finding:
    check = "page.gaps"
    if not rows.unexplained:
        return ok(check, "reconciling left none", page_id)
    told = f"{rows.unexplained:,} leads that Meta lists are not stored, over {rows.gap_days} days"
    return warn(check, told, f"`leadsync reconcile --page {page_id} --days 90`", page_id)


def _words(reason: str | None) -> str:
    return (reason or "not known").replace("_", " ")


def _do(reason: str | None, page_id: str) -> str:
    return remedy(reason, page_id) or f"`leadsync pages show {page_id}`"
