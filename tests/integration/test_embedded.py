"""The embedded servers, really run: what was written is there after a kill, and one owner holds the data."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import grow, prepared, running, spawn
from worker.embedded import (
    DataInUse,
    ServerMissing,
    ServerProcess,
    postgres_server,
    prepare_postgres,
    prepare_redis,
)
from worker.errors import ConfigurationError


@dataclass(frozen=True)
class Kind:
    """One of the two servers, and how to write to it and read from it."""

    name: str
    prepare: Callable[[Path], ServerProcess]
    client: Callable[[str], AbstractContextManager[object]]
    write: Callable[[str], None]
    read: Callable[[str], str]


def _redis_write(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")


def _redis_read(url: str) -> str:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return str(client.get("kept"))


def _postgres_write(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'yes' AS kept")


def _postgres_read(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT kept FROM kept").fetchone()
    return str(row[0]) if row else "nothing"


KINDS = [
    Kind("redis", prepare_redis, redis.Redis.from_url, _redis_write, _redis_read),
    Kind("postgres", prepare_postgres, psycopg.connect, _postgres_write, _postgres_read),
]


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind.name))
def kind(request: pytest.FixtureRequest, data_dir: Path) -> Kind:
    """Each of the two servers in turn, Postgres' data made before."""
    found: Kind = request.param
    if found.name == "postgres":
        grow(data_dir)
    return found


@pytest.fixture
def killed_at_the_end() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Processes handed to this do not outlive the test."""
    with ExitStack() as stack:

        def remember(process: subprocess.Popen[bytes]) -> None:
            stack.callback(process.wait)
            stack.callback(process.kill)

        yield remember


def test_what_was_written_is_there_after_a_kill(
    kind: Kind, data_dir: Path, killed_at_the_end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """An answered write survives kill -9, and what the kill left behind does not block the next start."""
    first = prepared(kind.prepare, data_dir)
    process = spawn(first, data_dir / "log")
    killed_at_the_end(process)
    kind.write(first.url)
    process.kill()
    process.wait()
    first.release()
    with running(kind.prepare(data_dir), data_dir / "log") as second:
        assert kind.read(second.url) == "yes"
        assert second.url == first.url
    # Nobody knocks before the server is up. (A client that is still leaving at the end is told another FATAL.)
    assert "FATAL:  the database system is" not in (data_dir / "log").read_text()


def test_an_orderly_end_does_not_wait_for_clients(
    kind: Kind, data_dir: Path, killed_at_the_end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """The stop signal ends a server that still has a client, with exit code 0, and its data is kept."""
    first = prepared(kind.prepare, data_dir)
    process = spawn(first, data_dir / "log")
    killed_at_the_end(process)
    with kind.client(first.url):
        kind.write(first.url)
        process.send_signal(first.stop_signal)
        assert process.wait(60) == 0
    first.release()
    with running(kind.prepare(data_dir), data_dir / "log") as second:
        assert kind.read(second.url) == "yes"


def test_a_second_start_on_the_same_data_is_refused(kind: Kind, data_dir: Path) -> None:
    """Two owners of one data directory are refused in one line that names the directory and the process."""
    first = prepared(kind.prepare, data_dir)
    with pytest.raises(DataInUse) as refused:
        kind.prepare(data_dir)
    first.release()
    message = str(refused.value)
    assert str(data_dir) in message
    assert str(os.getpid()) in message
    assert "\n" not in message


def test_a_lock_ends_with_its_process(kind: Kind, data_dir: Path) -> None:
    """A killed owner leaves no lock behind."""
    prepared(kind.prepare, data_dir).release()
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, time\n"
            f"from worker.embedded import {kind.prepare.__name__} as prepare\n"
            "server = prepare(pathlib.Path(sys.argv[1]))\n"
            "print('held', flush=True)\n"
            "time.sleep(600)",
            data_dir,
        ],
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    with pytest.raises(DataInUse):
        kind.prepare(data_dir)
    owner.kill()
    owner.communicate()
    kind.prepare(data_dir).release()


def test_a_leftover_server_is_ended_first(
    kind: Kind, data_dir: Path, killed_at_the_end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """A server that outlived its owner is ended by the next one, and its data taken over."""
    first = prepared(kind.prepare, data_dir)
    leftover = spawn(first, data_dir / "log")
    killed_at_the_end(leftover)
    kind.write(first.url)
    first.release()
    with running(kind.prepare(data_dir), data_dir / "log") as second:
        assert leftover.wait(60) == 0
        assert kind.read(second.url) == "yes"


def test_a_port_that_was_taken_meanwhile_is_given_up(data_dir: Path) -> None:
    """Redis moves to another port when somebody else sits on the one it had."""
    first = prepared(prepare_redis, data_dir)
    first.release()
    with socket.socket() as intruder:
        intruder.bind(("127.0.0.1", int((data_dir / "redis" / "port").read_text())))
        intruder.listen()
        with running(prepare_redis(data_dir), data_dir / "log") as second:
            assert second.url != first.url


def test_redis_refuses_who_has_no_password(redis_server: ServerProcess) -> None:
    """Another user of the machine gets nothing out of the loopback port."""
    port = redis_server.url.rsplit(":", 1)[1].split("/")[0]
    with socket.create_connection(("127.0.0.1", int(port))) as stranger:
        stranger.sendall(b"GET kept\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def test_redis_settings_are_those_of_the_promise(redis_url: str) -> None:
    """A write is on disk before its answer, and a full Redis refuses rather than evicts."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        settings = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "save")}
        assert settings == {"appendonly": "yes", "appendfsync": "always", "save": ""}
        assert client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
        assert int(client.config_get("maxmemory")["maxmemory"]) == 512 * 1024 * 1024


def test_an_old_redis_on_the_path_is_passed_over(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server that lacks XAUTOCLAIM, or does not run, is not used just because it comes first."""
    old = data_dir / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=00000000:0'\n")
    old.chmod(0o755)
    expected = prepared(prepare_redis, data_dir)
    expected.release()
    monkeypatch.setenv("PATH", f"{data_dir}:{os.environ['PATH']}")
    server = prepared(prepare_redis, data_dir)
    server.release()
    assert server.argv[0] != str(old)


def test_data_of_a_newer_redis_is_not_silently_ignored(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 6.2 would come up empty on the folder of Redis 7; it is not started."""
    binary = data_dir / "redis-server"
    binary.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=00000000:0'\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{data_dir}:{os.environ['PATH']}")
    (data_dir / "redis" / "appendonlydir").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="newer"):
        prepare_redis(data_dir)


def test_a_pid_file_of_somebody_else_does_not_block_postgres(data_dir: Path) -> None:
    """After a crash the number in the pid file may belong to any process; that one is left alone."""
    grow(data_dir)
    prepared(prepare_postgres, data_dir).release()
    bystander = subprocess.Popen(["sleep", "600"])
    pid_file = data_dir / "postgres" / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{bystander.pid}\n")
    try:
        with running(prepare_postgres(data_dir), data_dir / "log"):
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_first_start_broken_off_leaves_no_half_cluster(data_dir: Path) -> None:
    """What an interrupted initdb left is thrown away, not started."""
    half = data_dir / "postgres" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with running(prepared(prepare_postgres, data_dir), data_dir / "log") as server:
        kind = KINDS[1]
        kind.write(server.url)
        assert kind.read(server.url) == "yes"


def test_a_long_data_directory_still_gets_a_socket(data_dir: Path) -> None:
    """A path beyond the system's limit for sockets moves the socket, not the data."""
    deep = data_dir / ("long-" * 20) / "a name with spaces & 100%"
    deep.mkdir(parents=True)
    with running(prepared(prepare_postgres, deep), data_dir / "log") as server:
        KINDS[1].write(server.url)
        assert (deep / "postgres" / "cluster" / "PG_VERSION").exists()
        sockets = Path(next(word for word in server.argv if "unix_socket" in word).split("=", 1)[1])
    sockets.rmdir()


def test_a_wanted_version_makes_a_cluster_and_does_not_change_one(data_dir: Path) -> None:
    """Data stays with the Postgres that wrote it; where there is none yet, a version that is missing is told."""
    with pytest.raises(ServerMissing, match=r"needs PostgreSQL 999.*set DATABASE_URL"):
        prepare_postgres(data_dir / "fresh", 999)
    grow(data_dir)
    prepare_postgres(data_dir, 999).release()


def test_no_answer_gets_into_the_postgres_log(data_dir: Path) -> None:
    """A failing statement tells its client what was wrong, and the server's log nothing."""
    answer = "Zelda Fitzgerald"
    grow(data_dir)
    log = data_dir / "log"
    server = prepared(prepare_postgres, data_dir)
    with running(server, log), psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (answer text UNIQUE, number int)")
        connection.execute("INSERT INTO kept VALUES (%s, 1)", [answer])
        for statement in (
            "INSERT INTO kept VALUES (%s, 2)",
            "INSERT INTO kept SELECT %s::text::int::text",
            "SELECT %s::text::jsonb",
        ):
            with pytest.raises(psycopg.DatabaseError) as refused:
                connection.execute(statement, [answer])
            assert "Zelda" in str(refused.value)
    written = log.read_text()
    assert "ready to accept connections" in written
    assert "Zelda" not in written


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends Postgres another account")
def test_roots_closed_folders_are_left_closed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Postgres' account may not pass, root's data goes elsewhere and no folder is opened for it."""
    monkeypatch.setattr(postgres_server, "ROOTS_HOME", data_dir / "elsewhere")
    monkeypatch.setattr(postgres_server, "find_postgres", _closed_copy(data_dir / "closed"))
    closed = data_dir / "closed" / "data"
    for _ in range(2):
        with running(prepared(prepare_postgres, closed), data_dir / "log"):
            pass
    assert (data_dir / "closed").stat().st_mode & 0o077 == 0
    assert (closed / "postgres").resolve().is_relative_to((data_dir / "elsewhere").resolve())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends Postgres another account")
def test_roots_data_directory_is_opened_to_the_server_alone(data_dir: Path) -> None:
    """A data directory that root made stays closed to all but the account that has its data in there."""
    fresh = data_dir / "fresh"
    with running(prepared(prepare_postgres, fresh), data_dir / "log"):
        assert not (fresh / "postgres").is_symlink()
        assert fresh.stat().st_mode & 0o067 == 0
        assert fresh.stat().st_gid == (fresh / "postgres").stat().st_gid


def _closed_copy(folder: Path) -> Callable[[int | None], Path]:
    """find_postgres, but what it finds lies where only root gets in."""
    found = postgres_server.find_postgres().parent
    folder.mkdir(mode=0o700)
    (folder / found.parent.name).mkdir()
    copy = folder / found.parent.name / found.name
    subprocess.run(["cp", "-a", found, copy], check=True)
    for libraries in found.parent.parent.glob(f"{found.parent.name}.libs"):
        subprocess.run(["cp", "-a", libraries, folder], check=True)
    return lambda _wanted: copy / "bin"
