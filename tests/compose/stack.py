"""docker-compose.yml, started for real under a project name of its own, with a sandbox in Meta's place.

Everything goes through the docker command and the receiver's published port, as it does for a user. Invariant: when
`running` is left, nothing of the stack remains but the engine's build cache.
"""

import hashlib
import hmac
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 300
STOP_SECONDS = 90
SANDBOX = "http://127.0.0.1:9900"
ASK = """
import sys, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
sys.stdout.write(urllib.request.urlopen(sys.argv[1], body, timeout=60).read().decode())
"""


def require_engine() -> None:
    """Skip where no Docker engine with compose answers."""
    for words in (["docker", "info"], ["docker", "compose", "version"]):
        if not shutil.which("docker") or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no Docker engine with compose answers here (docker info; docker compose version)")


class Stack:
    """One running project."""

    def __init__(self, folder: Path) -> None:
        mark = secrets.token_hex(4)
        self.project = f"leadsync-test-{mark}"
        self.image = f"leadsync-test:{mark}"
        self.port, self.metrics_port, self.prometheus_port = _free_port(), _free_port(), _free_port()
        self.secret = f"app-secret-{secrets.token_hex(16)}"
        self._passwords = [secrets.token_hex(16) for _ in range(3)]
        self._tokens = _demo()["PAGE_TOKENS"]
        self._env_file = folder / ".env"
        redis, postgres, verify = self._passwords
        self._env_file.write_text(
            f"COMPOSE_PROFILES=demo\nGRAPH_URL={_demo()['GRAPH_URL']}\nPAGE_TOKENS={self._tokens}\n"
            f"META_APP_SECRET={self.secret}\nMETA_VERIFY_TOKEN={verify}\nLEADSYNC_IMAGE={self.image}\n"
            f"REDIS_PASSWORD={redis}\nPOSTGRES_PASSWORD={postgres}\nRECEIVER_PORT={self.port}\n"
            f"METRICS_PORT={self.metrics_port}\nPROMETHEUS_PORT={self.prometheus_port}\n"
        )

    @property
    def must_stay_hidden(self) -> list[str]:
        """Every secret that this stack was given."""
        tokens = [pair.partition("=")[2] for pair in self._tokens.split(",")]
        return [self.secret, *self._passwords, *tokens]

    def compose(self, *words: str, timeout: float = START_SECONDS, check: bool = True) -> str:
        """Run `docker compose` on this project; what it prints."""
        files = ["--project-name", self.project, "--env-file", str(self._env_file)]
        where = ["--project-directory", str(ROOT)]
        return _run(["docker", "compose", *files, *where, *words], timeout, check)

    def run_in(self, service: str, *words: str, check: bool = True) -> str:
        """Run a command in a service's container; what it prints."""
        return self.compose("exec", "-T", service, *words, check=check)

    def sandbox(self, path: str, order: object = None) -> str:
        """Ask the sandbox, which no port is published for, from inside its container."""
        body = [] if order is None else [json.dumps(order)]
        return self.run_in("sandbox", "python", "-c", ASK, SANDBOX + path, *body)

    def rows(self, query: str) -> list[Any]:
        """What a query answers, each row as the JSON that its one column holds."""
        text = self.run_in("postgres", "psql", "-U", "leadsync", "-XAtc", query)
        return [json.loads(line) for line in text.splitlines()]

    def deliver(self, body: bytes, secret: str | None = None) -> int:
        """Send one signed delivery to the published port; the status, 0 where nobody answered."""
        sign = "sha256=" + hmac.new((secret or self.secret).encode(), body, hashlib.sha256).hexdigest()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/webhook", body, {"X-Hub-Signature-256": sign})
            return connection.getresponse().status
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()

    def kill(self, service: str) -> None:
        """Kill a service's main process from within. `docker kill` would count as an operator's stop, which no
        restart policy undoes."""
        self.run_in(service, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)", check=False)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine tells of each service's container."""
        ids = self.compose("ps", "--all", "--quiet").split()
        told = json.loads(_run(["docker", "inspect", *ids], 60, True))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in told}

    def image_of(self, service: str) -> str:
        """The image that docker-compose.yml names for a service."""
        told = json.loads(self.compose("--profile", "*", "config", "--format", "json"))
        return str(told["services"][service]["image"])

    def has_image(self, image: str) -> bool:
        """Whether the engine has it already."""
        return bool(_run(["docker", "image", "ls", "--quiet", image], 60, True).strip())

    def health(self) -> dict[str, str]:
        """Each lasting service's health in the engine's words."""
        return {
            name: each["State"]["Health"]["Status"]
            for name, each in self.containers().items()
            if "Health" in each["State"]
        }

    def until(self, within: float, holds: Callable[[], bool], what: str) -> None:
        """Wait for `holds`; fail with `what` and the last lines of all logs where it has not come true in time."""
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() > deadline:
                tail = self.compose("ps", "--all") + self.compose("logs", "--no-color", "--tail=30")
                pytest.fail(f"not within {within:.0f} s: {what}\n{tail}", pytrace=False)
            time.sleep(1)

    def logs(self) -> str:
        """All that all services have logged."""
        return self.compose("logs", "--no-color")


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Build and start a stack, wait until all of it is healthy, and take it down with its volumes."""
    stack = Stack(folder)
    try:
        stack.compose("build", timeout=900)
        stack.compose("up", "--detach", "--wait")
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", check=False)
        subprocess.run(["docker", "image", "rm", stack.image], capture_output=True, check=False)


def _run(words: list[str], timeout: float, check: bool) -> str:
    # The environment's own settings would beat those of the stack's .env.
    kept = ("PATH", "HOME", "DOCKER_", "PYTHON_IMAGE", "REDIS_IMAGE", "POSTGRES_IMAGE")
    env = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, (
        f"{' '.join(words[-6:])}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done.stdout


def _demo() -> dict[str, str]:
    lines = (ROOT / ".env.demo").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
