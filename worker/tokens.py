"""A Page's id -> its access token, opened from its sealed row or taken from the settings, and kept for minutes.

    kept? -> its row, opened -> else PAGE_TOKENS_FILE -> else PAGE_TOKENS -> TokenRefused

It never checks a token with Meta and never writes one down. Invariant: a token appears in no message and no repr; a
token that Meta refused is handed out no more once there is another.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from worker.errors import TokenRefused, Transient
from worker.sealing import Keys, Sealed, of_page

KEPT_SECONDS: Final = 300.0
"""How long an opened token is used before its row is looked at again."""


class PageTokens(Protocol):
    """Where Page tokens come from."""

    async def token_for(self, page_id: str) -> str:
        """The Page's token. Raises TokenRefused where there is none, StoreUnavailable where Postgres is away."""

    async def has_another(self, page_id: str, refused: str) -> bool:
        """Meta refused the token `refused`: whether `token_for` has another one by now."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A Page's sealed token, and whether Meta is known to refuse it."""

    sealed: Sealed
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Account:
    """A person or a system user whose token connects Pages."""

    user_id: str
    kind: str
    sealed: Sealed
    scopes: tuple[str, ...]
    expires_at: datetime | None
    data_access_expires_at: datetime | None
    refused_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was forgotten: whether the Page's token was kept, and the ids of accounts whose tokens went."""

    is_page_token: bool
    accounts: tuple[str, ...]


class TokenRows(Protocol):
    """What this file needs of the rows."""

    async def page_token(self, page_id: str) -> TokenRow | None: ...
    async def pages_with_tokens(self) -> tuple[str, ...]: ...


class GivenTokens:
    """Tokens given as a mapping and, over it, by a file with one JSON object `{page_id: token}`."""

    def __init__(self, given: Mapping[str, str], path: Path | None) -> None:
        self._given = dict(given)
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._from_file: dict[str, str] = {}
        self._trouble: str | None = None

    def find(self, page_id: str) -> str | None:
        """The Page's token, or None. Raises TokensUnreadable where the file that may have it cannot be read."""
        self._refresh()
        token = self._from_file.get(page_id) or self._given.get(page_id)
        if not token and self._trouble:
            raise TokensUnreadable(f"PAGE_TOKENS_FILE cannot be read: {self._trouble}")
        return token or None

    def page_ids(self) -> tuple[str, ...]:
        """The Pages of which there is a token now."""
        self._refresh()
        return tuple(sorted({*self._given, *self._from_file}))

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            about = self._path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            if stamp != self._read_at:
                self._from_file = _read(self._path)
                self._read_at = stamp
            self._trouble = None
        except (OSError, ValueError, RecursionError) as error:
            # While the file is being replaced the tokens that we have are the best we know.
            self._trouble = type(error).__name__


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a Page's row gave: its token, or why there is none."""

    until: float
    token: str | None = field(default=None, repr=False)
    is_refused: bool = False
    trouble: TokenRefused | None = None


class StoredTokens:
    """The tokens of one process. `steady` gives seconds that never jump.

    A row beats the settings, unless Meta is known to refuse its token and the settings have one.
    """

    def __init__(self, rows: TokenRows, keys: Keys, given: GivenTokens, steady: Callable[[], float]) -> None:
        self._rows = rows
        self._keys = keys
        self._given = given
        self._steady = steady
        self._opened: dict[str, _Opened] = {}

    async def token_for(self, page_id: str) -> str:
        opened = self._opened.get(page_id)
        fresh = opened is None or self._steady() >= opened.until
        if opened is None or fresh:
            opened = await self._open(page_id)
        token = self._choose(page_id, opened)
        if token is None and not fresh:
            # Nothing is what we knew; a row may have come since.
            opened = await self._open(page_id)
            token = self._choose(page_id, opened)
        if token is not None:
            return token
        if opened.trouble is not None:
            raise opened.trouble
        raise TokenRefused(f"no token for Page {page_id}; run `leadsync connect`, or add it to PAGE_TOKENS")

    async def has_another(self, page_id: str, refused: str) -> bool:
        self._opened.pop(page_id, None)
        try:
            return await self.token_for(page_id) != refused
        except (TokenRefused, Transient):
            return False

    async def page_ids(self) -> tuple[str, ...]:
        """The Pages of which there is a token now. Raises StoreUnavailable."""
        return tuple(sorted({*self._given.page_ids(), *await self._rows.pages_with_tokens()}))

    def is_given(self, page_id: str) -> bool:
        """Whether the settings hold a token of the Page."""
        return page_id in self._given.page_ids()

    async def _open(self, page_id: str) -> _Opened:
        row = await self._rows.page_token(page_id)
        until = self._steady() + KEPT_SECONDS
        if row is None:
            opened = _Opened(until)
        else:
            try:
                token = self._keys.ring().open(row.sealed, of_page(page_id))
                opened = _Opened(until, token, row.is_refused)
            except TokenRefused as trouble:
                opened = _Opened(until, trouble=trouble)
        self._opened[page_id] = opened
        return opened

    def _choose(self, page_id: str, opened: _Opened) -> str | None:
        if opened.token is not None and not opened.is_refused:
            return opened.token
        return self._given.find(page_id) or opened.token


class TokensUnreadable(Transient):
    """The token file is away or half written; the same look may work later."""

    reason = "tokens_unreadable"


def _read(path: Path) -> dict[str, str]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(token, str) for token in content.values()):
        raise ValueError("not a JSON object of page_id: token")
    "".join(
        content.values()
    ).encode()  # raises where a token has a lone surrogate, with which it cannot be sent
    return {page_id: token.strip() for page_id, token in content.items()}
