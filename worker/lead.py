"""One Graph answer for a lead -> a Lead that Postgres can hold. Pure; it neither reads nor writes anything.

Invariant: what Graph said is kept as it was said. The only alterations are those that Postgres forces: NUL and lone
surrogates become U+FFFD and numbers that are no numbers become text, and such a lead is marked `cleaned`. A field
that leadsync has no column for lands in `extra`, so nothing is dropped.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, cast

from worker.errors import LeadMalformed
from worker.quick_dataclass import quick_dataclass

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# https://developers.facebook.com/docs/marketing-api/reference/user-lead-gen-info
TEXT_FIELDS: Final = (
    "form_id",
    "ad_id",
    "ad_name",
    "adset_id",
    "adset_name",
    "campaign_id",
    "campaign_name",
    "platform",
    "partner_name",
    "retailer_item_id",
)
_KNOWN_FIELDS: Final = frozenset(
    (*TEXT_FIELDS, "id", "created_time", "is_organic", "field_data", "custom_disclaimer_responses")
)
_TEST_EMAILS: Final = frozenset({"test@fb.com", "test@meta.com"})
_TEST_MARK: Final = "<test lead: dummy data for"
_TEST_STARTS: Final = (_TEST_MARK, *_TEST_EMAILS)
_Text: TypeAlias = "str | None"
_Texts: TypeAlias = "tuple[_Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text]"
_PLAIN_TYPES: Final = frozenset({str, type(None)})
_TRUE: Final = frozenset({True, "1", "true", "True"})
_FALSE: Final = frozenset({False, "0", "false", "False", ""})
# What json.dumps writes for the values that Postgres' jsonb refuses. A text that merely looks like one of these
# only costs the slow, exact look.
_SUSPECT: Final = ("\\u0000", "NaN", "Infinity")


@dataclass(frozen=True, slots=True)
class Answer:
    """One entry of `field_data`: the question's key and what was answered, empty where the question was skipped."""

    name: str
    values: tuple[str, ...]


@quick_dataclass(frozen=True, slots=True)
class Lead:
    """What Graph holds for one leadgen_id. A field that Graph left out is None.

    `field_data` and `custom_disclaimer_responses` are Graph's own JSON; `extra` holds every other field it sent.
    `in_part`: read with the reduced field list, so its absent ad fields say nothing.
    """

    leadgen_id: str
    created_time: datetime | None
    form_id: str | None
    ad_id: str | None
    ad_name: str | None
    adset_id: str | None
    adset_name: str | None
    campaign_id: str | None
    campaign_name: str | None
    is_organic: bool | None
    platform: str | None
    partner_name: str | None
    retailer_item_id: str | None
    field_data: Json
    custom_disclaimer_responses: Json
    extra: dict[str, Json]
    is_test: bool
    in_part: bool
    cleaned: bool

    @classmethod
    def from_graph(cls, raw: object, *, leadgen_id: str, in_part: bool, is_clean: bool = False) -> "Lead":
        """The lead that Graph's JSON object `raw` describes.

        `is_clean`: whoever read the answer knows that Postgres can hold all of it, so it is not looked through again.
        Raises LeadMalformed where `raw` is no object or describes another id than the one that was asked for.
        """
        if not isinstance(raw, dict):
            raise LeadMalformed(f"Graph's answer for lead {leadgen_id} is not an object")
        if _text(raw.get("id")) != leadgen_id:
            raise LeadMalformed(f"Graph's answer for lead {leadgen_id} carries another id")
        try:
            cleaned = not is_clean and _is_dirty(raw)
            answer: dict[str, Json] = _clean_object(raw) if cleaned else raw
        except RecursionError:
            raise LeadMalformed(f"Graph's answer for lead {leadgen_id} is nested too deeply") from None
        extra: dict[str, Json] = {}
        if not _KNOWN_FIELDS.issuperset(answer):
            extra = {name: value for name, value in answer.items() if name not in _KNOWN_FIELDS}
        told_texts = tuple(map(answer.get, TEXT_FIELDS))
        if "" in told_texts or not _PLAIN_TYPES.issuperset(map(type, told_texts)):
            told_texts = tuple(_text_or_extra(name, answer.get(name), extra) for name in TEXT_FIELDS)
        texts = cast("_Texts", told_texts)
        (
            form_id,
            ad_id,
            ad_name,
            adset_id,
            adset_name,
            campaign_id,
            campaign_name,
            platform,
            partner,
            item_id,
        ) = texts
        told = answer.get("created_time")
        created_time = graph_time(told)
        if created_time is None and told is not None:
            extra["created_time"] = told
        told = answer.get("is_organic")
        is_organic = _flag(told)
        if is_organic is None and told is not None:
            extra["is_organic"] = told
        field_data = answer.get("field_data")
        # By place: by name it takes twice the time, a tenth of what a lead of a listing costs.
        return cls(
            leadgen_id, created_time, form_id, ad_id, ad_name, adset_id, adset_name, campaign_id, campaign_name,
            is_organic, platform, partner, item_id, field_data, answer.get("custom_disclaimer_responses"), extra,
            _is_test(field_data), in_part, cleaned,
        )  # fmt: skip


def answers(field_data: Json) -> Iterator[Answer]:
    """The typed answers in Graph's `field_data`; entries of an unknown shape are passed over.

    A skipped question comes without `values`, with an empty list or with null; all three give no values.
    """
    if not isinstance(field_data, list):
        return
    for entry in field_data:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
            continue
        values = entry.get("values")
        listed = values if isinstance(values, list) else [] if values is None else [values]
        yield Answer(name, tuple(v if isinstance(v, str) else json.dumps(v) for v in listed))


def _is_test(field_data: Json) -> bool:
    """Whether Meta's testing tool answered."""
    if not isinstance(field_data, list):
        return False
    for entry in field_data:
        if not isinstance(entry, dict):
            continue
        values = entry.get("values")
        for value in values if isinstance(values, list) else (values,):
            if isinstance(value, str) and value.startswith(_TEST_STARTS) and _is_test_answer(entry, value):
                return isinstance(entry.get("name"), str)
    return False


def _is_test_answer(entry: Mapping[str, Json], value: str) -> bool:
    return value.startswith(_TEST_MARK) or (value in _TEST_EMAILS and entry.get("name") == "email")


def _text_or_extra(name: str, value: Json, extra: dict[str, Json]) -> str | None:
    """A field's text; what is none goes to `extra`."""
    text = _text(value)
    if text is None and value not in (None, ""):
        extra[name] = value
    return text


def _text(value: object) -> str | None:
    """An id or name as text. Graph writes ids as strings, its webhooks as numbers as well."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _flag(value: object) -> bool | None:
    if value is True or value is False:
        return value
    if isinstance(value, list | dict):
        return None
    return True if value in _TRUE else False if value in _FALSE else None


def graph_time(value: object) -> datetime | None:
    """Graph's `2015-02-28T08:49:14+0000` as aware UTC; None where it is no time that Postgres can hold."""
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
            if time.tzinfo is UTC:
                return time
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _is_dirty(raw: Mapping[str, object]) -> bool:
    text = json.dumps(raw, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return any(suspect in text for suspect in _SUSPECT) and _clean_object(raw) != raw


def _clean_object(raw: Mapping[str, object]) -> dict[str, Json]:
    cleaned: dict[str, Json] = {}
    alike: Counter[str] = Counter()
    for name, value in raw.items():
        clean = key = clean_text(name)
        while key in cleaned:  # two names may become the same by cleaning, and neither is dropped
            alike[clean] += 1
            key = f"{clean}\ufffd{alike[clean] if alike[clean] > 1 else ''}"
        cleaned[key] = _clean(value)
    return cleaned


def _clean(value: object) -> Json:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return _clean_object(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    assert value is None or isinstance(value, bool | int | float)
    return value


def clean_text(text: str) -> str:
    """`text` as Postgres can hold it: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
