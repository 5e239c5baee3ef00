"""From a token to subscribed Pages: each step does what it says, tells what is missing, and stops no other Page."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.graph import FakeBudget
from tests.fakes.meta import (
    APP_ID,
    APP_SECRET,
    OTHER,
    PAGE,
    SCOPES,
    USER,
    FakeMeta,
    of_page,
    of_token,
    refusal,
    webhook_at,
)
from tests.fakes.time import NOW, FrozenClock
from worker.account_pages import AccountPages
from worker.account_token import AccountTokens
from worker.budget.policy import IN_NO_PAGES_NAME, Lane, Refusal
from worker.calls import LAPSES, Calls
from worker.connecting import PARTS, Connection, Connector, Former, Wish
from worker.disconnecting import Disconnector
from worker.errors import ConfigurationError, GrantLapsed, GraphUnavailable, StoreUnavailable
from worker.forms import Discovered
from worker.graph.account import Caller, PageAccount
from worker.health import BY_HAND, DISCONNECTED
from worker.sealing import Keys, Sealed, parse_keys
from worker.sealing import of_account as bound_to_account
from worker.sealing import of_page as bound_to_page
from worker.steps import State, Step
from worker.subscribing import Subscriber
from worker.tokens import Account, Dropped, GivenTokens, StoredTokens, TokenRow

KEY = parse_keys(base64.b64encode(b"k" * 32).decode())
URL = "https://leads.example.com/webhook"
SOON = int((NOW + timedelta(hours=1)).timestamp())
LATER = int((NOW + timedelta(days=60)).timestamp())


@dataclass
class Rows:
    """The rows of tokens and Pages."""

    kept_accounts: dict[str, Account] = field(default_factory=dict)
    kept_tokens: dict[str, tuple[str | None, TokenRow]] = field(default_factory=dict)
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    away_before_dropping: bool = False

    async def accounts(self) -> tuple[Account, ...]:
        return tuple(self.kept_accounts.values())

    async def account(self, user_id: str) -> Account | None:
        return self.kept_accounts.get(user_id)

    async def keep_account(self, account: Account, now: datetime) -> None:
        self.writes.append("account")
        self.kept_accounts[account.user_id] = account

    async def account_of_page(self, page_id: str) -> Account | None:
        owner, _ = self.kept_tokens.get(page_id, (None, None))
        return self.kept_accounts.get(owner or "")

    async def page_token(self, page_id: str) -> TokenRow | None:
        return self.kept_tokens[page_id][1] if page_id in self.kept_tokens else None

    async def pages_with_tokens(self) -> tuple[str, ...]:
        return tuple(self.kept_tokens)

    async def keep_page_token(self, page_id: str, user_id: str | None, sealed: Sealed, now: datetime) -> None:
        assert user_id in self.kept_accounts, "the row of the account is what the Page's refers to"
        self.writes.append(f"token of {page_id}")
        former, _ = self.kept_tokens.get(page_id, (None, None))
        self.kept_tokens[page_id] = user_id, TokenRow(sealed, is_refused=False)
        self._drop_unless_leaned_on(former)

    async def drop_page_token(self, page_id: str, unused_since: datetime) -> Dropped:
        if self.away_before_dropping:
            self.away_before_dropping = False
            raise StoreUnavailable("away")
        owner, row = self.kept_tokens.pop(page_id, (None, None))
        return Dropped(row is not None, self._drop_unless_leaned_on(owner))

    def _drop_unless_leaned_on(self, user_id: str | None) -> tuple[str, ...]:
        if user_id is None or any(owner == user_id for owner, _ in self.kept_tokens.values()):
            return ()
        return (user_id,) if self.kept_accounts.pop(user_id, None) is not None else ()

    async def connect(self, page_id: str, name: str, now: datetime, *, is_new: bool) -> Former:
        was = self.pages.get(page_id, {})
        self.pages[page_id] = {**was, "name": name, "is_connected": True}
        return Former(was.get("parked_reason"), was.get("is_connected", False))

    async def unpark(
        self, page_ids: Sequence[str], now: datetime, *, but: Sequence[str] = ()
    ) -> tuple[str, ...]:
        freed = [
            page_id for page_id in page_ids if self.pages[page_id].get("parked_reason", "") not in ("", *but)
        ]
        return tuple(page_id for page_id in freed if self.pages[page_id].pop("parked_reason"))

    async def park(self, page_id: str, reason: str, now: datetime) -> bool:
        return self.pages.setdefault(page_id, {}).setdefault("parked_reason", reason) == reason

    async def disconnect(self, page_id: str, now: datetime) -> None:
        assert "parked_reason" in self.pages[page_id], "only a parked Page is disconnected"
        self.pages[page_id] = {"parked_reason": DISCONNECTED}

    async def parked_for(self, page_id: str) -> str | None:
        return self.pages[page_id].get("parked_reason", "") if page_id in self.pages else None

    async def names(self, page_ids: Sequence[str]) -> dict[str, str]:
        return {page_id: "" for page_id in page_ids if page_id in self.pages}


@dataclass
class Forms:
    """Whoever lists forms, and their rows."""

    told: Discovered = field(default_factory=lambda: Discovered(("7",), ("7",), whole=True))

    async def discover(self, page_id: str) -> Discovered:
        told, self.told = self.told, replace(self.told, new=())
        return told

    async def forms_of(self, page_id: str) -> list[dict[str, Any]]:
        return [{"form_id": form_id, "name": "Offer", "status": "ACTIVE"} for form_id in self.told.found]


class Bench:
    """A connector and its neighbours."""

    def __init__(self, keys: Any = KEY, given: dict[str, str] | None = None) -> None:
        self.meta, self.budget, self.rows, self.forms = FakeMeta(), FakeBudget(), Rows(), Forms()
        self.keys = Keys(keys, None)
        self.told: list[Step] = []
        self.seen: list[PageAccount] = []
        caller = Caller(APP_ID, "v26.0", APP_SECRET)
        clock = FrozenClock()
        calls = Calls(self.meta, self.budget, clock)
        subscriber = Subscriber(calls, caller)
        tokens = StoredTokens(self.rows, self.keys, GivenTokens(given or {}, None), lambda: 0.0)
        self.connector = Connector(
            account_tokens=AccountTokens(calls=calls, caller=caller, rows=self.rows, keys=self.keys, clock=clock),
            account_pages=AccountPages(calls, caller), subscriber=subscriber, tokens=tokens, token_rows=self.rows,
            page_rows=self.rows, parking=self.rows, forms=self.forms, form_rows=self.forms, keys=self.keys, clock=clock,
        )  # fmt: skip
        self.disconnector = Disconnector(
            subscriber=subscriber,
            tokens=tokens,
            token_rows=self.rows,
            page_rows=self.rows,
            parking=self.rows,
            clock=clock,
        )

    def connect(self, *page_ids: str, token: str | None = "user-token", **wish: Any) -> Connection:
        """Connect these Pages, or all that are listed."""

        def choose(known: Sequence[PageAccount]) -> Sequence[str]:
            self.seen = list(known)
            return page_ids or [page.page_id for page in known]

        parts = frozenset(wish.pop("parts", PARTS))
        asked = Wish(parts, token, page_ids=page_ids, verify_token="verify", **wish)
        self.told = []
        return asyncio.run(self.connector.connect(asked, choose, self.told.append))

    def disconnect(self, *page_ids: str, anyway: bool = False) -> dict[str, State]:
        """Disconnect; how each step ended."""
        steps = asyncio.run(self.disconnector.disconnect(page_ids, self.told.append, anyway=anyway))
        return {step.what: step.state for step in steps}

    def kept_token(self, page_id: str = PAGE) -> str:
        """The Page's token as it can be opened."""
        return self.keys.ring().open(self.rows.kept_tokens[page_id][1].sealed, bound_to_page(page_id))

    def account_token(self) -> str:
        """The account's."""
        return self.keys.ring().open(self.rows.kept_accounts[USER].sealed, bound_to_account(USER))


def states(connection: Connection, page_id: str | None = None) -> dict[str, State]:
    """How the steps ended that are about this Page, or about none."""
    return {step.what: step.state for step in connection.steps if step.page_id == page_id}


def step_of(connection: Connection, what: str) -> Step:
    (step,) = (step for step in connection.steps if step.what == what)
    return step


def test_a_page_is_kept_subscribed_and_its_forms_known() -> None:
    """One run does all of it, tells each step as it ends, and looks at Meta after each change."""
    bench = Bench()
    done = bench.connect(webhook_url=URL)
    assert states(done) == {
        "token": State.DONE, "scopes": State.ALREADY, "pages": State.ALREADY, "webhook": State.DONE
    }  # fmt: skip
    assert states(done, PAGE) == {
        "page_token": State.DONE, "subscription": State.DONE, "forms": State.DONE
    }  # fmt: skip
    assert (bench.account_token(), bench.kept_token()) == ("user-token", f"token-of-{PAGE}")
    assert bench.meta.subscribed == {PAGE: ["leadgen"]}
    assert bench.meta.webhook == webhook_at(URL, "leadgen")
    assert [page.is_connected for page in done.pages] == [True]
    assert done.pages[0].forms[0].form_id == "7"
    assert tuple(bench.told) == done.steps


def test_a_second_run_changes_nothing_and_says_so() -> None:
    """Nothing is written again, here or at Meta."""
    bench = Bench()
    bench.connect(webhook_url=URL)
    writes, changes = list(bench.rows.writes), bench.meta.changes()
    again = bench.connect(webhook_url=URL)
    assert {step.state for step in again.steps} == {State.ALREADY}
    assert (bench.rows.writes, bench.meta.changes()) == (writes, changes)


def test_no_step_and_no_url_holds_a_token() -> None:
    """What is told, and where Graph is asked, gives no token away."""
    bench = Bench()
    done = bench.connect(webhook_url=URL)
    shown = repr(done) + repr([step.as_json() for step in done.steps])
    shown += repr([(each.path, each.query) for each in bench.meta.asked]) + repr(bench.rows.kept_accounts)
    assert not [secret for secret in ("user-token", "token-of", APP_SECRET) if secret in shown]


def test_calls_of_a_page_are_granted_and_others_count_for_none() -> None:
    """Each call under the Page's token has a grant of that Page, and no other call has one."""
    bench = Bench()
    bench.connect(webhook_url=URL)
    of_page = [
        grant for request, grant in zip(bench.meta.asked, bench.meta.grants, strict=True)
        if request.path.endswith("subscribed_apps")
    ]  # fmt: skip
    assert bench.budget.asked == [(PAGE, 1, Lane.UPKEEP)] * len(of_page)
    assert IN_NO_PAGES_NAME not in of_page
    assert len(of_page) == len(bench.budget.usages) == 3
    assert bench.meta.grants.count(IN_NO_PAGES_NAME) == len(bench.meta.asked) - 3


# ---- the token ----------------------------------------


def test_a_short_lived_token_is_exchanged() -> None:
    """What is kept, and what Pages' tokens are derived from, is the long-lived one."""
    bench = Bench()
    bench.meta.tokens = {"short": of_token(expires_at=SOON), "long": of_token(expires_at=LATER)}
    bench.meta.exchanges = {"short": "long"}
    assert states(bench.connect(token="short"))["exchange"] is State.DONE
    assert bench.account_token() == "long"
    listed = [each.token for each in bench.meta.asked if each.path.endswith("me/accounts")]
    assert listed == ["long"]


@pytest.mark.parametrize("facts", [{"expires_at": LATER}, {}, {"type": "SYSTEM_USER", "expires_at": SOON}])
def test_a_token_that_holds_or_is_a_system_users_is_not_exchanged(facts: dict[str, Any]) -> None:
    """Only a person's token that runs out soon is."""
    bench = Bench()
    bench.meta.tokens = {"user-token": of_token(**facts)}
    assert "exchange" not in states(bench.connect())
    assert bench.account_token() == "user-token"


def test_a_kept_token_that_may_do_as_much_makes_an_exchange_unnecessary() -> None:
    """Connecting again with a short-lived token changes nothing while the kept one is good."""
    bench = Bench()
    bench.meta.tokens = {"short": of_token(expires_at=SOON), "long": of_token(expires_at=LATER)}
    bench.meta.exchanges = {"short": "long"}
    bench.connect(token="short")
    bench.meta.exchanges = {}
    assert states(bench.connect(token="short"))["exchange"] is State.ALREADY


@pytest.mark.parametrize(
    "facts",
    [
        {"is_valid": False},
        {"scopes": list(SCOPES[:3])},
        {"expires_at": SOON + 86_400},
        {"granular_scopes": [{"scope": "leads_retrieval", "target_ids": ["1"]}]},
    ],
)
def test_a_kept_token_that_is_worse_is_replaced(facts: dict[str, Any]) -> None:
    """A dead one, one that may do less or elsewhere, and one that runs out itself."""
    bench = Bench()
    bench.meta.tokens = {"short": of_token(expires_at=SOON), "old": of_token(expires_at=LATER)}
    bench.meta.exchanges = {"short": "old"}
    bench.connect(token="short")
    bench.meta.tokens |= {
        "old": of_token(**{"expires_at": LATER, **facts}),
        "new": of_token(expires_at=LATER),
    }
    bench.meta.exchanges = {"short": "new"}
    assert states(bench.connect(token="short"))["exchange"] is State.DONE
    assert bench.account_token() == "new"


def test_an_exchange_that_gives_a_short_lived_token_is_told() -> None:
    """The Pages' tokens would die with it."""
    bench = Bench()
    bench.meta.tokens = {"short": of_token(expires_at=SOON)}
    bench.meta.exchanges = {"short": "short"}
    assert states(bench.connect(token="short"))["exchange"] is State.FAILED


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"app_id": "999"}, "app 999"),
        ({"is_valid": False, "error": {"code": 190, "subcode": 463}}, "code 190, subcode 463"),
        ({"type": "PAGE"}, "kind PAGE"),
        ({"user_id": None}, "whose token"),
        (refusal(100), "another app's"),
    ],
)
def test_an_unfit_token_is_neither_kept_nor_used(facts: dict[str, Any], named: str) -> None:
    """Another app's, a dead one, a Page's, nobody's, and one of which Meta tells nothing: with the reason."""
    bench = Bench()
    bench.meta.tokens = {
        "user-token": facts if "error" in facts and "is_valid" not in facts else of_token(**facts)
    }
    done = bench.connect()
    step = step_of(done, "token")
    assert (step.state, named in step.told, bool(step.remedy)) == (State.FAILED, True, True), step
    assert (bench.rows.kept_accounts, bench.rows.kept_tokens, done.pages) == ({}, {}, ())
    assert not [each for each in bench.meta.asked if each.path.endswith("accounts")]


def test_a_wrong_app_secret_is_told_as_that() -> None:
    """Where Meta refuses the app's own token, the app's settings are what to look at."""
    bench = Bench()
    bench.meta.refuses[("POST", "")] = refusal(190)
    assert "META_APP_SECRET" in (step_of(bench.connect(), "token").remedy or "")


def test_a_meta_that_is_away_is_told_as_that() -> None:
    """Nothing is wrong with a token that could not be looked at."""
    bench = Bench()
    bench.meta.refuses[("POST", "")] = GraphUnavailable("Graph did not answer in 20 s")
    step = step_of(bench.connect(), "token")
    assert (step.state, step.told) == (State.FAILED, "Graph did not answer in 20 s")


def test_without_a_token_the_kept_one_serves() -> None:
    """Each further run needs no token."""
    bench = Bench()
    bench.connect()
    assert bench.connect(token=None).pages[0].is_connected


def test_where_none_or_several_are_kept_it_says_so() -> None:
    """Whose token is used is never guessed."""
    bench = Bench()
    assert step_of(bench.connect(token=None), "token").state is State.MISSING
    bench.connect()
    bench.rows.kept_accounts["9"] = replace(bench.rows.kept_accounts[USER], user_id="9")
    several = step_of(bench.connect(token=None), "token")
    assert (several.state, "--account" in (several.remedy or "")) == (State.MISSING, True)
    assert bench.connect(token=None, user_id=USER).pages[0].is_connected
    assert step_of(bench.connect(token=None, user_id="8"), "token").state is State.MISSING


def test_a_kept_token_whose_key_is_gone_is_told() -> None:
    """Without its key the token is as good as lost."""
    bench = Bench()
    bench.connect()
    bench.rows.kept_accounts[USER] = replace(bench.rows.kept_accounts[USER], sealed=Sealed("gone", b"x" * 40))
    assert step_of(bench.connect(token=None), "token").state is State.FAILED
    assert states(bench.connect())["token"] is State.DONE


def test_without_a_key_nothing_is_kept() -> None:
    """A token never lies open in the database."""
    bench = Bench(keys=())
    with pytest.raises(ConfigurationError):
        bench.connect()
    assert bench.rows.writes == []


# ---- scopes and Pages ----------------------------------------


def test_missing_scopes_are_told_with_what_they_are_for() -> None:
    """What can be done without them is done all the same."""
    bench = Bench()
    bench.meta.tokens = {
        "user-token": of_token(scopes=[each for each in SCOPES if each != "leads_retrieval"])
    }
    done = bench.connect()
    step = step_of(done, "scopes")
    assert (step.state, step.told) == (State.MISSING, "missing: leads_retrieval (to read leads)")
    assert PAGE in bench.rows.kept_tokens


def test_a_scope_granted_for_other_pages_is_missing_on_this_one() -> None:
    """A granular grant names its Pages; ad accounts among them are no matter of Pages."""
    bench = Bench()
    granular = [
        {"scope": "leads_retrieval", "target_ids": [OTHER]},
        {"scope": "ads_management", "target_ids": ["555"]},
    ]
    bench.meta.tokens = {"user-token": of_token(granular_scopes=granular)}
    bench.meta.listings = [[of_page(), of_page(OTHER)]]
    done = bench.connect()
    assert states(done, PAGE)["scopes"] is State.MISSING
    assert "scopes" not in states(done, OTHER)
    assert [page.is_connected for page in done.pages] == [False, True]


def test_a_page_without_the_task_to_advertise_is_told_and_stops_no_other() -> None:
    """The role is what to mend; the other Page is connected."""
    bench = Bench()
    bench.meta.listings = [[of_page(tasks=["ANALYZE"]), of_page(OTHER)]]
    done = bench.connect()
    assert states(done, PAGE)["role"] is State.MISSING
    assert [page.is_connected for page in done.pages] == [False, True]


def test_a_page_without_a_token_is_told() -> None:
    """Meta gives none to who has no full role."""
    bench = Bench()
    bench.meta.listings = [[of_page(access_token=None), of_page(OTHER)]]
    done = bench.connect()
    assert states(done, PAGE) == {"page_token": State.MISSING}
    assert list(bench.rows.kept_tokens) == [OTHER]


def test_the_listing_is_read_to_its_end() -> None:
    """An empty result page that goes on is no end, and the URL in `next` is never asked."""
    bench = Bench()
    bench.meta.listings = [[of_page()], [], [of_page(OTHER)]]
    assert [page.page_id for page in bench.connect().pages] == [PAGE, OTHER]
    assert all(each.path.startswith("/v26.0/") for each in bench.meta.asked)


def test_a_page_that_the_listing_lacks_is_asked_for_by_its_id() -> None:
    """Meta leaves out some Pages that belong to a business."""
    bench = Bench()
    bench.meta.unlisted = {OTHER: of_page(OTHER)}
    assert [page.is_connected for page in bench.connect(OTHER).pages] == [True]
    assert list(bench.rows.kept_tokens) == [OTHER]


def test_a_named_page_that_is_not_there_is_told_and_stops_no_other() -> None:
    """With what to look at."""
    bench = Bench()
    done = bench.connect("77", PAGE)
    assert states(done, "77") == {"page_token": State.FAILED}
    assert [page.is_connected for page in done.pages] == [False, True]


@pytest.mark.parametrize("kind", ["USER", "SYSTEM_USER"])
def test_no_page_at_all_is_told(kind: str) -> None:
    """An account without Pages is nothing to go on with."""
    bench = Bench()
    bench.meta.tokens = {"user-token": of_token(type=kind)}
    bench.meta.listings = [[]]
    assert step_of(bench.connect(), "pages").state is State.MISSING


def test_a_listing_that_fails_stops_no_page_that_was_named() -> None:
    """Without the listing a named Page can still be asked for."""
    bench = Bench()
    bench.meta.refuses[("GET", "accounts")] = refusal(200)
    assert step_of(bench.connect(), "pages").state is State.FAILED
    bench.meta.unlisted = {PAGE: of_page()}
    assert bench.connect(PAGE).pages[0].is_connected


def test_a_refused_or_changed_token_is_replaced_and_the_page_taken_up() -> None:
    """Connecting again mends a Page that was parked because something was refused."""
    bench = Bench()
    bench.connect()
    bench.rows.pages[PAGE] = {"parked_reason": "token_refused", "is_connected": True}
    bench.rows.kept_tokens[PAGE] = USER, replace(bench.rows.kept_tokens[PAGE][1], is_refused=True)
    step = next(step for step in bench.connect().steps if step.what == "page_token")
    assert (step.state, "token_refused" in step.told) == (State.DONE, True)
    assert not bench.rows.kept_tokens[PAGE][1].is_refused
    assert "parked_reason" not in bench.rows.pages[PAGE]
    bench.meta.listings = [[of_page(access_token="another")]]
    bench.connect()
    assert bench.kept_token() == "another"


def test_a_listing_of_pages_that_leads_back_ends() -> None:
    """However long the circle is; Pages that are named are asked for by their ids all the same."""
    bench = Bench()
    bench.meta.listings = [[of_page()], [of_page(OTHER)], [of_page()]]
    bench.meta.leads_back = True
    assert step_of(bench.connect(), "pages").state is State.FAILED
    assert len([each for each in bench.meta.asked if each.path.endswith("me/accounts")]) <= 4
    bench.meta.unlisted = {PAGE: of_page()}
    assert bench.connect(PAGE).pages[0].is_connected


def test_a_page_that_an_operator_parked_stays_parked() -> None:
    """Who connects all Pages anew does not lift the order to hold one; how that is done is told."""
    bench = Bench()
    bench.connect()
    bench.rows.pages[PAGE] = {"parked_reason": BY_HAND, "is_connected": True}
    step = next(step for step in bench.connect().steps if step.what == "page_token")
    assert bench.rows.pages[PAGE]["parked_reason"] == BY_HAND
    assert f"leadsync pages unpark {PAGE}" in step.told
    assert step.is_achieved


def test_the_token_of_a_former_account_is_dropped_with_its_last_page() -> None:
    """Nobody's token is held for longer than a Page leans on it."""
    bench = Bench()
    bench.connect()
    bench.meta.tokens["other-token"] = of_token(user_id="9")
    bench.connect(token="other-token")
    assert list(bench.rows.kept_accounts) == ["9"]


def test_forms_that_meta_does_not_tell_are_told_as_that() -> None:
    """The Page is not called connected then."""
    bench = Bench()
    bench.forms.told = Discovered((), (), False, "permission_refused")
    done = bench.connect()
    assert (states(done, PAGE)["forms"], done.pages[0].is_connected) == (State.FAILED, False)


# ---- subscriptions ----------------------------------------


def test_fields_that_were_subscribed_stay() -> None:
    """Another use of the app on the Page is not our business."""
    bench = Bench()
    bench.meta.subscribed = {PAGE: ["feed", "messages"]}
    bench.connect()
    assert bench.meta.subscribed == {PAGE: ["feed", "messages", "leadgen"]}


def test_a_subscription_that_meta_tells_otherwise_is_not_believed() -> None:
    """What counts is what Meta tells afterwards, of the Page and of the webhook."""
    bench = Bench()
    bench.meta.forgets = True
    done = bench.connect(webhook_url=URL)
    assert states(done, PAGE)["subscription"] is State.FAILED
    assert states(done)["webhook"] is State.FAILED


@pytest.mark.parametrize(
    ("was", "shown"),
    [
        (None, "none"),
        (
            webhook_at("https://elsewhere.example.com/", "feed"),
            "https://elsewhere.example.com/, active, fields feed",
        ),
        (webhook_at(URL, active=False), f"{URL}, not active, fields none"),
    ],
)
def test_a_webhook_that_meta_tells_otherwise_is_shown(was: dict[str, Any] | None, shown: str) -> None:
    """Where it goes, whether it is active and for which fields: the operator sees what is not as wanted."""
    bench = Bench()
    bench.meta.webhook, bench.meta.forgets = was, True
    step = step_of(bench.connect(webhook_url=URL), "webhook")
    assert step.state is State.FAILED
    assert step.told.endswith(f"tells {shown}")


def test_a_refused_subscription_is_told_with_its_remedy() -> None:
    """(#200): which permissions are needed."""
    bench = Bench()
    bench.meta.refuses[("POST", "subscribed_apps")] = refusal(200)
    step = step_of(bench.connect(), "subscription")
    assert (step.state, "pages_manage_metadata" in (step.remedy or "")) == (State.FAILED, True)


def test_a_page_without_budget_is_not_called() -> None:
    """A refusal of the budget is told, with when."""
    bench = Bench()
    bench.budget.says.append(Refusal(NOW + timedelta(hours=1), "budget"))
    step = step_of(bench.connect(), "subscription")
    assert (step.state, "2026-11-20 13:00:00" in step.told) == (State.FAILED, True)
    assert not [each for each in bench.meta.asked if each.path.endswith("subscribed_apps")]


def test_a_throttle_is_told_to_the_budget() -> None:
    """So that nobody calls for the Page until it is over."""
    bench = Bench()
    bench.meta.refuses[("GET", "subscribed_apps")] = refusal(80005)
    assert states(bench.connect(), PAGE)["subscription"] is State.FAILED
    assert bench.budget.closed[0][:2] == (PAGE, "page")


def test_a_call_that_was_not_sent_is_made_again_a_few_times() -> None:
    """A kept connection that was dropped is no failure; one that always is, is one."""
    bench = Bench()
    bench.meta.refuses[("GET", "subscribed_apps")] = GrantLapsed("told")
    assert states(bench.connect(), PAGE)["subscription"] is State.FAILED
    assert len([each for each in bench.meta.asked if each.path.endswith("subscribed_apps")]) == LAPSES


def test_subscribing_alone_needs_no_account() -> None:
    """The Pages' tokens that are here suffice, those of the settings too."""
    bench = Bench(given={OTHER: "given"})
    bench.connect(parts=["token", "pages"])
    assert bench.meta.subscribed == {}
    done = bench.connect(token=None, parts=["subscribe"])
    assert {page.page_id: page.is_connected for page in done.pages} == {PAGE: True, OTHER: True}
    assert bench.meta.subscribed == {PAGE: ["leadgen"], OTHER: ["leadgen"]}
    unknown = bench.connect("77", token=None, parts=["subscribe"])
    assert states(unknown, "77") == {"subscription": State.FAILED}


def test_each_part_alone_does_no_other() -> None:
    """A token alone is kept, and nothing is listed; a webhook alone needs no token."""
    bench = Bench()
    assert set(states(bench.connect(parts=["token"]))) == {"token", "scopes"}
    assert states(bench.connect(token=None, parts=["webhook"], webhook_url=URL)) == {"webhook": State.DONE}
    assert step_of(Bench().connect(token=None, parts=["subscribe"]), "subscription").state is State.MISSING


# ---- the webhook ----------------------------------------


def test_a_handshake_that_fails_is_explained() -> None:
    """2200: the receiver was not reached, or has another verify token; the Pages are connected all the same."""
    bench = Bench()
    bench.meta.refuses[("POST", "subscriptions")] = refusal(2200)
    done = bench.connect(webhook_url=URL)
    step = step_of(done, "webhook")
    assert (step.state, "META_VERIFY_TOKEN" in step.told, URL in (step.remedy or "")) == (
        State.FAILED,
        True,
        True,
    )
    assert done.pages[0].is_connected


def test_the_webhooks_other_fields_stay_and_the_former_place_is_named() -> None:
    """An app has one webhook for Pages: whoever had it should know."""
    bench = Bench()
    bench.meta.webhook = webhook_at("https://elsewhere.example.com/", "feed")
    done = bench.connect(webhook_url=URL)
    assert bench.meta.webhook == webhook_at(URL, "feed", "leadgen")
    assert "https://elsewhere.example.com/" in step_of(done, "webhook").told


@pytest.mark.parametrize("was", [webhook_at(URL, "feed"), webhook_at(URL, "leadgen", active=False)])
def test_a_webhook_that_announces_no_leads_is_set(was: dict[str, Any]) -> None:
    """The right place is not enough."""
    bench = Bench()
    bench.meta.webhook = was
    assert states(bench.connect(webhook_url=URL))["webhook"] is State.DONE


def test_a_webhook_that_looks_right_is_set_anew_on_demand() -> None:
    """Meta does not tell whether it includes the values, so what looks right may have to be set all the same."""
    bench = Bench()
    bench.meta.webhook = webhook_at(URL, "leadgen")
    assert states(bench.connect(webhook_url=URL))["webhook"] is State.ALREADY
    assert states(bench.connect(webhook_url=URL, webhook_again=True))["webhook"] is State.DONE
    assert bench.meta.changes()[-1] == f"POST {APP_ID}/subscriptions"


def test_without_a_url_the_webhook_is_looked_at_and_left() -> None:
    """Whether leads are announced at all is told."""
    bench = Bench()
    assert states(bench.connect())["webhook"] is State.LEFT
    bench.meta.webhook = webhook_at(URL, "leadgen")
    assert states(bench.connect())["webhook"] is State.ALREADY
    assert not [each for each in bench.meta.changes() if each.endswith("subscriptions")]


# ---- and away again ----------------------------------------


def test_a_disconnected_page_is_unsubscribed_forgotten_and_parked() -> None:
    """The account's token goes with the last Page; connecting again takes the Page up."""
    bench = Bench()
    bench.connect()
    assert bench.disconnect(PAGE) == {
        "subscription": State.DONE, "page_token": State.DONE, "page": State.DONE
    }  # fmt: skip
    assert (bench.meta.subscribed, bench.rows.kept_tokens, bench.rows.kept_accounts) == ({}, {}, {})
    assert bench.rows.pages[PAGE]["parked_reason"] == DISCONNECTED
    assert set(bench.disconnect(PAGE).values()) == {State.ALREADY}
    assert bench.connect().pages[0].is_connected


def test_a_disconnecting_that_was_interrupted_is_finished_by_the_same_command() -> None:
    """What the first run did at Meta is not told to be left there, and no token of anybody stays."""
    bench = Bench()
    bench.connect()
    bench.rows.away_before_dropping = True
    with pytest.raises(StoreUnavailable):
        bench.disconnect(PAGE)
    assert bench.meta.subscribed == {}
    assert bench.rows.pages[PAGE]["parked_reason"] == DISCONNECTED
    assert bench.disconnect(PAGE) == {
        "subscription": State.ALREADY, "page_token": State.DONE, "page": State.ALREADY
    }  # fmt: skip
    assert (bench.rows.kept_tokens, bench.rows.kept_accounts) == ({}, {})


def test_disconnecting_keeps_other_fields_and_other_pages_account() -> None:
    """Only leadgen is taken out, and an account stays that another Page leans on."""
    bench = Bench()
    bench.meta.listings = [[of_page(), of_page(OTHER)]]
    bench.meta.subscribed = {PAGE: ["feed"]}
    bench.connect()
    bench.disconnect(PAGE)
    assert bench.meta.subscribed == {PAGE: ["feed"], OTHER: ["leadgen"]}
    assert list(bench.rows.kept_accounts) == [USER]
    assert bench.disconnect(OTHER)["page_token"] is State.DONE


def test_a_dead_token_does_not_keep_a_page_connected() -> None:
    """What is left at Meta is told, and everything here is done."""
    bench = Bench()
    bench.connect()
    bench.rows.pages[PAGE]["parked_reason"] = "token_refused"
    bench.meta.refuses[("GET", "subscribed_apps")] = refusal(190, 460)
    assert bench.disconnect(PAGE) == {
        "subscription": State.LEFT, "page_token": State.DONE, "page": State.DONE
    }  # fmt: skip
    assert bench.rows.pages[PAGE]["parked_reason"] == DISCONNECTED


def test_while_meta_is_away_the_token_is_not_forgotten() -> None:
    """It is needed to end the subscription; --anyway forgets it all the same."""
    bench = Bench()
    bench.connect()
    bench.meta.refuses[("GET", "subscribed_apps")] = GraphUnavailable("told")
    assert bench.disconnect(PAGE) == {"subscription": State.FAILED}
    assert (list(bench.rows.kept_tokens), bench.rows.pages[PAGE]["is_connected"]) == ([PAGE], True)
    assert bench.disconnect(PAGE, anyway=True)["page"] is State.DONE


def test_an_unsubscription_that_meta_tells_otherwise_is_told() -> None:
    """A success that changed nothing is none."""
    bench = Bench()
    bench.connect()
    bench.meta.forgets = True
    bench.disconnect(PAGE)
    told = bench.told[-3]
    assert (told.what, told.state, "leadgen" in told.told) == ("subscription", State.LEFT, True)


def test_a_page_of_the_settings_is_told_so() -> None:
    """Its token has to be taken out of the settings by hand."""
    bench = Bench(given={PAGE: "given"})
    steps = asyncio.run(bench.disconnector.disconnect([PAGE], bench.told.append))
    assert [step.remedy for step in steps if "PAGE_TOKENS" in (step.remedy or "")]


def test_an_unknown_page_is_told_and_stops_no_other() -> None:
    """A mistyped id makes no row."""
    bench = Bench()
    bench.connect()
    steps = asyncio.run(bench.disconnector.disconnect(["77", PAGE], bench.told.append))
    assert (steps[0].state, steps[-1].state) == (State.FAILED, State.DONE)
    assert "77" not in bench.rows.pages
