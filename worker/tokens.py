"""A Page's id -> its access token, from the settings or from a JSON file that is read again when it changes.

It never checks a token with Meta and never writes one down. Invariant: a token appears in no message and no repr.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from worker.errors import TokenRefused, Transient


class PageTokens(Protocol):
    """Where Page tokens come from."""

    def token_for(self, page_id: str) -> str:
        """The Page's token. Raises TokenRefused where there is none."""


class SettingsTokens:
    """Tokens given as a mapping and, over it, by a file with one JSON object `{page_id: token}`."""

    def __init__(self, given: Mapping[str, str], path: Path | None) -> None:
        self._given = dict(given)
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._from_file: dict[str, str] = {}
        self._trouble: str | None = None

    def token_for(self, page_id: str) -> str:
        self._refresh()
        token = self._from_file.get(page_id) or self._given.get(page_id)
        if not token and self._trouble:
            raise TokensUnreadable(f"PAGE_TOKENS_FILE cannot be read: {self._trouble}")
        if not token:
            raise TokenRefused(f"no token for Page {page_id}; add it to PAGE_TOKENS or PAGE_TOKENS_FILE")
        return token

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
        except (OSError, ValueError) as error:
            # While the file is being replaced the tokens that we have are the best we know.
            self._trouble = type(error).__name__


class TokensUnreadable(Transient):
    """The token file is away or half written; the same look may work later."""

    reason = "tokens_unreadable"


def _read(path: Path) -> dict[str, str]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(token, str) for token in content.values()):
        raise ValueError("not a JSON object of page_id: token")
    return {page_id: token.strip() for page_id, token in content.items()}
