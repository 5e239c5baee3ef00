"""Tokens of the sandbox: derived, exchanged, inspected, revoked; permissions taken away and given back."""

from typing import Any

import pytest

from sandbox.errors import CATALOG
from sandbox.given import OrderRefused
from sandbox.parts import Sandbox
from sandbox.request import Answer, nested_arguments
from sandbox.tokenorders import DEATHS, order_tokens
from sandbox.world import Form, Lead
from tests.fakes.sandboxes import NOW, asked, batch, code_of, made, read, token_of

HOUR, DAY = 3_600, 86_400


@pytest.fixture
def sandbox() -> Sandbox:
    return made(leads=60, pages=3)


def by(sandbox: Sandbox, token: str, path: str, now: float = NOW, **params: str) -> Answer:
    """A call with this token."""
    return asked(sandbox, path, {"access_token": token, **params}, now=now)


def order(sandbox: Sandbox, now: float = NOW, **orders: object) -> Any:
    return order_tokens(sandbox, orders, now)


def inspected(sandbox: Sandbox, token: str, now: float = NOW) -> Any:
    answer = by(sandbox, sandbox.config.app_token, "/v26.0/debug_token", now, input_token=token)
    return read(answer)["data"]


def exchange(sandbox: Sandbox, token: str, now: float = NOW, **params: str) -> Answer:
    config = sandbox.config
    query = {
        "grant_type": "fb_exchange_token",
        "client_id": config.app_id,
        "client_secret": config.app_secret,
        "fb_exchange_token": token,
        **params,
    }
    return asked(sandbox, "/v26.0/oauth/access_token", query, page=None, now=now)


def accounts(sandbox: Sandbox, token: str, now: float = NOW) -> dict[str, str]:
    """Page -> its token, as /me/accounts gives them."""
    told = read(by(sandbox, token, "/me/accounts", now))
    return {page["id"]: page["access_token"] for page in told["data"]}


def a_lead(sandbox: Sandbox) -> Lead:
    page_id = sandbox.world.pages[0].page_id
    return next(
        lead for lead in map(sandbox.world.lead, range(60)) if lead.page_id == page_id and lead.ad is not None
    )


def a_form(sandbox: Sandbox) -> Form:
    return sandbox.world.pages[0].forms[0]


def test_accounts_are_the_users_pages_with_their_tokens(sandbox: Sandbox) -> None:
    """/me/accounts and /{user}/accounts list each Page with its token, category and tasks, and no Page's token does."""
    for path in ("/me/accounts", f"/v26.0/{sandbox.world.user_id}/accounts"):
        told = read(by(sandbox, sandbox.tokens.of_user, path))
        assert [page["id"] for page in told["data"]] == list(sandbox.world.page_by_id)
        assert list(told["data"][0]) == ["access_token", "category", "category_list", "name", "id", "tasks"]
        assert [page["access_token"] for page in told["data"]] == list(sandbox.tokens.of_page.values())
        assert "next" not in told["paging"]
    assert read(asked(sandbox, "/me/accounts"))["error"]["code"] == 2500


def test_accounts_are_paged() -> None:
    """Following `after` to the end meets each Page once; `next` carries the token, as Graph's does."""
    sandbox = made(leads=0, pages=5)
    met, after = [], {}
    for _ in range(3):
        answer = read(by(sandbox, sandbox.tokens.of_user, "/me/accounts", limit="2", fields="id", **after))
        met += [page["id"] for page in answer["data"]]
        after = {"after": answer["paging"]["cursors"]["after"]}
        if "next" not in answer["paging"]:
            break
        assert f"access_token={sandbox.tokens.of_user}" in answer["paging"]["next"]
    assert met == list(sandbox.world.page_by_id)


def test_a_page_where_the_user_has_no_role_is_left_out(sandbox: Sandbox) -> None:
    """Without a role a Page is in no listing, unknown to the user's token, and its own token is 190/492 meanwhile."""
    page_id, token = sandbox.world.pages[0].page_id, token_of(sandbox)
    told = order(sandbox, tasks=[], pages=[page_id])
    assert told["pages"][page_id]["token"] is None
    assert page_id not in accounts(sandbox, sandbox.tokens.of_user)
    assert code_of(by(sandbox, sandbox.tokens.of_user, f"/{page_id}")) == (100, 33)
    assert code_of(by(sandbox, token, f"/{page_id}")) == (190, 492)
    assert inspected(sandbox, token)["error"]["subcode"] == 492
    order(sandbox, tasks=None)
    assert by(sandbox, token, f"/{page_id}").status == 200


@pytest.mark.parametrize(("method", "meant"), [("DELETE", "get"), ("POST", "post")])
def test_the_user_is_read_and_nothing_else(sandbox: Sandbox, method: str, meant: str) -> None:
    """Who would change or delete the user or his list of Pages is refused, with the user's id."""
    user = {"access_token": sandbox.tokens.of_user}
    for path in ("/me", "/me/accounts"):
        refused = asked(sandbox, path, user, method=method)
        assert code_of(refused) == (100, 33)
        text = f"Unsupported {meant} request. Object with ID '{sandbox.world.user_id}'"
        assert text in read(refused)["error"]["message"]


def test_only_short_lived_tokens_are_made_long_lived(sandbox: Sandbox) -> None:
    """A short-lived token becomes one of sixty days; a long-lived one is given back with what is left."""
    short = order(sandbox, fresh="short")["user_token"]
    told = read(exchange(sandbox, short, NOW + 60))
    assert (told["token_type"], told["expires_in"]) == ("bearer", 60 * DAY)
    assert told["access_token"] != short
    again = read(exchange(sandbox, told["access_token"], NOW + 60 + DAY))
    assert again == {**told, "expires_in": 59 * DAY}
    assert code_of(by(sandbox, short, "/me", NOW + HOUR)) == (190, 463)
    assert by(sandbox, told["access_token"], "/me", NOW + HOUR).status == 200


def test_a_token_that_never_expires_is_exchanged_for_itself_without_a_term(sandbox: Sandbox) -> None:
    """expires_in is left out, as Graph does for what holds for ever."""
    never = order(sandbox, fresh="never")["user_token"]
    assert read(exchange(sandbox, never)) == {"access_token": never, "token_type": "bearer"}


def test_a_token_that_is_dead_or_foreign_is_not_exchanged(sandbox: Sandbox) -> None:
    """Expired is 190/463, revoked its own error, unknown and a Page's 190; so nothing revives a token."""
    short = order(sandbox, fresh="short")["user_token"]
    assert code_of(exchange(sandbox, short, NOW + HOUR)) == (190, 463)
    for other in ("EAAUnobody", token_of(sandbox)):
        assert code_of(exchange(sandbox, other)) == (190, None)
    order(sandbox, revoke="user", error="190/460")
    assert code_of(exchange(sandbox, short)) == (190, 460)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"client_secret": "guessed"}, 1),
        ({"client_secret": ""}, 1),
        ({"client_id": "7"}, 101),
        ({"client_id": ""}, 101),
        ({"grant_type": "password"}, 100),
        ({"fb_exchange_token": ""}, 100),
    ],
)
def test_tokens_go_out_to_the_app_alone(sandbox: Sandbox, wrong: dict[str, str], code: int) -> None:
    """Who does not know the app's id and secret, or asks for what there is not, gets an error and no token."""
    answer = exchange(sandbox, sandbox.tokens.of_user, **wrong)
    assert code_of(answer) == (code, None)
    assert "EAA" not in answer.body


def test_the_apps_own_token_is_its_id_and_secret(sandbox: Sandbox) -> None:
    """client_credentials gives APP_ID|APP_SECRET."""
    told = read(exchange(sandbox, "", grant_type="client_credentials"))
    assert told == {"access_token": sandbox.config.app_token, "token_type": "bearer"}


def test_every_kind_of_token_is_inspected() -> None:
    """debug_token tells whose a token is, what for and how long: a user's, a system user's, a Page's, the app's."""
    sandbox = made(leads=0, pages=2)
    page_id = sandbox.world.pages[0].page_id
    user, page = inspected(sandbox, sandbox.tokens.of_user), inspected(sandbox, token_of(sandbox))
    assert (user["type"], page["type"], page["profile_id"]) == ("USER", "PAGE", page_id)
    assert (user["expires_at"], page["expires_at"]) == (NOW + 60 * DAY, 0)
    assert user["data_access_expires_at"] == page["data_access_expires_at"] == NOW + 90 * DAY
    for told in (user, page):
        assert (told["app_id"], told["is_valid"], told["issued_at"]) == (sandbox.config.app_id, True, NOW)
        assert told["user_id"] == sandbox.world.user_id
        assert told["scopes"] == sandbox.config.scopes.split(",")
        targets = {each["scope"]: each.get("target_ids") for each in told["granular_scopes"]}
        assert targets["leads_retrieval"] == list(sandbox.world.page_by_id)
        assert targets["business_management"] is None
    assert "profile_id" not in user
    assert inspected(sandbox, sandbox.config.app_token)["type"] == "APP"
    system = made(leads=0, user_kind="system_user")
    told = inspected(system, system.tokens.of_user, NOW + 1_000 * DAY)
    assert (told["type"], told["expires_at"], told["is_valid"]) == ("SYSTEM_USER", 0, True)


def test_an_unknown_token_is_inspected_as_one(sandbox: Sandbox) -> None:
    """A foreign token is no error of the call: is_valid is false and the error says why."""
    told = inspected(sandbox, "EAAGnobody")
    assert (told["is_valid"], told["error"]["code"], told["scopes"]) == (False, 190, [])


def test_only_the_app_and_its_developer_inspect(sandbox: Sandbox) -> None:
    """The app's own token and the user's may look; a Page's may not, and the app's own reads nothing else."""
    query = {"input_token": token_of(sandbox)}
    assert by(sandbox, sandbox.tokens.of_user, "/debug_token", **query).status == 200
    assert code_of(by(sandbox, token_of(sandbox), "/debug_token", **query)) == (100, None)
    assert code_of(by(sandbox, sandbox.config.app_token, "/debug_token")) == (100, None)
    assert code_of(by(sandbox, sandbox.config.app_token, f"/{a_lead(sandbox).leadgen_id}")) == (100, 33)


@pytest.mark.parametrize("error", DEATHS)
def test_a_revoked_user_takes_his_pages_along(sandbox: Sandbox, error: str) -> None:
    """With the user's token all Page tokens derived from it die with the same error, which debug_token tells too."""
    old = dict(sandbox.tokens.of_page)
    told = order(sandbox, revoke="user", error=error)
    assert (told["error"], {page["token"] for page in told["pages"].values()}) == (error, {None})
    expected = CATALOG[error]
    for token in (sandbox.tokens.of_user, *old.values()):
        assert code_of(by(sandbox, token, "/me")) == (expected.code, expected.subcode)
        seen = inspected(sandbox, token)
        assert seen["is_valid"] is False
        assert (0 < seen["expires_at"] <= NOW) == (error == "190/463")
        assert (seen["error"]["code"], seen["error"].get("subcode")) == (expected.code, expected.subcode)
    assert sandbox.tokens.working(NOW) == {}


def test_a_fresh_token_of_the_user_gives_new_page_tokens(sandbox: Sandbox) -> None:
    """After a revocation a new login derives new Page tokens, the same each time; the old ones stay dead for ever."""
    old = dict(sandbox.tokens.of_page)
    order(sandbox, revoke="user", error="190/460")
    user = order(sandbox, fresh="long", restore=True)["user_token"]
    new = accounts(sandbox, user)
    assert new == accounts(sandbox, user) == sandbox.tokens.working(NOW)
    assert new.keys() == old.keys()
    assert not set(new.values()) & set(old.values())
    page_id = sandbox.world.pages[0].page_id
    one = read(by(sandbox, user, f"/{page_id}", fields="access_token"))
    assert one["access_token"] == new[page_id]
    assert by(sandbox, new[page_id], f"/{page_id}/leadgen_forms").status == 200
    assert code_of(by(sandbox, old[page_id], "/me")) == (190, 460)


def test_a_revoked_page_token_is_derived_anew(sandbox: Sandbox) -> None:
    """Revoking one Page's token leaves the others and the user alone, and the next derivation gives another string."""
    page_id, other = (page.page_id for page in sandbox.world.pages[:2])
    old = dict(sandbox.tokens.of_page)
    order(sandbox, revoke="page", pages=[page_id], error="190/467")
    assert code_of(by(sandbox, old[page_id], "/me")) == (190, 467)
    new = accounts(sandbox, sandbox.tokens.of_user)
    assert (new[other], new[page_id] == old[page_id]) == (old[other], False)
    order(sandbox, revoke="page", pages=[page_id])
    assert accounts(sandbox, sandbox.tokens.of_user)[page_id] not in (old[page_id], new[page_id])


def test_a_dead_token_keeps_its_error(sandbox: Sandbox) -> None:
    """Revoking again changes nothing for tokens that are dead already, expired ones included."""
    user, page = sandbox.tokens.of_user, token_of(sandbox)
    order(sandbox, revoke="page", error="190/463")
    order(sandbox, revoke="user", error="190/460")
    order(sandbox, revoke="user", error="102")
    assert (code_of(by(sandbox, page, "/me")), code_of(by(sandbox, user, "/me"))) == ((190, 463), (190, 460))


def test_a_page_token_is_told_itself(sandbox: Sandbox) -> None:
    """A Page's token that asks for the Page's token gets itself, though the user has newer ones."""
    token = token_of(sandbox)
    accounts(sandbox, order(sandbox, fresh="long")["user_token"])
    assert read(by(sandbox, token, "/me", fields="access_token"))["access_token"] == token


def test_one_of_two_user_tokens_can_be_revoked(sandbox: Sandbox) -> None:
    """Revoking one token of the user kills the Page tokens derived from that one, and those of the other live on."""
    first, firsts = sandbox.tokens.of_user, dict(sandbox.tokens.of_page)
    second = order(sandbox, fresh="never")["user_token"]
    seconds = accounts(sandbox, second, NOW + 100 * DAY)
    order(sandbox, revoke="user", token=first, error="190/458")
    page_id = sandbox.world.pages[0].page_id
    assert code_of(by(sandbox, firsts[page_id], "/me")) == (190, 458)
    assert by(sandbox, seconds[page_id], "/me").status == 200


def test_page_tokens_of_a_short_lived_token_die_with_it(sandbox: Sandbox) -> None:
    """A Page token lives as long as the short-lived token it came from, and for ever if that was a long-lived one."""
    page_id = sandbox.world.pages[0].page_id
    short = order(sandbox, fresh="short")["user_token"]
    long = read(exchange(sandbox, short))["access_token"]
    of_short, of_long = accounts(sandbox, short)[page_id], accounts(sandbox, long)[page_id]
    assert by(sandbox, of_short, "/me", NOW + HOUR - 1).status == 200
    assert code_of(by(sandbox, of_short, "/me", NOW + HOUR)) == (190, 463)
    assert by(sandbox, of_long, "/me", NOW + 1_000 * DAY).status == 200
    assert code_of(by(sandbox, long, "/me", NOW + 60 * DAY)) == (190, 463)


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ("leads_retrieval", "/{lead}"),
        ("leads_retrieval", "/{form}/leads"),
        ("pages_manage_ads", "/{page}/leadgen_forms"),
        ("ads_management", "/{lead}?fields=ad_name"),
    ],
)
def test_a_scope_taken_away_is_missed(sandbox: Sandbox, scope: str, path: str) -> None:
    """Without its scope a call is 200 with HTTP 403 and names it, a batch's too; with it the call goes on."""
    form, lead = a_form(sandbox), a_lead(sandbox)
    for name, node_id in {"lead": lead.leadgen_id, "form": form.form_id, "page": form.page_id}.items():
        path = path.replace(f"{{{name}}}", node_id)
    assert scope not in order(sandbox, take_scopes=[scope])["scopes"]
    [item] = read(batch(sandbox, [path]))
    assert (item["code"], f"Requires {scope} permission" in item["body"]) == (403, True)
    order(sandbox, take_scopes=[])
    assert read(batch(sandbox, [path]))[0]["code"] == 200


def test_without_pages_show_list_no_page_is_seen(sandbox: Sandbox) -> None:
    """/me/accounts is empty, and no error, where the user did not show his Pages."""
    order(sandbox, take_scopes=["pages_show_list"])
    assert read(by(sandbox, sandbox.tokens.of_user, "/me/accounts")) == {"data": []}


@pytest.mark.parametrize(
    ("wording", "status", "code"),
    [("103", 403, (103, None)), ("as_200", 400, (200, None)), ("as_100", 400, (100, 33))],
)
def test_lead_access_is_taken_in_any_wording(
    sandbox: Sandbox, wording: str, status: int, code: tuple[int, int | None]
) -> None:
    """Leads and their listings are refused as ordered on that Page; its other calls and other Pages go on."""
    form, lead = a_form(sandbox), a_lead(sandbox)
    order(sandbox, lead_access=wording, pages=[form.page_id])
    for path in (f"/{lead.leadgen_id}", f"/{form.form_id}/leads", f"/{form.ads[0].ad_id}/leads"):
        answer = asked(sandbox, path)
        assert (answer.status, code_of(answer)) == (status, code)
    for path in (f"/{form.page_id}", f"/{form.page_id}/leadgen_forms", f"/{form.form_id}"):
        assert asked(sandbox, path).status == 200
    assert asked(sandbox, f"/{sandbox.world.pages[1].forms[0].form_id}/leads", page=1).status == 200
    order(sandbox, lead_access=True, pages=[form.page_id])
    assert asked(sandbox, f"/{lead.leadgen_id}").status == 200


def test_a_page_tells_who_may_read_its_leads(sandbox: Sandbox) -> None:
    """has_lead_access wants a user, says what is missing, and is not there for system users."""
    page_id, user_id = sandbox.world.pages[0].page_id, sandbox.world.user_id
    fields = f"id,has_lead_access.user_id({user_id}).app_id(12),name"

    def access() -> Any:
        return read(asked(sandbox, f"/{page_id}", {"fields": fields}))["has_lead_access"]

    assert (access()["can_access_lead"], access()["user_id"]) == (True, user_id)
    assert "failure_reason" not in access()
    order(sandbox, lead_access="103")
    assert (access()["can_access_lead"], access()["app_has_leads_permission"]) == (False, False)
    assert access()["failure_reason"]
    missing = asked(sandbox, f"/{page_id}", {"fields": "has_lead_access"})
    assert read(missing)["error"]["message"] == "(#100) The parameter user_id is required"
    system = made(leads=0, user_kind="system_user")
    refused = asked(system, f"/{system.world.pages[0].page_id}", {"fields": fields})
    assert read(refused)["error"]["message"] == "This API is not available."


def test_arguments_of_a_field_are_read() -> None:
    """Only what is handed to the named field is taken."""
    assert nested_arguments("id,page.limit(2),x.user_id(1).app_id(2)", "x") == {"user_id": "1", "app_id": "2"}
    assert nested_arguments("id,max.user_id(1)", "x") == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"revoke": "everything"},
        {"revoke": "user", "error": "190/1"},
        {"revoke": "page", "pages": ["1"]},
        {"revoke": "page", "pages": 1.5},
        {"revoke": "user", "token": "EAAUnobody"},
        {"revoke": "page", "token": made(leads=0).tokens.of_user},
        {"take_scopes": ["leads"]},
        {"lead_access": False},
        {"tasks": ["SLEEP"]},
        {"fresh": "long", "nonsense": 1},
        {"fresh": True},
    ],
)
def test_an_order_that_cannot_be_carried_out_changes_no_token(
    sandbox: Sandbox, wrong: dict[str, object]
) -> None:
    """An order about tokens is checked in full before anything happens, and no refusal repeats a token."""
    before = order(sandbox)
    with pytest.raises(OrderRefused) as refused:
        order(sandbox, **wrong)
    assert "EAA" not in str(refused.value)
    assert order(sandbox) == before


def test_calls_are_charged_to_whose_token_they_bring(sandbox: Sandbox) -> None:
    """The app's own calls count for the app alone, the user's for him and the app, a dead token's for nobody."""
    user, page_id, old = sandbox.tokens.of_user, sandbox.world.pages[0].page_id, token_of(sandbox)
    inspected(sandbox, user)
    exchange(sandbox, user)
    accounts(sandbox, user)
    order(sandbox, revoke="page", pages=[page_id], error="190/460")
    by(sandbox, old, "/me")
    batch(sandbox, ["me"], access_token=old)
    windows = sandbox.graph.meters.windows(NOW, {})
    shared: Any = windows["shared_windows"]
    pages: Any = windows["windows"]
    assert (shared["app"]["used"], shared["user"]["used"], pages[page_id]["used"]) == (3, 1, 0)
    logged = [tuple(call[1:]) for call in sandbox.journal.logged(0)]
    assert logged == [
        ("", 1, "debug_token", "200"),
        ("", 1, "oauth", "200"),
        ("", 1, "accounts", "200"),
        (page_id, 0, "page", "190/460"),
        (page_id, 0, "batch", "190/460"),
    ]


def test_no_token_is_kept_in_the_journal(sandbox: Sandbox) -> None:
    """Neither counts nor log hold a token, whatever was done with it, and no token shows in its own repr."""
    user, page = sandbox.tokens.of_user, token_of(sandbox)
    inspected(sandbox, page)
    exchange(sandbox, user)
    accounts(sandbox, user)
    by(sandbox, "EAAGnobody", "/me")
    kept = f"{sandbox.journal.report()}{list(sandbox.journal.logged(0))}{sandbox.tokens.holder(page)}"
    assert "EAA" not in kept
    assert sandbox.config.app_secret not in kept
