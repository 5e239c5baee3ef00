"""Usage: what is counted, what the headers tell, and when a Page is refused."""

import json
from typing import Any

import pytest

from sandbox.faults import parse_rules
from sandbox.orders import set_limits
from sandbox.parts import Sandbox
from sandbox.request import Answer
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
    """A Page at its limit is refused with 80005 and told the minutes, to the second; others are not concerned."""
    sandbox = made(leads=0, pages=2, limit_calls=5)
    path = f"/{leadgen_id(sandbox)}"
    assert [asked(sandbox, path).status for _ in range(5)] == [200] * 5
    refused = asked(sandbox, path)
    assert (refused.status, code_of(refused)) == (400, (80005, None))
    assert read(refused)["error"]["message"].startswith("(#80005) There have been too many leadgen api calls")
    _, told = usage(refused.headers)
    assert told["call_count"] == 120
    assert told["estimated_time_to_regain_access"] == DAY / 60
    assert asked(sandbox, f"/{leadgen_id(sandbox, page=1)}", page=1).status == 200
    assert asked(sandbox, path, now=NOW + DAY).status == 200


def test_each_batch_item_is_a_call() -> None:
    """A batch of three leads counts three calls, and the limit is felt item by item under HTTP 200."""
    sandbox = made(leads=0, limit_calls=2)
    answer = batch(sandbox, [leadgen_id(sandbox)] * 3)
    assert answer.status == 200
    assert [item["code"] for item in read(answer)] == [200, 200, 400]
    assert json.loads(read(answer)[2]["body"])["error"]["code"] == 80005
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 3


def test_calls_over_the_limit_are_told_apart() -> None:
    """The journal says how often a client called over its limit, and how often into a block that had begun."""
    sandbox = made(leads=0, limit_calls=1)
    path = f"/{leadgen_id(sandbox)}"
    for _ in range(4):
        asked(sandbox, path)
    page_id = sandbox.world.pages[0].page_id
    assert sandbox.journal.over_limit[page_id] == 3
    assert sandbox.journal.into_block[page_id] == 2


def test_an_ads_leads_are_metered_as_ads_management() -> None:
    """The ad edge does not use up the Page's lead calls."""
    sandbox = made(leads=20)
    ad = sandbox.world.pages[0].forms[0].ads[0]
    answer = asked(sandbox, f"/{ad.ad_id}/leads")
    assert usage(answer.headers)[1]["type"] == "ads_management"
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 0


def header(answer: Answer, name: str) -> Any:
    return json.loads(dict(answer.headers)[name])


def ad_path(sandbox: Sandbox) -> str:
    return f"/{sandbox.world.pages[0].forms[0].ads[0].ad_id}/leads"


MORE = (
    "Wait a bit and try again. For more info, please refer to"
    " https://developers.facebook.com/docs/graph-api/overview/rate-limiting."
)


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (
            "app_limit_calls",
            {"message": "(#4) Application request limit reached", "is_transient": True, "code": 4},
        ),
        (
            "user_limit_calls",
            {"message": "(#17) User request limit reached", "is_transient": True, "code": 17},
        ),
        (
            "ads_limit_calls",
            {
                "message": f"(#80004) There have been too many calls to this ad-account. {MORE}",
                "code": 80004,
                "error_subcode": 2446079,
            },
        ),
        (
            "limit_calls",
            {
                "message": f"(#80005) There have been too many leadgen api calls to this Page account. {MORE}",
                "code": 80005,
            },
        ),
    ],
)
def test_each_limit_refuses_with_its_documented_body(limit: str, error: dict[str, object]) -> None:
    """One call over the limit of app, user, ad account or Page is HTTP 400 with that limit's code and text."""
    sandbox = made(leads=20, **{limit: 2})
    path = ad_path(sandbox) if limit == "ads_limit_calls" else f"/{leadgen_id(sandbox)}"
    token = {"access_token": sandbox.tokens.of_user} if limit == "user_limit_calls" else {}
    assert [asked(sandbox, path, token).status for _ in range(2)] == [200, 200]
    refused = asked(sandbox, path, token)
    told = read(refused)["error"]
    assert told.pop("fbtrace_id")
    assert (refused.status, told) == (400, {"type": "OAuthException", **error})


def test_the_apps_limit_is_shared_by_all_tokens_and_told_on_every_answer() -> None:
    """With an app limit every answer has X-App-Usage beside its own header, and 4 comes whoever called before."""
    sandbox = made(leads=0, pages=2, app_limit_calls=3)
    first, second = f"/{leadgen_id(sandbox)}", f"/{leadgen_id(sandbox, page=1)}"
    assert header(asked(sandbox, first), "X-App-Usage")["call_count"] == 33
    assert header(asked(sandbox, second, page=1), "X-App-Usage")["call_count"] == 66
    asked(sandbox, first, {"access_token": sandbox.tokens.of_user})
    refused = asked(sandbox, first)
    assert code_of(refused) == (4, None)
    assert {name for name, _ in refused.headers} == {"X-Business-Use-Case-Usage", "X-App-Usage"}
    assert header(refused, "X-App-Usage")["call_count"] == 133
    assert usage(refused.headers)[1]["call_count"] < 100
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 2
    assert header(batch(sandbox, [], now=NOW + 1), "X-App-Usage")["call_count"] == 133
    assert asked(sandbox, first, now=NOW + 3_600).status == 200


def test_without_an_app_limit_pages_are_told_nothing_of_the_app() -> None:
    """X-App-Usage comes with calls of the user alone while the app has no limit."""
    sandbox = made(leads=0)
    assert [name for name, _ in asked(sandbox, f"/{leadgen_id(sandbox)}").headers] == [
        "X-Business-Use-Case-Usage"
    ]


def test_user_and_app_share_one_header_and_the_tighter_is_told() -> None:
    """A user token's X-App-Usage stands once and tells whichever of user and app has used more."""
    for limits, percent in (
        ({"user_limit_calls": 4, "app_limit_calls": 10}, 25),
        (
            {"user_limit_calls": 10, "app_limit_calls": 4},
            25,
        ),
    ):
        sandbox = made(leads=0, **limits)
        answer = asked(sandbox, f"/{leadgen_id(sandbox)}", {"access_token": sandbox.tokens.of_user})
        assert [name for name, _ in answer.headers] == ["X-App-Usage"]
        assert header(answer, "X-App-Usage")["call_count"] == percent


def test_where_two_limits_refuse_the_business_one_is_answered() -> None:
    """Over both limits the Page's own code is answered, and the app's header tells its share all the same."""
    sandbox = made(leads=0, limit_calls=1, app_limit_calls=1)
    path = f"/{leadgen_id(sandbox)}"
    asked(sandbox, path)
    refused = asked(sandbox, path)
    assert code_of(refused) == (80005, None)
    assert header(refused, "X-App-Usage")["call_count"] == 200


def test_an_ad_account_tells_two_decimals_and_seconds() -> None:
    """Ad edges have X-Ad-Account-Usage too: two decimals, and seconds only while closed."""
    sandbox = made(leads=20, ads_limit_calls=62, hour_seconds=300)
    path = ad_path(sandbox)
    for _ in range(6):
        answer = asked(sandbox, path)
    assert header(answer, "X-Ad-Account-Usage") == {
        "acc_id_util_pct": 9.67,
        "reset_time_duration": 0,
        "ads_api_access_tier": "standard_access",
    }
    for _ in range(56):
        answer = asked(sandbox, path, now=NOW + 1.5)
    assert answer.status == 200
    refused = asked(sandbox, path, now=NOW + 2)
    assert code_of(refused) == (80004, 2446079)
    told = header(refused, "X-Ad-Account-Usage")
    assert (told["acc_id_util_pct"], told["reset_time_duration"]) == (101.61, 298)
    account, business = usage(refused.headers)
    assert account == f"9{sandbox.world.pages[0].page_id[1:]}"
    assert (business["call_count"], business["estimated_time_to_regain_access"]) == (101, 5)
    assert asked(sandbox, path, now=NOW + 300).status == 200


@pytest.mark.parametrize(
    ("rounding", "told"),
    [("floor", [33, 66, 100, 133]), ("nearest", [33, 67, 100, 133]), ("ceil", [34, 67, 100, 134])],
)
def test_percentages_are_rounded_as_asked(rounding: str, told: list[int]) -> None:
    """usage_rounding rounds every percentage; below the limit no time to regain is told."""
    sandbox = made(leads=0, limit_calls=3, usage_rounding=rounding)
    path = f"/{leadgen_id(sandbox)}"
    usages = [usage(asked(sandbox, path).headers)[1] for _ in told]
    assert [each["call_count"] for each in usages] == told
    assert [each["estimated_time_to_regain_access"] for each in usages] == [0, 0, 1_440, 1_440]


@pytest.mark.parametrize("rounding", ["floor", "nearest", "ceil"])
def test_all_used_is_always_a_hundred_and_a_time(rounding: str) -> None:
    """From the limit on, and all through a block, headers tell at least 100 and at least one minute."""
    sandbox = made(leads=0, limit_calls=7, limit_window_seconds=5, usage_rounding=rounding)
    path = f"/{leadgen_id(sandbox)}"
    for number in range(9):
        _, told = usage(asked(sandbox, path).headers)
        assert (int(str(told["call_count"])) >= 100) == (number >= 6)
        assert (int(str(told["estimated_time_to_regain_access"])) >= 1) == (number >= 6)
    # The window is empty again, the block (5 s, and 30 for the ninth call) is not over.
    blocked = asked(sandbox, path, now=NOW + 34)
    assert code_of(blocked) == (80005, None)
    assert usage(blocked.headers)[1]["call_count"] == 100
    assert usage(blocked.headers)[1]["estimated_time_to_regain_access"] == 1
    assert usage(asked(sandbox, path, now=NOW + 34.5).headers)[1]["estimated_time_to_regain_access"] == 2


@pytest.mark.parametrize("window", [5, 60, 300])
def test_short_windows_are_as_exact_as_a_day(window: int) -> None:
    """With a short window the limit holds to the moment, and the minutes are rounded up."""
    sandbox = made(leads=0, limit_calls=2, limit_window_seconds=window, block_penalty_seconds=0)
    path = f"/{leadgen_id(sandbox)}"
    moments = [0, 0.25, window - 0.25, window + 0.25, window + 0.5]
    answers = [asked(sandbox, path, now=NOW + moment) for moment in moments]
    assert [answer.status for answer in answers] == [200, 200, 400, 200, 400]
    assert usage(answers[2].headers)[1]["estimated_time_to_regain_access"] == 1
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW + window + 0.5) == 3


def test_items_of_a_batch_lengthen_a_block_each_at_its_turn() -> None:
    """Of a batch over the limit one item opens the block and every further one pushes its end back."""
    sandbox = made(leads=0, limit_calls=2, limit_window_seconds=60)
    batch(sandbox, [leadgen_id(sandbox)] * 6)
    page_id = sandbox.world.pages[0].page_id
    window = windows(sandbox)[page_id]
    assert window == {
        "used": 6,
        "limit": 2,
        "most": 6,
        "window_seconds": 60,
        "blocked_until": NOW + 60 + 3 * 30,
        "into_block": 3,
    }


def windows(sandbox: Sandbox, now: float = NOW, which: str = "windows") -> Any:
    return sandbox.graph.meters.windows(now, sandbox.journal.into_block)[which]


def test_a_limit_set_by_hand_ends_the_block() -> None:
    """Orders free a Page, its ad account and the app at once, and null gives their limits back."""
    sandbox = made(leads=20, limit_calls=1, ads_limit_calls=1)
    page_id, path = sandbox.world.pages[0].page_id, f"/{leadgen_id(sandbox)}"
    for _ in range(3):
        asked(sandbox, path), asked(sandbox, ad_path(sandbox))
    assert asked(sandbox, path).status == asked(sandbox, ad_path(sandbox)).status == 400
    set_limits(sandbox, {"page": page_id, "limit": 9, "ads_limit": 9, "app_limit": 8}, NOW)
    assert code_of(asked(sandbox, path)) == code_of(asked(sandbox, ad_path(sandbox))) == (4, None)
    set_limits(sandbox, {"app_limit": None}, NOW)
    assert asked(sandbox, path).status == asked(sandbox, ad_path(sandbox)).status == 200
    set_limits(sandbox, {"limit": None, "ads_limit": None, "reset": True}, NOW)
    assert windows(sandbox)[page_id]["limit"] == windows(sandbox, which="ads_windows")[page_id]["limit"] == 1
    assert windows(sandbox)[page_id]["used"] == windows(sandbox, which="shared_windows")["app"]["used"] == 0


def test_a_throttle_of_the_fault_plan_opens_no_block() -> None:
    """A throttle on demand is gone with its rule; only limits block."""
    sandbox = made(leads=0, limit_calls=50)
    path = f"/{leadgen_id(sandbox)}"
    sandbox.plan.give(parse_rules('{"class": "80005", "count": 2, "minutes": 7}'), NOW)
    throttled = [asked(sandbox, path) for _ in range(2)]
    assert [usage(answer.headers)[1]["estimated_time_to_regain_access"] for answer in throttled] == [7, 7]
    assert asked(sandbox, path).status == 200
    assert windows(sandbox)[sandbox.world.pages[0].page_id]["blocked_until"] is None
    assert sandbox.journal.into_block.total() == 0


@pytest.mark.parametrize("path", ["/a/b/c", "/{lead}", "/1/comments", "/"])
def test_paths_that_lead_nowhere_count_too(path: str) -> None:
    """A call with a good token counts whatever it asks for, so that log and window agree."""
    sandbox = made(leads=0)
    page_id = sandbox.world.pages[0].page_id
    asked(sandbox, path, {"ids": "1"} if path == "/" else None)
    assert sandbox.graph.meters.used(page_id, NOW) == 1
    assert [call[2] for call in sandbox.journal.logged(0, page_id)] == [1]


def test_the_log_has_every_call_with_its_time_and_adds_up_to_the_window() -> None:
    """From the log alone one can tell what any window held: `count` is what a call counts for."""
    sandbox = made(leads=20, limit_calls=3, limit_window_seconds=60)
    page_id, path = sandbox.world.pages[0].page_id, f"/{leadgen_id(sandbox)}"
    asked(sandbox, path)
    asked(sandbox, ad_path(sandbox), now=NOW + 1)
    set_limits(sandbox, {"page": page_id, "used": 2}, NOW + 2)
    asked(sandbox, path, now=NOW + 3)
    asked(sandbox, path, {"access_token": sandbox.tokens.of_user}, now=NOW + 4)
    asked(sandbox, path, {"access_token": "nobody"}, now=NOW + 5)
    asked(sandbox, "/", {"batch": "nonsense"}, method="POST", now=NOW + 6)
    assert list(sandbox.journal.logged(0, page_id)) == [
        (NOW, page_id, 1, "lead", "200"),
        (NOW + 1, page_id, 1, "ad_leads", "200"),
        (NOW + 2, page_id, 2, "preset", "preset"),
        (NOW + 3, page_id, 1, "lead", "80005"),
        (NOW + 6, page_id, 0, "batch", "100"),
    ]
    assert [call[:3] for call in sandbox.journal.logged(NOW + 4)] == [
        (NOW + 4, "", 1),
        (NOW + 5, "", 0),
        (NOW + 6, page_id, 0),
    ]
    assert windows(sandbox, NOW + 6)[page_id]["most"] == 4
