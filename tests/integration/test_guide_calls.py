"""The bulk reads of Meta's retrieval guide, as its readers make them, against the sandbox.

By the official SDK with nothing but what Python 3 and its present version demand, and by plain HTTP.
https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from facebook_business.adobjects.ad import Ad
from facebook_business.adobjects.lead import Lead
from facebook_business.api import FacebookAdsApi
from facebook_business.session import FacebookSession

from tests.fakes.sandboxes import Served, serving, token_of


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A sandbox that the SDK takes for graph.facebook.com."""
    with serving(pages=1, forms_per_page=2, leads=400) as served:
        monkeypatch.setattr(FacebookSession, "GRAPH", served.url)
        FacebookAdsApi.init(access_token=token_of(served.sandbox))
        yield served


def of_ad(served: Served, ad_id: str) -> dict[str, int]:
    """The ad's leads and their seconds of creation."""
    leads = map(served.sandbox.world.lead, range(400))
    return {lead.leadgen_id: lead.created_time for lead in leads if lead.ad and lead.ad.ad_id == ad_id}


def get(served: Served, path: str, **query: str) -> Any:
    """A plain GET with the token in the query, as the guide's curl lines have it."""
    words = urllib.parse.urlencode({"access_token": token_of(served.sandbox), **query})
    with urllib.request.urlopen(f"{served.url}/v26.0/{path}?{words}", timeout=30) as response:
        return json.load(response)


def test_an_ad_is_read_without_naming_fields(served: Served) -> None:
    """Ad.get_leads with empty fields and parameters gives every lead of the ad, by the default result pages."""
    ad = served.sandbox.world.forms[0].ads[0]
    leads = Ad(ad.ad_id).get_leads(fields=[], params={})
    assert {lead["id"] for lead in leads} == of_ad(served, ad.ad_id).keys()


def test_a_lead_is_read_without_naming_fields(served: Served) -> None:
    """A lead by its id, with empty fields and parameters, has its answers."""
    leadgen_id = next(iter(of_ad(served, served.sandbox.world.forms[0].ads[0].ad_id)))
    lead = Lead(leadgen_id).api_get(fields=[], params={})
    assert lead["id"] == leadgen_id
    assert lead["field_data"]


@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        ("GREATER_THAN", lambda at, edge: at > edge),
        ("GREATER_THAN_OR_EQUAL", lambda at, edge: at >= edge),
        ("LESS_THAN", lambda at, edge: at < edge),
    ],
)
def test_leads_are_filtered_by_time(served: Served, operator: str, holds: Any) -> None:
    """Each operator of the guide, on a second at which a lead was created."""
    ad = served.sandbox.world.forms[0].ads[0]
    leads = of_ad(served, ad.ad_id)
    edge = sorted(leads.values())[len(leads) // 2]
    filtering = [{"field": "time_created", "operator": operator, "value": edge}]
    read = Ad(ad.ad_id).get_leads(fields=[], params={"filtering": filtering})
    wanted = {leadgen_id for leadgen_id, at in leads.items() if holds(at, edge)}
    assert {lead["id"] for lead in read} == wanted
    assert 0 < len(wanted) < len(leads)


def test_a_form_is_read_with_the_fields_that_are_named(served: Served) -> None:
    """The listing of a form gives those fields and no others, and cursors."""
    form = served.sandbox.world.forms[0]
    told = get(served, f"{form.form_id}/leads", fields="created_time,id,ad_id,form_id,field_data")
    assert told["data"]
    assert {name for lead in told["data"] for name in lead} == {
        "created_time", "id", "ad_id", "form_id", "field_data",
    }  # fmt: skip
    assert {"before", "after"} <= told["paging"]["cursors"].keys()


def test_disclaimers_are_told_when_asked_for(served: Served) -> None:
    """Checkboxes come by a field of their own, ticked as "1" and otherwise empty."""
    form = served.sandbox.world.forms[0]
    lead = next(
        lead for lead in map(served.sandbox.world.lead, range(400)) if lead.form is form and lead.kind == "ad"
    )
    told = get(served, lead.leadgen_id, fields="custom_disclaimer_responses")
    boxes = told["custom_disclaimer_responses"]
    assert told["id"] == lead.leadgen_id
    assert boxes
    assert {box["is_checked"] for box in boxes} <= {"1", ""}
