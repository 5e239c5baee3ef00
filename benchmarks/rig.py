"""Servers and a simulated Graph API of their own, on loopback, and leadsync's real processes beside them.

    data directory -> Redis, Postgres, sandbox -> leadsync's processes and others, as they are wanted

It measures nothing. Invariant: nothing of the user's settings is used and nothing is left behind; every process
that was started is ended with the `with` block, however that ends.
"""

import dataclasses
import json
import secrets
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console

from benchmarks.report import ROOT
from worker.errors import LeadSyncError
from worker.settings import Settings, environment, read_settings
from worker.stack import Stack, answers, build_stack
from worker.store.migrate import migrate
from worker.supervisor import SERVERS, ProcessSpec, Supervisor

START_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.02
LOG_TAIL: Final = 20
WEBHOOK_PATH: Final = ("worker", "upkeep", "schedule", "receiver")
"""leadsync's processes, by the names that its own supervisor gives them."""


class Stuck(LeadSyncError):
    """What was waited for did not come."""

    reason = "benchmark_stuck"


class Rig:
    """The running servers and sandbox. `log_path` holds what all processes printed."""

    def __init__(self, *, stack: Stack, settings: Settings, env: Mapping[str, str], folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._running: list[Supervisor] = []
        self._backlogs_from = int(time.time())
        self.env = env
        self.settings = settings
        self.database_url = stack.database_url
        self.redis_url = stack.redis_url
        self.graph_url = env["GRAPH_URL"]
        self.log_path = folder / "processes.log"

    def pids(self) -> dict[str, int]:
        """The process id of everything that runs, by name."""
        return {name: pid for supervisor in self._running for name, pid in supervisor.pids().items()}

    def get(self, path: str) -> Any:
        """A question to the sandbox's control routes."""
        with urllib.request.urlopen(f"{self.graph_url}{path}", timeout=60) as response:
            return json.load(response)

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """An order to the sandbox's control routes."""
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.graph_url}{path}", json.dumps(body).encode(), head)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def lines(self, path: str) -> Iterator[Any]:
        """One of the sandbox's long lists."""
        with urllib.request.urlopen(f"{self.graph_url}{path}", timeout=600) as response:
            for line in response:
                yield json.loads(line)

    def make_leads(self, count: int, **order: object) -> list[dict[str, Any]]:
        """Leads that nobody has announced yet, as the sandbox's truth of them; `order` is added to what it is told."""
        wanted = set(self.post("/sandbox/leads", {"count": count, **order})["leads"])
        return [lead for lead in self.lines("/sandbox/truth?origin=created") if lead["id"] in wanted]

    def make_backlog(self, count: int, a_second: int) -> list[dict[str, Any]]:
        """As make_leads, but so many a second as if they had come one by one, the first first. Each backlog is older
        than the one before, so that a listing of its time brings nothing of another.
        """
        wanted: set[str] = set()
        while len(wanted) < count:
            self._backlogs_from -= 1
            told = {"count": min(a_second, count - len(wanted)), "created_time": self._backlogs_from}
            wanted |= set(self.post("/sandbox/leads", told)["leads"])
        made = [lead for lead in self.lines("/sandbox/truth?origin=created") if lead["id"] in wanted]
        return sorted(made, key=lambda lead: str(lead["created_time"]))

    def specs(self, *names: str) -> tuple[ProcessSpec, ...]:
        """leadsync's own processes of these names."""
        return tuple(spec for spec in self._stack.specs if spec.name in names)

    @contextmanager
    def running(self, specs: Sequence[ProcessSpec]) -> Iterator[None]:
        """Run further processes for a while."""
        with self.log_path.open("a") as log:
            supervisor = Supervisor(specs, output=log)
            supervisor.start()
            self._running.append(supervisor)
            try:
                supervisor.wait_ready(START_SECONDS)
                # Ready says nothing of a process that has no test of its own.
                names = {spec.name for spec in specs}
                wait_until("every process", lambda: names <= supervisor.pids().keys(), patience=START_SECONDS)
                yield
            finally:
                self._running.remove(supervisor)
                supervisor.stop()

    def log_tail(self) -> str:
        """The last lines of what the processes printed."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-LOG_TAIL:])


@contextmanager
def build_rig(
    *,
    latency: float,
    pages: int = 4,
    extra: Mapping[str, str] | None = None,
    sandbox: Mapping[str, object] | None = None,
) -> Iterator[Rig]:
    """Redis, Postgres with leadsync's schema and a sandbox that takes `latency` seconds a call; no worker yet.

    `extra` is added to the environment of leadsync's processes, `sandbox` to the sandbox's settings.
    """
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="leadsync-bench-")))
        app_secret, verify_token = secrets.token_hex(16), secrets.token_hex(16)
        port, tokens_file = free_port(), folder / "page_tokens.json"
        env = {
            "META_APP_SECRET": app_secret,
            "META_VERIFY_TOKEN": verify_token,
            "GRAPH_URL": f"http://127.0.0.1:{port}",
            "GRAPH_VERSION": "v26.0",
            "PAGE_TOKENS_FILE": str(tokens_file),
            "RECEIVER_HOST": "127.0.0.1",
            "RECEIVER_PORT": str(free_port()),
            "METRICS_PORT": "0",
            "LOG_LEVEL": "warning",
            # Only what is measured makes calls.
            "BACKFILL_NEW_FORMS": "false",
            "RECONCILE_EVERY_SECONDS": "86400",
            **(extra or {}),
        }
        bare = dataclasses.replace(read_settings(), database_url="", redis_url="")
        stack = build_stack(bare, folder, held=held, extra=env)
        settings = dataclasses.replace(bare, database_url=stack.database_url, redis_url=stack.redis_url)
        env = {**environment(), **env, "DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url}
        rig = Rig(stack=stack, settings=settings, env=env, folder=folder)
        simulated = _sandbox(port, app_secret, verify_token, stack.webhook_url, latency, pages, sandbox or {})
        servers = [spec for spec in stack.specs if spec.order == SERVERS]
        with rig.running([simulated, *servers]):
            migrate(stack.database_url)
            tokens_file.write_text(json.dumps(rig.get("/sandbox/tokens")))
            yield rig


def _sandbox(
    port: int,
    app_secret: str,
    verify_token: str,
    webhook_url: str,
    latency: float,
    pages: int,
    further: Mapping[str, object],
) -> ProcessSpec:
    words = {
        "port": port,
        "webhook_url": webhook_url,
        "latency_seconds": latency,
        "pages": pages,
        "leads": 0,
        "require_proof": 1,
        # Secrets of an app that does not exist; a real one never becomes an argument.
        "app_secret": app_secret,
        "verify_token": verify_token,
        **further,
    }
    return ProcessSpec(
        "sandbox",
        (sys.executable, "-m", "sandbox", *(f"{name}={value}" for name, value in words.items())),
        env=environment(),
        cwd=str(ROOT),
        order=SERVERS,
        restart=False,
        is_ready=lambda: answers(f"http://127.0.0.1:{port}/sandbox/health"),
    )


def wait_until(what: str, holds: Callable[[], bool], *, patience: float, poll: float = POLL_SECONDS) -> None:
    """Return once `holds`; Stuck after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            raise Stuck(f"{what} did not come about within {patience:.0f} s")
        time.sleep(poll)


def wait_for_rows(query: str, wanted: int, database_url: str, *, patience: float) -> None:
    """Return once `query`, which counts, says `wanted`; Stuck where it did not move for `patience` seconds."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        count, moved_at = -1, time.monotonic()
        while count < wanted:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            if row[0] != count:
                count, moved_at = row[0], time.monotonic()
            if time.monotonic() - moved_at > patience:
                raise Stuck(f"{count:,} of {wanted:,} rows came, and none for {patience:.0f} s")
            time.sleep(POLL_SECONDS)


@contextmanager
def told_when_stuck(rig: Rig, console: Console) -> Iterator[None]:
    """Where a measurement could not be made, show the end of the processes' log and say why in one line."""
    try:
        yield
    except LeadSyncError as error:
        console.print("[bold]the last lines of the processes' log:[/]")
        console.print(rig.log_tail(), markup=False, highlight=False)
        raise click.ClickException(str(error)) from None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
