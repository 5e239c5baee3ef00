"""Webhook bodies: what is announced, in which form, and that the signature fits."""

import hashlib
import hmac
import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.deliveries import VARIANTS, Change, Mix, delivery_body, plan, redelivery_delays, signatures
from sandbox.world import Lead
from tests.fakes.sandboxes import NOW, made


def lead(kind: str = "ad", page: int = 0) -> Lead:
    world = made().world
    return world.create(world.pages[page].forms[0], now=NOW, kind=kind)  # type: ignore[arg-type]


def parsed(*changes: Change) -> dict[str, Any]:
    return json.loads(delivery_body(changes, 1_438_292_065))


@given(
    mix=st.builds(
        Mix,
        count=st.integers(0, 300),
        duplicates=st.floats(0, 3),
        batch=st.integers(1, 1_200),
        vary_batch=st.booleans(),
        reorder=st.booleans(),
        sample_pings=st.integers(0, 3),
        updates=st.integers(0, 3),
        seed=st.integers(0, 9),
    )
)
def test_every_lead_is_announced_and_the_extras_too(mix: Mix) -> None:
    """A run announces each lead at least once, its duplicates on top, and no delivery passes 1,000 changes."""
    deliveries = list(plan(mix))
    announced = Counter(each.what for delivery in deliveries for each in delivery)
    assert {each.ordinal for delivery in deliveries for each in delivery if each.what == "lead"} == set(
        range(mix.count)
    )
    assert announced["lead"] == mix.count + (round(mix.count * mix.duplicates) if mix.count else 0)
    assert announced["sample"] == mix.sample_pings
    assert all(1 <= len(delivery) <= min(mix.batch, 1_000) for delivery in deliveries)


def test_without_reordering_leads_come_in_order() -> None:
    """First announcements follow the order of creation unless reordering is asked for."""

    def firsts(reorder: bool) -> list[int]:
        line = [each.ordinal for delivery in plan(Mix(count=500, reorder=reorder)) for each in delivery]
        return list(dict.fromkeys(line))

    assert firsts(False) == sorted(firsts(False))
    assert firsts(True) != sorted(firsts(True))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["ad", "organic", "test"])
def test_every_variant_names_the_same_lead(variant: str, kind: str) -> None:
    """Whatever the form of a payload, its ids are those of the lead, and ad ids are there only for leads of ads."""
    told = lead(kind)
    payload = parsed(Change("lead", told, variant))
    assert payload["object"] == "page"
    ((entry,),) = (payload["entry"],)
    (change,) = entry["changes"]
    value = change["value"]
    assert change["field"] == "leadgen"
    assert str(value["leadgen_id"]) == told.leadgen_id
    assert str(value["page_id"]) == told.page_id
    assert str(value["form_id"]) == told.form.form_id
    assert value["created_time"] == told.created_time
    ad_id = told.ad.ad_id if told.ad else ""
    assert str(value.get("ad_id", "")).strip("0") == ad_id.strip("0")


def test_variants_differ_where_metas_payloads_differ() -> None:
    """Ids as numbers, entry id "0", ad ids 0, empty or absent, and keys in another order all occur."""
    organic = lead("organic")

    def value(variant: str) -> dict[str, Any]:
        return parsed(Change("lead", organic, variant))["entry"][0]["changes"][0]["value"]

    assert isinstance(value("integers")["leadgen_id"], int)
    assert value("integers")["ad_id"] == 0
    assert value("empty_ads")["ad_id"] == ""
    assert "ad_id" not in value("no_ads")
    assert parsed(Change("lead", organic, "entry_zero"))["entry"][0]["id"] == "0"
    assert isinstance(parsed(Change("lead", organic, "entry_string"))["entry"][0]["id"], str)
    assert delivery_body([Change("lead", organic, "object_last")], 1).startswith(b'{"entry"')
    assert b'"changes":[{"value"' in delivery_body([Change("lead", organic, "field_last")], 1)


def test_pages_are_mixed_in_one_delivery() -> None:
    """Changes of several Pages stand in entries of their own."""
    payload = parsed(*(Change("lead", lead(page=page), "strings") for page in (0, 0, 1)))
    assert [len(entry["changes"]) for entry in payload["entry"]] == [2, 1]
    assert len({entry["id"] for entry in payload["entry"]}) == 2


def test_a_run_without_leads_announces_samples_alone() -> None:
    """Whatever else a delivery holds stands on the Page of one of the run's leads."""
    mix = Mix(count=0, duplicates=2, sample_pings=2, updates=3, other_fields=4, changed_fields=5)
    assert [each.what for delivery in plan(mix) for each in delivery] == ["sample", "sample"]


def test_a_change_of_another_field_names_no_lead() -> None:
    """It stands on its Page under that field, between changes of the same entry."""
    told = lead()
    (entry,) = parsed(*(Change(what, told, "strings") for what in ("lead", "other", "lead")))["entry"]
    assert entry["id"] == told.page_id
    assert [change["field"] for change in entry["changes"]] == ["leadgen", "feed", "leadgen"]
    assert told.leadgen_id not in json.dumps(entry["changes"][1])


def test_an_update_announces_no_new_lead() -> None:
    """leadgen_update carries updated_time instead of created_time, under a field of its own."""
    (change,) = parsed(Change("update", lead(), "integers"))["entry"][0]["changes"]
    assert change["field"] == "leadgen_update"
    assert "created_time" not in change["value"]
    assert change["value"]["updated_time"].isdigit()


def test_the_sample_ping_is_the_dashboards() -> None:
    """The dashboard's test button sends entry "0" and ids of fours."""
    (entry,) = parsed(Change("sample", None, "strings"))["entry"]
    assert entry["id"] == "0"
    assert entry["changes"][0]["value"]["leadgen_id"] == "444444444444"


def test_a_subscription_without_values_names_fields_only() -> None:
    """changed_fields has no ids and stands in place of changes."""
    told = lead()
    (entry,) = parsed(Change("changed_fields", told, "strings"))["entry"]
    assert entry == {"id": told.page_id, "time": 1_438_292_065, "changed_fields": ["leadgen"]}


def test_the_body_is_escaped_and_signed_as_it_is_sent() -> None:
    """Bytes are ASCII with `\\/` and lower-case `\\u00e4`; a parsed and rewritten body does not verify."""
    body = delivery_body([Change("lead", lead(), "more_keys")], 1)
    assert body.isascii()
    assert b"Caf\\u00e9 \\/ Bar \\u00e4\\u00f6\\u00e5" in body
    right = hmac.new(b"s", body, hashlib.sha256).hexdigest()
    assert signatures(body, "s")["X-Hub-Signature-256"] == f"sha256={right}"
    rewritten = json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()
    assert signatures(rewritten, "s") != signatures(body, "s")


def test_the_signature_vectors_of_the_documentation_hold() -> None:
    """Both signature headers are HMACs of the raw bytes under the app secret."""
    body = (
        b'{"object":"page","entry":[{"id":"153125381133","time":1438292065,"changes":[{"field":"leadgen","value":'
        b'{"leadgen_id":"123123123123","page_id":"153125381133","form_id":"12312312312","adgroup_id":"12312312312",'
        b'"ad_id":"12312312312","created_time":1440120384}}]}]}'
    )
    assert signatures(body, "test_app_secret") == {
        "X-Hub-Signature-256": "sha256=b1ca1bca90778a9564ae2d49bc6458f5ccc9a81c8633a77785c117dab2e6d5db",
        "X-Hub-Signature": "sha1=6582a2fb6d718d4dc377b229416ea2f9834f0859",
    }


def test_a_share_of_the_announcements_is_dropped() -> None:
    """`drop` marks that share of the announcements of leads, the same ones for the same seed, and nothing else."""
    mix = Mix(count=100, drop=0.25, duplicates=0.2, sample_pings=5, updates=5, batch=10, seed=3)
    told = [announcement for group in plan(mix) for announcement in group]
    dropped = [announcement for announcement in told if announcement.dropped]
    assert len(dropped) == 30
    assert {announcement.what for announcement in dropped} == {"lead"}
    assert len(told) == 130
    assert told == [announcement for group in plan(mix) for announcement in group]
    assert not any(each.dropped for group in plan(Mix(count=100)) for each in group)


def test_redelivery_is_at_once_and_then_ever_rarer() -> None:
    """Delays grow and their sum is the span."""
    delays = list(redelivery_delays(129_600))
    assert delays[0] == 0
    assert sum(delays) == pytest.approx(129_600)
    assert all(earlier <= later for earlier, later in pairwise(delays[1:]))
