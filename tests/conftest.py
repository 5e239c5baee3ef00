"""What tests may ask for: a real Redis, a real Postgres, a free port.

    worker.embedded -> one server of each kind a run, in a folder that goes with it
    redis_url       -> a logical database of its own, empty
    postgres_url    -> a database of its own, fresh, dropped afterwards

Where this machine has no such server the test is skipped, but fails where CI is set.
"""

import itertools
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from worker.embedded import (
    ServerMissing,
    ServerProcess,
    prepare_postgres,
    prepare_redis,
    wait_ready,
)

REDIS_DATABASES = itertools.cycle(range(1, 16))
POSTGRES_DATABASES = itertools.count(1)


def spawn(server: ServerProcess, log: Path) -> subprocess.Popen[bytes]:
    """Start a prepared server as a child of the tests and wait until it answers. Its log goes to `log`."""
    with log.open("ab") as output:
        account = server.account
        process = subprocess.Popen(
            server.argv,
            env=server.env,
            cwd=server.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    try:
        wait_ready(server, 60, lambda: process.poll() is not None)
    except BaseException:
        process.kill()
        process.wait()
        print(log.read_text(errors="replace"))  # noqa: T201  pytest shows it under the failure
        raise
    return process


@contextmanager
def running(server: ServerProcess, log: Path) -> Iterator[ServerProcess]:
    """`server`, answering; ended in order afterwards."""
    process = spawn(server, log)
    try:
        yield server
    finally:
        process.send_signal(server.stop_signal)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        server.release()


def prepared(prepare: Callable[[Path], ServerProcess], data_dir: Path) -> ServerProcess:
    """`prepare(data_dir)`; without a server on this machine the test is skipped, or fails where CI is set."""
    try:
        return prepare(data_dir)
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A short folder that an account other than ours can enter; pytest keeps its own closed."""
    with tempfile.TemporaryDirectory(prefix="leadsync-tests-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[ServerProcess]:
    """A Redis for this run, set as in production."""
    with running(prepared(prepare_redis, server_folder), server_folder / "redis.log") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[ServerProcess]:
    """A Postgres cluster for this run, set as in production."""
    with running(prepared(prepare_postgres, server_folder), server_folder / "postgres.log") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ServerProcess) -> str:
    """A Redis database that this test has to itself, empty."""
    url = urlunsplit(urlsplit(redis_server.url)._replace(path=f"/{next(REDIS_DATABASES)}"))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def postgres_url(postgres_server: ServerProcess) -> Iterator[str]:
    """A Postgres database that this test has to itself, fresh."""
    name = f"test_{next(POSTGRES_DATABASES)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield urlunsplit(urlsplit(postgres_server.url)._replace(path=f"/{name}"))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
