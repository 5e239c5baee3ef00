"""A whole leadsync on this machine against a simulated Graph API -> 500 leads -> every row compared with the truth.

    servers, workers, receiver, sandbox -> signed deliveries -> rows -> a verdict

For eyes and for tests; nothing of it runs in production. Invariant: the verdict is good only if every lead that the
sandbox made is exactly one row that equals the sandbox's own answer field by field.
"""

import asyncio
import dataclasses
import json
import secrets
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from worker import logs
from worker.clock import now
from worker.desks import open_store, open_stream
from worker.errors import ConfigurationError, LeadSyncError
from worker.inbox import LIVE_QUEUE
from worker.lead import answers as answers_in
from worker.settings import Settings, environment, read_settings
from worker.stack import Stack, answers, build_stack, remember
from worker.store.migrate import migrate
from worker.store.statements import Row
from worker.supervisor import SERVERS, ProcessSpec, StartFailed, Supervisor

PATIENCE_SECONDS: Final = 60.0
"""The demo gives up when no further row came for so long."""
SHOWN: Final = 6
_COLUMNS: Final = (
    "form_id", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name", "platform",
    "partner_name", "retailer_item_id", "field_data", "custom_disclaimer_responses",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What landed against what Graph holds; `wrong` maps leadgen_id to the fields that differ."""

    leads: int
    stored: int
    wrong: dict[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    latency: Row

    @property
    def good(self) -> bool:
        """Every lead is a row and every row is right."""
        return self.stored == self.leads and not self.wrong


def run(*, leads: int, latency: float, keep: Path | None, console: Console) -> int:
    """Show it; the exit status."""
    began = time.monotonic()
    logs.configure("console", "error")
    with ExitStack() as held:
        folder = keep or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="leadsync-demo-")))
        if folder.exists() and any(folder.iterdir()):
            raise ConfigurationError(f"--keep: {folder} is not empty; choose a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        log_path = folder / "demo.log"
        log_file = held.enter_context(log_path.open("w"))
        console.print("[bold]leadsync demo[/]: webhook → receiver → Redis stream → Celery → Graph → Postgres")
        try:
            with _running(folder, latency, log_file, held, console) as (settings, sandbox_url):
                verdict = _send_and_watch(settings, sandbox_url, leads, console)
                _print_verdict(verdict, get_json(f"{sandbox_url}/sandbox/calls"), latency, console)
        except (StartFailed, LeadSyncError, OSError) as error:
            console.print(Text.assemble(("the demo could not run: ", "red"), str(error)))
            _print_tail(log_path, console)
            return 1
        except KeyboardInterrupt:
            console.print("[yellow]ended by hand[/]; everything is stopped")
            return 130
        if not verdict.good:
            _print_tail(log_path, console)
    if keep:
        console.print(Text.assemble("data and logs are in ", (str(keep), "bold")))
    console.print(f"all processes are ended, {time.monotonic() - began:.0f} s in all")
    return 0 if verdict.good else 1


@contextmanager
def _running(
    folder: Path, latency: float, log_file: TextIO, held: ExitStack, console: Console
) -> Iterator[tuple[Settings, str]]:
    """Everything started, with secrets of its own and nothing of the user's settings."""
    app_secret, verify_token = secrets.token_hex(16), secrets.token_hex(16)
    sandbox_port, receiver_port = _free_port(), _free_port()
    sandbox_url = f"http://127.0.0.1:{sandbox_port}"
    tokens_file = folder / "page_tokens.json"
    settings = dataclasses.replace(read_settings(), database_url="", redis_url="")
    env = {
        "META_APP_SECRET": app_secret,
        "META_VERIFY_TOKEN": verify_token,
        "GRAPH_URL": sandbox_url,
        "PAGE_TOKENS_FILE": str(tokens_file),
        "RECEIVER_PORT": str(receiver_port),
        "METRICS_PORT": "0",
        "RECEIVER_HOST": "127.0.0.1",
        "LOG_STYLE": "console",
    }
    with console.status("starting Redis, Postgres, sandbox, workers, receiver"):
        stack = build_stack(settings, folder, held=held, extra=env)
        sandbox = _sandbox(sandbox_port, app_secret, verify_token, stack.webhook_url, latency)
        supervisor = Supervisor((sandbox, *stack.specs), output=log_file)
        began = time.monotonic()
        supervisor.start()
        try:
            supervisor.wait_ready(120)
            migrate(stack.database_url)
            tokens_file.write_text(json.dumps(get_json(f"{sandbox_url}/sandbox/tokens")))
            tokens_file.chmod(0o600)
            remember(stack, folder)
            asyncio.run(_workers_look(_with_servers(settings, stack)))
        except BaseException:
            supervisor.stop()
            raise
    console.print(
        f"[green]✓[/] {len(supervisor.pids())} processes are up after {time.monotonic() - began:.1f} s"
    )
    try:
        yield _with_servers(settings, stack), sandbox_url
    finally:
        with console.status("ending all processes in order"):
            supervisor.stop()


async def _workers_look(settings: Settings) -> None:
    """Return once a worker has looked at the stream, so that its start is not counted as a lead's latency."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    async with open_stream(settings) as stream:
        while LIVE_QUEUE not in (await stream.condition())["progress"]:
            if time.monotonic() > deadline:
                raise LeadSyncError(f"no worker looked at the stream within {PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(0.05)


def _sandbox(port: int, app_secret: str, verify_token: str, webhook_url: str, latency: float) -> ProcessSpec:
    words = {
        "port": port,
        "webhook_url": webhook_url,
        "latency_seconds": latency,
        "pages": 4,
        "leads": 0,
        "require_proof": 1,
        # Secrets of an app that does not exist; a real one never becomes an argument.
        "app_secret": app_secret,
        "verify_token": verify_token,
    }
    return ProcessSpec(
        "sandbox",
        (sys.executable, "-m", "sandbox", *(f"{name}={value}" for name, value in words.items())),
        env=environment(),
        order=SERVERS,
        is_ready=lambda: answers(f"http://127.0.0.1:{port}/sandbox/health"),
    )


def _with_servers(settings: Settings, stack: Stack) -> Settings:
    return dataclasses.replace(settings, database_url=stack.database_url, redis_url=stack.redis_url)


def _send_and_watch(settings: Settings, sandbox_url: str, leads: int, console: Console) -> Verdict:
    since = now()
    order = {
        "count": leads,
        "batch": 20,
        "vary_batch": True,
        "duplicates": 0.2,
        "reorder": True,
        "sample_pings": max(1, leads // 100),
        "updates": max(1, leads // 100),
        "other_fields": 1,
        "variants": ["strings", "integers"],
    }
    post_json(f"{sandbox_url}/sandbox/send", order)
    asyncio.run(_watch(settings, sandbox_url, leads, console))
    return asyncio.run(_judge(settings, sandbox_url, since))


async def _watch(settings: Settings, sandbox_url: str, leads: int, console: Console) -> None:
    """Show the rows as they come, until all are there or none came for too long."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with open_store(settings) as store:
        with Progress(*columns, console=console) as progress:
            sent = progress.add_task("announced by webhook", total=leads)
            landed = progress.add_task("rows in Postgres", total=leads)
            stored, moved_at = 0, time.monotonic()
            while time.monotonic() - moved_at < PATIENCE_SECONDS:
                told = await asyncio.to_thread(get_json, f"{sandbox_url}/sandbox/send")
                counts = await store.counts()
                count = sum(row["count"] for row in counts if row["state"] == "stored")
                if count > stored:
                    stored, moved_at = count, time.monotonic()
                progress.update(sent, completed=min(leads, told["created"]))
                progress.update(landed, completed=stored)
                if stored >= leads and not told["running"] and not told["pending"]:
                    return
                await asyncio.sleep(0.1)


async def _judge(settings: Settings, sandbox_url: str, since: datetime) -> Verdict:
    truth = {lead["id"]: lead for lead in await asyncio.to_thread(get_lines, f"{sandbox_url}/sandbox/truth")}
    async with open_store(settings) as store:
        ids = sorted(truth)
        rows = [
            row
            for start in range(0, len(ids), 1_000)
            for row in await store.stored(ids[start : start + 1_000])
        ]
        latency = await store.latency(since)
    wrong = {row["leadgen_id"]: d for row in rows if (d := differences(truth[row["leadgen_id"]], row))}
    return Verdict(len(truth), len(rows), wrong, tuple(rows[:SHOWN]), latency)


def differences(truth: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the fields in which a row is not what Graph's answer `truth` says; empty where it is equal."""
    wrong = [name for name in _COLUMNS if truth.get(name) != row[name]]
    if truth["page_id"] != row["page_id"]:
        wrong.append("page_id")
    if datetime.fromisoformat(truth["created_time"]).astimezone(UTC) != row["created_time"].astimezone(UTC):
        wrong.append("created_time")
    if truth.get("is_organic") != row["is_organic"]:
        wrong.append("is_organic")
    known = {*_COLUMNS, "id", "page_id", "created_time", "is_organic"}
    if {name: value for name, value in truth.items() if name not in known} != (row["extra"] or {}):
        wrong.append("extra")
    return tuple(wrong)


def _print_verdict(verdict: Verdict, calls: Mapping[str, Any], latency: float, console: Console) -> None:
    table = Table(title="What landed", title_justify="left", show_header=False)
    table.add_row("leads that the simulated Graph holds", f"{verdict.leads:,}")
    table.add_row("rows in table leads", f"{verdict.stored:,}")
    table.add_row("rows that differ from Graph's answer", f"{len(verdict.wrong):,}")
    table.add_row("Graph calls counted (one a lead, or fewer)", f"{_counted(calls):,}")
    if verdict.latency["p50"] is not None:
        p50, p99 = float(verdict.latency["p50"]), float(verdict.latency["p99"])
        table.add_row("webhook to row, p50 / p99", f"{p50 * 1000:.0f} / {p99 * 1000:.0f} ms")
        table.add_row("of which the simulated Graph takes", f"{latency * 1000:.0f} ms a call")
    console.print(table)
    console.print(_sample(verdict.rows))
    for leadgen_id, fields in list(verdict.wrong.items())[:SHOWN]:
        console.print(f"[red]differs:[/] {leadgen_id}: {', '.join(fields)}")
    if verdict.good:
        console.print("[green]✓ every lead is exactly one row, equal field by field[/]")
    else:
        console.print("[red]✗ not every lead is a row as Graph holds it[/]")
    console.print("Next: [bold]make up[/] runs it with your own .env (README.md, Run it for real).")


def _counted(calls: Mapping[str, Any]) -> int:
    return int(calls["calls"])


def _sample(rows: tuple[Row, ...]) -> Table:
    table = Table(title="A few rows", title_justify="left")
    for name, width in (("leadgen_id", 16), ("created_time (UTC)", 19), ("answers", None)):
        table.add_column(name, min_width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        told = "; ".join(f"{a.name}={', '.join(a.values)}" for a in answers_in(row["field_data"]))
        created = row["created_time"].strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(row["leadgen_id"], created, Text(" ".join(told.split())))
    return table


def _print_tail(path: Path, console: Console) -> None:
    console.print("[bold]the last lines of the processes' log:[/]")
    for line in path.read_text(errors="replace").splitlines()[-20:]:
        console.print(line, markup=False, highlight=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get_json(url: str) -> Any:
    """The JSON that a control route of the sandbox answers."""
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def post_json(url: str, body: Mapping[str, object]) -> Any:
    """The JSON that a control route of the sandbox answers to an order."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def get_lines(url: str) -> list[Any]:
    """The JSON lines of a control route of the sandbox."""
    with urllib.request.urlopen(url, timeout=300) as response:
        return [json.loads(line) for line in response]
