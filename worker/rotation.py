"""Tokens under former keys -> the same tokens under the key that seals now; spare keys -> out of the file.

    new key, first in the file -> every token opened and sealed anew, a batch at a time -> former keys out of the file

The new key is on the disk before anything is sealed with it, and a former one goes only when nothing needs it; each
token moves in one statement that compares what was there. So whatever is killed at whatever moment, every token opens
with some key of the file, and the next run goes on where this one ended. It is handed rows and keys.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from worker.errors import ConfigurationError
from worker.key_file import replace, with_key, without_keys
from worker.sealing import Key, KeyRing, Keys, Sealed, TokenLocked, new_key, of_account, of_page, parse_keys
from worker.store.tokens import SealedRow

BATCH: Final = 200
"""Tokens taken from Postgres at once."""
PASSES: Final = 20
"""So often the rows are gone through for those that came meanwhile; each pass but the last finds some."""


class TokenRows(Protocol):
    """What this file needs of the rows."""

    async def keys_used(self) -> list[dict[str, Any]]: ...
    async def sealed_otherwise(
        self, key_id: str, most: int, after: SealedRow | None = None
    ) -> Sequence[SealedRow]: ...
    async def reseal(self, row: SealedRow, sealed: Sealed) -> bool: ...


@dataclass(frozen=True, slots=True)
class Resealed:
    """What came of sealing anew: tokens that moved, and those that could not be opened, by the key that they need."""

    moved: int
    locked: Mapping[str, int]


Tell = Callable[[int], None]
"""Is told how many tokens have moved so far."""


async def seal_anew(rows: TokenRows, ring: KeyRing, tell: Tell) -> Resealed:
    """Seal every token with the first key of `ring`. Raises StoreUnavailable; what has moved stays moved."""
    moved = 0
    for _ in range(PASSES):
        locked: Counter[str] = Counter()
        found = 0
        after: SealedRow | None = None
        while batch := await rows.sealed_otherwise(ring.keys[0].key_id, BATCH, after):
            for row in batch:
                try:
                    sealed = _under_first(ring, row)
                except TokenLocked:
                    locked[row.sealed.key_id] += 1
                    continue
                # A token that was replaced meanwhile is left as it is and looked at in the next pass.
                found += 1
                moved += await rows.reseal(row, sealed)
            tell(moved)
            after = batch[-1]
        if not found:
            break
    return Resealed(moved, dict(locked))


async def outside(rows: TokenRows, key_id: str) -> int:
    """How many tokens another key than this seals."""
    used = await rows.keys_used()
    return sum(row["pages"] + row["accounts"] for row in used if row["key_id"] != key_id)


def add_key(file: Path, keys: Keys, today: str) -> str:
    """Put a new key first into `file`, which no other rotation changes meanwhile; its id.

    Raises ConfigurationError where it cannot be written, or is not what `keys` then read.
    """
    key = new_key()
    replace(file, with_key(_text(file), key, f"made {today}"))
    ring = keys.ring()
    if ring.trouble is not None or ring.keys[0] != key:
        raise ConfigurationError("TOKEN_KEYS_FILE: was changed by another meanwhile; run this again")
    return key.key_id


async def drop_unused(file: Path, rows: TokenRows) -> tuple[str, ...]:
    """Take the keys out of `file` that neither seal now nor are needed to open a token; their ids.

    A token that came under one of them at this very moment brings that key back. Raises ConfigurationError.
    """
    text = _text(file)
    listed = _keys(text)
    used = await _used(rows)
    spare = {key.key_id for key in listed[1:] if key.key_id not in used | {listed[0].key_id}}
    if not spare:
        return ()
    replace(file, without_keys(text, spare))
    late = spare & await _used(rows)
    if late:
        replace(file, without_keys(text, spare - late))
    return tuple(sorted(spare - late))


async def _used(rows: TokenRows) -> set[str]:
    return {row["key_id"] for row in await rows.keys_used()}


def _under_first(ring: KeyRing, row: SealedRow) -> Sealed:
    whose = of_page(row.owner_id) if row.is_page else of_account(row.owner_id)
    return ring.seal(ring.open(row.sealed, whose), whose)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"TOKEN_KEYS_FILE: cannot be read ({type(error).__name__})") from None


def _keys(text: str) -> tuple[Key, ...]:
    try:
        return parse_keys(text)
    except ValueError as error:
        raise ConfigurationError(f"TOKEN_KEYS_FILE: {error}") from None
