"""References and Graph's lead JSON, with everything a test does not care about filled in."""

from datetime import datetime
from typing import Any

from tests.fakes.time import NOW
from worker.batches import InFlight
from worker.inbox import LeadReference
from worker.lead import Lead

PAGE = "153125381133"
OTHER_PAGE = "153125381134"
FORM = "12312312312"


def a_reference(leadgen_id: str = "900000000000001", page_id: str = PAGE, **changed: Any) -> LeadReference:
    """What one webhook change announces."""
    told: dict[str, Any] = {
        "form_id": FORM,
        "ad_id": None,
        "created_time": 1_793_000_000,
        "sent_time": 1_793_000_001,
        "received_at": 1_793_000_002_000,
    }
    return LeadReference(leadgen_id=leadgen_id, page_id=page_id, **{**told, **changed})


def in_flight(leadgen_id: str | int = "900000000000001", page_id: str = PAGE, **changed: Any) -> InFlight:
    """A reference taken from the stream, or leased where `turn` is given."""
    told: dict[str, Any] = {
        "form_id": FORM,
        "ad_id": None,
        "received_at": NOW,
        "first_seen_at": NOW,
        "entry_id": None if "turn" in changed else f"1-{leadgen_id}".encode(),
    }
    return InFlight(leadgen_id=str(leadgen_id), page_id=page_id, **{**told, **changed})


def graph_lead(leadgen_id: str | int = "900000000000001", **changed: Any) -> dict[str, Any]:
    """Graph's JSON for a lead that was read in full."""
    return {
        "id": str(leadgen_id),
        "created_time": "2026-11-20T11:59:00+0000",
        "form_id": FORM,
        "ad_id": "23850000000000001",
        "ad_name": "Autumn",
        "adset_id": "23850000000000002",
        "adset_name": "Set",
        "campaign_id": "23850000000000003",
        "campaign_name": "Campaign",
        "is_organic": False,
        "platform": "fb",
        "field_data": [{"name": "email", "values": ["ann@example.org"]}],
        **changed,
    }


def a_lead(leadgen_id: str | int = "900000000000001", *, in_part: bool = False, **changed: Any) -> Lead:
    """A lead as `from_graph` makes it."""
    return Lead.from_graph(graph_lead(leadgen_id, **changed), leadgen_id=str(leadgen_id), in_part=in_part)


def at(seconds: float) -> datetime:
    """So many seconds after NOW."""
    return datetime.fromtimestamp(NOW.timestamp() + seconds, NOW.tzinfo)
