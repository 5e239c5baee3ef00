"""Settings -> the processes of a whole leadsync on one machine, as specs for the supervisor. It starts none of them.

Invariant: what the settings name is used (DATABASE_URL, REDIS_URL) and only what they lack is embedded.
"""

import errno
import ipaddress
import json
import socket
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

from worker.embedded import prepare_postgres, prepare_redis
from worker.embedded.server import make_data_dir, write_private
from worker.errors import ConfigurationError
from worker.inbox import BACKFILL_QUEUE, LIVE_QUEUE, UPKEEP_QUEUE
from worker.sealing import new_key
from worker.settings import Settings, environment
from worker.supervisor import BEAT, RECEIVER, WORKERS, ProcessSpec

URLS_FILE: Final = "urls.json"
LOOPBACK: Final = "127.0.0.1"
"""Where receiver and exporter listen unless a setting says otherwise."""
KEYS_FILE: Final = "token.keys"
"""The key that seals tokens, where the settings name none."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The processes, and where their servers are."""

    specs: tuple[ProcessSpec, ...]
    database_url: str
    redis_url: str
    webhook_url: str
    token_keys_file: Path | None


def build_stack(
    settings: Settings, data_dir: Path, *, held: ExitStack, extra: Mapping[str, str] | None = None
) -> Stack:
    """The specs for `settings`. `extra` is added to every child's environment; `held` keeps the data directory ours."""
    make_data_dir(data_dir)
    servers: list[ProcessSpec] = []
    redis_url, database_url = settings.redis_url, settings.database_url
    if not redis_url:
        redis = prepare_redis(data_dir)
        held.callback(redis.release)
        servers.append(ProcessSpec.of_server(redis))
        redis_url = redis.url
    if not database_url:
        postgres = prepare_postgres(data_dir)
        held.callback(postgres.release)
        servers.append(ProcessSpec.of_server(postgres))
        database_url = postgres.url
    env = {**environment(), **(extra or {}), "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    keys_file = None
    if not settings.token_keys and settings.token_keys_file is None:
        keys_file = _keep_key(data_dir)
        env["TOKEN_KEYS_FILE"] = str(keys_file)
    port = env.get("RECEIVER_PORT", settings.receiver_port)
    metrics_port = int(env.get("METRICS_PORT") or settings.metrics_port)
    base = f"http://{_reached_at(env.get('RECEIVER_HOST', ''))}:{port}"
    ours = (*_ours(env, f"{base}/healthz"), *_exporter(env, metrics_port))
    return Stack((*servers, *ours), database_url, redis_url, f"{base}/webhook", keys_file)


def refuse_taken_ports(settings: Settings) -> None:
    """Raise ConfigurationError where another process listens on a port that receiver or exporter will want."""
    receiver_host = environment().get("RECEIVER_HOST") or LOOPBACK
    wanted = {
        "RECEIVER_PORT": (receiver_host, settings.receiver_port),
        "METRICS_PORT": (LOOPBACK, settings.metrics_port),
    }
    taken = [
        f"{name}: port {port} of this machine is taken already; end the process that listens there (another"
        f" `leadsync up`?), or set another {name} in .env"
        for name, (host, port) in wanted.items()
        if port and _is_taken(host, port)
    ]
    if taken:
        raise ConfigurationError("\n".join(taken))


def _is_taken(host: str, port: int) -> bool:
    """Whether somebody listens where a server on `host` is to; what is no address of ours, the server tells itself."""
    bare = None if host == "*" else host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return any(_is_used(family, address) for family, _, _, _, address in found)


def _is_used(family: socket.AddressFamily, address: Any) -> bool:
    try:
        with socket.socket(family) as probe:
            # As servers do: what a former process left in TIME_WAIT is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _reached_at(host: str) -> str:
    """The host, as a URL has it, under which this machine reaches a server that listens on `host`."""
    bare = host.strip("[]")
    if bare in ("", "*"):
        return LOOPBACK
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return bare  # a name
    if address.is_unspecified:
        return LOOPBACK if address.version == 4 else "[::1]"
    return bare if address.version == 4 else f"[{bare}]"


def remember(stack: Stack, data_dir: Path) -> None:
    """Note where the servers of this stack are, for the commands that ask about it; readable by its owner only."""
    told = {"DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url}
    if stack.token_keys_file is not None:
        told["TOKEN_KEYS_FILE"] = str(stack.token_keys_file)
    write_private(data_dir / URLS_FILE, json.dumps(told))


def _keep_key(data_dir: Path) -> Path:
    """The file with this data directory's own key; made once, and readable by its owner only."""
    path = (data_dir / KEYS_FILE).absolute()
    if not path.exists():
        write_private(path, new_key().text + "\n")
    return path


def remembered(data_dir: Path) -> dict[str, str]:
    """Where the servers of the last `up` with this data directory are; empty where there was none."""
    try:
        urls = json.loads((data_dir / URLS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(url) for name, url in urls.items()}


def command(*words: str) -> tuple[str, ...]:
    """The argv of one of leadsync's own commands, run by this Python."""
    return (sys.executable, "-m", "worker", *words)


def answers(url: str) -> bool:
    """Whether a GET of this `url` of this machine is answered with 200; a proxy is not asked, whatever is set."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=1) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def _ours(env: Mapping[str, str], healthz: str) -> tuple[ProcessSpec, ...]:
    return (
        ProcessSpec(
            "worker", command("worker", "--queue", LIVE_QUEUE), env=env, order=WORKERS, stop_seconds=22
        ),
        ProcessSpec(
            "upkeep",
            command("worker", "--queue", UPKEEP_QUEUE, "--concurrency", "1"),
            env=env,
            order=WORKERS,
            stop_seconds=22,
        ),
        ProcessSpec(
            "backfill",
            command("worker", "--queue", BACKFILL_QUEUE),
            env=env,
            order=WORKERS,
            stop_seconds=22,
        ),
        ProcessSpec("schedule", command("schedule"), env=env, order=BEAT, stop_seconds=5),
        ProcessSpec(
            "receiver",
            (sys.executable, "-m", "receiver.wsgi"),
            env=env,
            order=RECEIVER,
            stop_seconds=6,
            is_ready=lambda: answers(healthz),
        ),
    )


def _exporter(env: Mapping[str, str], port: int) -> tuple[ProcessSpec, ...]:
    """The exporter, which is ready at once: nobody waits for it. Port 0: none."""
    words = command("metrics", "--port", str(port))
    return (ProcessSpec("metrics", words, env=env, order=BEAT, stop_seconds=5),) if port else ()
