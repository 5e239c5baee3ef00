"""Listings: result pages, cursors, limits and filters."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.parts import Sandbox
from sandbox.world import Ad, Form
from tests.fakes.sandboxes import NOW, asked, code_of, made, read, token_of


def walk(sandbox: Sandbox, path: str, page: int = 0, **params: str) -> list[dict[str, Any]]:
    """All result pages from the first to the last, by following `after` while there is a `next`."""
    pages = [read(asked(sandbox, path, params, page=page))]
    while "next" in pages[-1].get("paging", {}):
        params["after"] = pages[-1]["paging"]["cursors"]["after"]
        pages.append(read(asked(sandbox, path, params, page=page)))
        assert len(pages) < 2_000
    return pages


def ids(pages: list[dict[str, Any]]) -> list[str]:
    return [lead["id"] for page in pages for lead in page["data"]]


def leads_of(sandbox: Sandbox, form: Form, ad: Ad | None = None) -> set[str]:
    leads = map(sandbox.world.lead, range(len(sandbox.world)))
    return {lead.leadgen_id for lead in leads if lead.form is form and ad in (None, lead.ad)}


@settings(max_examples=60, deadline=None)
@given(
    historic=st.integers(0, 60),
    fresh=st.integers(0, 30),
    limit=st.integers(1, 40),
    short=st.sampled_from([0.0, 0.5, 1.0]),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
    order=st.sampled_from(["newest_first", "oldest_first", "shuffled"]),
    ties=st.booleans(),
)
def test_paging_meets_every_lead_once(
    historic: int, fresh: int, limit: int, short: float, empty: float, order: str, ties: bool
) -> None:
    """Whatever the limit, the order and the gaps, following `next` to its end gives each lead exactly once."""
    sandbox = made(leads=historic, short_pages=short, empty_pages=empty, order=order, unstable_ties=ties)
    form = sandbox.world.forms[0]
    for number in range(fresh):
        sandbox.world.create(form, now=NOW, created_time=int(NOW) - number // 3 * 86_400)
    found = ids(walk(sandbox, f"/{form.form_id}/leads", limit=str(limit)))
    assert len(found) == len(set(found))
    assert set(found) == leads_of(sandbox, form)


def test_leads_that_come_while_one_pages_shift_nothing() -> None:
    """New leads between two result pages neither repeat nor hide what was there before."""
    sandbox = made(leads=60, short_pages=0)
    form = sandbox.world.forms[0]
    before = leads_of(sandbox, form)
    first = read(asked(sandbox, f"/{form.form_id}/leads", {"limit": "4"}))
    sandbox.world.create(form, now=NOW)
    rest = walk(sandbox, f"/{form.form_id}/leads", limit="4", after=first["paging"]["cursors"]["after"])
    assert sorted(ids([first, *rest])) == sorted(before)


def test_the_limit_is_25_by_default_and_silently_capped() -> None:
    """Without a limit a result page has 25 leads; a limit beyond the cap is accepted and cut."""
    sandbox = made(pages=1, forms_per_page=1, leads=300, short_pages=0, max_limit=100)
    path = f"/{sandbox.world.forms[0].form_id}/leads"
    assert len(read(asked(sandbox, path))["data"]) == 25
    assert len(read(asked(sandbox, path, {"limit": "100000"}))["data"]) == 100


def test_asking_too_much_is_told_so() -> None:
    """Above its bound Graph answers HTTP 500, code 1, and asks for less data."""
    sandbox = made(leads=10, reduce_above=200)
    answer = asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads", {"limit": "201"})
    assert (answer.status, code_of(answer)) == (500, (1, None))


def test_a_short_page_is_not_the_last() -> None:
    """A result page may hold fewer leads than asked and still have a `next`."""
    sandbox = made(pages=1, forms_per_page=1, leads=100, short_pages=1)
    page = read(asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads", {"limit": "30"}))
    assert len(page["data"]) < 30
    assert "next" in page["paging"]


def test_the_last_page_has_cursors_but_no_next() -> None:
    """Only the absence of `next` means the end; the cursors are still there."""
    sandbox = made(pages=1, forms_per_page=1, leads=10, short_pages=0)
    paging = read(asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads"))["paging"]
    assert set(paging) == {"cursors"}


def test_next_is_a_full_url_with_the_token_in_it() -> None:
    """`next` can be fetched as it stands, which is why it must never be logged."""
    sandbox = made(leads=60, short_pages=0)
    form = sandbox.world.forms[0]
    page = read(asked(sandbox, f"/v25.0/{form.form_id}/leads", {"limit": "3", "fields": "id"}))
    url = urlsplit(page["paging"]["next"])
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.netloc, url.path) == ("graph", f"/v25.0/{form.form_id}/leads")
    assert query["access_token"] == token_of(sandbox)
    following = read(asked(sandbox, url.path, query, page=None))
    assert not set(ids([following])) & set(ids([page]))
    back = read(
        asked(sandbox, url.path, {**query, "after": "", "before": following["paging"]["cursors"]["before"]})
    )
    assert ids([back]) == ids([page])


def test_an_empty_listing_is_an_empty_list() -> None:
    """A form without leads answers `data` empty, without cursors."""
    sandbox = made(leads=0)
    assert read(asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads")) == {"data": []}


@pytest.mark.parametrize("cursor", ["nonsense", "%00", "ZD", "MTIzZD"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    """A malformed cursor is code 100 with the word cursor in it."""
    sandbox = made(leads=30)
    answer = asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads", {"after": cursor})
    assert code_of(answer) == (100, None)
    assert "cursor" in read(answer)["error"]["message"]


def test_a_cursor_dies_with_its_lead() -> None:
    """Once the lead that a cursor points at is deleted, the cursor is refused."""
    sandbox = made(leads=60, short_pages=0)
    path = f"/{sandbox.world.forms[0].form_id}/leads"
    page = read(asked(sandbox, path, {"limit": "3"}))
    asked(sandbox, f"/{page['data'][-1]['id']}", method="DELETE")
    after = page["paging"]["cursors"]["after"]
    assert code_of(asked(sandbox, path, {"limit": "3", "after": after})) == (100, None)


@settings(max_examples=80, deadline=None)
@given(
    filters=st.lists(
        st.tuples(
            st.sampled_from(["LESS_THAN", "GREATER_THAN", "GREATER_THAN_OR_EQUAL"]), st.integers(0, 60)
        ),
        max_size=3,
    )
)
def test_filters_combine_to_the_second(filters: list[tuple[str, int]]) -> None:
    """Each operator keeps exactly the seconds that it names, and several filters hold together."""
    sandbox = made(pages=1, forms_per_page=1, leads=60)
    form = sandbox.world.forms[0]
    for number in range(6):
        sandbox.world.create(form, now=NOW - number)
    times = {lead.leadgen_id: lead.created_time for lead in map(sandbox.world.lead, range(66))}
    marks = sorted(times.values())
    told = [(operator, marks[place]) for operator, place in filters]
    holds = {
        "LESS_THAN": lambda time, mark: time < mark,
        "GREATER_THAN": lambda time, mark: time > mark,
        "GREATER_THAN_OR_EQUAL": lambda time, mark: time >= mark,
    }
    filtering = [{"field": "time_created", "operator": name, "value": mark} for name, mark in told]
    found = ids(walk(sandbox, f"/{form.form_id}/leads", filtering=json.dumps(filtering)))
    assert set(found) == {
        leadgen_id
        for leadgen_id, time in times.items()
        if all(holds[name](time, mark) for name, mark in told)
    }


@pytest.mark.parametrize(
    "filtering",
    [
        '[{"field":"time_created","operator":"LESS_THAN_OR_EQUAL","value":1}]',
        '[{"field":"created_time","operator":"LESS_THAN","value":1}]',
        '[{"field":"time_created","operator":"LESS_THAN"}]',
        '[{"field":"time_created","operator":"LESS_THAN","value":1e999}]',
        "[1]",
        "{}",
        "x",
    ],
)
def test_what_graph_does_not_filter_by_is_refused(filtering: str) -> None:
    """Other fields, other operators and what is no filter at all are code 100."""
    sandbox = made(leads=10)
    answer = asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads", {"filtering": filtering})
    assert (answer.status, code_of(answer)) == (400, (100, None))


def test_an_ad_lists_its_own_leads_of_the_form() -> None:
    """A form has more leads than any of its ads, and each ad lists its own."""
    sandbox = made(leads=120)
    form = sandbox.world.forms[0]
    found = {ad.ad_id: set(ids(walk(sandbox, f"/{ad.ad_id}/leads"))) for ad in form.ads}
    assert found == {ad.ad_id: leads_of(sandbox, form, ad) for ad in form.ads}
    assert set().union(*found.values()) < leads_of(sandbox, form)


def test_a_page_lists_its_forms_in_result_pages() -> None:
    """A Page's forms are listed with cursors like everything else."""
    sandbox = made(pages=2, forms_per_page=7)
    page = sandbox.world.pages[1]
    pages = walk(sandbox, f"/{page.page_id}/leadgen_forms", page=1, limit="3")
    assert [len(each["data"]) for each in pages] == [3, 3, 1]
    assert ids(pages) == [form.form_id for form in page.forms]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1" * 30])
def test_a_limit_that_is_no_number_is_refused(limit: str) -> None:
    """A limit must be a positive whole number."""
    sandbox = made(leads=10)
    assert code_of(asked(sandbox, f"/{sandbox.world.forms[0].form_id}/leads", {"limit": limit})) == (
        100,
        None,
    )
