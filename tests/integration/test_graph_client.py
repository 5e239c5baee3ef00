"""The Graph client against a real server on this machine: what leaves under a grant, and what never does.

The server counts whole requests by their bytes; what it writes to each is told beforehand.
"""

import asyncio
import json
import socket
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.fakes.leads import graph_lead
from worker.budget.policy import Grant
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    GraphUnavailable,
    LeadSyncError,
    Throttled,
    TokenRefused,
)
from worker.graph.client import GraphClient, GraphSettings
from worker.graph.wire import FULL_FIELDS, appsecret_proof
from worker.metrics import Meter

TOKEN = "EAABhunter2token"
APP_SECRET = "hunter2appsecret"
LONG = Grant(50, float("inf"))
WAIT = 10.0
"""Seconds after which something that must happen has not."""


class Last(bytes):
    """What the server writes before it drops the connection."""


@dataclass
class Answers:
    """What the server writes to each request, in order (b"": it hangs); then empty result pages."""

    says: deque[bytes] = field(default_factory=deque)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        said = b""
        try:
            while not isinstance(said, Last) and (request := await self._request(reader)):
                self.requests.append(request)
                said = self.says.popleft() if self.says else answer({"data": []})
                writer.write(said)
                await self._tell()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open -= 1
            await self._tell()

    async def _tell(self) -> None:
        async with self.moved:
            self.moved.notify_all()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a request or for the end of a connection."""
        async with self.moved:
            await asyncio.wait_for(self.moved.wait_for(is_so), WAIT)

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        """One whole request; nothing where the client has closed."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = await reader.read(1)
            if not byte:
                assert head == b"", f"part of a request was sent: {head!r}"
                return b""
            head += byte
        length = next(
            (int(h.split(b":")[1]) for h in head.lower().split(b"\r\n") if b"content-length" in h), 0
        )
        return head + await reader.readexactly(length)

    async def all_closed(self) -> None:
        await self.until(lambda: self.open == 0)


class Clock:
    """A steady clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A client, the server that it talks to, and its clock."""

    client: GraphClient
    server: Answers
    clock: Clock
    url: str
    meter: Meter

    def counted(self) -> dict[str, int]:
        """The calls since the last look, by kind and result; and how many requests were timed."""
        growth = self.meter.take()
        calls = {f[len("graph_calls ") :]: n for f, n in growth.items() if f.startswith("graph_calls ")}
        timed = [n for f, n in growth.items() if f.startswith("graph_request") and not f.endswith(" sum")]
        return calls | {"requests": sum(timed)}

    async def list_leads(self, grant: Grant = LONG, after: str | None = None) -> Any:
        return await self.client.list_leads(
            "77", 1_000, 1_060, FULL_FIELDS, TOKEN, grant, limit=500, after=after
        )

    async def read_leads(self, *ids: str, grant: Grant = LONG) -> Any:
        return await self.client.read_leads(ids, FULL_FIELDS, TOKEN, grant)

    async def warm(self) -> None:
        """Leave a connection that is kept alive."""
        await self.list_leads()
        assert (len(self.server.requests), self.server.connections) == (1, 1)

    def nothing_held(self) -> bool:
        session = self.client._session
        assert session is not None
        connector: Any = session.connector
        return not connector._acquired

    def lines(self) -> list[str]:
        return [request.split(b"\r\n")[0].decode() for request in self.server.requests]


def answer(body: Any, status: int = 200, *headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, "", ""]).encode() + raw


@asynccontextmanager
async def a_world(*, host: str = "127.0.0.1", **changed: Any) -> AsyncIterator[World]:
    answers, clock, meter = Answers(), Clock(), Meter()
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    settings = GraphSettings(url, "v26.0", APP_SECRET, **{"timeout_seconds": WAIT, **changed})
    try:
        async with GraphClient(settings, clock, meter) as client:
            yield World(client, answers, clock, url, meter)
        await answers.all_closed()
    finally:
        server.close()


def on_world(scenario: Callable[[World], Awaitable[None]], **changed: Any) -> None:
    async def inner() -> None:
        async with a_world(**changed) as world:
            await scenario(world)
            assert world.nothing_held()

    asyncio.run(asyncio.wait_for(inner(), 3 * WAIT))


def test_a_listing_is_one_get_with_its_token_in_a_header() -> None:
    """What goes over the wire names form, seconds and cursor; the token is in no URL, its proof is beside it."""

    async def scenario(world: World) -> None:
        body = {"data": [graph_lead("5")], "paging": {"cursors": {"after": "b"}, "next": "https://x"}}
        usage = 'X-Business-Use-Case-Usage: {"7":[{"type":"leadgen","call_count":9}]}'
        world.server.says.append(answer(body, 200, usage))
        found = await world.list_leads(after="QVFI==")
        assert (found.entries, found.after) == ((graph_lead("5"),), "b")
        assert [u.call_count for u in found.usages] == [9]
        method, url, _ = world.lines()[0].split(" ")
        query = dict(parse_qsl(urlsplit(url).query))
        assert (method, urlsplit(url).path) == ("GET", "/v26.0/77/leads")
        assert (query["after"], query["limit"], query["fields"]) == ("QVFI==", "500", ",".join(FULL_FIELDS))
        assert [f["value"] for f in json.loads(query["filtering"])] == [1_000, 1_060]
        assert query["appsecret_proof"] == appsecret_proof(APP_SECRET, TOKEN)
        assert f"authorization: bearer {TOKEN.lower()}".encode() in world.server.requests[0].lower()
        assert TOKEN not in url

    on_world(scenario)


def test_a_page_s_forms_are_one_get() -> None:
    """Forms are asked for at the Page, with their counts."""

    async def scenario(world: World) -> None:
        world.server.says.append(answer({"data": [{"id": "1", "leads_count": 5}]}))
        found = await world.client.list_forms("88", TOKEN, LONG, limit=100, after=None)
        assert (found.entries, found.after) == (({"id": "1", "leads_count": 5},), None)
        assert world.lines()[0].startswith("GET /v26.0/88/leadgen_forms?")
        assert TOKEN not in world.lines()[0]

    on_world(scenario)


def test_calls_share_a_connection() -> None:
    """One call after the other goes over the connection that is there."""

    async def scenario(world: World) -> None:
        for _ in range(5):
            await world.list_leads()
        assert (len(world.server.requests), world.server.connections) == (5, 1)

    on_world(scenario)


@pytest.mark.parametrize("late", [0.0, 0.001, 1e6])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("warm", [False, True])
def test_after_its_deadline_a_grant_sends_not_one_byte(late: float, count: int, warm: bool) -> None:
    """A grant that has run out is told before anything is written, on a new connection and on a kept one."""

    async def scenario(world: World) -> None:
        if warm:
            await world.warm()
        with pytest.raises(GrantLapsed):
            await world.read_leads(*map(str, range(count)), grant=Grant(count, world.clock.now - late))
        assert len(world.server.requests) == (1 if warm else 0)
        assert world.nothing_held()
        await world.server.all_closed()

    on_world(scenario)


def test_up_to_its_deadline_a_grant_is_good() -> None:
    """A call whose grant has a moment left is sent."""

    async def scenario(world: World) -> None:
        await world.list_leads(Grant(1, world.clock.now + 0.001))
        assert len(world.server.requests) == 1

    on_world(scenario)


def test_a_grant_that_runs_out_while_the_connection_is_made_is_not_used() -> None:
    """The deadline holds at the last moment before the call is written, however long it took to get there."""

    async def scenario(world: World) -> None:
        loop = asyncio.get_running_loop()
        resolve = loop.getaddrinfo

        async def slowly(host: Any, port: Any, **asked: Any) -> Any:
            world.clock.now += 60.0
            return await resolve("127.0.0.1", port, **{**asked, "family": socket.AF_INET, "flags": 0})

        loop.getaddrinfo = slowly  # type: ignore[method-assign, assignment]
        with pytest.raises(GrantLapsed):
            await world.list_leads(Grant(1, world.clock.now + 10.0))
        assert world.clock.now == 160.0
        assert world.server.requests == []

    on_world(scenario, host="graph.test")


@pytest.mark.parametrize("count", [1, 3])
def test_a_call_is_never_sent_twice_under_one_grant(count: int) -> None:
    """Where a kept connection is dropped unanswered Meta may have counted: the call is not repeated."""

    async def scenario(world: World) -> None:
        await world.warm()
        world.server.says.append(Last(b""))
        with pytest.raises((GrantLapsed, GraphUnavailable)):
            await world.read_leads(*map(str, range(1, count + 1)))
        assert len(world.server.requests) == 2
        assert world.nothing_held()
        single, batch = (
            graph_lead("1"),
            [{"code": 200, "body": json.dumps(graph_lead(str(n)))} for n in (1, 2, 3)],
        )
        world.server.says.append(answer(single if count == 1 else batch))
        found = await world.read_leads(*map(str, range(1, count + 1)))
        assert len(found.leads) == count
        assert len(world.server.requests) == 3

    on_world(scenario)


def test_a_listing_that_was_cut_off_is_not_sent_again() -> None:
    """The same for a result page, and with a connection that was dropped at its first call."""

    async def scenario(world: World) -> None:
        world.server.says.append(Last(b""))
        with pytest.raises((GrantLapsed, GraphUnavailable)):
            await world.list_leads()
        assert len(world.server.requests) == 1
        await world.list_leads()
        world.server.says.append(Last(b""))
        with pytest.raises((GrantLapsed, GraphUnavailable)):
            await world.list_leads()
        assert len(world.server.requests) == 3

    on_world(scenario)


def test_each_call_has_its_own_leave() -> None:
    """Calls at the same time under several grants do not use up one another's."""

    async def scenario(world: World) -> None:
        world.server.says.extend([Last(b""), *[answer({"data": []})] * 9])
        late = Grant(1, world.clock.now)
        told = await asyncio.gather(
            *(world.list_leads(late if n % 2 else LONG) for n in range(20)), return_exceptions=True
        )
        assert [type(e) for e in told[1::2]] == [GrantLapsed] * 10
        assert sum(isinstance(e, LeadSyncError) for e in told[::2]) == 1
        assert len(world.server.requests) == 10

    on_world(scenario)


@pytest.mark.parametrize(
    "said",
    [
        Last(b""),
        Last(b"HTTP/1.1 200 X\r\nContent-Length: 50\r\n\r\nshort"),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/?access_token=EAABhunter2token\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        answer(b"<html>EAABhunter2token hunter2appsecret</html>", 502),
        answer({"error": {"code": 2, "message": "EAABhunter2token hunter2appsecret"}}, 500),
        answer({"error": {"code": 190, "message": "EAABhunter2token hunter2appsecret"}}, 400),
        answer({"error": {"code": 80005, "message": "EAABhunter2token hunter2appsecret"}}, 400),
        answer(b"x" * 100_001),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_whatever_goes_wrong_holds_no_connection_and_tells_no_secret(said: bytes, count: int) -> None:
    """Each fault is one error of the tree whose text and trace hold no secret, and no connection stays in use."""

    async def scenario(world: World) -> None:
        world.server.says.append(said)
        with pytest.raises(LeadSyncError) as told:
            await world.read_leads(*map(str, range(1, count + 1)))
        assert isinstance(
            told.value, GraphUnavailable | TokenRefused | Throttled | GrantLapsed | AnswerTooLarge
        )
        shown = "".join(traceback.format_exception(told.value)) + repr(told.value)
        assert "hunter2" not in shown
        assert len(world.server.requests) == 1
        assert world.nothing_held()

    on_world(scenario, max_body_bytes=100_000)


@pytest.mark.parametrize("count", [1, 2])
def test_an_answer_beyond_the_bound_asks_for_less_and_keeps_its_usage(count: int) -> None:
    """It is no outage: fewer leads may fit, and what its headers said of usage is not lost."""

    async def scenario(world: World) -> None:
        usage = b'X-App-Usage: {"call_count":28,"total_time":1,"total_cputime":1}\r\n'
        world.server.says.append(answer(b"x" * 100_001).replace(b"\r\n", b"\r\n" + usage, 1))
        with pytest.raises(AnswerTooLarge) as told:
            await world.read_leads(*map(str, range(1, count + 1)))
        assert [u.percent for u in told.value.usages or ()] == [28]

    on_world(scenario, max_body_bytes=100_000)


def test_a_redirect_is_not_followed() -> None:
    """A token goes to nobody but Graph: an answer that names another place is an unavailable Graph."""

    async def scenario(world: World) -> None:
        world.server.says.append(answer(b"", 302, f"Location: {world.url}/elsewhere"))
        with pytest.raises(GraphUnavailable):
            await world.list_leads()
        assert len(world.server.requests) == 1

    on_world(scenario)


def test_a_next_that_leads_elsewhere_is_not_followed() -> None:
    """Only the cursor of a result page is taken from it, and asked for where all is, whatever it looks like."""

    async def scenario(world: World) -> None:
        trap = Answers()
        listener = await asyncio.start_server(trap.serve, "127.0.0.1", 0)
        async with listener:
            elsewhere = (
                f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v25.0/77/leads?access_token={TOKEN}"
            )
            after = "x&access_token=other#/../../me"
            told = {"data": [], "paging": {"cursors": {"before": "a", "after": after}, "next": elsewhere}}
            world.server.says.append(answer(told))
            page = await world.list_leads()
            assert page.after == after
            await world.list_leads(after=page.after)
            assert trap.connections == 0
        first, second = (urlsplit(request.split()[1].decode()) for request in world.server.requests)
        assert second.path == first.path
        asked = [dict(parse_qsl(each.query)) for each in (first, second)]
        assert asked[1].pop("after") == after
        assert asked[0] == asked[1]

    on_world(scenario)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    """After its time a call ends, and its connection with it."""

    async def scenario(world: World) -> None:
        world.server.says.append(b"")
        with pytest.raises(GraphUnavailable, match=r"0\.2 s"):
            await world.list_leads()
        await world.server.all_closed()

    on_world(scenario, timeout_seconds=0.2)


def test_a_graph_that_is_away_is_told_without_secrets(free_port: int) -> None:
    """Nobody listening is an unavailable Graph, whose error names neither token nor secret."""

    async def scenario() -> None:
        settings = GraphSettings(f"http://127.0.0.1:{free_port}", "v26.0", APP_SECRET)
        async with GraphClient(settings) as client:
            with pytest.raises(GraphUnavailable) as told:
                await client.read_leads(["1"], FULL_FIELDS, TOKEN, LONG)
            assert "hunter2" not in "".join(traceback.format_exception(told.value)) + repr(settings)

    asyncio.run(scenario())


def test_a_grant_that_lapsed_tells_no_secret() -> None:
    """Neither the error of an expired grant nor its trace quotes the request."""

    async def scenario(world: World) -> None:
        with pytest.raises(GrantLapsed) as told:
            await world.list_leads(Grant(1, 0.0))
        assert "hunter2" not in "".join(traceback.format_exception(told.value)) + repr(told.value)

    on_world(scenario)


def test_a_call_that_is_cancelled_leaves_no_connection() -> None:
    """The end of a run cuts a hanging call off with its connection."""

    async def scenario(world: World) -> None:
        world.server.says.append(b"")
        call = asyncio.ensure_future(world.list_leads())
        await world.server.until(lambda: bool(world.server.requests))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await world.server.all_closed()

    on_world(scenario)


def test_another_version_than_was_asked_for_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Graph serves a newer version where ours is retired, and says so in a header only."""

    async def scenario(world: World) -> None:
        world.server.says.extend([answer({"data": []}, 200, "facebook-api-version: v99.0")] * 3)
        for _ in range(3):
            await world.list_leads()

    on_world(scenario)
    assert capsys.readouterr().out.count("graph_version_differs") == 1


def test_each_call_is_counted_by_what_it_met() -> None:
    """An answer, an error, each item of a batch, a batch that failed as a whole, and no answer; a request each."""
    error = {"error": {"message": "x", "code": 190}}

    async def scenario(world: World) -> None:
        says = world.server.says
        says += [answer({"data": []}), answer(error, 400)]
        await world.list_leads()
        with pytest.raises(TokenRefused):
            await world.read_leads("1")
        assert world.counted() == {"leads ok": 1, "lead token_refused": 1, "requests": 2}
        good = {"code": 200, "headers": [], "body": json.dumps(graph_lead("1"))}
        bad = {"code": 400, "headers": [], "body": json.dumps({"error": {"code": 100, "error_subcode": 33}})}
        says += [answer([good, bad, None]), answer(error, 400)]
        await world.read_leads("1", "2", "3")
        with pytest.raises(TokenRefused):
            await world.read_leads("1", "2", "3")
        assert world.counted() == {
            "lead ok": 1, "lead not_visible": 1, "lead graph_unavailable": 1, "batch token_refused": 1,
            "requests": 2,
        }  # fmt: skip

    on_world(scenario)


def test_a_call_that_was_not_sent_is_not_counted() -> None:
    """A grant that ran out before the call costs nothing and counts nothing."""

    async def scenario(world: World) -> None:
        await world.warm()
        world.counted()
        world.clock.now = 1_000_000.0
        with pytest.raises(GrantLapsed):
            await world.list_leads(Grant(1, 10.0))
        assert world.counted() == {"requests": 0}

    on_world(scenario)


def test_a_call_that_nobody_waits_for_counts_as_given_up() -> None:
    """It was sent, so Meta counts it."""

    async def scenario(world: World) -> None:
        world.server.says.append(b"")
        asking = asyncio.create_task(world.list_leads())
        await world.server.until(lambda: len(world.server.requests) == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert world.counted() == {"leads given_up": 1, "requests": 1}

    on_world(scenario)
