"""A test lead followed through fakes: it arrives, or it is said at which hop it is missing, and why."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest

from tests.fakes.graph import FakeBudget, FakeTokens
from tests.fakes.leads import FORM, PAGE, at
from tests.fakes.time import NOW, FrozenClock
from worker.budget.policy import IN_NO_PAGES_NAME, Grant, Lane, Refusal
from worker.errors import LeadSyncError, PermissionRefused, Throttled
from worker.graph.account import AppSubscription, Caller
from worker.graph.wire import GraphAnswer, GraphRequest
from worker.missing import HOPS, Found, MetasSide, first_missing, why
from worker.proving import Neighbours, Proof, prove
from worker.stream_search import Lying, Standing

LEAD, FORMER = "900000000000002", "900000000000001"
APP = "4242"
HOOK = {
    "object": "page",
    "callback_url": "https://a.example/webhook",
    "active": True,
    "fields": [{"name": "leadgen"}],
}
MS = int(NOW.timestamp() * 1000)


@dataclass
class TestingGraph:
    """Meta's testing tool: one test lead a form; `says` are answers given instead, by method and last part of path."""

    __test__ = False
    has: str | None = None
    says: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)
    fields: list[str] | None = field(default_factory=lambda: ["leadgen"])
    hooks: list[dict[str, Any]] = field(default_factory=lambda: [HOOK])
    asked: list[str] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer:
        path = request.path.removeprefix("/v26.0/")
        what = f"{request.method} {path.rpartition('/')[2]}"
        self.asked.append(f"{request.method} {path}")
        self.grants.append(grant)
        status, body = (
            self.says[what].popleft() if self.says.get(what) else self._answer(request.method, path)
        )
        return GraphAnswer(status, {}, json.dumps(body).encode())

    def _answer(self, method: str, path: str) -> tuple[int, Any]:
        if path.endswith("test_leads"):
            if method == "GET":
                return 200, {"data": [{"id": self.has}] if self.has else []}
            if self.has:
                return 400, second("error_subcode")
            self.has = LEAD
            return 200, {"id": LEAD}
        if method == "DELETE":
            self.has = None
            return 200, {"success": True}
        if path.endswith("subscribed_apps"):
            return 200, {
                "data": [] if self.fields is None else [{"id": APP, "subscribed_fields": self.fields}]
            }
        return 200, {"data": self.hooks}


def second(where: str) -> dict[str, Any]:
    return {"error": {"code": 100, "message": "told", **{where: 1892058}}}


@dataclass
class Rows:
    """What Postgres holds of the lead, and of its Page."""

    row: dict[str, Any] | None = None
    held: dict[str, Any] | None = None

    async def lead(self, leadgen_id: str) -> dict[str, Any] | None:
        assert leadgen_id == LEAD
        return self.row

    async def page(self, page_id: str) -> dict[str, Any] | None:
        return self.held


@dataclass
class Bench:
    """All neighbours; each pause takes its time on the clock, and `meanwhile` happens in the first one."""

    graph: TestingGraph = field(default_factory=TestingGraph)
    budget: FakeBudget = field(default_factory=FakeBudget)
    rows: Rows = field(default_factory=Rows)
    standing: Standing = field(default_factory=lambda: Standing((), None, 0, (), whole=True))
    clock: FrozenClock = field(default_factory=FrozenClock)
    counted: dict[str, int] = field(default_factory=dict)
    meanwhile: Callable[[], None] = lambda: None
    callback: str | None = None
    seen: list[Mapping[str, datetime | None]] = field(default_factory=list)
    app_id: str = APP

    def prove(self, seconds: float = 3) -> Proof:
        async def find(leadgen_id: str, since_ms: int) -> Standing:
            assert leadgen_id == LEAD
            assert since_ms < MS
            return self.standing

        async def condition() -> dict[str, Any]:
            return {"deliveries": dict(self.counted), "progress": {}}

        async def shake(url: str) -> str | None:
            assert url == HOOK["callback_url"]
            return self.callback

        async def pause(seconds: float) -> None:
            self.clock.move(seconds)
            self.meanwhile()

        near = Neighbours(
            self.graph, self.budget, FakeTokens(), self.rows, find, condition, shake,
            Caller(self.app_id, "v26.0", "secret"), self.clock, pause,
        )  # fmt: skip
        told = lambda passed: self.seen.append(dict(passed))  # noqa: E731
        return asyncio.run(prove(FORM, PAGE, near=near, seconds=seconds, told=told))


def a_row(state: str = "stored", **changed: Any) -> dict[str, Any]:
    times = {
        "received_at": at(0.1),
        "taken_ms": 100,
        "read_ms": 300,
        "stored_at": at(0.5),
        "last_seen_at": at(0.7),
    }
    return {
        "state": state,
        "reason": None,
        "due_at": None,
        "source": "webhook",
        "announced": 1,
        **times,
        **changed,
    }


def lying(**changed: Any) -> Lying:
    return replace(Lying("1-0", PAGE, FORM, MS + 150, MS + 100), **changed)


def test_a_lead_that_arrives_tells_each_hop() -> None:
    """In the stream first, then a row: every moment is known, and what was seen stays."""
    bench = Bench()
    bench.standing = replace(bench.standing, entries=(lying(),))

    def arrives() -> None:
        bench.standing = replace(bench.standing, entries=())
        bench.rows.row = a_row()

    bench.meanwhile = arrives
    proof = bench.prove()
    assert (proof.missing, proof.leadgen_id) == (None, LEAD)
    moments = [proof.passed[hop] for hop in HOPS]
    assert moments == [NOW, at(0.1), at(0.15), at(0.2), at(0.4), at(0.5)]
    assert len(bench.seen) == 3


def test_the_former_test_lead_is_deleted_and_every_call_is_granted() -> None:
    """One a form; each call under the Page's token is one of its upkeep."""
    bench = Bench(graph=TestingGraph(has=FORMER), rows=Rows(a_row()))
    assert bench.prove().missing is None
    assert bench.graph.asked == [
        f"GET {FORM}/test_leads",
        f"DELETE {FORMER}",
        f"POST {FORM}/test_leads",
    ]
    assert bench.budget.asked == [(PAGE, 1, Lane.UPKEEP)] * 3
    assert len(bench.budget.usages) == 3


def test_nothing_is_deleted_where_meta_lists_more_than_a_form_can_have() -> None:
    """They may be people's leads, and what is deleted at Meta does not come back."""
    bench = Bench(TestingGraph(has=FORMER))
    bench.graph.says["GET test_leads"] = deque([(200, {"data": [{"id": FORMER}, {"id": "7"}]})])
    with pytest.raises(LeadSyncError, match="lists 2 test leads"):
        bench.prove()
    assert bench.graph.asked == [f"GET {FORM}/test_leads"]


@pytest.mark.parametrize("where", ["error_subcode", "code"])
def test_a_second_test_lead_is_met_once_more(where: str) -> None:
    """Somebody made one meanwhile, or it was not listed: it is deleted and asked once more, wherever Meta says so."""
    graph = TestingGraph(says={"POST test_leads": deque([(400, second(where))])})
    assert Bench(graph=graph, rows=Rows(a_row())).prove().missing is None
    graph = TestingGraph(says={"POST test_leads": deque([(400, second(where))] * 2)})
    with pytest.raises(LeadSyncError, match="neither lists nor deletes"):
        Bench(graph=graph).prove()


def test_an_answer_without_an_id_is_looked_up() -> None:
    """What Meta answers to POST is not documented."""
    graph = TestingGraph(says={"POST test_leads": deque([(200, {"success": True})])})
    graph.says["GET test_leads"] = deque([(200, {"data": []}), (200, {"data": [{"id": LEAD}]})])
    assert Bench(graph=graph, rows=Rows(a_row())).prove().leadgen_id == LEAD
    graph = TestingGraph(says={"POST test_leads": deque([(200, {"success": True})])})
    with pytest.raises(LeadSyncError, match="does not say which"):
        Bench(graph=graph).prove()


def test_no_call_is_made_without_a_grant_and_a_throttle_is_told() -> None:
    """A spent budget is an error that says until when; Meta's own closes the scope."""
    bench = Bench(budget=FakeBudget(says=deque([Refusal(at(60), "budget")])))
    with pytest.raises(Throttled, match="no call is left"):
        bench.prove()
    assert bench.graph.asked == []
    graph = TestingGraph(says={"GET test_leads": deque([(400, {"error": {"code": 80005}})])})
    bench = Bench(graph=graph)
    with pytest.raises(Throttled):
        bench.prove()
    assert [scope for _, scope, _ in bench.budget.closed] == ["page"]


def test_what_meta_refuses_is_the_error() -> None:
    """A missing permission to make test leads is told as it is."""
    graph = TestingGraph(says={"POST test_leads": deque([(403, {"error": {"code": 200}})])})
    with pytest.raises(PermissionRefused):
        Bench(graph=graph).prove()


def missing(bench: Bench) -> tuple[str | None, str]:
    proof = bench.prove(1)
    return proof.missing, "; ".join(proof.why)


@pytest.mark.parametrize(
    ("graph", "callback", "says"),
    [
        (TestingGraph(fields=None), None, "not installed on the Page"),
        (TestingGraph(fields=["feed"]), None, "lacks the field leadgen"),
        (TestingGraph(hooks=[]), None, "no webhook for Pages"),
        (TestingGraph(hooks=[{**HOOK, "active": False}]), None, "not active"),
        (
            TestingGraph(),
            "answers the handshake with 403",
            "https://a.example/webhook answers the handshake with 403",
        ),
        (TestingGraph(), None, "development mode"),
        (
            TestingGraph(says={"GET subscribed_apps": deque([(403, {"error": {"code": 200}})])}),
            None,
            "the Page's subscription could not be read",
        ),
    ],
)
def test_no_ping_says_which_of_metas_settings_is_wrong(
    graph: TestingGraph, callback: str | None, says: str
) -> None:
    """Page, app and callback are looked at in this order; where all are right, where else to look."""
    bench = Bench(graph=graph, callback=callback)
    hop, told = missing(bench)
    assert hop == "webhook received"
    assert says in told
    assert bench.graph.grants[-1] is IN_NO_PAGES_NAME


def test_no_ping_without_an_app_id_says_so() -> None:
    """Nothing can be asked about an app that is not known."""
    assert "META_APP_ID is not set" in missing(Bench(app_id=""))[1]


def test_a_delivery_that_was_refused_is_told() -> None:
    """What the receiver counted since the lead was made."""
    bench = Bench(counted={"unsigned": 4})
    bench.meanwhile = lambda: bench.counted.update(unsigned=5)
    assert "not signed with META_APP_SECRET" in missing(bench)[1]
    assert "not signed" not in missing(Bench(counted={"unsigned": 4}))[1]


def test_a_lead_that_came_without_its_ping_lacks_the_ping() -> None:
    """A listing may bring it: it is a row, and the way that was to be tried is broken all the same."""
    row = a_row(announced=0, received_at=None, taken_ms=None, read_ms=None, source="reconcile")
    hop, told = missing(Bench(rows=Rows(row)))
    assert hop == "webhook received"
    assert "the lead itself is here: a reconciliation brought it" in told
    proof = Bench(rows=Rows({**row, "announced": 1})).prove()
    assert (proof.missing, proof.passed["webhook received"]) == (None, at(0.7))


def test_a_lead_nobody_takes_up_is_missing_there() -> None:
    """It lies in the stream, and nobody looks."""
    bench = Bench()
    bench.standing = replace(bench.standing, entries=(lying(),))
    hop, told = missing(bench)
    assert hop == "taken up"
    assert "no worker has looked at the stream since it came, never" in told
    assert "the schedule rings no more" in told
    assert bench.graph.asked[-1].startswith("POST"), "Meta's side is not looked at: the ping came"


def test_a_lead_that_a_worker_reads_is_missing_at_graph() -> None:
    """Who reserved it has taken it up; Graph is slow then, perhaps."""
    bench = Bench()
    held = lying(taken_by="host-1", idle_ms=200, deliveries=1)
    bench.standing = replace(bench.standing, entries=(held,), reserved_by="host-1")
    proof = bench.prove(1)
    assert (proof.missing, proof.passed["taken up"]) == ("Graph's answer", at(-0.2))
    assert "Graph is slow" in proof.why[0]


def test_a_lead_that_dies_ends_the_wait_at_once() -> None:
    """Nothing more will come of it."""
    bench = Bench(rows=Rows(a_row("dead", reason="lead_malformed", stored_at=None, read_ms=None)))
    proof = bench.prove(1_000)
    assert (proof.missing, bench.clock.now) == ("Graph's answer", NOW)
    assert "dead letter: Graph's answer was not that lead" in proof.why[0]


WAITING = a_row("waiting", reason="not_visible", due_at=at(-60))
FREE = {"page_id": PAGE, "parked_at": None, "held_until": None}


@pytest.mark.parametrize(
    ("hop", "found", "says"),
    [
        ("in the stream", Found(), "was Redis emptied?"),
        ("taken up", Found(entry=lying(taken_by="host-1", idle_ms=4_000)), "host-1 took it up 4 s ago"),
        ("taken up", Found(entry=lying(), looked={"live": at(9), "schedule": at(9)}), "have not come to it"),
        (
            "taken up",
            Found(entry=lying(), looked={"live": at(9), "schedule": at(-90)}),
            "rings no more, last 100 s ago",
        ),
        ("Graph's answer", Found(), "has not answered yet"),
        (
            "Graph's answer",
            Found(row=WAITING, page=FREE),
            "that is over: is there a worker for the queue `upkeep`?",
        ),
        (
            "Graph's answer",
            Found(row={**WAITING, "due_at": at(60)}, page=FREE),
            "Graph does not show the lead",
        ),
        (
            "Graph's answer",
            Found(row=WAITING, page={**FREE, "parked_at": NOW, "parked_reason": "token_refused"}),
            f"`leadsync pages unpark {PAGE}`",
        ),
        (
            "Graph's answer",
            Found(row=WAITING, page={**FREE, "held_until": at(99), "held_reason": "budget"}),
            "12:01:39 UTC",
        ),
        (
            "webhook received",
            Found(metas=MetasSide(("leadgen",), app_trouble="refused")),
            "webhook could not be read",
        ),
        (
            "webhook received",
            Found(metas=MetasSide(("leadgen",), app=AppSubscription("page", "https://x", True, ()))),
            "not active for the field leadgen",
        ),
    ],
)
def test_each_hop_says_what_to_look_at(hop: str, found: Found, says: str) -> None:
    """What was found wrong, or where else to look."""
    assert says in "; ".join(why(hop, found, at(10)))


def test_every_hop_has_an_answer() -> None:
    """Even where nothing at all was found."""
    assert all(why(hop, Found(), NOW) for hop in HOPS)
    assert first_missing(dict.fromkeys(HOPS)) is None
    assert first_missing({}) == HOPS[0]
