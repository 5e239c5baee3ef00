"""How the doctor finds out: what hangs or raises is unknown, a Page's calls are granted, and nothing is changed."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis.asyncio as aioredis
from fakeredis import FakeAsyncRedis

from tests.fakes.graph import FakeBudget
from tests.fakes.meta import APP_ID, APP_SECRET, PAGE, FakeMeta, of_token, refusal, webhook_at
from tests.fakes.time import NOW, FrozenClock, JumpingLoop
from worker.budget.policy import Grant, Lane, Refusal
from worker.calls import Calls
from worker.doctor.ask_meta import ask_callback, ask_meta
from worker.doctor.ask_page import PageAsker
from worker.doctor.ask_redis import ask_stream, server_facts
from worker.doctor.examination import bounded
from worker.doctor.facts import MetaFacts, PageTold
from worker.doctor.findings import Unknown
from worker.errors import GraphUnavailable, LeadSyncError, NotVisibleYet, PermissionRefused, TokenRefused
from worker.graph.account import Caller, TokenFacts
from worker.graph.wire import GraphAnswer, GraphRequest
from worker.handshaking import Trouble
from worker.inbox import PROGRESS, RECONCILE_WANTED, SET_ASIDE, STREAM

CALLER = Caller(APP_ID, "v26.0", APP_SECRET)
URL = "https://leads.example.com/webhook"
FORM = "7830122064239597"
LEAD = {"id": "1", "created_time": "2026-11-20T11:00:00+0000"}


@dataclass
class Meta(FakeMeta):
    """With forms, their leads, and headers."""

    forms: Any = field(default_factory=lambda: {"data": [{"id": FORM, "status": "ACTIVE"}]})
    leads: Any = field(default_factory=lambda: {"data": [LEAD]})
    headers: Mapping[str, str] = field(default_factory=dict)

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer:
        answer = await super().ask(request, grant)
        return GraphAnswer(answer.status, dict(self.headers), answer.body)

    def _answer(self, request: GraphRequest, path: str) -> Any:
        if path.endswith("/leadgen_forms"):
            return self.forms
        if path.endswith("/leads"):
            return self.leads
        return {"id": FORM} if path == FORM else super()._answer(request, path)


@dataclass
class Tokens:
    """One token, or why there is none."""

    refusal: LeadSyncError | None = None

    async def token_for(self, page_id: str) -> str:
        if self.refusal is not None:
            raise self.refusal
        return "page-token"

    async def has_another(self, page_id: str, refused: str) -> bool:
        raise AssertionError("the doctor takes no other token")


class Rows:
    """A webhook a minute ago."""

    async def webhooks(self, page_id: str, now: datetime) -> dict[str, Any]:
        return {"last_webhook": now - timedelta(minutes=1), "unannounced": 0, "oldest": None}


def look(meta: Meta, budget: FakeBudget | None = None, tokens: Tokens | None = None) -> PageTold:
    """What is found out about the Page."""
    meta.tokens.setdefault("page-token", of_token(type="PAGE"))
    clock = FrozenClock()
    asker = PageAsker(
        graph=meta,
        calls=Calls(meta, budget or FakeBudget(), clock),
        caller=CALLER,
        tokens=tokens or Tokens(),
        rows=Rows(),
        clock=clock,
    )
    return asyncio.run(asker.ask(PAGE))


def test_a_page_is_asked_about_within_its_budget_and_nothing_is_changed() -> None:
    """Three calls in the lane of upkeep, and the token's own facts under the app's."""
    meta, budget = Meta(subscribed={PAGE: ["leadgen"]}), FakeBudget()
    told = look(meta, budget)
    assert budget.asked == [(PAGE, 1, Lane.UPKEEP)] * 3
    assert len(budget.usages) == 3
    assert meta.changes() == []
    assert told.forms == 1
    assert (told.health.subscribed, told.health.was_listed, told.health.answered) == (
        ("leadgen",),
        True,
        True,
    )
    assert told.health.listed_time == datetime.fromisoformat("2026-11-20T11:00:00+00:00")
    assert isinstance(told.health.token, TokenFacts)


def test_a_refused_token_ends_the_calls_and_its_subcode_is_known() -> None:
    """Nothing else is asked with it, and no other token is derived."""
    dead = {"is_valid": False, "error": {"code": 190, "subcode": 460}, "scopes": []}
    meta = Meta(tokens={"page-token": dead}, refuses={("GET", "subscribed_apps"): refusal(190, 460)})
    budget = FakeBudget()
    told = look(meta, budget)
    assert len(budget.asked) == 1
    assert isinstance(told.health.refusal, TokenRefused)
    assert isinstance(told.health.token, TokenFacts)
    assert told.health.token.subcode == 460


def test_a_page_without_a_token_is_not_asked_about() -> None:
    """It is told as that."""
    meta = Meta()
    told = look(meta, tokens=Tokens(TokenRefused("no token")))
    assert meta.asked == []
    assert told.health.refusal is not None
    assert told.health.refusal.reason == "token_missing"


def test_a_spent_budget_leaves_the_page_unknown() -> None:
    """No call is made without a grant."""
    meta, budget = Meta(), FakeBudget()
    budget.says.extend([Refusal(NOW, "budget")] * 3)
    told = look(meta, budget)
    assert [each for each in meta.asked if PAGE in each.path or FORM in each.path] == []
    assert isinstance(told.forms, LeadSyncError)
    assert not told.health.answered


def test_lead_access_in_the_words_of_a_missing_lead_is_told_by_the_form() -> None:
    """100/33 of the listing, while the form itself can be read."""
    told = look(Meta(leads=refusal(100, 33)))
    assert isinstance(told.health.listing, NotVisibleYet)
    assert told.health.form_shows


def test_one_open_form_is_enough() -> None:
    """A refusal may be that of one form alone."""

    class Meta2(Meta):
        def _answer(self, request: GraphRequest, path: str) -> Any:
            return refusal(103) if path == f"{FORM}/leads" else super()._answer(request, path)

    two = {"data": [{"id": "77", "status": "ARCHIVED"}, {"id": FORM, "status": "ACTIVE"}]}
    told = look(Meta2(forms=two))
    assert told.health.was_listed
    alone = look(Meta2())
    assert isinstance(alone.health.listing, PermissionRefused)


def ask_app(meta: Meta, caller: Caller = CALLER) -> MetaFacts:
    return asyncio.run(ask_meta(meta, caller, FrozenClock()))


def test_one_call_tells_webhook_version_and_clock() -> None:
    """The Date of the answer against this machine's clock."""
    headers = {"facebook-api-version": "v21.0", "date": "Fri, 20 Nov 2026 12:10:00 GMT"}
    told = ask_app(Meta(webhook=webhook_at(URL, "leadgen"), headers=headers))
    assert told.served == "v21.0"
    assert told.offset == timedelta(minutes=10)
    assert getattr(told.app, "callback_url", None) == URL


@pytest.mark.parametrize("date", [{}, {"date": "yesterday"}, {"date": "Fri, 20 Nov 2026 12:10:00"}])
def test_a_date_that_cannot_be_read_is_none(date: dict[str, str]) -> None:
    """Then nothing is said of the clock."""
    assert ask_app(Meta(headers=date)).offset is None


def test_a_refused_app_token_is_a_fact() -> None:
    """The version and the clock are known all the same."""
    told = ask_app(Meta(refuses={("GET", "subscriptions"): refusal(190)}))
    assert isinstance(told.app, TokenRefused)


def test_without_an_app_id_the_app_is_unknown() -> None:
    """The answer to a call without a token tells version and clock."""
    meta = Meta(unlisted={}, headers={"facebook-api-version": "v26.0"})
    told = ask_app(meta, Caller("", "v26.0", APP_SECRET))
    assert isinstance(told.app, Unknown)
    assert told.served == "v26.0"


def test_a_graph_that_does_not_answer_raises() -> None:
    """Which `bounded` makes an unknown of."""
    meta = Meta(refuses={("GET", "subscriptions"): GraphUnavailable("the call to Graph failed: X")})
    with pytest.raises(GraphUnavailable):
        ask_app(meta)


def test_what_hangs_or_raises_is_unknown() -> None:
    """Of a fault of ours only the type is told: its text may quote anything."""

    async def hang() -> None:
        await asyncio.sleep(3_600)

    async def fail(error: Exception) -> None:
        raise error

    def run(work: Any) -> str:
        loop = JumpingLoop()
        try:
            found = loop.run_until_complete(bounded(15, work))
        finally:
            loop.close()
        assert isinstance(found, Unknown)
        return found.why

    assert run(hang()) == "it did not answer within 15 s"
    assert run(fail(GraphUnavailable("Graph is away"))) == "Graph is away"
    assert run(fail(ValueError("EAAG-secret"))).endswith("ValueError")


def test_redis_tells_what_waits_and_who_works() -> None:
    """Moments are those of the entries' own ids."""

    async def ask() -> Any:
        client: aioredis.Redis = FakeAsyncRedis()
        await client.xadd(STREAM, {"lead": "1"}, id="1700000000000-0")
        await client.xadd(STREAM, {"lead": "2"}, id="1700000009000-0")
        await client.xadd(SET_ASIDE, {"body": "x"}, id="1700000001000-0")
        await client.xadd(SET_ASIDE, {"body": "x"}, id="1700000002000-0")
        await client.hset(PROGRESS, "live", "1700000003000")
        await client.hset(RECONCILE_WANTED, PAGE, "1700000004000")
        return await ask_stream(client)

    told = asyncio.run(ask())
    assert (told.length, told.oldest_ms) == (2, 1_700_000_000_000)
    assert (told.set_aside, told.set_aside_ms) == (2, 1_700_000_002_000)
    assert told.progress == {"live": 1_700_000_003_000}
    assert told.lacking_values == {PAGE: 1_700_000_004_000}


def test_what_a_kin_of_redis_leaves_out_counts_as_in_order() -> None:
    """As in the receiver."""
    told = server_facts({"redis_version": "7.0"}, None)
    assert (told.appends, told.eviction, told.append_ok, told.fsync) == (True, "noeviction", True, None)
    bad = server_facts(
        json.loads('{"aof_last_write_status": "err", "role": "slave", "aof_enabled": 0}'), "no"
    )
    assert (bad.append_ok, bad.is_replica, bad.appends, bad.fsync) == (False, True, False, "no")


def test_where_nobody_answers_the_handshake_no_delivery_is_tried() -> None:
    """One silence is told once."""
    told = asyncio.run(ask_callback("ftp://leads.example.com", "verify", APP_SECRET))
    assert isinstance(told.handshake, Trouble)
    assert isinstance(told.delivery, Unknown)


def test_without_a_verify_token_there_is_no_handshake() -> None:
    """The delivery is tried all the same."""
    told = asyncio.run(ask_callback("ftp://leads.example.com", "", APP_SECRET))
    assert isinstance(told.handshake, Unknown)
    assert isinstance(told.delivery, Trouble)
