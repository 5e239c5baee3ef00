"""What a check found out about a Page -> how it is, aspect by aspect, and what of that is news. Pure.

    Facts -> Health (token, subscription, lead access, webhooks) -> Change, and whether a parked Page is taken up

It asks nobody (probing.py does) and keeps nothing (store/health.py does). Invariants: each aspect is one fixed word
and its reason another; not knowing is never news, so that a Graph that is away for an hour raises no alarm; nothing
here holds a token, an answer or a name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.errors import LeadSyncError, NotVisibleYet, PermissionRefused, ProofRefused, TokenRefused
from worker.graph.account import LEADGEN, AppSubscription, TokenFacts

OK: Final = "ok"
UNKNOWN: Final = "unknown"
REFUSED: Final = "refused"
EXPIRING: Final = "expiring"
MISSING: Final = "missing"
APP_MISSING: Final = "app_missing"
SILENT: Final = "silent"

ASPECTS: Final = ("token", "subscription", "lead_access", "webhooks")
PAGE: Final = "page"
"""The aspect under which parking is told; OPEN and PARKED are its words."""
OPEN: Final = "open"
PARKED: Final = "parked"

EXPIRES_SOON: Final = timedelta(days=7)
UNANNOUNCED_AFTER: Final = timedelta(hours=1)
"""A lead of which no webhook came by then. Meta speaks of minutes.
https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving"""
UNANNOUNCED_LEADS: Final = 3
"""So many of them need not be so old."""
SKEW: Final = timedelta(minutes=1)
"""Meta's clock and ours."""
NEEDED_SCOPES: Final = ("leads_retrieval", "pages_manage_metadata")
"""Without these nothing is read, or announced."""

BY_HAND: Final = "by_hand"
DISCONNECTED: Final = "disconnected"
BY_ORDER: Final = (BY_HAND, DISCONNECTED)
"""Reasons for parking that are an operator's will: such a Page never heals by itself."""
LEAD_ACCESS_REFUSED: Final = "lead_access_refused"
APP_ID_NOT_SET: Final = "app_id_not_set"
OF_ANOTHER_PAGE: Final = "of_another_page"
BY_CALLS: Final = "judged_by_calls"
ACCOUNT_REFUSED: Final = "account_refused"
NO_FORM: Final = "no_form"
FORM_GONE: Final = "form_gone"

# https://developers.facebook.com/docs/graph-api/guides/error-handling
_SUBCODES: Final = {
    458: "app_removed",
    459: "checkpointed",
    460: "password_changed",
    463: "expired",
    464: "unconfirmed",
    467: "session_ended",
    492: "role_lost",
}
_ROW_REASONS: Final = ("permission_refused", LEAD_ACCESS_REFUSED)
_ROW_REASON_PREFIX: Final = "mass_"
_PLACE: Final = re.compile(r"\bPAGE\b")
"""In a remedy, where the Page's id goes; PAGE_TOKENS is a setting."""

REMEDIES: Final = {
    "token_missing": "Connect the Page: `leadsync connect --page PAGE`, or add its token to PAGE_TOKENS.",
    "token_locked": "Put the key that sealed its token back (TOKEN_KEYS), or connect the Page again.",
    "token_refused": "Connect the Page again: `leadsync connect --page PAGE`.",
    "app_removed": "The person removed the app and has to log in again: `leadsync connect`.",
    "checkpointed": "Meta stopped the person's account. They log in at facebook.com; then `leadsync connect`.",
    "password_changed": "The person changed their password. Connect again: `leadsync connect`.",
    "expired": "The token expired. Connect again: `leadsync connect`; a system user's token does not expire.",
    "unconfirmed": "The person has to confirm their account at facebook.com; then `leadsync connect`.",
    "session_ended": "The person logged out. Connect again: `leadsync connect`.",
    "role_lost": "The person lost their role on the Page. Give it back in Meta Business Suite, or connect as another.",
    ACCOUNT_REFUSED: "The token of the account that connected the Page is refused too: `leadsync connect`.",
    OF_ANOTHER_PAGE: "It is another Page's token: correct PAGE_TOKENS, or `leadsync connect --page PAGE`.",
    "proof_refused": "META_APP_SECRET is not that of the token's app: correct it, or connect again.",
    "expires_soon": "Connect again before the token expires: `leadsync connect`.",
    "data_access_ends_soon": "The person has to log in again before their data access ends: `leadsync connect`.",
    "scopes_missing": "Connect again and grant what is missing: `leadsync connect` names each permission.",
    APP_ID_NOT_SET: "Set META_APP_ID, so that Meta can be asked about token and subscription.",
    "app_not_installed": "Install the app on the Page: `leadsync connect --page PAGE`.",
    "field_missing": "Subscribe the Page to leadgen: `leadsync connect --page PAGE`.",
    "permission_refused": "The token may not do this: grant leads_retrieval and pages_manage_metadata, connect again.",
    "webhook_not_set": "The app has no webhook for Pages: `leadsync connect --only webhook`.",
    "webhook_inactive": "Meta switched the webhook off: check the receiver, then `leadsync connect --only webhook`.",
    "webhook_without_leadgen": "The app's webhook lacks leadgen: `leadsync connect --only webhook`.",
    LEAD_ACCESS_REFUSED: "Give the app lead access: Business Settings > Integrations > Leads access > CRMs.",
    "not_announced": "Leads come and no webhook tells of them: check the receiver's address, TLS and app mode (Live).",
    BY_HAND: "Parked by hand: `leadsync pages unpark PAGE`.",
    DISCONNECTED: "Disconnected by hand: `leadsync connect --page PAGE`.",
}
"""What to do about a reason, in words; reasons that pass by themselves have none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a check found out. An error stands where the answer would have been, None where nobody asked.

    `token` is Meta's own word on it, `refusal` why the Page's own calls were refused, or why there is no token;
    `answered`: some call of the Page's own was answered. `subscribed`: the fields of our app on the Page, empty where
    it is not installed; `set_again`: they were, by this check. `webhook`: the app's own subscription. `listed_time`: of
    a lead in a form's listing, `listing` the error instead; `form_shows`: the form itself can be read. `rows`: what a
    few waiting leads gave, None for one that was read. `unannounced`, `oldest`: leads that only reconciling found,
    created after `last_webhook`.
    """

    now: datetime
    page_id: str
    has_app: bool
    token: TokenFacts | LeadSyncError | None = None
    refusal: LeadSyncError | None = None
    account_refused: bool = False
    answered: bool = False
    subscribed: tuple[str, ...] | LeadSyncError | None = None
    is_installed: bool = True
    set_again: bool = False
    webhook: AppSubscription | LeadSyncError | None = None
    webhook_asked: bool = False
    has_form: bool = False
    listing: LeadSyncError | None = None
    was_listed: bool = False
    listed_time: datetime | None = None
    form_shows: bool = False
    can_access: bool | None = None
    rows: tuple[LeadSyncError | None, ...] = ()
    last_webhook: datetime | None = None
    unannounced: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one aspect is, and why."""

    word: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How a Page is."""

    token: Verdict
    subscription: Verdict
    lead_access: Verdict
    webhooks: Verdict
    token_expires_at: datetime | None = None
    data_access_expires_at: datetime | None = None
    missing_scopes: tuple[str, ...] = ()

    def aspect(self, name: str) -> Verdict:
        """One of ASPECTS."""
        verdict: Verdict = getattr(self, name)
        return verdict


@dataclass(frozen=True, slots=True)
class Change:
    """An aspect that is no longer what it was. `is_told`: an alert goes out, not only a line in the log."""

    aspect: str
    was: str
    became: str
    reason: str | None
    is_told: bool


def judge(facts: Facts) -> Health:
    """How the Page is, by these facts."""
    told = facts.token if isinstance(facts.token, TokenFacts) else None
    missing = _missing_scopes(told, facts.page_id)
    return Health(
        token=_token(facts, told, missing),
        subscription=_subscription(facts),
        lead_access=_lead_access(facts),
        webhooks=_webhooks(facts),
        token_expires_at=told.expires_at if told else None,
        data_access_expires_at=told.data_access_expires_at if told else None,
        missing_scopes=missing,
    )


def changes(known: Mapping[str, str], health: Health, *, parked: bool) -> tuple[Change, ...]:
    """What is news. `known`: the last word that was told of each aspect; of one not told of, all was well.

    A refused token or access parks its Page, and that is the alarm; of a parked Page nothing else is told of them but
    that its token expires soon.
    """
    news = []
    for aspect in ASPECTS:
        verdict, was = health.aspect(aspect), known.get(aspect, OK)
        if verdict.word not in (UNKNOWN, was):
            by_parking = aspect in ("token", "lead_access") and (parked or REFUSED in (verdict.word, was))
            quiet = by_parking and verdict.word != EXPIRING
            news.append(Change(aspect, was, verdict.word, verdict.reason, not quiet))
    return tuple(news)


def parks_for(health: Health) -> str | None:
    """The reason for which such a Page is parked, or None."""
    if health.token.word == REFUSED:
        return "proof_refused" if health.token.reason == "proof_refused" else TokenRefused.reason
    return LEAD_ACCESS_REFUSED if health.lead_access.word == REFUSED else None


def has_healed(facts: Facts, health: Health, parked_reason: str) -> bool:
    """Whether a Page that was parked for this reason is taken up again. One parked by order is not asked about."""
    if health.token.word == REFUSED or not facts.answered or health.lead_access.word == REFUSED:
        return False
    if _is_of_rows(parked_reason) and facts.rows:
        # Its listings may well be open to us: only a lead like those that were refused tells.
        return any(error is None for error in facts.rows)
    if health.lead_access.word == OK or health.lead_access.reason == NO_FORM:
        return True
    # The token is good, and that is what the Page was parked for.
    return health.lead_access.reason == FORM_GONE and not _is_of_rows(parked_reason)


def asks_for_rows(parked_reason: str | None, *, has_form: bool) -> bool:
    """Whether a few waiting leads have to be read to know how a parked Page is."""
    return parked_reason is not None and (_is_of_rows(parked_reason) or not has_form)


def remedy(reason: str | None, page_id: str) -> str | None:
    """What to do about it, in words."""
    if reason is not None and reason.startswith(_ROW_REASON_PREFIX):
        return "Many leads died of one reason: `leadsync dead-letters list --page " + page_id + "`."
    found = REMEDIES.get(reason or "")
    return _PLACE.sub(page_id, found) if found else None


def _is_of_rows(parked_reason: str) -> bool:
    return parked_reason in _ROW_REASONS or parked_reason.startswith(_ROW_REASON_PREFIX)


def _missing_scopes(told: TokenFacts | None, page_id: str) -> tuple[str, ...]:
    if told is None or not told.is_valid:
        return ()
    return tuple(
        scope
        for scope in NEEDED_SCOPES
        if scope not in told.scopes or (scope in told.targets and page_id not in told.targets[scope])
    )


def _token(facts: Facts, told: TokenFacts | None, missing: tuple[str, ...]) -> Verdict:
    # Where the Page's calls are answered the token is good, whatever else is said of it.
    if facts.refusal is not None or (told is not None and not told.is_valid and not facts.answered):
        return Verdict(REFUSED, _refusal(facts, told))
    if told is not None and told.is_valid:
        # Its calls are answered: with other refusals than that of a token.
        if told.kind == "PAGE" and told.profile_id not in (None, facts.page_id) and not facts.was_listed:
            return Verdict(REFUSED, OF_ANOTHER_PAGE)
        if _is_soon(told.expires_at, facts.now):
            return Verdict(EXPIRING, "expires_soon")
        if _is_soon(told.data_access_expires_at, facts.now):
            return Verdict(EXPIRING, "data_access_ends_soon")
        return Verdict(OK, "scopes_missing" if missing else None)
    if facts.answered:
        return Verdict(OK, BY_CALLS)
    return Verdict(UNKNOWN, facts.token.reason if isinstance(facts.token, LeadSyncError) else "not_asked")


def _refusal(facts: Facts, told: TokenFacts | None) -> str:
    if told is not None and told.subcode in _SUBCODES:
        return _SUBCODES[told.subcode]
    if isinstance(facts.refusal, ProofRefused):
        return facts.refusal.reason
    if facts.account_refused:
        return ACCOUNT_REFUSED
    return facts.refusal.reason if facts.refusal is not None else TokenRefused.reason


def _is_soon(at: datetime | None, now: datetime) -> bool:
    return at is not None and at - now <= EXPIRES_SOON


def _subscription(facts: Facts) -> Verdict:
    if not facts.has_app:
        return Verdict(UNKNOWN, APP_ID_NOT_SET)
    if isinstance(facts.subscribed, LeadSyncError) or facts.subscribed is None:
        return Verdict(UNKNOWN, facts.subscribed.reason if facts.subscribed else "not_asked")
    if LEADGEN not in facts.subscribed:
        return Verdict(MISSING, "field_missing" if facts.is_installed else "app_not_installed")
    if facts.webhook_asked and (of_app := _webhook(facts.webhook)).word == APP_MISSING:
        return of_app
    return Verdict(OK, "set_again" if facts.set_again else None)


def _webhook(webhook: AppSubscription | LeadSyncError | None) -> Verdict:
    """The Page is subscribed; is the app?"""
    if isinstance(webhook, LeadSyncError):
        return Verdict(OK)
    if webhook is None:
        return Verdict(APP_MISSING, "webhook_not_set")
    if not webhook.is_active:
        return Verdict(APP_MISSING, "webhook_inactive")
    return Verdict(OK) if LEADGEN in webhook.fields else Verdict(APP_MISSING, "webhook_without_leadgen")


def _lead_access(facts: Facts) -> Verdict:
    if any(error is None for error in facts.rows) or facts.was_listed:
        return Verdict(OK)
    if facts.can_access is False:
        return Verdict(REFUSED, LEAD_ACCESS_REFUSED)
    error = facts.listing
    if isinstance(error, PermissionRefused):
        return Verdict(REFUSED, LEAD_ACCESS_REFUSED)
    if isinstance(error, NotVisibleYet):
        # The third wording of a refusal, unless the form itself is gone.
        if facts.form_shows and facts.can_access is None:
            return Verdict(REFUSED, LEAD_ACCESS_REFUSED)
        return Verdict(UNKNOWN, FORM_GONE)
    if error is not None:
        return Verdict(UNKNOWN, error.reason)
    if any(isinstance(row, PermissionRefused) for row in facts.rows):
        return Verdict(REFUSED, LEAD_ACCESS_REFUSED)
    return Verdict(UNKNOWN, "not_asked" if facts.has_form else NO_FORM)


def _webhooks(facts: Facts) -> Verdict:
    last, now = facts.last_webhook, facts.now
    unannounced, oldest = facts.unannounced, facts.oldest
    listed = facts.listed_time
    if listed is not None and now - listed <= timedelta(days=1) and (last is None or listed > last + SKEW):
        unannounced, oldest = max(unannounced, 1), min(oldest or listed, listed)
    if unannounced and oldest is not None:
        if unannounced >= UNANNOUNCED_LEADS or now - oldest >= UNANNOUNCED_AFTER:
            return Verdict(SILENT, "not_announced")
        return Verdict(UNKNOWN, "too_soon")
    return Verdict(OK) if last is not None else Verdict(UNKNOWN, "no_lead_lately")
