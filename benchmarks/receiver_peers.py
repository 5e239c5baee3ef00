"""The peers of receiver_speed.py: what stands beside leadsync's receiver, on the same server with the same options.

    bare:    POST /webhook -> "ok"
    celery:  POST /webhook -> signature -> JSON -> one Celery message a lead -> "ok"

    python -m benchmarks.receiver_peers bare 8001

`bare` is what Flask and its server cost alone: it reads no body and proves nothing, so nobody can be faster on them.
`celery` is what a competent user writes: the proof, `json.loads`, a kept producer, JSON messages without results.
Its message is on disk where the broker's Redis syncs always; a delivery may be half sent when it fails.

What neither does, and leadsync does: read Meta's other payloads, take a delivery whole or not at all, refuse while the
queue is nearly full, count what it saw, keep what it cannot read.
"""

import hashlib
import hmac
import json
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Final

import waitress
from celery import Celery
from flask import Flask, abort, request

from benchmarks.plain_celery_peer import BROKER
from benchmarks.report import ROOT
from receiver.settings import Settings
from receiver.wsgi import server_options
from worker.stack import answers
from worker.supervisor import WORKERS, ProcessSpec

QUEUE: Final = "received"
TASK: Final = "peer.store_lead"
BARE, CELERY = "bare", "celery"
PATH: Final = "/webhook"


def bare_app() -> Flask:
    """Flask, and nothing else."""
    app = Flask(__name__, static_folder=None)

    @app.post(PATH)
    def take() -> str:
        return "ok"

    return _with_health(app)


def celery_app(secret: bytes, broker_url: str) -> Flask:
    """A message a lead."""
    app = Flask(__name__, static_folder=None)
    queue = Celery(broker=broker_url, set_as_current=False)
    queue.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)

    @app.post(PATH)
    def take() -> str:
        body = request.get_data(cache=False)
        signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, request.headers.get("X-Hub-Signature-256", "")):
            abort(403)
        with queue.producer_or_acquire() as producer:
            for entry in json.loads(body)["entry"]:
                for change in entry["changes"]:
                    told = change["value"]
                    arguments = [told["leadgen_id"], told["page_id"]]
                    queue.send_task(TASK, arguments, queue=QUEUE, producer=producer, ignore_result=True)
        return "ok"

    return _with_health(app)


def _with_health(app: Flask) -> Flask:
    @app.get("/healthz")
    def alive() -> str:
        return "alive"

    return app


def process(kind: str, port: int, env: Mapping[str, str], broker_url: str) -> ProcessSpec:
    """`bare` or `celery` as a process to run."""
    return ProcessSpec(
        kind,
        (sys.executable, "-m", "benchmarks.receiver_peers", kind, str(port)),
        env={**env, BROKER: broker_url},
        cwd=str(ROOT),
        order=WORKERS,
        restart=False,
        is_ready=lambda: answers(f"http://127.0.0.1:{port}/healthz"),
    )


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _serve(kind: str, port: int) -> None:
    secret = os.environ["META_APP_SECRET"]
    app = bare_app() if kind == BARE else celery_app(secret.encode(), os.environ[BROKER])
    options = server_options(Settings(app_secrets=(secret,), verify_token="", port=port))
    server = waitress.create_server(app, **options)
    signal.signal(signal.SIGTERM, _end)
    server.run()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
