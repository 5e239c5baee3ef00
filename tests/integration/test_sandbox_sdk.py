"""The official SDK reads from the sandbox, unchanged but for the host."""

from collections.abc import Iterator

import pytest
from facebook_business.adobjects.ad import Ad
from facebook_business.adobjects.lead import Lead
from facebook_business.adobjects.leadgenform import LeadgenForm
from facebook_business.adobjects.page import Page
from facebook_business.adobjects.user import User
from facebook_business.api import FacebookAdsApi, FacebookResponse
from facebook_business.exceptions import FacebookRequestError
from facebook_business.session import FacebookSession

from sandbox.faults import parse_rules
from sandbox.leadtext import LEAD_FIELDS
from tests.fakes.sandboxes import Served, serving, token_of


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A sandbox that the SDK takes for graph.facebook.com, with the first Page's token."""
    with serving(pages=2, leads=300) as served:
        monkeypatch.setattr(FacebookSession, "GRAPH", served.url)
        config = served.sandbox.config
        FacebookAdsApi.init(config.app_id, config.app_secret, token_of(served.sandbox))
        yield served


def first_lead(served: Served) -> str:
    page = served.sandbox.world.pages[0]
    return next(
        lead.leadgen_id
        for lead in map(served.sandbox.world.lead, range(300))
        if lead.page_id == page.page_id and lead.kind == "ad"
    )


def test_a_lead_is_read_with_all_its_fields(served: Served) -> None:
    """Lead.api_get gives what the truth says."""
    leadgen_id = first_lead(served)
    lead = Lead(leadgen_id).api_get(fields=list(LEAD_FIELDS)).export_all_data()
    found = served.sandbox.world.find(leadgen_id)
    assert found is not None
    truth = served.sandbox.graph.reads.truth(found)
    assert {**lead, "page_id": found.page_id} == truth


def test_a_form_is_read_to_its_end(served: Served) -> None:
    """LeadgenForm.get_leads follows the cursors to every lead of the form, short result pages and all."""
    form = served.sandbox.world.pages[0].forms[0]
    ids = [lead["id"] for lead in LeadgenForm(form.form_id).get_leads(fields=["id"], params={"limit": 20})]
    assert len(ids) == len(set(ids)) == served.sandbox.world.history_of(form)


def test_an_ad_is_read_from_a_time_on(served: Served) -> None:
    """Ad.get_leads with the guide's filter gives that ad's leads after that second, and no others."""
    world = served.sandbox.world
    form = world.pages[0].forms[0]
    ad = form.ads[0]
    leads = [lead for lead in map(world.lead, range(300)) if lead.ad is ad]
    since = sorted(lead.created_time for lead in leads)[len(leads) // 2]
    filtering = [{"field": "time_created", "operator": "GREATER_THAN", "value": since}]
    read = Ad(ad.ad_id).get_leads(fields=["id", "ad_id"], params={"filtering": filtering})
    assert {lead["id"] for lead in read} == {lead.leadgen_id for lead in leads if lead.created_time > since}


def test_a_page_lists_its_forms(served: Served) -> None:
    """Page.get_lead_gen_forms gives the Page's forms."""
    page = served.sandbox.world.pages[0]
    forms = Page(page.page_id).get_lead_gen_forms(fields=["id", "name", "questions"])
    assert [form["id"] for form in forms] == [form.form_id for form in page.forms]


def test_a_batch_item_that_came_as_null_is_asked_again(served: Served) -> None:
    """The SDK's batch reads leads through POST /, and hands back the items that came as null for another try."""
    served.sandbox.plan.give(parse_rules('{"class": "null_items", "count": 1}'), 0.0)
    got: list[str] = []
    leadgen_id = first_lead(served)
    batch = FacebookAdsApi.get_default_api().new_batch()

    def success(response: FacebookResponse) -> None:
        got.append(response.json()["id"])

    Lead(leadgen_id).api_get(fields=["id"], batch=batch, success=success)
    again = batch.execute()
    assert got == []
    assert again.execute() is None
    assert got == [leadgen_id]


def test_an_error_reaches_the_caller_as_meta_sends_it(served: Served) -> None:
    """A lead of another Page raises the SDK's own error with code 100, subcode 33."""
    other = served.sandbox.world.pages[1].forms[0]
    lead = next(lead for lead in map(served.sandbox.world.lead, range(300)) if lead.form is other)
    with pytest.raises(FacebookRequestError) as caught:
        Lead(lead.leadgen_id).api_get()
    assert (caught.value.api_error_code(), caught.value.api_error_subcode()) == (100, 33)
    assert caught.value.body()["error"]["fbtrace_id"]


def test_a_page_is_found_subscribed_and_tested(served: Served) -> None:
    """User.get_accounts, Page.create_subscribed_app and LeadgenForm.create_test_lead work with what the SDK sends."""
    config, page = served.sandbox.config, served.sandbox.world.pages[1]
    FacebookAdsApi.init(config.app_id, config.app_secret, served.sandbox.tokens.of_user)
    accounts = User("me").get_accounts(fields=["id", "access_token"], params={"limit": 1})
    found = {account["id"]: account["access_token"] for account in accounts}
    assert found == served.sandbox.tokens.of_page
    FacebookAdsApi.init(config.app_id, config.app_secret, found[page.page_id])
    Page(page.page_id).create_subscribed_app(params={"subscribed_fields": ["leadgen"]})
    [app] = Page(page.page_id).get_subscribed_apps()
    assert (app["id"], app["subscribed_fields"]) == (config.app_id, ["leadgen"])
    form = LeadgenForm(page.forms[0].form_id)
    made = form.create_test_lead()
    assert [lead["id"] for lead in form.get_test_leads(fields=["id"])] == [made["id"]]
    Lead(made["id"]).api_delete()
    assert list(form.get_test_leads()) == []
