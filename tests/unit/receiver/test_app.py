"""Which HTTP answer each thing gets."""

import hashlib
import hmac
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from receiver.app import create_app
from receiver.delivery import Delivery
from receiver.errors import QueueUnavailable
from receiver.settings import Settings
from receiver.tally import Verdict

SETTINGS = Settings(app_secrets=("old", "new"), verify_token="tok", max_body_bytes=2_048)
BODY = b'{"object":"page","entry":[{"id":"1","changes":[{"field":"leadgen","value":{"leadgen_id":"5"}}]}]}'


class Basket:
    """An intake that keeps what it is given, or fails as told."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []
        self.counted: list[Verdict] = []
        self.failure: Exception | None = None
        self.late: Exception | None = None

    def admit(self, waited: float) -> None:
        if self.late:
            raise self.late

    def publish(self, delivery: Delivery, waited: float) -> None:
        self.check()
        self.taken.append(delivery)

    def count(self, verdict: Verdict) -> None:
        self.counted.append(verdict)

    def check(self) -> None:
        if self.failure:
            raise self.failure


@pytest.fixture
def basket() -> Basket:
    return Basket()


@pytest.fixture
def client(basket: Basket) -> Iterator[FlaskClient]:
    with create_app(SETTINGS, basket).test_client() as client:
        yield client


def signed(body: bytes, secret: str = "new") -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


@pytest.mark.parametrize("path", ["/webhook", "/webhook/"])
@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", None])
def test_a_proven_delivery_is_taken(
    client: FlaskClient, basket: Basket, path: str, content_type: str | None
) -> None:
    """What is signed is taken and answered 200, whatever content type it claims and on either path."""
    answer = client.post(path, data=BODY, headers=signed(BODY), content_type=content_type)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert [reference.leadgen_id for reference in basket.taken[0].references] == ["5"]


def test_what_comes_too_late_is_refused_unread(
    client: FlaskClient, basket: Basket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it takes the time of those behind it, who would then be late too; a forger hears what he always does."""
    monkeypatch.setattr("receiver.app.read", lambda *_, **__: pytest.fail("it was read"))
    basket.late = QueueUnavailable("queue too slow")
    answers = [client.post("/webhook", data=BODY, headers=proof) for proof in (signed(BODY), {})]
    assert [(answer.status_code, answer.text) for answer in answers] == [
        (503, "queue too slow"),
        (403, "signature refused"),
    ]
    assert (basket.taken, basket.counted) == ([], [Verdict.QUEUE_UNAVAILABLE, Verdict.UNSIGNED])


@pytest.mark.parametrize("headers", [{}, signed(BODY, "other"), {"X-Hub-Signature-256": "sha256=é"}])
def test_an_unproven_delivery_leaves_only_a_count(
    client: FlaskClient, basket: Basket, headers: dict[str, str]
) -> None:
    """Without a signature of ours the answer is 403 and nothing is read."""
    assert client.post("/webhook", data=BODY, headers=headers).status_code == 403
    assert (basket.taken, basket.counted) == ([], [Verdict.UNSIGNED])


def test_what_is_proven_but_unreadable_is_taken(client: FlaskClient, basket: Basket) -> None:
    """A signed body that is no JSON is answered 200, or Meta would send it for 36 hours."""
    assert client.post("/webhook", data=b"[", headers=signed(b"[")).status_code == 200
    assert basket.taken[0].unread


def test_the_cap_is_the_last_length_that_is_taken(client: FlaskClient, basket: Basket) -> None:
    """A body of the cap's length is read, one byte more is 413."""
    full = BODY.ljust(2_048)
    assert client.post("/webhook", data=full, headers=signed(full)).status_code == 200
    assert client.post("/webhook", data=full + b" ", headers=signed(full + b" ")).status_code == 413
    assert basket.counted == [Verdict.TOO_LARGE]


def test_a_queue_that_cannot_take_is_a_503(client: FlaskClient, basket: Basket) -> None:
    """Where the stream does not take the delivery, Meta is told to send it again."""
    basket.failure = QueueUnavailable("stream is full")
    answer = client.post("/webhook", data=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.text, basket.counted) == (
        503,
        "stream is full",
        [Verdict.QUEUE_UNAVAILABLE],
    )


def test_an_unforeseen_error_shows_and_logs_no_content(client: FlaskClient, basket: Basket) -> None:
    """An error that nobody foresaw is a bare 500, and its line names kind and place alone."""
    basket.failure = RuntimeError(f"could not read {BODY!r}")
    with capture_logs() as lines:
        answer = client.post("/webhook", data=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.text) == (500, "internal error")
    assert (lines[0]["event"], lines[0]["error"]) == ("request_failed", "RuntimeError")
    assert "leadgen" not in str(lines)


def test_the_handshake_echoes_text(client: FlaskClient) -> None:
    """The challenge goes back as plain text that no browser takes for a page."""
    asked = {"hub.mode": "subscribe", "hub.verify_token": "tok", "hub.challenge": "<b>1</b>"}
    answer = client.get("/webhook", query_string=asked)
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "<b>1</b>", "text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("token", ["wrong", "", "%ff", "t\N{LATIN SMALL LETTER O WITH DIAERESIS}k"])
def test_a_handshake_with_another_token_is_refused(client: FlaskClient, basket: Basket, token: str) -> None:
    """A wrong verify token is 403 and echoes nothing."""
    asked = {"hub.mode": "subscribe", "hub.verify_token": token, "hub.challenge": "secret"}
    answer = client.get("/webhook", query_string=asked)
    assert (answer.status_code, basket.counted) == (403, [Verdict.HANDSHAKE_REFUSED])
    assert "secret" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_served(client: FlaskClient, method: str) -> None:
    """A method that Meta does not use is 405."""
    assert client.open("/webhook", method=method).status_code == 405


def test_alive_and_ready_are_two_questions(client: FlaskClient, basket: Basket) -> None:
    """A process whose stream is away is alive and not ready, and says why in one line."""
    assert client.get("/readyz").status_code == 200
    basket.failure = QueueUnavailable("redis is loading")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "redis is loading")
    assert client.get("/healthz").status_code == 200
