"""Usage: what is counted, what the headers tell, and when a Page is refused."""

import json

import pytest

from sandbox.parts import Sandbox
from sandbox.usage import Meter
from sandbox.world import DAY
from tests.fakes.sandboxes import NOW, asked, batch, code_of, made, read


def leadgen_id(sandbox: Sandbox, page: int = 0) -> str:
    form = sandbox.world.pages[page].forms[0]
    return sandbox.world.create(form, now=NOW).leadgen_id


def usage(answer_headers: tuple[tuple[str, str], ...]) -> tuple[str, dict[str, object]]:
    header = dict(answer_headers)["X-Business-Use-Case-Usage"]
    ((page_id, [told]),) = json.loads(header).items()
    return page_id, told


def test_a_pages_limit_is_4800_calls_a_lead() -> None:
    """The limit of a Page follows from its leads of 90 days, with a floor for the empty one."""
    sandbox = made(pages=2, forms_per_page=1, leads=10, limit_floor=77)
    assert sandbox.graph.meters.limit(sandbox.world.pages[0].page_id, NOW) == 4_800 * 5
    assert made(leads=0, limit_floor=77).graph.meters.limit(sandbox.world.pages[0].page_id, NOW) == 77


def test_the_header_tells_whole_percentages_of_the_page() -> None:
    """The usage header is keyed by Page, typed leadgen, and counts every call."""
    sandbox = made(leads=0, limit_calls=40)
    path = f"/{leadgen_id(sandbox)}"
    for _ in range(3):
        answer = asked(sandbox, path)
    page_id, told = usage(answer.headers)
    assert page_id == sandbox.world.pages[0].page_id
    assert (told["type"], told["call_count"], told["estimated_time_to_regain_access"]) == ("leadgen", 7, 0)


def test_one_call_too_many_is_80005_until_the_window_has_passed() -> None:
    """A Page at its limit is refused with 80005 and told the minutes; other Pages are not concerned."""
    sandbox = made(leads=0, pages=2, limit_calls=5)
    path = f"/{leadgen_id(sandbox)}"
    assert [asked(sandbox, path).status for _ in range(5)] == [200] * 5
    refused = asked(sandbox, path)
    assert (refused.status, code_of(refused)) == (400, (80005, None))
    assert read(refused)["error"]["message"].startswith("(#80005) There have been too many leadgen api calls")
    _, told = usage(refused.headers)
    assert told["call_count"] == 120
    assert told["estimated_time_to_regain_access"] == pytest.approx(DAY / 60, abs=2)
    assert asked(sandbox, f"/{leadgen_id(sandbox, page=1)}", page=1).status == 200
    assert code_of(asked(sandbox, path, now=NOW + DAY - 60)) == (80005, None)
    assert asked(sandbox, path, now=NOW + 2 * DAY + 120).status == 200


def test_each_batch_item_is_a_call() -> None:
    """A batch of three leads counts three calls, and the limit is felt item by item under HTTP 200."""
    sandbox = made(leads=0, limit_calls=2)
    answer = batch(sandbox, [leadgen_id(sandbox)] * 3)
    assert answer.status == 200
    assert [item["code"] for item in read(answer)] == [200, 200, 400]
    assert json.loads(read(answer)[2]["body"])["error"]["code"] == 80005
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 3


def test_calls_over_the_limit_are_told_apart() -> None:
    """The journal says how often a client called although it was over its limit."""
    sandbox = made(leads=0, limit_calls=1)
    path = f"/{leadgen_id(sandbox)}"
    for _ in range(4):
        asked(sandbox, path)
    assert sandbox.journal.over_limit[sandbox.world.pages[0].page_id] == 3


def test_an_ads_leads_are_metered_as_ads_management() -> None:
    """The ad edge does not use up the Page's lead calls."""
    sandbox = made(leads=20)
    ad = sandbox.world.pages[0].forms[0].ads[0]
    answer = asked(sandbox, f"/{ad.ad_id}/leads")
    assert usage(answer.headers)[1]["type"] == "ads_management"
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 0


def test_a_meter_never_forgets_too_early() -> None:
    """A call leaves the window after a full window at the earliest, and one bucket later at the latest."""
    meter = Meter(86_400)
    meter.count(1_000.0, 3)
    assert meter.used(1_000.0 + 86_400) == 3
    assert meter.used(1_000.0 + 86_400 + 60) == 0


def test_the_time_to_regain_access_is_when_enough_calls_have_left() -> None:
    """Access returns when the oldest calls over the limit have left the window, not all of them."""
    meter = Meter(86_400)
    meter.count(0.0, 4)
    meter.count(3_600.0, 4)
    assert meter.regained_in(5, 7_200.0) == pytest.approx(86_400 + 60 - 7_200)
    assert meter.regained_in(4, 7_200.0) == pytest.approx(3_600 + 86_400 + 60 - 7_200)
    assert meter.regained_in(9, 7_200.0) == 0
