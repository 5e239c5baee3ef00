"""The webhook sender against a receiver that answers as the test wants."""

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.fakes.sandboxes import Served, serving, token_of


@dataclass
class Receiver:
    """Keeps every delivery and answers with the statuses it is given, then 200."""

    statuses: list[int] = field(default_factory=list)
    deliveries: list[tuple[bytes, str]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    def take(self, body: bytes, signature: str) -> int:
        with self.arrived:
            self.deliveries.append((body, signature))
            self.arrived.notify_all()
            return self.statuses.pop(0) if self.statuses else 200

    def leads(self) -> list[str]:
        changes = [
            change
            for body, _ in self.deliveries
            for entry in json.loads(body)["entry"]
            for change in entry.get("changes", [])
        ]
        return [str(change["value"]["leadgen_id"]) for change in changes if change["field"] == "leadgen"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(kept.take(body, self.headers["X-Hub-Signature-256"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            right = query["hub.verify_token"] == ["sandbox_verify_token"]
            body = query["hub.challenge"][0].encode() if right and "echo" in self.path else b""
            self.send_response(200 if right else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/webhook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()


@pytest.fixture
def served(receiver: Receiver) -> Iterator[Served]:
    """A sandbox that delivers to the receiver, its 36 hours compressed to two seconds."""
    with serving(leads=0, webhook_url=receiver.url, redelivery_span_seconds=2.0) as served:
        yield served


def send(
    served: Served, receiver: Receiver, until: Callable[[dict[str, Any]], bool], **order: Any
) -> dict[str, Any]:
    """Order a run, and wait for its progress to be as wanted."""
    assert requests.post(f"{served.url}/sandbox/send", json=order, timeout=10).status_code == 202
    return progress_of(served, receiver, until)


def progress_of(
    served: Served, receiver: Receiver, until: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The sender's progress once it is as wanted."""
    for _ in range(400):
        progress: dict[str, Any] = requests.get(f"{served.url}/sandbox/send", timeout=10).json()
        if until(progress):
            return progress
        with receiver.arrived:
            receiver.arrived.wait(0.05)
    raise AssertionError(progress)


def done(progress: dict[str, Any]) -> bool:
    return bool(progress["deliveries"]) and not progress["running"]


def test_a_run_announces_its_leads_signed(served: Served, receiver: Receiver) -> None:
    """Every lead of a run is made, announced with its duplicates, and signed with the app secret."""
    progress = send(
        served,
        receiver,
        done,
        count=200,
        batch=7,
        vary_batch=True,
        duplicates=0.5,
        reorder=True,
        variants=True,
        sample_pings=2,
        updates=3,
    )
    secret = served.sandbox.config.app_secret.encode()
    for body, signature in receiver.deliveries:
        assert signature == "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    real = [leadgen_id for leadgen_id in receiver.leads() if leadgen_id != "444444444444"]
    assert set(real) == {served.sandbox.world.lead(number).leadgen_id for number in range(200)}
    assert len(real) == 300
    assert (progress["created"], progress["accepted"], progress["failed"]) == (200, progress["deliveries"], 0)


def test_every_attempt_is_logged_with_its_status_and_how_long_it_took(
    served: Served, receiver: Receiver
) -> None:
    """One line an attempt: when, seconds, status."""
    receiver.statuses = [503]
    send(served, receiver, done, count=1)
    lines = requests.get(f"{served.url}/sandbox/send/log", timeout=10).text.splitlines()
    attempts = [json.loads(line) for line in lines]
    assert [status for _, _, status in attempts] == ["503", "200"]
    assert all(0 < seconds < 10 for _, seconds, _ in attempts)
    assert attempts[0][0] <= attempts[1][0]


def test_a_refused_delivery_comes_again_unchanged(served: Served, receiver: Receiver) -> None:
    """What is not answered with 200 is sent again, byte for byte, until it is."""
    receiver.statuses = [503, 500, 302, 204]
    progress = send(served, receiver, done, count=1)
    assert (progress["attempts"], progress["accepted"], progress["failed"]) == (5, 1, 4)
    assert len(set(receiver.deliveries)) == 1
    record = requests.get(f"{served.url}/sandbox/leads/{receiver.leads()[0]}", timeout=10).json()
    assert record["pinged_at"] < record["accepted_at"]


def test_a_delivery_is_given_up_when_its_schedule_is_over(served: Served, receiver: Receiver) -> None:
    """After the compressed 36 hours a delivery that nobody took is dropped."""
    receiver.statuses = [503] * 12
    progress = send(served, receiver, done, count=1)
    assert (progress["attempts"], progress["given_up"], progress["accepted"]) == (12, 1, 0)


def test_a_dropped_announcement_never_arrives_though_its_lead_exists(
    served: Served, receiver: Receiver
) -> None:
    """With `drop` that share of the leads is made and can be read, but no delivery ever names them."""
    progress = send(served, receiver, done, count=40, batch=3, drop=0.25)
    assert (progress["created"], progress["dropped"], progress["announced"]) == (40, 10, 30)
    text = requests.get(f"{served.url}/sandbox/leads", timeout=10).text
    records = {record["id"]: record for record in map(json.loads, text.splitlines())}
    lost = {leadgen_id for leadgen_id, record in records.items() if record["pings"] == 0}
    assert len(lost) == 10
    assert set(receiver.leads()) == records.keys() - lost
    assert all(records[leadgen_id]["pinged_at"] is None for leadgen_id in lost)
    truth = requests.get(f"{served.url}/sandbox/truth", timeout=10).text
    assert lost < {json.loads(line)["id"] for line in truth.splitlines()}


def test_waiting_redeliveries_hold_up_nothing(served: Served, receiver: Receiver) -> None:
    """Deliveries that wait for their next try leave the way free for the others."""
    receiver.statuses = [503] * 30
    progress = send(served, receiver, done, count=60, concurrency=2)
    assert progress["accepted"] == 60
    assert set(receiver.leads()) == {served.sandbox.world.lead(number).leadgen_id for number in range(60)}


def test_a_receiver_that_is_not_there_is_tried_again(served: Served, receiver: Receiver) -> None:
    """A refused connection counts as a failed attempt, and DELETE ends a run."""
    progress = send(
        served, receiver, lambda now: now["attempts"] >= 2, count=1, url="http://127.0.0.1:9/webhook"
    )
    assert progress["redeliveries_pending"] <= 1
    assert "200" not in progress["statuses"]
    stopped = requests.delete(f"{served.url}/sandbox/send", timeout=10).json()
    assert stopped["running"] == 0


def test_the_handshake_is_done_as_meta_does_it(served: Served, receiver: Receiver) -> None:
    """POST /sandbox/verify asks the receiver to echo a challenge, and says whether it did."""

    def verify(url: str) -> Any:
        return requests.post(f"{served.url}/sandbox/verify", json={"url": url}, timeout=10).json()

    assert verify(f"{receiver.url}/echo") == {"verified": True, "status": "200"}
    assert verify(receiver.url) == {"verified": False, "status": "200"}
    assert verify("http://127.0.0.1:9/")["verified"] is False


def subscribe(served: Served, callback_url: str, **params: str) -> requests.Response:
    """Subscribe the app to leads, with its own token in the header."""
    config = served.sandbox.config
    wanted = {"object": "page", "fields": "leadgen", "verify_token": config.verify_token}
    return requests.post(
        f"{served.url}/v26.0/{config.app_id}/subscriptions",
        data={**wanted, "callback_url": callback_url, **params},
        headers={"Authorization": f"Bearer {config.app_token}"},
        timeout=10,
    )


def test_the_app_is_subscribed_with_a_callback_that_echoes(served: Served, receiver: Receiver) -> None:
    """POST /{app}/subscriptions asks the callback there and then, and is 2200 unless it echoes the challenge."""
    for callback_url, token in (
        (receiver.url, "sandbox_verify_token"),
        (f"{receiver.url}/echo", "another"),
        ("http://127.0.0.1:9/", "sandbox_verify_token"),
    ):
        refused = subscribe(served, callback_url, verify_token=token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, 2200)
    assert served.sandbox.graph.subscriptions.app is None
    assert subscribe(served, f"{receiver.url}/echo?tenant=1").json() == {"success": True}
    told = requests.get(f"{served.url}/sandbox/subscriptions", timeout=10).json()
    assert told["app"]["callback_url"] == f"{receiver.url}/echo?tenant=1"


def subscribe_page(served: Served, page: int = 0, fields: str = "leadgen") -> None:
    page_id = served.sandbox.world.pages[page].page_id
    requests.post(
        f"{served.url}/{page_id}/subscribed_apps",
        data={"subscribed_fields": fields, "access_token": token_of(served.sandbox, page)},
        timeout=10,
    ).raise_for_status()


def make_test_lead(served: Served, page: int = 0) -> str:
    form = served.sandbox.world.pages[page].forms[0]
    headers = {"Authorization": f"Bearer {token_of(served.sandbox, page)}"}
    answer = requests.post(f"{served.url}/v26.0/{form.form_id}/test_leads", headers=headers, timeout=10)
    return str(answer.json()["id"])


def test_a_test_lead_is_announced_to_the_webhook_while_nobody_subscribes(
    served: Served, receiver: Receiver
) -> None:
    """As long as nobody ever subscribed, the webhook of a test lead goes where all others go."""
    leadgen_id = make_test_lead(served)
    progress_of(served, receiver, done)
    assert receiver.leads() == [leadgen_id]
    record = requests.get(f"{served.url}/sandbox/leads/{leadgen_id}", timeout=10).json()
    assert (record["kind"], record["pings"]) == ("test", 1)


def test_a_test_lead_is_announced_to_whoever_is_subscribed(served: Served, receiver: Receiver) -> None:
    """Once somebody subscribed, a test lead is announced for subscribed Pages alone, at the app's callback."""
    subscribe(served, f"{receiver.url}/echo", include_values="true")
    subscribe_page(served)
    make_test_lead(served, page=1)
    leadgen_id = make_test_lead(served)
    progress = progress_of(served, receiver, lambda now: done(now) and now["unsubscribed"] == 1)
    assert (progress["announced"], receiver.leads()) == (1, [leadgen_id])
    requests.post(f"{served.url}/sandbox/subscriptions", json={"drop_pages": True}, timeout=10)
    make_test_lead(served, page=2)
    assert progress_of(served, receiver, lambda now: now["unsubscribed"] == 2)["announced"] == 1


def test_with_subscriptions_only_what_is_subscribed_is_delivered(receiver: Receiver) -> None:
    """With `subscriptions` a run goes to the app's callback, for subscribed Pages and fields; the other leads exist."""
    with serving(leads=0, pages=3, webhook_url="http://127.0.0.1:9/", subscriptions=True) as served:
        refused = requests.post(f"{served.url}/sandbox/send", json={"url": receiver.url}, timeout=10)
        assert refused.status_code == 400
        requests.post(f"{served.url}/sandbox/send", json={"count": 3}, timeout=10)
        progress_of(served, receiver, lambda now: now["unsubscribed"] == 3)
        subscribe(served, f"{receiver.url}/echo", include_values="true")
        subscribe_page(served, page=1)
        progress = send(served, receiver, done, count=30, updates=2, other_fields=2, sample_pings=1, batch=7)
        mine = served.sandbox.world.pages[1].page_id
        leads = map(served.sandbox.world.lead, range(3, 33))
        wanted = {lead.leadgen_id for lead in leads if lead.page_id == mine}
        assert (len(wanted), set(receiver.leads())) == (10, wanted | {"444444444444"})
        assert (progress["created"], progress["announced"], progress["unsubscribed"]) == (33, 11, 27)


def test_without_values_a_delivery_names_no_lead(served: Served, receiver: Receiver) -> None:
    """An app that does not include values is told that leadgen changed on the Page, and not what."""
    subscribe(served, f"{receiver.url}/echo")
    subscribe_page(served)
    make_test_lead(served)
    progress_of(served, receiver, done)
    [entry] = json.loads(receiver.deliveries[0][0])["entry"]
    page_id = served.sandbox.world.pages[0].page_id
    assert entry == {"id": page_id, "time": entry["time"], "changed_fields": ["leadgen"]}
