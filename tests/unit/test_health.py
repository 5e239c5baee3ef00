"""What a check found out -> how the Page is and what of it is news. Pure: no clock, no socket."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.leads import PAGE
from tests.fakes.time import NOW
from worker.errors import (
    GraphUnavailable,
    LeadSyncError,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    TokenRefused,
)
from worker.graph.account import AppSubscription, TokenFacts
from worker.health import (
    ASPECTS,
    EXPIRES_SOON,
    REMEDIES,
    UNANNOUNCED_AFTER,
    Facts,
    Health,
    Verdict,
    asks_for_rows,
    changes,
    has_healed,
    judge,
    parks_for,
    remedy,
)

SCOPES = ("leads_retrieval", "pages_manage_metadata")
GOOD = TokenFacts("1", "PAGE", "2", PAGE, True, None, None, SCOPES)
WEBHOOK = AppSubscription("page", "https://x", True, ("leadgen",))
WELL = Facts(
    NOW, PAGE, True, token=GOOD, answered=True, subscribed=("leadgen",), webhook=WEBHOOK, webhook_asked=True,
    has_form=True, was_listed=True, listed_time=NOW - timedelta(hours=3), last_webhook=NOW - timedelta(hours=2),
)  # fmt: skip


def told(error: type[LeadSyncError]) -> LeadSyncError:
    return error("told")


def judged(**changed: Any) -> Health:
    return judge(replace(WELL, **changed))


def test_a_page_that_is_well() -> None:
    """Every aspect is ok, nothing is parked, nothing is news."""
    health = judge(WELL)
    assert {health.aspect(each).word for each in ASPECTS} == {"ok"}
    assert parks_for(health) is None
    assert changes({}, health, parked=False) == ()


@pytest.mark.parametrize(
    ("subcode", "reason"),
    [(458, "app_removed"), (459, "checkpointed"), (460, "password_changed"), (463, "expired"), (464, "unconfirmed"),
     (467, "session_ended"), (492, "role_lost"), (None, "token_refused")],
)  # fmt: skip
def test_a_refused_token_says_why(subcode: int | None, reason: str) -> None:
    """By Meta's own word on it; there is a remedy for each, and the Page is parked."""
    dead = replace(GOOD, is_valid=False, subcode=subcode)
    health = judged(token=dead, refusal=told(TokenRefused), answered=False)
    assert health.token == Verdict("refused", reason)
    assert parks_for(health) == "token_refused"
    assert remedy(reason, PAGE)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"token": replace(GOOD, expires_at=NOW + EXPIRES_SOON)}, Verdict("expiring", "expires_soon")),
        ({"token": replace(GOOD, expires_at=NOW + EXPIRES_SOON * 2)}, Verdict("ok")),
        (
            {"token": replace(GOOD, data_access_expires_at=NOW)},
            Verdict("expiring", "data_access_ends_soon"),
        ),
        ({"token": replace(GOOD, scopes=("leads_retrieval",))}, Verdict("ok", "scopes_missing")),
        ({"token": replace(GOOD, targets={"leads_retrieval": ("9",)})}, Verdict("ok", "scopes_missing")),
        ({"token": None}, Verdict("ok", "judged_by_calls")),
        ({"token": told(GraphUnavailable), "answered": False}, Verdict("unknown", "graph_unavailable")),
        ({"token": replace(GOOD, is_valid=False)}, Verdict("ok", "judged_by_calls")),
        ({"token": None, "refusal": told(ProofRefused)}, Verdict("refused", "proof_refused")),
        (
            {"token": None, "refusal": told(TokenRefused), "account_refused": True},
            Verdict("refused", "account_refused"),
        ),
    ],
)
def test_the_token(changed: dict[str, Any], verdict: Verdict) -> None:
    """Its end is told a week ahead; where Meta is not asked, or says otherwise, the Page's own calls tell."""
    assert judged(**changed).token == verdict


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"has_app": False}, Verdict("unknown", "app_id_not_set")),
        ({"subscribed": told(GraphUnavailable)}, Verdict("unknown", "graph_unavailable")),
        ({"subscribed": ("feed",)}, Verdict("missing", "field_missing")),
        ({"subscribed": (), "is_installed": False}, Verdict("missing", "app_not_installed")),
        ({"webhook": None}, Verdict("app_missing", "webhook_not_set")),
        ({"webhook": replace(WEBHOOK, is_active=False)}, Verdict("app_missing", "webhook_inactive")),
        ({"webhook": replace(WEBHOOK, fields=("feed",))}, Verdict("app_missing", "webhook_without_leadgen")),
        ({"webhook": told(GraphUnavailable)}, Verdict("ok")),
        ({"set_again": True}, Verdict("ok", "set_again")),
    ],
)
def test_the_subscription(changed: dict[str, Any], verdict: Verdict) -> None:
    """The Page must be subscribed, and the app itself too; an app that could not be asked about accuses nobody."""
    assert judged(**changed).subscription == verdict


REFUSED = Verdict("refused", "lead_access_refused")


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"listing": told(PermissionRefused)}, REFUSED),
        ({"listing": told(NotVisibleYet), "form_shows": True}, REFUSED),
        ({"listing": told(NotVisibleYet), "can_access": False}, REFUSED),
        ({"listing": told(NotVisibleYet)}, Verdict("unknown", "form_gone")),
        (
            {"listing": told(NotVisibleYet), "form_shows": True, "can_access": True},
            Verdict("unknown", "form_gone"),
        ),
        ({"listing": told(GraphUnavailable)}, Verdict("unknown", "graph_unavailable")),
        ({"has_form": False}, Verdict("unknown", "no_form")),
        ({"has_form": False, "rows": (told(PermissionRefused),)}, REFUSED),
        ({"has_form": False, "rows": (told(NotVisibleYet),)}, Verdict("unknown", "no_form")),
        ({"has_form": False, "rows": (told(NotVisibleYet), None)}, Verdict("ok")),
    ],
)
def test_lead_access(changed: dict[str, Any], verdict: Verdict) -> None:
    """A refusal worded as a thing that is not there is told from a form that is gone."""
    assert judged(was_listed=False, **changed).lead_access == verdict


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"unannounced": 1, "oldest": NOW - UNANNOUNCED_AFTER}, "silent"),
        ({"unannounced": 1, "oldest": NOW - UNANNOUNCED_AFTER / 2}, "unknown"),
        ({"unannounced": 3, "oldest": NOW - UNANNOUNCED_AFTER / 2}, "silent"),
        ({"last_webhook": NOW - timedelta(hours=5)}, "silent"),
        ({"last_webhook": None}, "silent"),
        ({"last_webhook": None, "listed_time": None}, "unknown"),
        ({"last_webhook": None, "listed_time": NOW - timedelta(days=9)}, "unknown"),
    ],
)
def test_webhooks(changed: dict[str, Any], word: str) -> None:
    """Leads that came, and of which no webhook told, are silence; no leads are not."""
    assert judged(**changed).webhooks.word == word


def test_not_knowing_is_no_news() -> None:
    """A Graph that is away tells nothing, and what is known already is not told again."""
    away = judged(token=told(GraphUnavailable), answered=False, subscribed=told(GraphUnavailable))
    assert changes({"token": "expiring", "subscription": "missing"}, away, parked=False) == ()
    missing = judged(subscribed=("feed",))
    (change,) = changes({}, missing, parked=False)
    assert (change.aspect, change.was, change.became, change.is_told) == (
        "subscription",
        "ok",
        "missing",
        True,
    )
    assert changes({"subscription": "missing"}, missing, parked=False) == ()


def test_a_refused_token_is_one_alarm() -> None:
    """Its Page is parked, and that is told; that it is refused, or good again, is noted only."""
    refused = judged(token=None, refusal=told(TokenRefused), answered=False)
    assert [change.is_told for change in changes({}, refused, parked=True)] == [False]
    assert [change.is_told for change in changes({"token": "refused"}, judge(WELL), parked=True)] == [False]


def test_the_token_of_another_page_is_told_as_such() -> None:
    """Two lines of PAGE_TOKENS were swapped: it is not the leads' access that is wrong. It parks, and heals."""
    swapped = {
        "token": replace(GOOD, profile_id="71"),
        "was_listed": False,
        "listing": told(PermissionRefused),
    }
    health = judged(**swapped)
    assert (health.token, parks_for(health)) == (Verdict("refused", "of_another_page"), "token_refused")
    assert not has_healed(replace(WELL, **swapped), health, "token_refused")
    assert judged(token=replace(GOOD, profile_id=None)).token.word == "ok"
    assert (
        judged(token=replace(GOOD, profile_id="71")).token.word == "ok"
    )  # its leads are listed all the same


def test_a_new_token_that_expires_soon_is_told() -> None:
    """Also where the one before was refused, or its Page still parked: nothing else tells of it."""
    soon = judged(token=replace(GOOD, expires_at=NOW + timedelta(days=2)))
    for parked in (True, False):
        (change,) = changes({"token": "refused"}, soon, parked=parked)
        assert (change.became, change.is_told) == ("expiring", True)


@pytest.mark.parametrize(
    ("reason", "changed", "healed"),
    [
        ("token_refused", {}, True),
        ("token_refused", {"answered": False}, False),
        ("token_refused", {"refusal": told(TokenRefused)}, False),
        ("token_refused", {"was_listed": False, "listing": told(GraphUnavailable)}, False),
        ("token_refused", {"was_listed": False, "has_form": False}, True),
        ("token_refused", {"was_listed": False, "listing": told(PermissionRefused)}, False),
        ("permission_refused", {"rows": (told(PermissionRefused),)}, False),
        ("mass_not_visible", {"rows": (told(NotVisibleYet), told(NotVisibleYet))}, False),
        ("mass_not_visible", {"rows": (told(NotVisibleYet), None)}, True),
        ("mass_not_visible", {}, True),
        ("token_refused", {"was_listed": False, "listing": told(NotVisibleYet)}, True),
        ("lead_access_refused", {"was_listed": False, "listing": told(NotVisibleYet)}, False),
    ],
)
def test_what_heals_a_page(reason: str, changed: dict[str, Any], healed: bool) -> None:
    """The contrary of what it was parked for, seen; a Page parked for its leads heals by such a lead."""
    facts = replace(WELL, **changed)
    assert has_healed(facts, judge(facts), reason) is healed


@pytest.mark.parametrize(
    ("reason", "has_form", "asked"),
    [
        (None, False, False),
        ("token_refused", True, False),
        ("token_refused", False, True),
        ("permission_refused", True, True),
        ("lead_access_refused", True, True),
        ("mass_not_visible", True, True),
    ],
)
def test_waiting_leads_are_read_only_where_nothing_else_tells_how_a_parked_page_is(
    reason: str | None, has_form: bool, asked: bool
) -> None:
    """Where it was parked for its leads, or has no form to list; an open Page is never asked so."""
    assert asks_for_rows(reason, has_form=has_form) is asked


def test_a_remedy_names_its_page() -> None:
    """The words can be typed as they stand."""
    assert not any(re.search(r"\bPAGE\b", str(remedy(reason, PAGE))) for reason in REMEDIES)
    assert PAGE in str(remedy("mass_not_visible", PAGE))
    assert remedy("graph_unavailable", PAGE) is None
