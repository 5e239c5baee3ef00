"""HTTP -> handshake, proof, delivery, intake -> HTTP: the Flask routes, and nothing else.

    GET  /webhook   the subscription's handshake
    POST /webhook   a delivery
    GET  /healthz   this process answers
    GET  /readyz    the stream would take a delivery

This file holds no rule of its own: what is proven, what is read and what is taken is decided elsewhere.

Invariant: 200 is sent after `intake.publish` returned, and in no other case. No answer quotes what it was
asked, but for the challenge of a proven asker, and none shows an exception.
"""

import time
import traceback
from collections.abc import Mapping
from typing import Protocol

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from receiver import arrival, handshake, signature
from receiver.delivery import Delivery, read
from receiver.errors import DeliveryRefused, QueueUnavailable, TooLarge, Unsigned
from receiver.settings import Settings
from receiver.tally import Verdict

_log = structlog.get_logger()


class Intake(Protocol):
    """Where deliveries go; receiver.publisher.Publisher in production."""

    def admit(self, waited: float) -> None:
        """Raise QueueUnavailable where what `waited` so many seconds would be refused, whatever it says."""

    def publish(self, delivery: Delivery, waited: float) -> None:
        """Take the whole delivery, which `waited` so many seconds for a thread, or raise QueueUnavailable."""

    def count(self, verdict: Verdict) -> None:
        """Count a refusal, at next to no cost."""

    def check(self) -> None:
        """Raise QueueUnavailable where a delivery would not be taken now."""


def create_app(settings: Settings, intake: Intake) -> Flask:
    """The WSGI application. Opens nothing by itself."""
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body_bytes, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.url_map.strict_slashes = False
    _route_webhook(app, settings, intake)
    _route_health(app, intake)
    _answer_errors(app, intake)
    return app


def _route_webhook(app: Flask, settings: Settings, intake: Intake) -> None:
    secrets = tuple(secret.encode() for secret in settings.app_secrets)

    @app.get("/webhook")
    def answer_handshake() -> Response:
        challenge = handshake.answer(_query(), settings.verify_token)
        if challenge is None:
            intake.count(Verdict.HANDSHAKE_REFUSED)
            return _text("handshake refused", 403)
        _log.info("handshake_answered")
        return _text(challenge, 200)

    @app.post("/webhook")
    def take_delivery() -> Response:
        body = _body(settings.max_body_bytes)
        signature.verify(body, request.headers.get(signature.HEADER), secrets)
        waited = arrival.waited()
        # Where more comes than can be read, all of it would be read in vain: each is late because of those before it.
        intake.admit(waited)
        intake.publish(read(body, received_at=time.time_ns() // 1_000_000), waited)
        return _text("ok", 200)


def _route_health(app: Flask, intake: Intake) -> None:
    @app.get("/healthz")
    def alive() -> Response:
        return _text("alive", 200)

    @app.get("/readyz")
    def ready() -> Response:
        try:
            intake.check()
        except QueueUnavailable as refused:
            return _text(refused.reason, refused.status)
        return _text("ready", 200)


def _answer_errors(app: Flask, intake: Intake) -> None:
    verdicts = {
        Unsigned: Verdict.UNSIGNED,
        TooLarge: Verdict.TOO_LARGE,
        QueueUnavailable: Verdict.QUEUE_UNAVAILABLE,
    }

    @app.errorhandler(DeliveryRefused)
    def refused(refusal: DeliveryRefused) -> Response:
        intake.count(verdicts[type(refusal)])
        return _text(refusal.reason, refusal.status)

    @app.errorhandler(HTTPException)
    def not_served(error: HTTPException) -> Response:
        response = _text(error.name.lower(), error.code or 500)
        if error.code == 405:
            response.headers["Allow"] = dict(error.get_headers()).get("Allow", "")
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        # The message of an unforeseen error may quote the body; its kind and place do not.
        last = traceback.extract_tb(error.__traceback__)[-1]
        _log.error("request_failed", error=type(error).__name__, at=f"{last.filename}:{last.lineno}")
        return _text("internal error", 500)


def _body(most: int) -> bytes:
    """The exact bytes that were sent, whatever content type they claim; TooLarge where there are more than `most`.

    Where the length is known they are read as they lie there: Flask's own way takes as long as proving them.
    """
    length = request.content_length
    if length is not None:
        if length > most:
            raise TooLarge
        return request.input_stream.read(length)
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise TooLarge from None


def _query() -> Mapping[str, str]:
    """The parameters; none where the query is not even UTF-8, which werkzeug does not tell from a fault."""
    try:
        return request.args
    except UnicodeDecodeError:
        return {}


def _text(text: str, status: int) -> Response:
    response = Response(text, status=status, content_type="text/plain; charset=utf-8")
    # The challenge is a stranger's text until the token has proven otherwise: no browser may take it for a
    # page.
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
