"""What Graph tells of a form, a page and an ad: noun -> fields. Of a lead it is told in leadtext.py.

Fields that do not apply are absent, never null. Which fields a caller sees is decided in reads.py; this
file always makes all of them.

Invariant: nothing here depends on who asks.
"""

from collections.abc import Sequence
from typing import Final

from sandbox.leadtext import graph_time
from sandbox.world import RETENTION_SECONDS, Ad, Form, Page, World

FORM_FIELDS: Final = (
    "id", "name", "status", "locale", "created_time", "page", "page_id", "questions", "leads_count",
    "expired_leads_count", "organic_leads_count", "privacy_policy_url", "follow_up_action_url",
    "follow_up_action_text", "legal_content", "context_card", "thank_you_page", "tracking_parameters",
    "question_page_custom_headline", "allow_organic_lead", "block_display_for_non_targeted_viewer",
    "is_optimized_for_quality", "creator",
)  # fmt: skip
FORM_DEFAULTS: Final = ("id", "locale", "name", "status")
PAGE_FIELDS: Final = (
    "id", "name", "category", "category_list", "link", "access_token", "leadgen_tos_accepted",
    "leadgen_tos_acceptance_time", "tasks",
)  # fmt: skip
PAGE_DEFAULTS: Final = ("id", "name")
OBJECT_FIELDS: Final = ("id", "name", "adset_id", "campaign_id")


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
        "status": world.status_of(form),
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
    if form.tracking:
        fields["tracking_parameters"] = [{"key": key, "value": value} for key, value in form.tracking]
    if form.disclaimers:
        fields["legal_content"] = {
            "id": str(int(form.form_id) + 1),
            "privacy_policy": {"url": "https://example.com/privacy", "link_text": "Privacy"},
            "custom_disclaimer": {
                "title": "Einwilligung",
                "body": {"text": "We keep what you tell us for a year.", "url_entities": []},
                "checkboxes": [_checkbox(form, 1, "E-mail me"), _checkbox(form, 2, "Call me / text me")],
            },
        }
    return fields


def _checkbox(form: Form, place: int, text: str) -> dict[str, object]:
    return {
        "id": f"{form.form_id}9{place}",
        "key": f"optional_{place}",
        "text": text,
        "is_required": False,
        "is_checked_by_default": False,
    }


def page_fields(page: Page, token: str, tasks: Sequence[str]) -> dict[str, object]:
    """Every field of the page; `token` is its Page token, `tasks` what the user may do there."""
    return {
        "id": page.page_id,
        "name": page.name,
        "category": "Local business",
        "category_list": [{"id": "2500", "name": "Local business"}],
        "link": f"https://www.facebook.com/{page.page_id}",
        "access_token": token,
        "leadgen_tos_accepted": True,
        "leadgen_tos_acceptance_time": "2024-05-01T09:00:00+0000",
        "tasks": list(tasks),
    }


def ad_fields(ad: Ad) -> dict[str, object]:
    """The fields of the ad that a lead's reader asks for."""
    return {"id": ad.ad_id, "name": ad.ad_name, "adset_id": ad.adset_id, "campaign_id": ad.campaign_id}
