"""What tests may ask for: a real Redis, a real Postgres, a free port.

    worker.embedded -> one server of each kind a run, in a folder that goes with it
    redis_url       -> a logical database of its own, empty
    postgres_url    -> a database of its own, fresh, dropped afterwards

How these servers are started and ended is in tests/servers.py.
"""

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from tests.servers import prepared, running, short_folder
from worker.embedded import ServerProcess, prepare_postgres, prepare_redis

REDIS_DATABASES = itertools.cycle(range(1, 16))
POSTGRES_DATABASES = itertools.count(1)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """The data directory of the run's own servers."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory for a test that runs servers of its own."""
    with short_folder() as folder:
        yield folder


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
