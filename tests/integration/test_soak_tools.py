"""What a soak strikes with, on a real Redis and real processes: it does what the plan says and nothing besides."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.system.soak.clock import make_clock
from tests.system.soak.former import ROOT, unpack
from tests.system.soak.proxy import Proxy, Upstream, proxying


@pytest.fixture
def wire(redis_url: str) -> Iterator[tuple[Proxy, "redis.Redis", "redis.Redis"]]:
    """A proxy before Redis, a client behind it and one that asks directly."""
    parts = urlsplit(redis_url)
    with proxying({"redis": Upstream(parts.hostname or "", parts.port or 0)}) as proxies:
        proxy = proxies["redis"]
        moved = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
        with (
            redis.Redis.from_url(moved, socket_timeout=3, retry=None, protocol=2) as through,
            redis.Redis.from_url(redis_url, protocol=2) as direct,
        ):
            through.ping()
            yield proxy, through, direct


Wire = tuple[Proxy, "redis.Redis", "redis.Redis"]


def test_bytes_pass_unchanged(wire: Wire) -> None:
    """More of them than one chunk, both ways."""
    _, through, _ = wire
    value = bytes(range(256)) * 2_000
    through.set("a", value)
    assert through.get("a") == value


def test_a_lost_reply_is_of_something_that_was_done(wire: Wire) -> None:
    """The client is cut off, the command has been carried out, and what comes after passes."""
    proxy, through, direct = wire
    proxy.lose(1)
    with pytest.raises(redis.ConnectionError):
        through.set("b", "1")
    assert direct.get("b") == b"1"
    assert through.get("b") == b"1"
    assert proxy.lost == 1


def test_a_frozen_wire_times_out_and_thaws(wire: Wire) -> None:
    """Nobody is told that it is frozen."""
    proxy, through, _ = wire
    proxy.freeze(True)
    with pytest.raises(redis.TimeoutError):
        through.ping()
    proxy.freeze(False)
    assert through.ping()


def test_a_refusing_wire_takes_no_connection_until_it_is_mended(wire: Wire) -> None:
    """Those that are there end at once."""
    proxy, through, _ = wire
    proxy.refuse(True)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            through.ping()
    proxy.refuse(False)
    assert through.ping()


def test_the_clock_of_a_process_jumps_while_it_runs(tmp_path: Path) -> None:
    """Wall clock only, to the second asked for, and back."""
    clock = make_clock(tmp_path)
    if clock is None:
        pytest.skip("this machine builds no clock; the soak goes without")
    code = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=clock.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> tuple[float, float]:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            wall, steady = map(float, process.stdout.readline().split())  # type: ignore[union-attr]
            return wall - time.time(), steady - time.monotonic()

        assert ask() == pytest.approx((0, 0), abs=2)
        clock.jump(90)
        assert ask() == pytest.approx((90, 0), abs=2)
        clock.jump(-45.5)
        assert ask() == pytest.approx((-45.5, 0), abs=2)
        process.stdin.close()


def test_a_former_commit_runs_until_the_release_moves_on(tmp_path: Path) -> None:
    """The code of a process is the one to which `current` leads when it starts."""
    release = unpack("HEAD", tmp_path)
    if release is None:
        pytest.skip("this checkout has no repository")
    code = "import worker; print(worker.__file__)"

    def where() -> str:
        words = [sys.executable, "-c", code]
        return subprocess.run(words, cwd=release.current, capture_output=True, text=True, check=True).stdout

    assert str(tmp_path / "former") in where()
    release.move_on()
    assert where().strip() == str(ROOT / "worker" / "__init__.py")
    assert unpack("no-such-commit", tmp_path) is None
