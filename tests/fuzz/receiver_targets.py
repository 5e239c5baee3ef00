"""What Meta, or anyone who found the address, sends to the receiver: header, delivery, handshake, request.

Input of `signature`: the header, a line feed, the body. Of `request`: method, path with query, the headers a line
each, an empty line, the body; a body that comes without a signature is signed, or nothing would get past the door.
"""

import hmac
import io
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

from flask import Flask

from receiver import handshake, signature
from receiver.app import create_app
from receiver.delivery import Delivery, read
from receiver.errors import QueueUnavailable, Unsigned
from receiver.settings import Settings
from receiver.tally import Verdict
from tests.fuzz.target import Target, holds
from worker.inbox import LeadReference, is_id

SECRETS: Final = (b"old", b"new")
VERIFY_TOKEN: Final = "verify-\u00e9"
RECEIVED_AT: Final = 1_790_000_000_000
LARGEST_BODY: Final = 2_048
FULL: Final = b"!full"
"""A body that ends so finds the stream full."""


class Basket:
    """An intake that takes everything, but for what ends with FULL."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def admit(self, waited: float) -> None:
        """Nobody comes too late."""

    def publish(self, delivery: Delivery, waited: float) -> None:
        if delivery.body.endswith(FULL):
            raise QueueUnavailable("the stream is full")
        self.taken.append(delivery)

    def count(self, verdict: Verdict) -> None:
        """Nothing is counted."""

    def check(self) -> None:
        """The stream would take a delivery."""


def sign(body: bytes, secret: bytes = SECRETS[1]) -> str:
    """The header that Meta would send."""
    return "sha256=" + hmac.new(secret, body, "sha256").hexdigest()


def check_signature(data: bytes) -> None:
    """A header passes where it is the one that a holder of a secret would send, and in no other case."""
    first, _, body = data.partition(b"\n")
    header = first.decode("latin-1")  # as WSGI hands it on
    genuine = header in {sign(body, secret) for secret in SECRETS}
    for given in (header, sign(body)):
        try:
            signature.verify(body, given, SECRETS)
            passed = True
        except Unsigned:
            passed = False
        holds(
            "a signature passes where it is genuine, and nowhere else", passed is (genuine or given != header)
        )


def check_delivery(data: bytes) -> None:
    """Every body is read; what it announces are references that the stream carries and gives back."""
    check_read(read(data, RECEIVED_AT))


def check_read(delivery: Delivery) -> None:
    """What a Delivery promises."""
    ids = [reference.leadgen_id for reference in delivery.references]
    holds("each lead is announced once", len(set(ids)) == len(ids))
    for reference in delivery.references:
        entry = {name.encode(): value.encode() for name, value in reference.to_entry().items()}
        holds("a reference survives the stream", LeadReference.from_entry(entry) == reference)
    holds("a Page that lacks values is a Page", all(map(is_id, delivery.lacking_values)))
    for count in (delivery.duplicates, delivery.tests, delivery.updates, delivery.ignored):
        holds("counts are counts", count >= 0)
    holds("reasons come once", len(set(delivery.unread)) == len(delivery.unread))


def check_handshake(data: bytes) -> None:
    """The challenge is echoed to whoever knows the token, and to nobody else."""
    try:
        pairs = parse_qsl(data, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return  # more fields than any handshake has
    query = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "surrogateescape") for name, value in pairs
    }
    knows = query.get("hub.verify_token") == VERIFY_TOKEN
    challenge = handshake.answer(query, VERIFY_TOKEN)
    holds("a challenge is echoed as it came", challenge in (None, query.get("hub.challenge")))
    holds("only who knows the token is answered", challenge is None or knows)


def check_request(data: bytes) -> None:
    """Every request gets an answer, and never that of a fault of ours; 200 to a POST means that it was taken."""
    basket, app = _receiver()
    basket.taken.clear()
    status = _answer(app, _environ(data))
    holds("no request meets a fault", 200 <= status < 600 and status != 500)
    for delivery in basket.taken:
        check_read(delivery)
    if data.startswith(b"POST "):
        holds("200 says that it was taken", (status == 200) is bool(basket.taken))


@cache
def _receiver() -> tuple[Basket, Flask]:
    basket = Basket()
    secrets = tuple(secret.decode() for secret in SECRETS)
    return basket, create_app(
        Settings(app_secrets=secrets, verify_token=VERIFY_TOKEN, max_body_bytes=LARGEST_BODY), basket
    )


def _environ(data: bytes) -> dict[str, Any]:
    """The request as a WSGI server hands it on. https://peps.python.org/pep-3333/"""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, _, target = first.partition(" ")
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_HUB_SIGNATURE_256": sign(body),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for line in lines:
        name, _, value = line.partition(":")
        key = name.strip().upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value.strip()
    return environ


def _answer(app: Flask, environ: dict[str, Any]) -> int:
    statuses: list[int] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        statuses.append(int(status.split(" ", 1)[0]))

    answer = app(environ, start)
    try:
        for _ in answer:
            pass
    finally:
        getattr(answer, "close", lambda: None)()
    return statuses[-1]


_DELIVERY_WORDS: Final = tuple(
    b'"object" "page" "entry" "changes" "changed_fields" "field" "leadgen" "leadgen_update" "value" "leadgen_id"'
    b' "page_id" "form_id" "ad_id" "adgroup_id" "created_time" "time" "id" 444444444444 123123123123'.split()
)

_REQUEST_WORDS: Final = (
    b"POST /webhook",
    b"GET /webhook?",
    b"GET /healthz",
    b"GET /readyz",
    b"Transfer-Encoding: chunked",
    b"Content-Type: multipart/form-data; boundary=x",
    b"Host: ",
)

TARGETS: Final = (
    Target("signature", check_signature, (b"sha256=", b"sha1=", b"SHA256=", b","), share=20),
    Target("delivery", check_delivery, _DELIVERY_WORDS, share=20),
    Target(
        "handshake",
        check_handshake,
        (
            b"hub.mode=subscribe",
            b"hub.challenge=",
            b"hub.verify_token=",
            b"verify-%C3%A9",
            b"&",
            b"%ED%A0%80",
        ),
        share=15,
    ),
    Target(
        "request",
        check_request,
        (*_REQUEST_WORDS, *_DELIVERY_WORDS, FULL),
        share=2,
    ),
)
