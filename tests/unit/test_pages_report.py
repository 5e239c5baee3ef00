"""How each Page is, as a person sees it: on 80 columns, with what to do about each thing that is wrong."""

import io
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from tests.fakes.leads import PAGE
from tests.fakes.time import NOW
from worker.health import ASPECTS
from worker.pages_report import _page, is_well, render, render_one
from worker.store.statements import Row


def a_row(**changed: Any) -> Row:
    """A Page as the rows have it, all well."""
    row: Row = {
        "page_id": PAGE, "name": "Solar Müller", "parked_at": None, "parked_reason": None, "connected_at": NOW,
        "check_at": NOW, "held_until": None, "held_reason": None, "checked_at": NOW - timedelta(minutes=12),
        "token_expires_at": NOW + timedelta(days=41, hours=1), "data_access_expires_at": None, "missing_scopes": [],
        "limit_calls": 4_800, "forms_active": 3, "forms_archived": 1, "stored": 1_234_567, "waiting": 12, "dead": 3,
        "last_lead": NOW - timedelta(minutes=3), "last_webhook": NOW - timedelta(hours=2),
    }  # fmt: skip
    for aspect in ASPECTS:
        row |= {aspect: "ok", f"{aspect}_reason": None}
    return row | changed


def a_page(**changed: Any) -> dict[str, Any]:
    event = {
        "event_id": 1,
        "at": NOW.isoformat(),
        "aspect": "page",
        "was": "open",
        "became": "parked",
        "reason": "lead_access_refused",
    }
    return _page(a_row(**changed), NOW) | {"events": [event]}


WRONG: Mapping[str, Any] = {
    "parked_at": NOW - timedelta(hours=5),
    "parked_reason": "lead_access_refused",
    "token": "expiring",
    "token_reason": "expires_soon",
    "subscription": "app_missing",
    "subscription_reason": "webhook_without_leadgen",
    "lead_access": "refused",
    "lead_access_reason": "lead_access_refused",
    "webhooks": "silent",
    "webhooks_reason": "not_announced",
    "missing_scopes": ["leads_retrieval", "pages_manage_metadata"],
}


def shown(what: RenderableType) -> str:
    """As it stands on a terminal of 80 columns."""
    out = io.StringIO()
    Console(file=out, width=80).print(what)
    return out.getvalue()


def test_the_list_fits_80_columns_uncut() -> None:
    """With long numbers and everything wrong at once no cell is cut and no line too long."""
    told = shown(render([a_page(**WRONG), a_page(token="refused", page_id="102938475610293")], NOW))
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    assert f"{PAGE}: parked, lead_access_refused, since 5 h ago" in told


def test_what_is_wrong_comes_with_its_remedy() -> None:
    """Each thing once, in words that can be typed."""
    told = " ".join(shown(render_one(a_page(**WRONG), NOW)).split())
    for words in (
        "Connect again before the token expires",
        "Leads access > CRMs",
        "webhook lacks leadgen",
        "expires in 41 days",
        "lacks leads_retrieval, pages_manage_metadata",
        "Leads come and no webhook",
    ):
        assert told.count(words) == 1, words


def test_a_page_that_is_well_has_no_remedy() -> None:
    """Nor has one that was never checked; that is said instead."""
    assert is_well(a_page())
    assert "->" not in shown(render_one(a_page() | {"events": []}, NOW))
    fresh = a_page(token=None, subscription=None, lead_access=None, webhooks=None, checked_at=None)
    told = shown(render_one(fresh, NOW))
    assert "not_checked_yet" in told
    assert "never" in told


@pytest.mark.parametrize("aspect", ASPECTS)
def test_a_page_with_something_wrong_is_not_well(aspect: str) -> None:
    """Whatever it is; and so is a parked one."""
    assert not is_well(a_page(**{aspect: "refused"}))
    assert not is_well(a_page(parked_at=NOW, parked_reason="by_hand"))
