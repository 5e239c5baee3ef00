"""Checks of Pages against a sandbox and a real Postgres: what is found, what is parked, what heals.

The clock is handed in; the sandbox serves in this process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from sandbox.subscriptions import AppSubscription
from tests.fakes.graph import FakeBudget
from tests.fakes.leads import a_lead, in_flight
from tests.fakes.sandboxes import Served, serving, token_of
from tests.integration.tables import Tables
from worker.budget.policy import Refusal
from worker.calls import Calls
from worker.checking import LEASE, Checked, CheckSettings, PageChecker
from worker.clock import now as clock_now
from worker.demo import post_json
from worker.errors import StoreUnavailable
from worker.graph.account import Caller
from worker.graph.client import GraphClient, GraphSettings
from worker.health import BY_ORDER, Facts
from worker.outcomes import Park, Retry, Snooze, Stored
from worker.page_calls import PageCalls
from worker.probing import Prober
from worker.sealing import Key, KeyRing, KeysUnreadable, Sealed, of_account, of_page
from worker.store.connections import ConnectionStore
from worker.store.health import HealthStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.tokens import Account, TokenStore
from worker.tokens import GivenTokens, StoredTokens

KEY = Key(bytes(32))
EVERY, PARKED_EVERY = timedelta(hours=1), timedelta(minutes=15)
SUBCODES = ("190", "190/458", "190/459", "190/460", "190/463", "190/464", "190/467", "190/492", "102")


class OneRing:
    """Keys that are always the same."""

    def ring(self) -> KeyRing:
        return KeyRing((KEY,))


@dataclass
class World(Tables):
    """A sandbox whose Pages are connected here, and the checker under test."""

    served: Served
    pool: AsyncConnectionPool
    leads: LeadStore
    health: HealthStore
    tokens: TokenStore
    checker: PageChecker
    budget: FakeBudget
    rung: list[str] = field(default_factory=list)

    @property
    def page(self) -> str:
        return self.served.sandbox.world.pages[0].page_id

    @property
    def user(self) -> str:
        return str(self.served.sandbox.world.user_id)

    def order(self, **order: object) -> Any:
        return post_json(f"{self.served.url}/sandbox/tokens", order)

    def lead(self) -> str:
        """A lead of the Page, as Meta has it."""
        (lead,) = post_json(f"{self.served.url}/sandbox/leads", {"count": 1, "page": self.page})["leads"]
        return str(lead)

    async def connect(self) -> None:
        """As `leadsync connect` leaves a Page: account, token, forms."""
        await self.keep_account(self.served.sandbox.tokens.of_user)
        sealed = KeyRing((KEY,)).seal(token_of(self.served.sandbox), of_page(self.page))
        await self.tokens.keep_page_token(self.page, self.user, sealed, clock_now())
        await self.sql("insert into pages (page_id, updated_at) values (%s, now())", self.page)
        for form in self.served.sandbox.world.pages[0].forms:
            await self.sql(
                "insert into forms (form_id, page_id, status, watermark) values (%s, %s, 'ACTIVE', now())",
                form.form_id,
                self.page,
            )

    async def keep_account(self, token: str) -> None:
        sealed = KeyRing((KEY,)).seal(token, of_account(self.user))
        account = Account(self.user, "USER", sealed, ("leads_retrieval",), None, None)
        await self.tokens.keep_account(account, clock_now())

    async def check(self) -> Checked:
        (page,) = await self.sql("select * from pages where page_id = %s", self.page)
        return await self.checker.check(self.page, page["parked_reason"])

    async def parked(self) -> str | None:
        (page,) = await self.sql("select * from pages where page_id = %s", self.page)
        reason: str | None = page["parked_reason"]
        return reason

    async def events(self) -> list[tuple[str, str, str, str | None]]:
        rows = await self.sql("select * from health_events order by event_id")
        return [(row["aspect"], row["was"], row["became"], row["reason"]) for row in rows]

    async def token(self) -> str:
        row = await self.tokens.page_token(self.page)
        assert row is not None
        return KeyRing((KEY,)).open(row.sealed, of_page(self.page))


def on_world(
    database: str, scenario: Callable[[World], Awaitable[None]], *, app_id: str | None = None, **settings: Any
) -> None:
    async def inner(served: Served) -> None:
        config = served.sandbox.config
        async with (
            AsyncConnectionPool(database, min_size=1, max_size=4, open=False, timeout=30) as pool,
            GraphClient(GraphSettings(served.url, "v26.0", config.app_secret)) as graph,
        ):
            rung: list[str] = []

            async def ring() -> None:
                rung.append("rung")

            token_rows, keys = TokenStore(pool), OneRing()
            leads, health, budget = LeadStore(pool, StoreSettings()), HealthStore(pool), FakeBudget()
            caller = Caller(config.app_id if app_id is None else app_id, "v26.0", config.app_secret)
            calls = Calls(graph, budget, clock_now)
            page_calls = PageCalls(
                calls=calls,
                caller=caller,
                tokens=StoredTokens(token_rows, keys, GivenTokens({}, None), lambda: 0.0),  # type: ignore[arg-type]
                token_rows=token_rows,
                keys=keys,  # type: ignore[arg-type]
                clock=clock_now,
            )
            checker = PageChecker(
                prober=Prober(
                    calls=calls,
                    page_calls=page_calls,
                    caller=caller,
                    rows=health,
                    resubscribe=True,
                    clock=clock_now,
                ),
                rows=health,
                pages=leads,
                settings=CheckSettings(EVERY, PARKED_EVERY),
                clock=clock_now,
                ring=ring,
            )
            world = World(served, pool, leads, health, token_rows, checker, budget, rung)
            await world.connect()
            await scenario(world)

    with serving(**{"pages": 1, "forms_per_page": 1, "leads": 3, **settings}) as served:
        asyncio.run(inner(served))


@pytest.fixture
def run(database: str) -> Callable[..., None]:
    """Runs a scenario on a connected Page."""
    return lambda scenario, **settings: on_world(database, scenario, **settings)


def test_a_page_that_is_well_costs_few_calls_and_is_no_news(run: Any) -> None:
    """At most four calls count for the Page, and nothing is told."""

    async def scenario(world: World) -> None:
        subscriptions = world.served.sandbox.graph.subscriptions
        subscriptions.subscribe_page(world.page, ["leadgen"])
        subscriptions.subscribe_app(AppSubscription("https://x", ("leadgen",), "t", True))
        checked = await world.check()
        assert (checked.health.token.word, checked.health.lead_access.word) == ("ok", "ok")
        assert (checked.news, checked.is_parked) == (0, False)
        assert 0 < len(world.budget.asked) <= 4
        assert await world.events() == []

    run(scenario)


def test_without_the_app_s_id_the_page_s_own_calls_tell(run: Any) -> None:
    """The token is judged by them, and it is said so; a refused one parks all the same."""

    async def scenario(world: World) -> None:
        checked = await world.check()
        assert (checked.health.token.word, checked.health.token.reason) == ("ok", "judged_by_calls")
        assert checked.health.subscription.reason == "app_id_not_set"
        world.order(revoke="user", error="190/460")
        assert (await world.check()).is_parked

    run(scenario, app_id="")


@pytest.mark.parametrize("error", SUBCODES)
def test_a_dead_page_token_is_derived_anew_from_the_account(run: Any, error: str) -> None:
    """The new one is kept sealed, and the Page was never parked."""

    async def scenario(world: World) -> None:
        await world.check()
        dead = await world.token()
        world.order(revoke="page", pages=[world.page], error=error)
        checked = await world.check()
        assert (checked.health.token.word, checked.is_parked) == ("ok", False)
        assert await world.token() != dead
        assert await world.parked() is None

    run(scenario)


@pytest.mark.parametrize("order", ["disconnected", "connected"])
def test_a_token_derived_anew_undoes_no_order_that_came_meanwhile(
    run: Any, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """While Meta was asked for it the Page was disconnected: nothing is kept; or connected: that token stays."""

    async def scenario(world: World) -> None:
        kept: list[Sealed] = []

        async def meanwhile(*_: object, **__: object) -> None:
            await world.tokens.drop_page_token(world.page, clock_now())
            if order == "connected":
                await world.keep_account(world.served.sandbox.tokens.of_user)
                kept.append(KeyRing((KEY,)).seal(token_of(world.served.sandbox), of_page(world.page)))
                await world.tokens.keep_page_token(world.page, world.user, kept[0], clock_now())

        monkeypatch.setattr(world.tokens, "mark_account", meanwhile)
        world.order(revoke="page", pages=[world.page], error="190")
        checked = await world.check()
        row = await world.tokens.page_token(world.page)
        assert (row and row.sealed) == (kept[0] if kept else None)
        assert checked.is_parked is (order == "disconnected")

    run(scenario)


def test_the_token_of_another_page_is_not_taken(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graph answers about something else than the Page: its token is not kept as the Page's."""

    async def scenario(world: World) -> None:
        ask = GraphClient.ask

        async def other_page(client: GraphClient, request: Any, grant: Any) -> Any:
            answer = await ask(client, request, grant)
            return replace(answer, body=answer.body.replace(f'"{world.page}"'.encode(), b'"71"'))

        world.order(revoke="page", pages=[world.page], error="190")
        dead = await world.token()
        monkeypatch.setattr(GraphClient, "ask", other_page)
        assert (await world.check()).is_parked
        assert await world.token() == dead

    run(scenario)


@pytest.mark.parametrize("error", SUBCODES)
def test_a_dead_account_parks_its_page_and_a_fresh_one_heals_it(run: Any, error: str) -> None:
    """One alarm; with a fresh token of the account the Page is taken up, rung for, and its forms compared at once."""

    async def scenario(world: World) -> None:
        await world.leads.settle(
            [(in_flight(world.lead(), world.page), Snooze(clock_now(), "x"))], clock_now()
        )
        world.order(revoke="user", error=error)
        assert (await world.check()).is_parked
        assert await world.parked() == "token_refused"
        assert (await world.check()).is_parked
        told = await world.sql(
            "select aspect, became from health_events where due_at is not null order by event_id"
        )
        assert [(each["aspect"], each["became"]) for each in told if each["aspect"] == "page"] == [
            ("page", "parked")
        ]
        assert [each for each in told if each["aspect"] in ("token", "lead_access")] == []
        (account,) = await world.sql("select refused_at from accounts")
        assert account["refused_at"] is not None
        fresh = world.order(fresh="long")["user_token"]
        await world.keep_account(fresh)
        before = clock_now()
        checked = await world.check()
        assert (checked.was_parked, checked.is_parked, world.rung) == (True, False, ["rung"])
        (form,) = await world.sql("select reconcile_at from forms")
        assert form["reconcile_at"] >= before
        assert len(await world.leads.lease_due(10, 10, clock_now())) == 1

    run(scenario)


@pytest.mark.parametrize("wording", ["103", "as_200", "as_100"])
def test_refused_lead_access_parks_in_each_of_its_wordings(run: Any, wording: str) -> None:
    """103, 200 and 100/33 are told from leads that are not there by the form's own listing; given back, it heals."""

    async def scenario(world: World) -> None:
        world.order(lead_access=wording, pages=[world.page])
        assert (await world.check()).is_parked
        assert await world.parked() == "lead_access_refused"
        assert (await world.check()).is_parked
        world.order(restore=True)
        assert not (await world.check()).is_parked

    run(scenario)


def test_leads_that_are_not_there_are_no_trouble_of_the_page(run: Any) -> None:
    """Three that Graph does not show make the check due; it finds the listing open, and is not due for them again."""

    async def scenario(world: World) -> None:
        async def due() -> bool:
            (page,) = await world.sql("select check_at <= %s as due from pages", clock_now())
            return bool(page["due"])

        async def unseen(first: int, attempts: int) -> None:
            now = clock_now()
            lost = [in_flight(n, world.page, first_seen_at=now) for n in range(first, first + 3)]
            await world.leads.settle([(r, Retry(now, "not_visible", attempts)) for r in lost], now)

        await world.sql("update pages set check_at = now() + interval '1 hour'")
        await unseen(1, 1)
        assert not await due()  # each of them may just not be visible yet
        await unseen(11, 2)
        assert await due()
        (leased,) = await world.health.lease_checks(clock_now(), clock_now() + LEASE, most=5)
        assert not (await world.checker.check(world.page, None)).is_parked
        await world.health.next_check(leased, clock_now() + EVERY)
        assert not await due()
        r = in_flight(11, world.page)
        await world.leads.settle([(r, Retry(clock_now(), "not_visible", 3))], clock_now())
        assert not await due()
        await unseen(21, 2)
        await world.leads.settle([(in_flight(31, world.page), Stored(a_lead(31)))], clock_now())
        assert await due()

    run(scenario)


@pytest.mark.parametrize("reason", BY_ORDER)
def test_what_was_parked_by_order_does_not_heal(run: Any, reason: str) -> None:
    """Neither by a check that finds all well nor by a lead; and an order takes the place of another reason."""

    async def scenario(world: World) -> None:
        await world.leads.park(world.page, "token_refused", clock_now())
        assert await world.leads.park(world.page, reason, clock_now())
        assert not await world.leads.park(world.page, "token_refused", clock_now())
        assert (await world.check()).is_parked
        await world.leads.settle([(in_flight(1, world.page), Stored(a_lead(1)))], clock_now())
        assert await world.parked() == reason
        assert world.rung == []
        assert await world.leads.unpark([world.page], clock_now(), but=["disconnected"]) == (
            (world.page,) if reason == "by_hand" else ()
        )

    run(scenario)


def test_a_page_parked_for_its_leads_heals_by_such_a_lead_only(run: Any) -> None:
    """The listing may be open while a lead is refused: the Page is not taken up and parked in turns."""

    async def scenario(world: World) -> None:
        lead = world.lead()
        post_json(f"{world.served.url}/sandbox/faults", {"rules": [{"class": "200", "leads": [lead]}]})
        await world.leads.settle([(in_flight(lead, world.page), Park("permission_refused"))], clock_now())
        assert (await world.check()).is_parked
        post_json(f"{world.served.url}/sandbox/faults", {"rules": []})
        assert not (await world.check()).is_parked

    run(scenario)


def test_waiting_leads_are_read_one_by_one_and_no_more_than_tell(run: Any) -> None:
    """A budget that grants a single call is enough, and what was not asked is not told to it as answered."""

    async def scenario(world: World) -> None:
        leads = [in_flight(world.lead(), world.page) for _ in range(3)]
        await world.leads.settle([(lead, Park("permission_refused")) for lead in leads], clock_now())
        world.budget.grants = 1
        assert not (await world.check()).is_parked
        assert len(world.budget.usages) == len(world.budget.asked) == 2  # a form's listing, and one lead

    run(scenario, app_id="")


def test_a_page_that_is_parked_again_at_once_is_not_checked_at_once(run: Any) -> None:
    """Parked the first time it is looked at now, for its token may be derived; after that as a parked Page is."""

    async def scenario(world: World) -> None:
        now = clock_now()

        async def check_at() -> datetime:
            (page,) = await world.sql("select check_at from pages")
            at: datetime = page["check_at"]
            return at

        await world.leads.park(world.page, "token_refused", now)
        assert await check_at() == now
        await world.leads.unpark([world.page], now)
        await world.leads.park(world.page, "token_refused", now)
        assert await check_at() == now + timedelta(seconds=StoreSettings().parked_probe_every)

    run(scenario)


def test_a_lost_subscription_is_set_again_with_its_other_fields(run: Any) -> None:
    """leadgen is added to what the Page had."""

    async def scenario(world: World) -> None:
        subscriptions = world.served.sandbox.graph.subscriptions
        subscriptions.subscribe_page(world.page, ["feed"])
        await world.check()
        assert set(subscriptions.of_page(world.page)) == {"feed", "leadgen"}

    run(scenario)


def test_a_check_is_leased_once_and_again_after_a_death(run: Any) -> None:
    """Many workers look at the same time, one checks; a killed one's Page is due when its lease ends."""

    async def scenario(world: World) -> None:
        now = clock_now()
        asked = (world.health.lease_checks(now, now + LEASE, most=9) for _ in range(6))
        leased = [one for some in await asyncio.gather(*asked) for one in some]
        assert len(leased) == 1
        assert await world.health.lease_checks(now + LEASE / 2, now + LEASE, most=9) == ()
        assert len(await world.health.lease_checks(now + LEASE, now + 2 * LEASE, most=9)) == 1

    run(scenario)


def test_checks_that_an_outage_broke_off_are_due_once_it_is_over(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that met it, and those beside it: no lease of minutes stands between a healed Page and its check."""

    async def scenario(world: World) -> None:
        await world.sql("insert into pages (page_id, updated_at) values ('1', now()), ('2', now())")
        checked: list[str] = []
        outage = True

        async def facts(page_id: str, parked_reason: str | None) -> Facts:
            if outage and len(checked) == 2:
                raise StoreUnavailable("Postgres cannot do this now")
            checked.append(page_id)
            if outage:
                await asyncio.sleep(60)
            return Facts(clock_now(), page_id, has_app=False)

        monkeypatch.setattr(world.checker._prober, "facts", facts)
        with pytest.raises(StoreUnavailable):
            await world.checker.run(lambda: False)
        outage = False
        checked.clear()
        assert (await world.checker.run(lambda: False))["checked"] == 3
        assert sorted(checked) == sorted(["1", "2", world.page])

    run(scenario)


def test_a_run_checks_what_is_due_and_says_when_next(run: Any) -> None:
    """An open Page in an hour, a parked one in a quarter."""

    async def scenario(world: World) -> None:
        assert (await world.checker.run(lambda: False))["checked"] == 1
        (page,) = await world.sql("select check_at - now() as left from pages")
        assert EVERY - timedelta(minutes=1) < page["left"] <= EVERY
        world.order(revoke="user")
        await world.sql("update pages set check_at = null")
        assert (await world.checker.run(lambda: False))["parked"] == 1
        (page,) = await world.sql("select check_at - now() as left from pages")
        assert PARKED_EVERY - timedelta(minutes=1) < page["left"] <= PARKED_EVERY

    run(scenario)


def test_no_call_is_made_that_the_budget_does_not_grant(run: Any) -> None:
    """Then it is not known how the Page is, and that is no news and parks nobody."""

    async def scenario(world: World) -> None:
        world.order(revoke="user")
        world.budget.says.extend([Refusal(clock_now(), "budget")] * 9)
        checked = await world.check()
        assert checked.health.lead_access.word == "unknown"
        assert (checked.health.lead_access.reason, checked.is_parked) == ("budget", False)
        assert await world.events() == []

    run(scenario, app_id="")


def test_a_page_that_hangs_delays_no_other(run: Any) -> None:
    """The other's check is over while the first one's call still hangs, and so is one that comes due meanwhile."""

    async def scenario(world: World) -> None:
        rule = {"class": "timeout", "hold_seconds": 15, "pages": [world.page]}
        post_json(f"{world.served.url}/sandbox/faults", {"rules": [rule]})
        running = asyncio.create_task(world.checker.run(lambda: False))

        async def checked(page_id: str) -> bool:
            for _ in range(600):
                if await world.sql("select page_id from page_health where page_id = %s", page_id):
                    return not running.done()
                await asyncio.sleep(0.02)
            return False

        for page_id in ("71", "72"):
            await world.sql("insert into pages (page_id, updated_at) values (%s, now())", page_id)
            assert await checked(page_id)
        assert await world.sql("select page_id from page_health where page_id = %s", world.page) == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(scenario)


def test_a_token_that_cannot_be_opened_for_now_delays_no_other(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key file may have its key again soon: it is looked at later, and the other Pages are looked at now."""

    async def scenario(world: World) -> None:
        open_sealed = KeyRing.open

        def opened(ring: KeyRing, sealed: Sealed, whose: str) -> str:
            if whose == of_page("71"):
                raise KeysUnreadable("told")
            return open_sealed(ring, sealed, whose)

        monkeypatch.setattr(KeyRing, "open", opened)
        await world.sql("insert into pages (page_id, updated_at) values ('71', now())")
        sealed = KeyRing((KEY,)).seal("token", of_page("71"))
        await world.tokens.keep_page_token("71", world.user, sealed, clock_now())
        assert (await world.checker.run(lambda: False))["checked"] == 1
        checked = await world.sql("select page_id, check_at > now() as is_later from pages")
        assert {row["page_id"]: row["is_later"] for row in checked} == {world.page: True, "71": True}

    run(scenario)


def test_a_disconnected_page_is_not_checked(run: Any) -> None:
    """There is nothing to check it with; a check by command would subscribe it again, with a token of the settings."""

    async def scenario(world: World) -> None:
        await world.leads.park(world.page, "disconnected", clock_now())
        assert (await world.checker.run(lambda: False))["checked"] == 0
        now = clock_now()
        assert await world.health.lease_checks(now, now + LEASE, most=1, page_ids=[world.page]) == ()

    run(scenario)


def test_a_page_that_is_connected_while_it_is_checked_is_checked_again_at_once(run: Any) -> None:
    """The check may have seen the former token only, and parks the Page; that it is due is not taken back."""

    async def scenario(world: World) -> None:
        now = clock_now()
        (leased,) = await world.health.lease_checks(now, now + LEASE, most=1)
        world.order(revoke="user")
        await ConnectionStore(world.pool).connect(world.page, "", now, is_new=True)
        assert (await world.checker.check(world.page, None)).is_parked
        await world.health.next_check(leased, now + PARKED_EVERY)
        assert len(await world.health.lease_checks(clock_now(), now + LEASE, most=1)) == 1

    run(scenario)


def test_two_checks_at_once_tell_a_change_once(run: Any) -> None:
    """What one of them has kept the other does not keep again, whoever began first."""

    async def scenario(world: World) -> None:
        world.served.sandbox.graph.subscriptions.subscribe_page(world.page, ["leadgen"])
        checkers = [world.check() for _ in range(4)]
        await asyncio.gather(*checkers)
        missing = [each for each in await world.events() if each[0] == "subscription"]
        assert len(missing) == 1

    run(scenario)


def test_a_clock_that_was_wrong_keeps_no_page_from_being_checked(run: Any) -> None:
    """A check that is due later than any check makes it is due now."""

    async def scenario(world: World) -> None:
        await world.sql("update pages set check_at = now() + interval '400 days'")
        assert (await world.checker.run(lambda: False))["checked"] == 1
        assert (await world.checker.run(lambda: False))["checked"] == 0

    run(scenario)


def test_a_page_heals_by_the_newest_of_its_waiting_leads(run: Any) -> None:
    """However many old ones are not there at all: they hold up no lead that has just come."""

    async def scenario(world: World) -> None:
        now = clock_now()
        gone = [in_flight(n, world.page, first_seen_at=now - timedelta(hours=1)) for n in range(1, 300)]
        fresh = in_flight(world.lead(), world.page, first_seen_at=now)
        await world.leads.settle([(each, Snooze(now, "page_parked")) for each in (*gone, fresh)], now)
        await world.leads.park(world.page, "mass_not_visible", now)
        assert not (await world.check()).is_parked

    run(scenario)


@pytest.mark.parametrize("error", ["200", "100/33"])
def test_a_refusal_of_one_form_is_not_the_page_s(run: Any, error: str) -> None:
    """The next form is listed; only where that is refused too is the Page parked."""

    async def scenario(world: World) -> None:
        for times, parked in ((1, False), (2, True)):
            rule = {"class": error, "kinds": ["form_leads"], "pages": [world.page], "count": times}
            post_json(f"{world.served.url}/sandbox/faults", {"rules": [rule]})
            assert (await world.check()).is_parked is parked

    run(scenario, forms_per_page=2, app_id="")
