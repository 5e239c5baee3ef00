"""The receiver as a process of its own, against a Redis that can be killed."""

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from receiver.publisher import PROMPT_SECONDS
from tests.servers import prepared, spawn
from tests.system.soak.proxy import Upstream, proxying
from worker.embedded import prepare_redis
from worker.inbox import STREAM, LeadReference

SECRET = "test_app_secret"
READY_WITHIN = 30.0
SLOW_CLIENTS = 300
BUSY_MACHINE_SECONDS = 3.0
"""What the client's own threads may add; answers that wait for threads of the receiver take many seconds."""


def body(*leadgen_ids: str) -> bytes:
    changes = [{"field": "leadgen", "value": {"leadgen_id": lead, "page_id": "7"}} for lead in leadgen_ids]
    return json.dumps({"object": "page", "entry": [{"id": "7", "time": 1, "changes": changes}]}).encode()


def signature(raw: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def ask(port: int, method: str, path: str, raw: bytes = b"", sign: str | None = None) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, raw, {"X-Hub-Signature-256": sign} if sign else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def deliver(port: int, raw: bytes) -> int:
    return ask(port, "POST", "/webhook", raw, signature(raw))[0]


@pytest.fixture
def queue(data_dir: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis of this test's own: its URL and its process."""
    server = prepared(prepare_redis, data_dir)
    process = spawn(server, data_dir / "redis.log")
    yield server.url, process
    process.kill()
    process.wait()
    server.release()


@contextmanager
def receiving(redis_url: str, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m receiver.wsgi`, alive on `port`."""
    settings = {
        "META_APP_SECRET": SECRET,
        "META_VERIFY_TOKEN": "tok",
        "REDIS_URL": redis_url,
        "RECEIVER_PORT": str(port),
        "LOG_STYLE": "json",
        "PYTHONPATH": os.getcwd(),
        "PATH": os.defpath,
    }
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver.wsgi"], env=settings, cwd=folder, stdout=log, stderr=log
        )
    try:
        until_alive(process, port)
        yield process
    finally:
        process.kill()
        process.wait()


def until_alive(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + READY_WITHIN
    while True:
        try:
            assert ask(port, "GET", "/healthz")[0] == 200
            return
        except OSError:
            assert process.poll() is None, "the receiver ended"
            assert time.monotonic() < until, "the receiver does not answer"
            time.sleep(0.05)


def test_a_delivery_reaches_the_stream_or_is_refused(
    queue: tuple[str, subprocess.Popen[bytes]], free_port: int, tmp_path: Path
) -> None:
    """What is signed is in the stream when 200 is answered; without Redis it is 503; SIGTERM ends it in order."""
    redis_url, redis_process = queue
    with receiving(redis_url, free_port, tmp_path) as process:
        shake = "/webhook?hub.mode=subscribe&hub.verify_token=tok&hub.challenge=1158201444"
        assert ask(free_port, "GET", shake) == (200, "1158201444")
        assert ask(free_port, "GET", shake.replace("tok&", "other&"))[0] == 403
        assert ask(free_port, "GET", "/readyz") == (200, "ready")

        assert ask(free_port, "POST", "/webhook", body("1"), signature(body("2")))[0] == 403
        assert deliver(free_port, body("1", "2")) == 200
        with redis.Redis.from_url(redis_url) as client:
            entries = [LeadReference.from_entry(fields) for _, fields in client.xrange(STREAM)]
        assert [(entry.leadgen_id, entry.page_id) for entry in entries] == [("1", "7"), ("2", "7")]

        redis_process.kill()
        redis_process.wait()
        started = time.monotonic()
        assert deliver(free_port, body("3")) == 503
        assert time.monotonic() - started < 2
        assert ask(free_port, "GET", "/healthz") == (200, "alive")

        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    log = (tmp_path / "receiver.log").read_text()
    assert [json.loads(line)["event"] for line in log.splitlines()].count("receiver_stopped") == 1
    assert SECRET not in log
    assert "Traceback" not in log


def test_bodies_beyond_the_cap_are_refused_however_they_come(
    queue: tuple[str, subprocess.Popen[bytes]], free_port: int, tmp_path: Path
) -> None:
    """Too long a body is 413 whether it announces its length or comes in chunks."""
    with receiving(queue[0], free_port, tmp_path):
        raw = b" " * (4 * 1024 * 1024 + 1)
        assert ask(free_port, "POST", "/webhook", raw, signature(raw))[0] == 413
        connection = HTTPConnection("127.0.0.1", free_port, timeout=10)
        connection.request("POST", "/webhook", iter([raw[:-10], raw[-10:]]), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()
        full = body("1").ljust(4 * 1024 * 1024)
        assert deliver(free_port, full) == 200


def test_slow_clients_do_not_starve_honest_ones(
    queue: tuple[str, subprocess.Popen[bytes]], free_port: int, tmp_path: Path
) -> None:
    """Hundreds of clients that never finish their request leave deliveries as quick as without them."""
    with receiving(queue[0], free_port, tmp_path), ExitStack() as slow:
        before = sorted(timed(free_port, lead)[1] for lead in range(1000, 1050))[25]
        for number in range(SLOW_CLIENTS):
            client = slow.enter_context(socket.create_connection(("127.0.0.1", free_port), timeout=10))
            half = b"POST /webhook HTTP/1.1\r\nHost: x\r\n"
            client.sendall(half if number % 2 else half + b"Content-Length: 1000\r\n\r\n{")
        answers = [timed(free_port, lead) for lead in range(1, 51)]
        assert sum(status == 200 for status, _ in answers) >= 45  # a busy machine answers 503 now and then
        waits = sorted(seconds for _, seconds in answers)
        assert waits[len(waits) // 2] < max(0.25, 5 * before)
        assert waits[-1] < 5


def test_a_crowd_at_a_slow_redis_is_answered_in_time(
    queue: tuple[str, subprocess.Popen[bytes]], free_port: int, tmp_path: Path
) -> None:
    """More deliveries than threads and a Redis far away: each 200 is in the stream, the rest are refused, none late."""
    there = urlsplit(queue[0])
    with proxying({"redis": Upstream("127.0.0.1", there.port or 0)}) as proxies:
        url = queue[0].replace(f":{there.port}/", f":{proxies['redis'].port}/")
        with receiving(url, free_port, tmp_path), ThreadPoolExecutor(60) as crowd:
            assert deliver(free_port, body("1")) == 200
            proxies["redis"].delay(0.3)
            answers = dict(crowd.map(lambda lead: (lead, timed(free_port, lead)), range(1000, 1300)))
    assert {status for status, _ in answers.values()} == {200, 503}
    assert max(seconds for _, seconds in answers.values()) < PROMPT_SECONDS + BUSY_MACHINE_SECONDS
    with redis.Redis.from_url(queue[0]) as client:
        there_is = {LeadReference.from_entry(fields).leadgen_id for _, fields in client.xrange(STREAM)}
    assert {str(lead) for lead, (status, _) in answers.items() if status == 200} <= there_is


def timed(port: int, lead: int) -> tuple[int, float]:
    """The status of its delivery, and the seconds until it came."""
    started = time.monotonic()
    return deliver(port, body(str(lead))), time.monotonic() - started


def test_unusable_settings_are_told_at_once(tmp_path: Path) -> None:
    """Without its secrets the receiver does not start, and says all that is missing."""
    ended = subprocess.run(
        [sys.executable, "-m", "receiver.wsgi"],
        env={"PYTHONPATH": os.getcwd(), "PATH": os.defpath},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=READY_WITHIN,
        check=False,
    )
    assert ended.returncode == 2
    assert "META_APP_SECRET" in ended.stderr
    assert "META_VERIFY_TOKEN" in ended.stderr
    assert "Traceback" not in ended.stderr
