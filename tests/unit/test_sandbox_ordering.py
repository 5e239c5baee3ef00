"""The order of listings, ties, and cursors that no longer hold."""

import json
from typing import Any

import pytest

from sandbox.faults import parse_rules
from sandbox.ordering import Ordered, Shuffled
from sandbox.parts import Sandbox
from sandbox.request import TimeRange
from sandbox.world import DAY, RETENTION_SECONDS, Form
from tests.fakes.sandboxes import NOW, asked, code_of, made, read


def listing(sandbox: Sandbox, node_id: str, *, now: float = NOW, **params: str) -> list[dict[str, Any]]:
    """All leads of one walk, in the order in which they came."""
    found: list[dict[str, Any]] = []
    params.setdefault("limit", "7")
    while True:
        page = read(asked(sandbox, f"/{node_id}/leads", params, now=now))
        found += page["data"]
        if "next" not in page.get("paging", {}):
            return found
        params["after"] = page["paging"]["cursors"]["after"]


def ids(leads: list[dict[str, Any]]) -> list[str]:
    return [lead["id"] for lead in leads]


def mixed(**settings: Any) -> tuple[Sandbox, Form]:
    """A form with history and with leads since, some dated back into it."""
    sandbox = made(pages=1, forms_per_page=1, leads=40, **settings)
    form = sandbox.world.forms[0]
    for number in range(30):
        sandbox.world.create(form, now=NOW, created_time=int(NOW) - number % 10 * 3 * DAY)
    return sandbox, form


@pytest.mark.parametrize("order", ["newest_first", "oldest_first"])
def test_leads_dated_back_stand_where_their_time_belongs(order: str) -> None:
    """A listing by time is by time throughout, whenever the sandbox came to know a lead."""
    sandbox, form = mixed(order=order)
    times = [lead["created_time"] for lead in listing(sandbox, form.form_id)]
    assert times == sorted(times, reverse=order == "newest_first")
    assert len(times) == 70


def test_shuffled_is_no_order_and_the_same_one_each_time() -> None:
    """Shuffled leads come in no order of time, and a second walk meets them in the same places."""
    sandbox, form = mixed(order="shuffled")
    leads = listing(sandbox, form.form_id)
    times = [lead["created_time"] for lead in leads]
    assert times not in (sorted(times), sorted(times, reverse=True))
    assert ids(listing(sandbox, form.form_id, limit="11")) == ids(leads)
    assert len(set(ids(leads))) == 70


@pytest.mark.parametrize("order", ["newest_first", "shuffled"])
def test_a_filter_leaves_the_same_leads_in_any_order(order: str) -> None:
    """Filtering is by time, however the leads are ordered."""
    sandbox, form = mixed(order=order)
    since, until = int(NOW) - 21 * DAY, int(NOW) - 5 * DAY
    filtering = [
        {"field": "time_created", "operator": "GREATER_THAN_OR_EQUAL", "value": since},
        {"field": "time_created", "operator": "LESS_THAN", "value": until},
    ]
    found = ids(listing(sandbox, form.form_id, filtering=json.dumps(filtering)))
    leads = [sandbox.world.lead(number) for number in range(70)]
    assert sorted(found) == sorted(
        lead.leadgen_id for lead in leads if since <= lead.created_time < until and lead.form is form
    )


@pytest.mark.parametrize("order", ["newest_first", "oldest_first", "shuffled"])
def test_previous_leads_back_the_way_one_came(order: str) -> None:
    """Following `before` from the end meets the same leads, the last first."""
    sandbox, form = mixed(order=order, short_pages=0)
    there = ids(listing(sandbox, form.form_id, limit="1000"))
    last = read(asked(sandbox, f"/{form.form_id}/leads", {"limit": "1000"}))
    before, back = last["paging"]["cursors"]["after"], [there[-1]]
    while True:
        page = read(asked(sandbox, f"/{form.form_id}/leads", {"limit": "8", "before": before}))
        back = ids(page["data"]) + back
        if "previous" not in page["paging"]:
            break
        before = page["paging"]["cursors"]["before"]
    assert back == there


@pytest.mark.parametrize("order", [Ordered, Shuffled])
def test_backwards_from_the_end_is_forwards_from_the_beginning_reversed(
    order: type[Ordered] | type[Shuffled],
) -> None:
    """Whichever way a listing runs, it meets every lead in the same order."""
    sandbox, form = mixed()
    leads = order(sandbox.world, form, TimeRange())
    keys = list(leads.above(None))
    assert len(keys) == 70
    assert list(leads.below(None)) == keys[::-1]


def test_a_lead_that_comes_during_a_shuffled_walk_moves_none_of_the_others() -> None:
    """It stands in a place of its own, which a walk begun before may have passed."""
    sandbox, form = mixed(order="shuffled", short_pages=0)
    before = ids(listing(sandbox, form.form_id))
    new = [sandbox.world.create(form, now=NOW).leadgen_id for _ in range(20)]
    after = ids(listing(sandbox, form.form_id))
    assert [each for each in after if each not in new] == before
    assert set(after) == {*before, *new}
    assert after[-20:] != new


@pytest.mark.parametrize("order", ["newest_first", "oldest_first"])
def test_leads_of_one_second_change_places_between_walks_only(order: str) -> None:
    """With unstable ties two walks differ within a second, never in time, and each meets every lead once."""
    sandbox, form = mixed(order=order, unstable_ties=True)
    walks = [listing(sandbox, form.form_id, limit="3") for _ in range(3)]
    assert ids(walks[0]) != ids(walks[1]) != ids(walks[2])
    for leads in walks:
        assert len(set(ids(leads))) == len(leads) == 70
        times = [lead["created_time"] for lead in leads]
        assert times == sorted(times, reverse=order == "newest_first")


def test_leads_that_join_a_second_upset_no_walk() -> None:
    """A new lead of the very second in which a cursor stands hides none of the others of that second."""
    sandbox = made(leads=0, order="oldest_first", unstable_ties=True, short_pages=0)
    form = sandbox.world.forms[0]
    old = {sandbox.world.create(form, now=NOW).leadgen_id for _ in range(20)}
    page = read(asked(sandbox, f"/{form.form_id}/leads", {"limit": "6"}))
    found = ids(page["data"])
    for _ in range(20):
        sandbox.world.create(form, now=NOW)
    found += ids(listing(sandbox, form.form_id, after=page["paging"]["cursors"]["after"]))
    assert old <= set(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("edge", ["leads", "leadgen_forms"])
def test_a_cursor_holds_for_its_seconds(edge: str) -> None:
    """With cursor_seconds a cursor is refused once it is older, with code 100 and the word cursor."""
    sandbox = made(leads=90, pages=1, forms_per_page=3, cursor_seconds=60, short_pages=0)
    page = sandbox.world.pages[0]
    path = f"/{page.page_id if edge == 'leadgen_forms' else page.forms[0].form_id}/{edge}"
    after = read(asked(sandbox, path, {"limit": "2"}))["paging"]["cursors"]["after"]
    assert asked(sandbox, path, {"limit": "2", "after": after}, now=NOW + 60).status == 200
    refused = asked(sandbox, path, {"limit": "2", "after": after}, now=NOW + 61)
    assert code_of(refused) == (100, None)
    assert "cursor" in read(refused)["error"]["message"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("stale_cursor", (100, None)), ("stale_cursor/1", (1, None)), ("stale_cursor/33", (100, 33))],
)
def test_a_stale_cursor_strikes_only_calls_with_a_cursor(name: str, code: tuple[int, int | None]) -> None:
    """The fault befalls no first result page and no lead, and `count` bounds it as any other."""
    sandbox = made(leads=90, short_pages=0)
    form = sandbox.world.forms[0]
    path = f"/{form.form_id}/leads"
    sandbox.plan.give(parse_rules(json.dumps({"class": name, "count": 1})), NOW)
    first = read(asked(sandbox, path, {"limit": "3"}))
    assert asked(sandbox, f"/{first['data'][0]['id']}").status == 200
    params = {"limit": "3", "after": first["paging"]["cursors"]["after"]}
    refused = asked(sandbox, path, params)
    assert code_of(refused) == code
    if code[1] is None:
        assert "cursor" in read(refused)["error"]["message"]
    assert asked(sandbox, path, params).status == 200


def test_what_is_older_than_ninety_days_is_neither_listed_nor_read_but_counted() -> None:
    """Expired leads are gone from form and ad, and expired_leads_count tells how many they are."""
    sandbox = made(leads=0)
    form = sandbox.world.forms[0]
    old, young = (
        sandbox.world.create(form, now=NOW, created_time=int(NOW) - age, kind="ad")
        for age in (RETENTION_SECONDS, RETENTION_SECONDS - 1)
    )
    assert ids(listing(sandbox, form.form_id)) == [young.leadgen_id]
    assert young.ad is not None
    assert ids(listing(sandbox, young.ad.ad_id)) == [young.leadgen_id]
    assert code_of(asked(sandbox, f"/{old.leadgen_id}")) == (100, 33)
    counts = read(asked(sandbox, f"/{form.form_id}", {"fields": "leads_count,expired_leads_count"}))
    assert (counts["leads_count"], counts["expired_leads_count"]) == (2, 1)
    assert listing(sandbox, form.form_id, now=NOW + 1) == []


@pytest.mark.parametrize("order", ["newest_first", "oldest_first", "shuffled"])
def test_history_expires_from_its_old_end(order: str) -> None:
    """As days pass, historic leads leave the listing, those that came first before the others."""
    sandbox = made(pages=1, forms_per_page=1, leads=100, order=order)
    form = sandbox.world.forms[0]
    later = NOW + 30 * DAY
    kept = {
        lead.leadgen_id
        for lead in map(sandbox.world.lead, range(100))
        if lead.created_time > later - RETENTION_SECONDS
    }
    assert 0 < len(kept) < 100
    assert set(ids(listing(sandbox, form.form_id, now=later))) == kept


def test_a_lead_not_yet_visible_hides_none_of_the_others() -> None:
    """Late leads are missing in form and ad until their time has come, and then stand where they belong."""
    sandbox = made(leads=0, order="oldest_first")
    form = sandbox.world.forms[0]
    leads = [
        sandbox.world.create(form, now=NOW, created_time=int(NOW) + place, delay=delay, kind="ad")
        for place, delay in enumerate((0, 50, 0))
    ]
    wanted = [lead.leadgen_id for lead in leads]
    assert ids(listing(sandbox, form.form_id, now=NOW + 49)) == [wanted[0], wanted[2]]
    assert ids(listing(sandbox, form.form_id, now=NOW + 50)) == wanted
    of_ads = [each for ad in form.ads for each in ids(listing(sandbox, ad.ad_id, now=NOW + 49))]
    assert sorted(of_ads) == sorted([wanted[0], wanted[2]])
