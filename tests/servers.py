"""Real servers for tests: worker.embedded prepares them, this starts and ends them.

    data directory -> ServerProcess -> a running child -> its end
    data directory -> the same with a Postgres in it that has been made and migrated before

Where this machine has no such server the test is skipped, but fails where CI is set. TEST_POSTGRES=15 in the
environment has all that is made here, and so most tests, run on that major version of Postgres.
"""

import atexit
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from worker.embedded import ServerMissing, ServerProcess, prepare_postgres, wait_ready
from worker.store.migrate import migrate


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


def prepare_wanted_postgres(data_dir: Path) -> ServerProcess:
    """A Postgres of the version that TEST_POSTGRES names, or of the one that a user without one of their own gets."""
    wanted = os.environ.get("TEST_POSTGRES")
    return prepare_postgres(data_dir, int(wanted) if wanted else None)


def prepared(prepare: Callable[[Path], ServerProcess], data_dir: Path) -> ServerProcess:
    """`prepare(data_dir)`; without a server on this machine the test is skipped, or fails where CI is set."""
    try:
        return prepare(data_dir)
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path that another account can pass through; pytest's own are neither."""
    with tempfile.TemporaryDirectory(prefix="leadsync-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def grow(data_dir: Path) -> None:
    """Put a Postgres with this version's schema into a data directory that has none.

    Its first start would make the same, in two CPU seconds for the cluster and half a one for each worker that
    migrates. What a first start does is tested where nothing is grown.
    """
    subprocess.run(["cp", "-a", _grown(), data_dir / "postgres"], check=True)


@cache
def _grown() -> Path:
    """Such a Postgres, ended in order; it goes with this process."""
    held = ExitStack()
    atexit.register(held.close)
    folder = held.enter_context(short_folder())
    with running(prepare_wanted_postgres(folder), folder / "postgres.log") as server:
        migrate(server.url)
    return (folder / "postgres").resolve()
