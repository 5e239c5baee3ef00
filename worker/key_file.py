"""The text of a key file -> the same with a key more, or with keys less; and back onto the disk, whole or not at all.

What a key is, sealing.py says; which keys come and go, rotation.py. Invariants: comments, and keys that nobody named,
stay as they are; the file belongs to whom it did, and only its owner reads it, and its group where that was let alone
to read it; once `replace` has returned the file is there after a loss of power too, since what is sealed with its new
key would be lost without it.
"""

import fcntl
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError, LeadSyncError
from worker.sealing import Key, parse_keys

SETTLE_SECONDS: Final = 120.0
"""Who has just sealed a token with a former key has stored it by then, or failed: a statement takes 60 s at most."""


def with_key(text: str, key: Key, comment: str) -> str:
    """The text with `key` before all others."""
    return f"{key.text}  # {comment}\n{text}"


def without_keys(text: str, key_ids: Collection[str]) -> str:
    """The text without these keys; a line that holds nothing else goes with its comment. Raises ValueError."""
    kept = (_line_without(line, key_ids) for line in text.splitlines(keepends=True))
    return "".join(line for line in kept if line is not None)


def _line_without(line: str, key_ids: Collection[str]) -> str | None:
    before, mark, comment = line.partition("#")
    words = [word.strip() for word in before.split(",") if word.strip()]
    kept = [word for word in words if parse_keys(word)[0].key_id not in key_ids]
    if len(kept) == len(words):
        return line
    if not kept:
        return None
    return f"{', '.join(kept)}  {mark}{comment}" if mark else f"{', '.join(kept)}\n"


@contextmanager
def held(path: Path) -> Iterator[Path]:
    """The key file that `path` leads to, with no other rotation at work on it. Raises LeadSyncError."""
    real = path.resolve()
    try:
        folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _not_replaceable(error) from None
    try:
        _lock(folder)
        yield real
    finally:
        os.close(folder)


def _lock(folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LeadSyncError("another rotation is at work on TOKEN_KEYS_FILE; wait for its end") from None
    except OSError as error:
        raise _not_replaceable(error) from None


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of the file `path`. Raises ConfigurationError where it cannot be replaced."""
    half = path.with_name(f"{path.name}.new")
    try:
        about = path.stat()
        half.unlink(missing_ok=True)
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), about.st_uid, about.st_gid)
            os.fchmod(file.fileno(), _mode(about.st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise _not_replaceable(error) from None


def _mode(former: int) -> int:
    """A file that only root and a group read was made so for workers of that group; 0644 is nobody's wish."""
    is_for_group = former & stat.S_IRGRP and not former & stat.S_IRWXO
    return 0o640 if is_for_group else 0o600


def unchanged_for(path: Path, now: float) -> float:
    """For how many seconds the file is as it is; `now` in unix seconds."""
    return now - path.stat().st_mtime


def _not_replaceable(error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"TOKEN_KEYS_FILE: cannot be replaced here ({type(error).__name__}: {error.strerror}); put a key of"
        " `leadsync keys generate` on a line before the others yourself, then run `leadsync keys rotate` again"
    )
