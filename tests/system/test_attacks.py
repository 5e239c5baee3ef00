"""What strangers, authors of forms and people's answers may send at a running leadsync, and that it costs nothing.

The stack is real: HTTP on a socket, Redis, Celery, Postgres. Each attack is followed by honest traffic, which must fare
as ever. Screens and logs are searched for what they were attacked with.
"""

import hashlib
import hmac
import json
import pickle
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
import psycopg
import pytest
import redis

from tests.system.whole import APP_SECRET, Whole, whole
from worker.inbox import LIVE_QUEUE, SET_ASIDE, STREAM

FORGED = 10_000
PATIENCE = 10.0
"""Seconds for an answer to come."""
STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What makes a terminal do something else than show a letter; line breaks and tabs are ours."""
EVIL_NAME = (
    '\x1b]0;owned\x07\x1b[2J\x1b[1;31m\u202eevil\x9b31m [bold]x[/bold] "; drop table leadgen; --\r\nfake line'
)
EVIL_KEY = 'x" text); drop table leadgen; --'


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """One stack for the module: it has to live through all of it."""
    env = {"RING_EVERY_SECONDS": "1", "FORMS_DISCOVER_SECONDS": "2", "LOG_STYLE": "console"}
    with whole(sandbox={"pages": 3, "hostile_text": 1}, env=env) as running:
        yield running


@pytest.fixture
def unannounced(stack: Whole) -> list[dict[str, Any]]:
    """Leads that Graph holds and nobody has announced."""
    made = stack.post("leads", {"count": 3})["leads"]
    truth = stack.truth()
    return [truth[leadgen_id] for leadgen_id in made]


def body_of(leads: Iterable[dict[str, Any]]) -> bytes:
    changes = [
        {"field": "leadgen", "value": {"leadgen_id": lead["id"], "page_id": lead["page_id"]}}
        for lead in leads
    ]
    return json.dumps({"object": "page", "entry": [{"id": "1", "time": 1, "changes": changes}]}).encode()


def signature(body: bytes, secret: str = APP_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(body: bytes, sign: str | None, *more: str) -> bytes:
    """A request's bytes, on a connection that is kept."""
    lines = ["POST /webhook HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    if sign is not None:
        lines.append(f"X-Hub-Signature-256: {sign}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def address(stack: Whole) -> tuple[str, int]:
    url = urlsplit(stack.webhook_url)
    return str(url.hostname), int(url.port or 80)


def statuses(stack: Whole, sent: bytes) -> list[int]:
    """Send these bytes on a connection of their own; the statuses of all answers until it is closed or silent."""
    with socket.create_connection(address(stack), timeout=PATIENCE) as connection:
        answer = b""
        # Who is refused early may find the connection reset, while sending or after it.
        with suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while part := connection.recv(65_536):
                answer += part
    return [int(number) for number in re.findall(rb"^HTTP/1\.[01] (\d{3})", answer, re.MULTILINE)]


def accepted(stack: Whole, sent: bytes) -> bool:
    """Whether it is answered with 200, be it after 503s, which a busy machine may answer: Meta sends again as well."""
    return stack.wait_for(lambda: statuses(stack, sent) == [200], 30)


def pipelined(stack: Whole, requests: Sequence[bytes]) -> list[int]:
    """Send requests one after the other on one kept connection; their statuses."""
    found = []
    with socket.create_connection(address(stack), timeout=PATIENCE) as connection:
        reader = connection.makefile("rb")
        for request in requests:
            connection.sendall(request)
            found.append(int(reader.readline().split()[1]))
            length = 0
            while (line := reader.readline()) not in {b"\r\n", b""}:
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            reader.read(length)
    return found


def rows_of(stack: Whole, leads: Iterable[dict[str, Any]]) -> int:
    query = "select count(*) from leadgen where leadgen_id = any(%s)"
    with psycopg.connect(stack.settings.database_url) as connection:
        found = connection.execute(query, ([lead["id"] for lead in leads],)).fetchone()
    return int(found[0]) if found else 0


def calls(stack: Whole) -> int:
    """Calls that read leads."""
    return int(stack.get("calls")["kinds"].get("lead", 0))


def assert_lives(stack: Whole) -> None:
    """An honest delivery is answered with 200 and its leads become rows."""
    made = stack.post("leads", {"count": 2})["leads"]
    truth = stack.truth()
    leads = [truth[leadgen_id] for leadgen_id in made]
    raw = body_of(leads)
    assert accepted(stack, post(raw, signature(raw)))
    assert stack.wait_for(lambda: rows_of(stack, leads) == len(leads), 20)


def test_ten_thousand_forged_deliveries_cost_no_row_and_no_call(
    stack: Whole, unannounced: list[dict[str, Any]]
) -> None:
    """Invented, foreign, truncated and misplaced signatures: each is 403, none reaches the stream."""
    raw = body_of(unannounced)
    good = signature(raw)
    chance = random.Random(5)
    forgeries: list[str | None] = [
        None,
        "",
        good.removeprefix("sha256="),
        good[:-1],
        good[:20],
        good + "0",
        good.upper(),
        good.replace("sha256", "sha1"),
        "sha256=" + hashlib.sha256(raw).hexdigest(),
        signature(raw, "another_secret"),
        signature(raw, ""),
        signature(raw + b" "),
        f"{good}, {good}",
        f"sha256={good}",
        "sha256=" + "\xb2" * 64,
        "sha256=" + "0" * 30_000,
    ]
    requests = [post(raw, forged) for forged in forgeries]
    while len(requests) < FORGED:
        requests.append(post(raw, f"sha256={chance.getrandbits(256):064x}"))
    before = calls(stack)
    assert set(pipelined(stack, requests)) == {403}
    with redis.Redis.from_url(stack.settings.redis_url) as client:
        assert client.xlen(STREAM) == 0
        assert client.xlen(SET_ASIDE) == 0
    assert_lives(stack)
    assert rows_of(stack, unannounced) == 0
    assert calls(stack) == before + 2


def test_a_replayed_delivery_changes_no_row_and_costs_no_call(
    stack: Whole, unannounced: list[dict[str, Any]]
) -> None:
    """What Meta once signed can be sent again by whoever overheard it: the leads are known, and that is all."""
    raw = body_of(unannounced)
    request = post(raw, signature(raw))
    assert accepted(stack, request)
    assert stack.wait_for(lambda: rows_of(stack, unannounced) == len(unannounced), 20)
    ids = [lead["id"] for lead in unannounced]
    assert stack.wait_for(lambda: len(stack.rows(ids)) == len(ids), 20)
    stored = {row["leadgen_id"]: row["stored_at"] for row in stack.rows(ids)}
    before = calls(stack)
    answers = Counter(pipelined(stack, [request] * 500))
    assert answers.keys() <= {200, 503}
    assert answers[200] > 400
    assert stack.wait_for(lambda: stack.ask_stream(lambda stream: stream.length()) == 0, 20)
    assert {row["leadgen_id"]: row["stored_at"] for row in stack.rows(ids)} == stored
    assert calls(stack) == before


def _deep() -> bytes:
    return b'{"object":"page","entry":' + b"[" * 500_000 + b"]" * 500_000 + b"}"


def _wide() -> bytes:
    return b"{" + b",".join(b'"%d":[]' % number for number in range(100_000)) + b"}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(_deep(), id="a million brackets"),
        pytest.param(_wide(), id="100,000 keys"),
        pytest.param(b'{"entry":' + b"9" * 1_000_000 + b"}", id="a number of a million digits"),
        pytest.param(b'{"entry":[{"changes":[' + b"{}," * 300_000 + b"{}]}]}", id="300,000 empty changes"),
        pytest.param(b'{"a":"' + b"\\ud800" * 100_000 + b'"}', id="100,000 lone surrogates"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(1_000_000), id="something compressed"),
    ],
)
def test_a_monstrous_body_is_taken_without_a_worker_noticing(stack: Whole, body: bytes) -> None:
    """Signed or not, what is deep, wide or long is refused or set aside within seconds, and the next is served."""
    began = time.monotonic()
    assert statuses(stack, post(body, signature(body, "not_ours"))) == [403]
    assert accepted(stack, post(body, signature(body)))
    assert time.monotonic() - began < 2 * PATIENCE
    assert_lives(stack)


ABUSES = {
    "length and chunks": (
        "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "a negative length": "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length with a sign": "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
    "a length that is no number": "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 0x10\r\n\r\n",
    "a length beyond everything": "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "a coding nobody knows": "POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": "POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a folded header": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n",
    "a space before a colon": "GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "a header without a colon": "GET /healthz HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a bare line feed": "GET /healthz HTTP/1.1\nHost: x\n\n",
    "a zero byte": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
    "a huge header": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + "a" * 100_000 + "\r\n\r\n",
    "headers without end": "GET /healthz HTTP/1.1\r\nHost: x\r\n" + "X-A: a\r\n" * 20_000 + "\r\n",
    "a huge path": "GET /" + "a" * 100_000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": "GET /healthz\r\n\r\n",
    "a version nobody knows": "GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "another protocol": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 50,
    "Redis' protocol": "*1\r\n$8\r\nFLUSHALL\r\n",
    "TRACE": "TRACE /webhook HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "PUT": "PUT /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "DELETE": "DELETE /webhook HTTP/1.1\r\nHost: x\r\n\r\n",
    "OPTIONS": "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of our own": "FLUSH /webhook HTTP/1.1\r\nHost: x\r\n\r\n",
    "a way up": "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "an encoded way up": "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a foreign address": "GET http://169.254.169.254/latest HTTP/1.1\r\nHost: x\r\n\r\n",
    "a handshake without its token": (
        "GET /webhook?hub.mode=subscribe&hub.challenge=%0d%0aSet-Cookie:a=b HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
}
HARMLESS = {"a folded header", "a bare line feed", "no version", "a version nobody knows"}
"""Old or sloppy ways to ask for what anybody may ask for."""


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abused_protocol_is_refused_once(stack: Whole, abuse: str) -> None:
    """Each is answered at most once and never as if it were in order, and whoever comes next is served."""
    told = statuses(stack, ABUSES[abuse].encode("latin-1"))
    assert len(told) <= 1
    assert all(400 <= status < 500 or status == 501 for status in told) or abuse in HARMLESS, told
    assert statuses(stack, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == [200]


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Content-Length: 0\r\nContent-Length: 60",
        "Content-Length: 0, 60",
    ],
)
def test_no_request_is_smuggled_in_another_s_body(
    stack: Whole, unannounced: list[dict[str, Any]], framing: str
) -> None:
    """Where a proxy and we could disagree on a body's end, the connection ends before what hides in the body."""
    raw = body_of(unannounced)
    hidden = post(raw, signature(raw))
    sent = f"POST /webhook HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + hidden
    assert 200 not in statuses(stack, sent)
    assert_lives(stack)
    assert rows_of(stack, unannounced) == 0


def test_clients_that_vanish_leave_nothing_behind(stack: Whole) -> None:
    """Hundreds that hang up in the middle of a head or a body cost no connection that stays and no error page."""
    raw = body_of([{"id": "1", "page_id": "2"}])
    whole_request = post(raw, signature(raw))
    head = whole_request.index(b"\r\n\r\n")
    for number in range(400):
        with socket.create_connection(address(stack), timeout=PATIENCE) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(whole_request[: (head // 2, head + 10)[number % 2]])
    pid = stack.pid("receiver")
    assert stack.wait_for(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) < 100, 30)
    assert_lives(stack)


def test_hostile_stream_entries_are_set_aside(stack: Whole) -> None:
    """Who can write to the stream can cost a line in the log, not a call, a row or a worker."""
    ids = [
        "",
        "0",
        "me",
        "../me",
        "1?access_token=x",
        "1/leads",
        "1,2",
        "-1",
        "1" * 33,
        "1;drop table leadgen",
        "\x1b[2J",
        "١٢",
    ]
    entries: list[dict[str | bytes, str | bytes | int]] = [
        {"v": "1", "lead": leadgen_id, "page": "1", "recv": "1"} for leadgen_id in ids
    ]
    entries += [{"v": "1", "lead": "7", "page": page_id, "recv": "1"} for page_id in ids]
    entries += [
        {"v": "1", "lead": "7", "page": "1", "recv": recv}
        for recv in ("", "-1", "1e9", "9" * 15, "²", b"\xff\xfe")
    ]
    entries += [{b"\xff": b"\xfe"}, {"lead": b"\x80" * 1_000_000}, {"x": "y"}]
    before = calls(stack)
    with redis.Redis.from_url(stack.settings.redis_url) as client:
        aside = client.xlen(SET_ASIDE)
        for entry in entries:
            client.xadd(STREAM, entry)  # type: ignore[arg-type]
        assert stack.wait_for(lambda: client.xlen(STREAM) == 0, 20)
        assert client.xlen(SET_ASIDE) == aside + len(entries)
    assert calls(stack) == before
    assert_lives(stack)


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


def test_a_pickled_message_is_not_opened(stack: Whole, tmp_path: Path) -> None:
    """Who can write to the broker runs no code of his in a worker, which goes on."""
    mark = tmp_path / "opened"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "the bomb works"
    mark.unlink()
    pids = {name: stack.children(name) for name in stack.supervisor.pids() if name.startswith("worker")}
    with kombu.Connection(stack.settings.redis_url) as connection:
        producer = connection.Producer(serializer="pickle")
        for headers in ({"task": "leads.drain", "id": "1", "lang": "py"}, {}):
            producer.publish(Bomb(mark), routing_key=LIVE_QUEUE, headers=headers, serializer="pickle")
        task = {"task": "os.system", "id": "2", "lang": "py"}
        producer.publish(
            ((f"touch {mark}",), {}, {}), routing_key=LIVE_QUEUE, headers=task, serializer="json"
        )
        queue = connection.default_channel
        assert stack.wait_for(lambda: queue._size(LIVE_QUEUE) == 0, 20)
    assert_lives(stack)
    assert not mark.exists()
    assert {name: stack.children(name) for name in pids} == pids


def test_names_and_answers_steer_no_terminal_and_forge_no_line(
    stack: Whole, unannounced: list[dict[str, Any]]
) -> None:
    """Names of Pages and forms and the answers of strangers reach screen and log as plain text, or not at all."""
    page_id = unannounced[0]["page_id"]
    order = {
        "page": page_id,
        "name": EVIL_NAME,
        "questions": [{"key": EVIL_KEY, "label": EVIL_NAME, "type": "CUSTOM"}],
    }
    form_id = stack.post("forms", order)["form_id"]
    with psycopg.connect(stack.settings.database_url, autocommit=True) as connection:
        found = stack.wait_for(
            lambda: bool(connection.execute("select 1 from forms where form_id = %s", (form_id,)).fetchone()),
            30,
        )
        assert found
        connection.execute("update pages set name = %s where page_id = %s", (EVIL_NAME, page_id))
        lead = stack.post("leads", {"count": 1, "forms": [form_id]})["leads"][0]
        raw = body_of([{"id": lead, "page_id": page_id}])
        assert accepted(stack, post(raw, signature(raw)))
        assert stack.wait_for(lambda: bool(stack.rows([lead])), 20)
        views = connection.execute(
            "select count(*) from information_schema.columns where column_name like 'x\" text)%%'"
        ).fetchone()
        assert views, "the question's key is a column's name and nothing else"
    for words in (
        ("pages", "list"),
        ("pages", "show", page_id),
        ("trace", lead),
        ("status",),
        ("budget",),
        ("budget", "--page", page_id),
        ("backfill", "--page", page_id, "--dry-run"),
        ("backfill", "--form", form_id, "--dry-run"),
        ("backfills",),
        ("reconcile", "--form", form_id, "--days", "1"),
        ("reconcile", "--report"),
        ("dead-letters", "list"),
        ("doctor",),
        ("retention", "list"),
    ):
        shown = stack.leadsync(*words).output
        assert not STEERS.search(shown.replace("\r\n", "\n")), words
        assert not re.search(r"^fake line", shown, re.MULTILINE), words
    assert not re.search(r"^fake line", stack.log(), re.MULTILINE)
    assert "owned" not in stack.log()
