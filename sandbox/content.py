"""What Graph tells of a lead, a form, a page and an ad: noun -> fields.

Fields that do not apply are absent, never null. Which fields a caller sees is decided in graph.py; this
file always makes all of them.

Invariant: a lead's fields depend on the world's seed and the lead alone, so two reads agree.
"""

import time
from typing import Final

from sandbox.mixing import mix
from sandbox.people import field_data, test_data
from sandbox.world import RETENTION_SECONDS, Ad, Form, Lead, Page, World

LEAD_FIELDS: Final = (
    "id", "created_time", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name",
    "form_id", "field_data", "custom_disclaimer_responses", "is_organic", "platform", "partner_name",
    "retailer_item_id", "home_listing", "vehicle", "post", "post_submission_check_result",
)  # fmt: skip
LEAD_DEFAULTS: Final = ("id", "created_time", "field_data")
AD_FIELDS: Final = frozenset({"ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name"})
"""The lead's fields that need ads_management."""
FORM_FIELDS: Final = (
    "id", "name", "status", "locale", "created_time", "page", "page_id", "questions", "leads_count",
    "expired_leads_count", "organic_leads_count", "privacy_policy_url", "follow_up_action_url",
    "follow_up_action_text", "legal_content", "context_card", "thank_you_page", "tracking_parameters",
    "question_page_custom_headline", "allow_organic_lead", "block_display_for_non_targeted_viewer",
    "is_optimized_for_quality", "creator",
)  # fmt: skip
FORM_DEFAULTS: Final = ("id", "locale", "name", "status")
PAGE_FIELDS: Final = ("id", "name", "category", "link", "access_token", "leadgen_tos_accepted", "tasks")
PAGE_DEFAULTS: Final = ("id", "name")
OBJECT_FIELDS: Final = ("id", "name", "adset_id", "campaign_id")


def graph_time(unix: int) -> str:
    """Graph's way to write a time: no colon in the offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(unix))


def lead_fields(world: World, lead: Lead, *, hostile: bool) -> dict[str, object]:
    """Every field of the lead."""
    luck = mix(world.seed, 7, lead.number)
    form = lead.form
    fields: dict[str, object] = {"id": lead.leadgen_id, "created_time": graph_time(lead.created_time)}
    if lead.ad is not None:
        fields |= {
            "ad_id": lead.ad.ad_id,
            "ad_name": lead.ad.ad_name,
            "adset_id": lead.ad.adset_id,
            "adset_name": lead.ad.adset_name,
            "campaign_id": lead.ad.campaign_id,
            "campaign_name": lead.ad.campaign_name,
        }
    fields["form_id"] = form.form_id
    if lead.kind == "test":
        fields["field_data"] = test_data(form.questions)
    else:
        fields["field_data"] = field_data(world.seed, lead.number, form.questions, hostile=hostile)
    if form.number % 2 == 0:
        fields["custom_disclaimer_responses"] = _disclaimers(luck)
    fields["is_organic"] = lead.ad is None
    fields["platform"] = "ig" if luck % 3 == 0 and lead.kind != "test" else "fb"
    return fields | _verticals(luck >> 16, lead) if lead.kind != "test" else fields


def _disclaimers(luck: int) -> list[dict[str, str]]:
    return [
        {"checkbox_key": "optional_1", "is_checked": "1" if luck & 8 else ""},
        {"checkbox_key": "optional_2", "is_checked": "1" if luck & 16 else ""},
    ]


def _verticals(luck: int, lead: Lead) -> dict[str, object]:
    """What only some leads carry."""
    match luck % 24:
        case 0:
            return {"partner_name": "Partner & Söhne"}
        case 1:
            return {"retailer_item_id": f"SKU-{luck % 10_000:05d}/a"}
        case 2:
            return {"vehicle": {"id": str(5_000_000_000 + luck % 1_000), "title": "Škoda Octavia"}}
        case 3:
            return {"home_listing": {"id": str(6_000_000_000 + luck % 1_000), "name": "3 Zimmer, Küche, Bad"}}
        case 4:
            return {"post": {"id": f"{lead.page_id}_{luck % 1_000_000}"}}
        case 5:
            return {
                "post_submission_check_result": {
                    "api_call_result": "success",
                    "api_error_message": "",
                    "shown_thank_you_page": "default",
                }
            }
    return {}


def form_fields(world: World, form: Form, now: float) -> dict[str, object]:
    """Every field of the form."""
    leads = world.count_since(form, 0)
    live = world.count_since(form, int(now - RETENTION_SECONDS) + 1)
    questions = [
        question.as_json(str(int(form.form_id) * 10 + place)) for place, question in enumerate(form.questions)
    ]
    fields: dict[str, object] = {
        "id": form.form_id,
        "name": form.name,
        "status": form.status,
        "locale": form.locale,
        "created_time": graph_time(form.created_time),
        "page": {"id": form.page_id, "name": world.page_by_id[form.page_id].name},
        "page_id": form.page_id,
        "questions": questions,
        "leads_count": leads,
        "expired_leads_count": leads - live,
        "organic_leads_count": leads // 8,
        "privacy_policy_url": "https://example.com/privacy",
        "follow_up_action_url": "https://example.com/thanks?x=1",
        "allow_organic_lead": True,
        "block_display_for_non_targeted_viewer": False,
        "is_optimized_for_quality": False,
    }
    if form.number % 2 == 0:
        fields["legal_content"] = {
            "id": str(int(form.form_id) + 1),
            "privacy_policy": {"url": "https://example.com/privacy", "link_text": "Privacy"},
            "custom_disclaimer": {
                "title": "Einwilligung",
                "checkboxes": [
                    {"id": "1", "key": "optional_1", "text": "E-mail me", "is_required": False},
                    {"id": "2", "key": "optional_2", "text": "Call me", "is_required": False},
                ],
            },
        }
    return fields


def page_fields(page: Page, token: str) -> dict[str, object]:
    """Every field of the page; `token` is its Page token."""
    return {
        "id": page.page_id,
        "name": page.name,
        "category": "Local business",
        "link": f"https://www.facebook.com/{page.page_id}",
        "access_token": token,
        "leadgen_tos_accepted": True,
        "tasks": ["ADVERTISE", "ANALYZE", "CREATE_CONTENT", "MESSAGING", "MODERATE", "MANAGE"],
    }


def ad_fields(ad: Ad) -> dict[str, object]:
    """The fields of the ad that a lead's reader asks for."""
    return {"id": ad.ad_id, "name": ad.ad_name, "adset_id": ad.adset_id, "campaign_id": ad.campaign_id}
