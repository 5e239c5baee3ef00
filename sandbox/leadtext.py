"""What Graph tells of a lead: lead -> the JSON text of each of its fields.

Listings of a million leads pass through here. What all leads of a form, of an ad or of a kind have in common is
written as JSON once, and only the rest for each lead; joining the texts of the fields asked for is the caller's.
Fields that do not apply are absent, never null.

Invariant: a lead's fields depend on the world's seed and the lead alone, so two reads agree.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from sandbox.mixing import mixer
from sandbox.people import People
from sandbox.wire import encode
from sandbox.world import Ad, Form, Lead, World

LEAD_FIELDS: Final = (
    "id", "created_time", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name",
    "form_id", "field_data", "custom_disclaimer_responses", "is_organic", "platform", "partner_name",
    "retailer_item_id", "home_listing", "vehicle", "post", "post_submission_check_result",
)  # fmt: skip
LEAD_DEFAULTS: Final = ("id", "created_time", "field_data")
AD_FIELDS: Final = frozenset({"ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name"})
"""The lead's fields that need ads_management."""
_DAY: Final = 86_400
_TWO_DIGITS: Final = [f"{number:02d}" for number in range(60)]

Texts = Mapping[str, str]
"""Field name -> `"name":value` as JSON."""


def graph_time(unix: int) -> str:
    """Graph's way to write a time: no colon in the offset."""
    day, second = divmod(unix, _DAY)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f"{_date(day)}T{_TWO_DIGITS[hour]}:{_TWO_DIGITS[minute]}:{_TWO_DIGITS[second]}+0000"


@lru_cache(maxsize=1_024)
def _date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * _DAY))


class LeadTexts:
    """The fields of every lead of one world."""

    def __init__(self, world: World, *, hostile: bool) -> None:
        self._seed, self._hostile = world.seed, hostile
        self._forms: dict[str, _FormTexts] = {}

    def fields(self, lead: Lead, *, answers: bool = True) -> Texts:
        """Every field of the lead; `answers` False leaves out field_data, which costs the most."""
        form_id = lead.form.form_id
        texts = self._forms.get(form_id)
        if texts is None:
            texts = self._forms[form_id] = _FormTexts(self._seed, lead.form, hostile=self._hostile)
        return texts.fields(lead, answers=answers)


class _FormTexts:
    """The fields of the leads of one form."""

    def __init__(self, seed: int, form: Form, *, hostile: bool) -> None:
        self._people = People(seed, form.questions, form.tracking, hostile=hostile)
        self._luck = mixer(seed, 7)
        shared = {"form_id": form.form_id}
        self._of_ad = {ad.ad_id: _texts({**_ad_fields(ad), **shared, "is_organic": False}) for ad in form.ads}
        self._of_none = _texts({**shared, "is_organic": True})
        self._test_data = f'"field_data":{self._people.test_data}'
        self._disclaimers = [_text("custom_disclaimer_responses", _disclaimers(luck)) for luck in range(4)]
        self._asks_consent = form.disclaimers
        self._post_id = encode(f"{form.page_id}_")[1:-1]

    def fields(self, lead: Lead, *, answers: bool) -> Texts:
        luck = self._luck(lead.number)
        fields = (self._of_none if lead.ad is None else self._of_ad[lead.ad.ad_id]).copy()
        fields["id"] = f'"id":"{lead.leadgen_id}"'
        fields["created_time"] = f'"created_time":"{graph_time(lead.created_time)}"'
        if self._asks_consent:
            fields["custom_disclaimer_responses"] = self._disclaimers[luck >> 3 & 3]
        if lead.kind == "test":
            fields["field_data"] = self._test_data
            fields["platform"] = _PLATFORMS[1]
            return fields
        fields["platform"] = _PLATFORMS[luck % 3 != 0]
        if answers:
            fields["field_data"] = f'"field_data":{self._people.field_data(lead.number)}'
        self._verticals(fields, luck >> 16)
        return fields

    def _verticals(self, fields: dict[str, str], luck: int) -> None:
        """What only some leads carry."""
        match luck % 24:
            case 0:
                fields["partner_name"] = _PARTNER
            case 1:
                fields["retailer_item_id"] = f'"retailer_item_id":"SKU-{luck % 10_000:05d}\\/a"'
            case 2:
                fields["vehicle"] = f'"vehicle":{{"id":"{5_000_000_000 + luck % 1_000}",{_VEHICLE}}}'
            case 3:
                fields["home_listing"] = f'"home_listing":{{"id":"{6_000_000_000 + luck % 1_000}",{_HOME}}}'
            case 4:
                fields["post"] = f'"post":{{"id":"{self._post_id}{luck % 1_000_000}"}}'
            case 5:
                fields["post_submission_check_result"] = _CHECK


def _text(name: str, value: object) -> str:
    return f"{encode(name)}:{encode(value)}"


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(name, value) for name, value in fields.items()}


def _ad_fields(ad: Ad) -> dict[str, object]:
    return {
        "ad_id": ad.ad_id,
        "ad_name": ad.ad_name,
        "adset_id": ad.adset_id,
        "adset_name": ad.adset_name,
        "campaign_id": ad.campaign_id,
        "campaign_name": ad.campaign_name,
    }


def _disclaimers(luck: int) -> list[dict[str, str]]:
    return [
        {"checkbox_key": "optional_1", "is_checked": "1" if luck & 1 else ""},
        {"checkbox_key": "optional_2", "is_checked": "1" if luck & 2 else ""},
    ]


_PLATFORMS: Final = (_text("platform", "ig"), _text("platform", "fb"))
_PARTNER: Final = _text("partner_name", "Partner & Söhne")
_VEHICLE: Final = _text("title", "Škoda Octavia")
_HOME: Final = _text("name", "3 Zimmer, Küche, Bad")
_CHECK: Final = _text(
    "post_submission_check_result",
    {"api_call_result": "success", "api_error_message": "", "shown_thank_you_page": "default"},
)
