"""A token -> sealed bytes that only a holder of the key can open, and back; bound to whose token it is.

It keeps nothing and knows no database (store/tokens.py does). Invariants: what was sealed for one Page opens for no
other; no message and no repr holds a key or a token; a key's id says which key it is and nothing about it.
https://cryptography.io/en/latest/hazmat/primitives/aead/
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.errors import ConfigurationError, StoreUnavailable, TokenRefused

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
"""https://csrc.nist.gov/pubs/sp/800/38/d/final"""
_ID_DIGITS: Final = 12


class TokenLocked(TokenRefused):
    """A sealed token is there and cannot be opened: its key is not among ours, or it is not what was sealed."""

    reason = "token_locked"


class KeysUnreadable(StoreUnavailable):
    """The key file is away or half written: no token can be opened, and that counts against no lead."""

    reason = "keys_unreadable"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed token: `box` is nonce and ciphertext, `key_id` says whose key opens it."""

    key_id: str
    box: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    """256 bits that seal and open."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Twelve hex digits of the key's SHA-256: who knows them is no nearer to the key."""
        return hashlib.sha256(b"leadsync key id" + self.secret).hexdigest()[:_ID_DIGITS]

    @property
    def text(self) -> str:
        """The key as it stands in settings and files: base64 of its 32 bytes."""
        return base64.b64encode(self.secret).decode()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys, the one that seals first; any of them opens. `trouble`: why the key file could not be read just now."""

    keys: tuple[Key, ...] = ()
    trouble: str | None = None

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def has(self, key_id: str) -> bool:
        """Whether that key is among these."""
        return any(key.key_id == key_id for key in self.keys)

    def seal(self, token: str, whose: str) -> Sealed:
        """`token` for `whose` (see `of_page`, `of_account`). Raises ConfigurationError where there is no key.

        KeysUnreadable where the file cannot be read: its first key may be another by now, and ours may be out of it.
        """
        if self.trouble is not None:
            raise _unreadable(self.trouble)
        if not self.keys:
            raise ConfigurationError(
                "TOKEN_KEYS: is not set, so no token can be kept; `leadsync keys generate` makes a key"
            )
        nonce = os.urandom(_NONCE_BYTES)
        key = self.keys[0]
        return Sealed(key.key_id, nonce + AESGCM(key.secret).encrypt(nonce, token.encode(), _bound_to(whose)))

    def open(self, sealed: Sealed, whose: str) -> str:
        """The token that was sealed for `whose`. Raises TokenLocked; KeysUnreadable where the file may have its key."""
        key = next((key for key in self.keys if key.key_id == sealed.key_id), None)
        if key is None and self.trouble is not None:
            raise _unreadable(self.trouble)
        if key is None:
            raise TokenLocked(
                f"the token of {whose} was sealed with key {sealed.key_id}, which is not among TOKEN_KEYS;"
                " put that key back, or connect again"
            )
        nonce, box = sealed.box[:_NONCE_BYTES], sealed.box[_NONCE_BYTES:]
        try:
            return AESGCM(key.secret).decrypt(nonce, box, _bound_to(whose)).decode()
        except (InvalidTag, ValueError):
            raise TokenLocked(
                f"the sealed token of {whose} was altered, or is another's; connect again"
            ) from None


class Keys:
    """Where the keys come from: those of a file, read anew at each look, and behind them those given.

    A file that changes twice within one tick of its clock looks unchanged, and a token may be sealed with a key that
    came a moment ago. The file is small and looked at once in minutes a Page, so it is never taken as known.
    """

    def __init__(self, given: tuple[Key, ...], path: Path | None) -> None:
        self._given = given
        self._path = path
        self._from_file: tuple[Key, ...] = ()

    @property
    def path(self) -> Path | None:
        """The key file, if there is one."""
        return self._path

    def ring(self) -> KeyRing:
        """The keys now. Raises KeysUnreadable where the file cannot be read and never could."""
        trouble = self._refresh(self._path) if self._path is not None else None
        if trouble is not None and not self._from_file:
            raise _unreadable(trouble)
        return KeyRing((*self._from_file, *self._given), trouble)

    def sources(self) -> tuple[tuple[Key, str], ...]:
        """Each key and the setting that it comes from, in the order of `ring`. Raises KeysUnreadable."""
        ring = self.ring()
        from_file = len(ring.keys) - len(self._given)
        return tuple(
            (key, "TOKEN_KEYS_FILE" if place < from_file else "TOKEN_KEYS")
            for place, key in enumerate(ring.keys)
        )

    def _refresh(self, path: Path) -> str | None:
        """Read the file; why it could not be. While it is being replaced the keys that we have are the best we know."""
        try:
            found = parse_keys(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return type(error).__name__
        if not found:
            return "it holds no key"
        self._from_file = found
        return None


def _unreadable(trouble: str) -> KeysUnreadable:
    return KeysUnreadable(f"TOKEN_KEYS_FILE cannot be read ({trouble}); it holds one key a line")


def opened_or_none(ring: KeyRing, sealed: Sealed, whose: str) -> str | None:
    """The token that was sealed for `whose`, or None where these keys do not open it."""
    try:
        return ring.open(sealed, whose)
    except TokenLocked:
        return None


def of_page(page_id: str) -> str:
    """What a Page's token is bound to."""
    return f"Page {page_id}"


def of_account(user_id: str) -> str:
    """What the token of a person or a system user is bound to."""
    return f"account {user_id}"


def new_key() -> Key:
    """A key that nobody has."""
    return Key(os.urandom(KEY_BYTES))


def parse_keys(text: str) -> tuple[Key, ...]:
    """The keys in a text, separated by commas or lines; after `#` comes a comment. Raises ValueError."""
    words = (part.strip() for line in text.splitlines() for part in line.partition("#")[0].split(","))
    return tuple(_key(word, number) for number, word in enumerate(filter(None, words), 1))


def _key(word: str, number: int) -> Key:
    try:
        secret = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ValueError(
            f"key {number} is not the base64 of {KEY_BYTES} bytes; `leadsync keys generate` makes one"
        )
    return Key(secret)


def _bound_to(whose: str) -> bytes:
    return b"leadsync token of " + whose.encode()
