"""Real servers for tests: worker.embedded prepares them, this starts and ends them.

    data directory -> ServerProcess -> a running child -> its end

Where this machine has no such server the test is skipped, but fails where CI is set.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.embedded import ServerMissing, ServerProcess, wait_ready


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


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path that another account can pass through; pytest's own are neither."""
    with tempfile.TemporaryDirectory(prefix="leadsync-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
