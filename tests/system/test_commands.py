"""leadsync's commands as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import short_folder

SECRETS = {"META_APP_SECRET": "app_secret_of_the_test", "META_VERIFY_TOKEN": "verify_token_of_the_test"}


def leadsync(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "120", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, short enough for sockets."""
    with short_folder() as path:
        yield path


def test_the_demo_stores_every_lead_and_says_so(folder: Path) -> None:
    """`leadsync demo` ends by itself with status 0, tells what landed, and leaves nothing in the folder."""
    told = leadsync("demo", "--leads", "60", cwd=folder)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "every lead is exactly one row, equal field by field" in told.stdout
    assert list(folder.iterdir()) == []


def test_without_settings_up_names_everything_that_is_missing(folder: Path) -> None:
    """All problems are told at once, one a line, with status 2."""
    told = leadsync("up", cwd=folder, META_APP_SECRET="", META_VERIFY_TOKEN="", GRAPH_TIMEOUT_SECONDS="soon")
    assert told.returncode == 2
    problems = told.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in problems] == [
        "GRAPH_TIMEOUT_SECONDS",
        "META_APP_SECRET",
        "META_VERIFY_TOKEN",
    ]


def test_commands_without_a_database_say_what_to_set(folder: Path) -> None:
    """A command that needs a server names the variable, in one line each."""
    told = leadsync("dead-letters", "list", cwd=folder, DATABASE_URL="", REDIS_URL="")
    assert told.returncode == 2
    assert told.stderr.startswith("leadsync: DATABASE_URL: is not set")


def test_up_serves_the_webhook_and_ends_on_one_interrupt(folder: Path, free_port: int) -> None:
    """`leadsync up` with a .env answers Meta's handshake, other commands find its servers, Ctrl-C ends all in time."""
    settings = {**SECRETS, "RECEIVER_PORT": str(free_port), "METRICS_PORT": "0"}
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    env = {name: value for name, value in os.environ.items() if name not in settings}
    up = subprocess.Popen(
        [sys.executable, "-m", "worker", "up"],
        cwd=folder,
        env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 90
        while "leadsync is up" not in (shown := (folder / "log").read_text()):
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)
        assert f"leadsync | leadsync is up: webhook at http://127.0.0.1:{free_port}/webhook" in shown
        query = f"hub.mode=subscribe&hub.challenge=4711&hub.verify_token={SECRETS['META_VERIFY_TOKEN']}"
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/webhook?{query}", timeout=5) as answer:
            assert answer.read() == b"4711"
        deadline = time.monotonic() + 60
        report: dict[str, dict[str, dict[str, int]]] = {}
        wanted = {"live", "schedule"}
        while (
            not wanted <= report.get("stream", {}).get("progress", {}).keys() and time.monotonic() < deadline
        ):
            report = json.loads(leadsync("status", "--json", cwd=folder).stdout)
        assert wanted <= report["stream"]["progress"].keys()
        for words in (("health", "live"), ("migrate", "--data-dir", ".leadsync")):
            told = leadsync(*words, cwd=folder, DATABASE_URL="", REDIS_URL="")
            assert (told.returncode, told.stderr) == (0, "")
        began = time.monotonic()
        up.send_signal(signal.SIGINT)
        assert up.wait(30) == 0
        assert time.monotonic() - began < 30
    finally:
        up.kill()
