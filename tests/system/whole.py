"""A whole leadsync and a sandbox in real processes, for tests: settings -> a running stack to send to and to ask.

It judges nothing. Every instance has servers, ports and a data directory of its own, and leaves nothing behind.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import redis
from click.testing import CliRunner, Result

from tests.servers import grow, short_folder
from tests.system import canaries
from worker.cli import main
from worker.demo import differences, get_json, get_lines, post_json
from worker.desks import open_store, open_stream
from worker.inbox import QUEUES
from worker.settings import Settings, environment, read_settings
from worker.stack import Stack, answers, build_stack
from worker.store.leads import LeadStore
from worker.store.migrate import migrate
from worker.store.statements import Row
from worker.stream import LeadStream
from worker.supervisor import SERVERS, ProcessSpec, Supervisor

T = TypeVar("T")

REPORTED_LINES = 80
"""Of the log, where a test has failed."""

APP_SECRET = "whole_app_secret"
VERIFY_TOKEN = "whole_verify_token"


class Whole:
    """The running stack."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        sandbox_url: str,
        folder: Path,
        webhook: str,
        env: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.env = env
        self.supervisor = supervisor
        self.sandbox_url = sandbox_url
        self.folder = folder
        self.webhook_url = webhook

    def send(self, **order: object) -> None:
        """Let the sandbox make leads and announce them."""
        post_json(f"{self.sandbox_url}/sandbox/send", order)

    def post(self, path: str, body: Mapping[str, object] | list[Any]) -> Any:
        """Give a control route of the sandbox an order."""
        return post_json(f"{self.sandbox_url}/sandbox/{path}", body)  # type: ignore[arg-type]

    def get(self, path: str) -> Any:
        """Ask a control route of the sandbox."""
        return get_json(f"{self.sandbox_url}/sandbox/{path}")

    def leadsync(self, *words: str) -> Result:
        """A command as an operator types it, in this process: to start one takes a second of a processor."""
        env = {
            **self.env,
            "COLUMNS": "200",
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
            "GRAPH_URL": self.sandbox_url,
            "PAGE_TOKENS_FILE": str(self.folder / "page_tokens.json"),
        }
        return CliRunner().invoke(main, words, env=env, catch_exceptions=False)

    def truth(self) -> dict[str, Any]:
        """Every lead as Graph holds it, by id."""
        return {lead["id"]: lead for lead in get_lines(f"{self.sandbox_url}/sandbox/truth")}

    def ask_store(self, question: Callable[[LeadStore], Awaitable[T]]) -> T:
        """Ask the rows."""

        async def ask() -> T:
            async with open_store(self.settings) as store:
                return await question(store)

        return asyncio.run(ask())

    def ask_stream(self, question: Callable[[LeadStream], Awaitable[T]]) -> T:
        """Ask Redis."""

        async def ask() -> T:
            async with open_stream(self.settings) as stream:
                return await question(stream)

        return asyncio.run(ask())

    def states(self) -> dict[str, int]:
        """Rows by `state` or `state reason`."""
        rows = self.ask_store(lambda store: store.counts())
        return {" ".join(filter(None, (row["state"], row["reason"]))): row["count"] for row in rows}

    def rows(self, leadgen_ids: list[str]) -> list[Row]:
        """These stored leads."""
        ids = sorted(leadgen_ids)
        parts = [ids[start : start + 2_000] for start in range(0, len(ids), 2_000)]
        return [row for part in parts for row in self.ask_store(lambda store, part=part: store.stored(part))]  # type: ignore[misc]

    def differing(self) -> dict[str, tuple[str, ...]]:
        """Leads of the truth that are no row (`missing`) or a row that differs, with the fields that do."""
        truth = self.truth()
        rows = {row["leadgen_id"]: row for row in self.rows(list(truth))}
        found = {i: differences(truth[i], rows[i]) if i in rows else ("missing",) for i in truth}
        return {i: fields for i, fields in found.items() if fields}

    def wait_for(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Whether `reached` comes true in time; neighbours that are away for the moment are waited for.

        Where looking takes long it is done less often: what is looked at needs the processors too. The last look comes
        when the time is up.
        """
        deadline = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            with contextlib.suppress(Exception):
                if reached():
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, max(0.2, min(1.0, 5 * (time.monotonic() - began)))))

    def all_stored(self, leads: int) -> bool:
        """Everything is sent, stored, acknowledged, and nothing waits."""
        told = self.get("send")
        states = self.states()
        idle = not told["running"] and not told["pending"]
        return idle and states == {"stored": leads} and self.ask_stream(lambda stream: stream.length()) == 0

    def pid(self, name: str) -> int | None:
        """The process of that name, while it runs."""
        return self.supervisor.pids().get(name)

    def children(self, name: str) -> list[int]:
        """Its child processes."""
        pid = self.pid(name)
        if pid is None:
            return []
        with contextlib.suppress(OSError):
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def kill(self, pid: int | None, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal; false where nobody was there."""
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def lives(self, pid: int | None) -> bool:
        """Whether this process runs; one that has ended and is not yet waited for does not."""
        try:
            return (
                pid is not None and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            )
        except OSError:
            return False

    def report(self) -> str:
        """What all of it is doing now, as far as each part can be asked, and the end of the log."""
        questions: dict[str, Callable[[], object]] = {
            "processes": self.supervisor.pids,
            "rows": self.states,
            "sender": lambda: self.get("send"),
            "stream": lambda: self.ask_stream(lambda stream: stream.condition()),
            "doorbells": self._doorbells,
            "log": lambda: "\n" + "\n".join(self.log().splitlines()[-REPORTED_LINES:]),
        }
        return "\n".join(f"{name}: {_told(question)}" for name, question in questions.items())

    def _doorbells(self) -> dict[str, int]:
        with redis.Redis.from_url(self.settings.redis_url, protocol=2) as client:
            return {queue: client.llen(queue) for queue in QUEUES}

    def log(self) -> str:
        """What all processes have written."""
        return (self.folder / "whole.log").read_text(errors="replace")


@contextmanager
def whole(
    *,
    sandbox: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    rewire: Callable[[Stack, Path], Stack] = lambda stack, _folder: stack,
) -> Iterator[Whole]:
    """Start it all; end it all. `sandbox` adds sandbox settings, `env` variables; `rewire` puts something in between.

    A test that ended well is failed all the same where it left a token or an answer in a place that is not theirs.
    """
    sandbox_port, receiver_port = _free_port(), _free_port()
    sandbox_url = f"http://127.0.0.1:{sandbox_port}"
    with ExitStack() as held:
        folder = held.enter_context(short_folder())
        tokens_file = folder / "page_tokens.json"
        variables = {
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
            "GRAPH_URL": sandbox_url,
            "PAGE_TOKENS_FILE": str(tokens_file),
            "RECEIVER_PORT": str(receiver_port),
            "METRICS_PORT": "0",
            # Nothing is read by itself that a test did not ask for.
            "BACKFILL_NEW_FORMS": "false",
            "RECONCILE_EVERY_SECONDS": "86400",
            **(env or {}),
        }
        settings = replace(read_settings(), database_url="", redis_url="")
        grow(folder)
        stack = rewire(build_stack(settings, folder, held=held, extra=variables), folder)
        words = {
            "port": sandbox_port,
            "app_secret": APP_SECRET,
            "verify_token": VERIFY_TOKEN,
            "webhook_url": stack.webhook_url,
            "leads": 0,
            "require_proof": 1,
            **(sandbox or {}),
        }
        spec = ProcessSpec(
            "sandbox",
            (sys.executable, "-m", "sandbox", *(f"{name}={value}" for name, value in words.items())),
            env=environment(),
            order=SERVERS,
            is_ready=lambda: answers(f"{sandbox_url}/sandbox/health"),
        )
        output = held.enter_context((folder / "whole.log").open("w"))
        supervisor = Supervisor((spec, *stack.specs), output=output)
        supervisor.start()
        try:
            supervisor.wait_ready(120)
            tokens_file.write_text(json.dumps(get_json(f"{sandbox_url}/sandbox/tokens")))
            migrate(stack.database_url)
            running = replace(
                settings,
                database_url=stack.database_url,
                redis_url=stack.redis_url,
                token_keys_file=stack.token_keys_file or settings.token_keys_file,
            )
            yield Whole(running, supervisor, sandbox_url, folder, stack.webhook_url, env or {})
            found = canaries.look(
                log=folder / "whole.log",
                redis_url=stack.redis_url,
                redis_folder=folder / "redis",
                database_url=stack.database_url,
                pids=supervisor.pids().values(),
                secrets=(APP_SECRET, VERIFY_TOKEN),
                given=tuple(env or ()),
            )
            assert not found, f"what nobody may see lies in: {'; '.join(found)}"
        finally:
            supervisor.stop()


def _told(question: Callable[[], object]) -> str:
    try:
        return str(question())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
