"""Access tokens of the simulated world: issued, derived, exchanged, expired, revoked.

    user's token -> Page tokens derived from it        short-lived -> long-lived

The first tokens follow from the seed, so that a restarted sandbox still knows those it gave out at its start; what
happened to tokens since is forgotten. What their holder may do is told in grants.py and decided in permissions.py.

Invariant: a token that was revoked or has expired stays dead, and no two tokens are equal.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from sandbox.grants import Grants

UserKind = Literal["user", "system_user"]
USER_KINDS: Final[tuple[UserKind, ...]] = ("user", "system_user")
Life = Literal["short", "long", "never"]
LIVES: Final[tuple[Life, ...]] = ("short", "long", "never")
EXPIRED: Final = "190/463"
NO_ROLE: Final = "190/492"


def page_token(seed: int, page_id: str) -> str:
    """The first token of this Page."""
    return _text(seed, "G", f"page:{page_id}")


def user_token(seed: int) -> str:
    """The first token of the user, who may read every Page of this world."""
    return _text(seed, "U", "user")


def _text(seed: int, letter: str, of: str) -> str:
    key = seed.to_bytes(16, "big", signed=True)
    return f"EAA{letter}{hashlib.blake2b(of.encode(), key=key, digest_size=40).hexdigest()}ZD"


@dataclass(frozen=True, slots=True)
class Holder:
    """A token: whom it speaks for and how long."""

    kind: str
    """user (a system user's too), page or app."""
    page_id: str | None
    """The one Page it speaks for; None for the user and the app."""
    token: str = field(repr=False)
    parent: str = field(default="", repr=False)
    """The user's token that a Page token was derived from."""
    issued_at: int = 0
    expires_at: int = 0
    """Unix seconds; 0 is never."""
    short: bool = False


class Tokens:
    """Every token of one world."""

    def __init__(
        self,
        *,
        seed: int,
        page_ids: Iterable[str],
        app: str,
        grants: Grants,
        user_kind: UserKind,
        lives: tuple[int, int],
        now: float,
    ) -> None:
        """`app` is the app's own token, `lives` the seconds that short- and long-lived ones of the user hold."""
        self.grants, self.user_kind = grants, user_kind
        self._seed, self._page_ids = seed, tuple(page_ids)
        self._lives: dict[Life, int] = {"short": lives[0], "long": lives[1], "never": 0}
        self._holders = {app: Holder("app", None, app)}
        self._deaths: dict[str, str] = {}
        """Dead token -> the error that it is refused with."""
        self._derived: dict[tuple[str, str], str] = {}
        self.of_user = ""
        """The user's newest token."""
        self.of_page: dict[str, str] = {}
        """Each Page's newest token, dead or alive."""
        self._issue(user_token(seed), "long", now)
        for page_id in self._page_ids:
            self._derive(page_token(seed, page_id), self._holders[self.of_user], page_id, now)

    def holder(self, token: str) -> Holder | None:
        """Whom `token` speaks for, dead or alive; None if it is none of ours."""
        return self._holders.get(token)

    def death(self, holder: Holder, now: float) -> str:
        """The name of the error that the token is refused with; empty while it lives."""
        if error := self._deaths.get(holder.token):
            return error
        if holder.expires_at and now >= holder.expires_at:
            return EXPIRED
        return NO_ROLE if holder.page_id and not self.grants.tasks(holder.page_id) else ""

    def alive(self, token: str, now: float) -> Holder | None:
        """Whom `token` speaks for; None if it is dead or none of ours."""
        holder = self.holder(token)
        return None if holder is None or self.death(holder, now) else holder

    def fresh(self, life: Life, now: float) -> Holder:
        """A new token of the user."""
        return self._issue(self._new("U", "user"), life, now)

    def exchanged(self, holder: Holder, now: float) -> Holder:
        """The long-lived token for a living one of the user; a long-lived one is given back as it is."""
        return self.fresh("long", now) if holder.short else holder

    def derived(self, user: Holder, page_id: str, now: float) -> str:
        """The Page token that goes with a living token of the user: the same until it dies, then a new one."""
        known = self._derived.get((user.token, page_id), "")
        if known and not self.death(self._holders[known], now):
            return known
        return self._derive(self._new("G", f"page:{page_id}"), user, page_id, now)

    def working(self, now: float) -> dict[str, str]:
        """A living token of each Page that has one, derived from the user's newest if need be."""
        user = self.alive(self.of_user, now)
        told = {}
        for page_id in self.grants.pages():
            if self.alive(self.of_page[page_id], now):
                told[page_id] = self.of_page[page_id]
            elif user:
                told[page_id] = self.derived(user, page_id, now)
        return told

    def revoke_user(self, error: str, now: float, token: str = "") -> None:
        """Kill one token of the user, or all that there are, and the Page tokens derived from it."""
        for holder in list(self._holders.values()):
            if holder.kind != "app" and token in ("", holder.token, holder.parent):
                self._revoke(holder, error, now)

    def revoke_pages(self, error: str, now: float, page_ids: Iterable[str]) -> None:
        """Kill all tokens of these Pages that there are; the user's live on."""
        pages = set(page_ids)
        for holder in list(self._holders.values()):
            if holder.page_id in pages:
                self._revoke(holder, error, now)

    def _revoke(self, holder: Holder, error: str, now: float) -> None:
        over = holder.expires_at and now >= holder.expires_at
        if over or holder.token in self._deaths:
            return
        if error == EXPIRED:
            # debug_token tells when it expired, so it has to have.
            self._holders[holder.token] = replace(holder, expires_at=int(now))
        else:
            self._deaths[holder.token] = error

    def _issue(self, text: str, life: Life, now: float) -> Holder:
        life = "never" if self.user_kind == "system_user" and life == "long" else life
        seconds = self._lives[life]
        at = int(now)
        holder = Holder(
            "user", None, text, "", at, at + seconds if life != "never" else 0, short=life == "short"
        )
        self._holders[text] = holder
        self.of_user = text
        return holder

    def _derive(self, text: str, user: Holder, page_id: str, now: float) -> str:
        # Of a long-lived token the Page tokens hold for ever, of a short-lived one as long as it.
        expires_at = user.expires_at if user.short else 0
        self._holders[text] = Holder("page", page_id, text, user.token, int(now), expires_at)
        self._derived[user.token, page_id] = self.of_page[page_id] = text
        return text

    def _new(self, letter: str, of: str) -> str:
        return _text(self._seed, letter, f"{of}:{len(self._holders)}")
