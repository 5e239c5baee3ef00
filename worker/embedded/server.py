"""What the embedded servers share: the noun ServerProcess, the lock on the data, running as an account.

    data directory -> lock; package or command -> binary; command -> its end

This file knows neither Redis nor Postgres and starts no server.

Invariant: a lock is held by one living process at most, and no child of that process inherits it.
"""

import fcntl
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.errors import ConfigurationError

SERVER_ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": os.defpath}
"""All that a server sees of our environment: no setting, and so no token, of ours."""
LEFTOVER_SECONDS: Final = 10.0
"""A leftover server is given this long to end by itself, after each signal."""
POLL_SECONDS: Final = 0.05


class ServerMissing(ConfigurationError):
    """This machine has no usable binary of the server."""

    reason = "server_missing"


class DataInUse(ConfigurationError):
    """Another process holds the data directory."""

    reason = "data_in_use"


class NotReady(ConfigurationError):
    """A server did not answer in time."""

    reason = "server_not_ready"


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a server runs as, where that is not the caller."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class DataLock:
    """An flock on `path`. The kernel drops it with this process, however that ends."""

    path: Path
    descriptor: int

    def release(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server to run in the foreground: exec `argv` in `cwd` with exactly `env`, as `account` if given."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    account: Account | None
    url: str
    stop_signal: signal.Signals
    is_ready: Callable[[], bool]
    lock: DataLock

    def release(self) -> None:
        """Give the data directory free. Only once the server has ended, and only once."""
        self.lock.release()


def wait_ready(
    server: ServerProcess, seconds: float = 60.0, has_ended: Callable[[], bool] = lambda: False
) -> None:
    """Return once `server` answers; NotReady when it does not in time, or at once when it `has_ended`."""
    deadline = time.monotonic() + seconds
    while not server.is_ready():
        if has_ended():
            raise NotReady(f"{server.name} ended before it answered; its last log lines say why")
        if time.monotonic() > deadline:
            raise NotReady(f"{server.name} did not answer within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether `holds` comes true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def make_data_dir(data_dir: Path) -> Path:
    """The data directory, absolute, made if need be. Raises ConfigurationError."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the data directory {data_dir} cannot be made: {error.strerror}; choose another one"
        ) from None
    return data_dir.resolve()


@contextmanager
def locked(data_dir: Path, server: str) -> Iterator[DataLock]:
    """The lock for `server` on its data; kept on the way out, and given back only where the block failed."""
    lock = _lock(data_dir, server)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _lock(data_dir: Path, server: str) -> DataLock:
    path = data_dir / f"{server}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        raise ConfigurationError(f"{path} belongs to another user; choose another data directory") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DataInUse(
            f"the data directory {data_dir} is in use by process {owner}: end it, or choose another one"
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return DataLock(path, descriptor)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    half = path.with_name(path.name + ".new")
    half.unlink(missing_ok=True)
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def package_folder(package: str) -> Path | None:
    """Where a package is installed. It is not imported: these do things at import."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found is not None and found.origin is not None else None


def says_version(binary: Path) -> str:
    """What `binary --version` prints; nothing where it does not run (a shim, another machine's)."""
    try:
        return subprocess.run(
            [binary, "--version"], capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def can_pass(account: Account, path: Path) -> bool:
    """Whether `account` may enter or run `path`. The kernel is asked: modes, groups and mounts have a say."""
    asked = subprocess.run(["/bin/sh", "-c", 'test -x "$0"', path], cwd="/", check=False, **_as(account))
    return asked.returncode == 0


def run(command: list[str], account: Account | None, text: str = "") -> None:
    """Run a program to its end, `text` its input; ConfigurationError with its last lines where it fails."""
    ended = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env=SERVER_ENVIRONMENT,
        check=False,
        **_as(account),
    )
    if ended.returncode != 0:
        last = " / ".join(ended.stdout.strip().splitlines()[-5:])
        raise ConfigurationError(f"{Path(command[0]).name} failed with {ended.returncode}: {last}")


def _as(account: Account | None) -> dict[str, Any]:
    """subprocess' arguments for running as `account`."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}
