"""Who has used how much: the scope of every Page, ad account and user and of the app, and their limits.

Limits follow from the leads and ads in the world, unless they are set by hand. blocks.py counts and judges;
graph.py decides who is asked about.

Invariant: a call that is refused by one scope counts for every scope it falls in.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sandbox.blocks import Scope, Standing
from sandbox.config import SandboxConfig
from sandbox.usage import CALLS_PER_LEAD, Usage, usage_of
from sandbox.world import RETENTION_SECONDS, Page, World

_ADS_CALLS_AN_HOUR = 100_000
"""Advanced access, plus 40 per active ad.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting"""
_CALLS_PER_AD = 40
_LIMIT_FRESH_SECONDS = 1.0
"""A Page's limit is worked out anew at most this often."""


class Metered(NamedTuple):
    """One scope after a call: where it stands, and how headers tell it."""

    scope_id: str
    standing: Standing
    usage: Usage


class Meters:
    """All scopes of one world."""

    def __init__(self, world: World, config: SandboxConfig) -> None:
        self._world, self._config = world, config
        self._pages = {
            page.page_id: self._scope(page.page_id, config.limit_window_seconds) for page in world.pages
        }
        self._ads = {
            page.page_id: self._scope(f"9{page.page_id[1:]}", config.hour_seconds) for page in world.pages
        }
        self._user = self._scope("user", config.hour_seconds)
        self._app = self._scope("app", config.hour_seconds)
        self._set: dict[str, int] = {}
        self._ads_set: dict[str, int] = {}
        self._app_set: int | None = None
        self._limits: dict[str, tuple[float, int]] = {}

    def page(self, page_id: str, now: float, *, call: bool = False) -> Metered:
        """A Page's lead calls, after one more if it is a `call`."""
        return self._metered(self._pages[page_id], self.limit(page_id, now), "leadgen", now, call=call)

    def ads(self, page_id: str, now: float, *, call: bool = False) -> Metered:
        """The ad calls of a Page; each advertises with an ad account of its own."""
        return self._metered(self._ads[page_id], self.ads_limit(page_id), "ads_management", now, call=call)

    def user(self, now: float, *, call: bool = False) -> Metered:
        """The calls of the user token."""
        return self._metered(self._user, self._config.user_limit_calls, "user", now, call=call)

    def app(self, now: float, *, call: bool = False) -> Metered | None:
        """The calls of all tokens of the app; None while it has no limit."""
        limit = self.app_limit()
        if limit is None:
            # Counted all the same: a limit that is set later finds the calls already made.
            if call:
                self._app.meter.count(now)
            return None
        return self._metered(self._app, limit, "app", now, call=call)

    def used(self, page_id: str, now: float) -> int:
        """Lead calls of a Page in the window."""
        return self._pages[page_id].meter.used(now)

    def limit(self, page_id: str, now: float) -> int:
        """Lead calls that a Page may make in the window."""
        if page_id in self._set:
            return self._set[page_id]
        if self._config.limit_calls is not None:
            return self._config.limit_calls
        known = self._limits.get(page_id)
        if known is None or now >= known[0] + _LIMIT_FRESH_SECONDS:
            leads = _recent_leads(self._world, self._world.page_by_id[page_id], now)
            known = now, max(self._config.limit_floor, CALLS_PER_LEAD * leads)
            self._limits[page_id] = known
        return known[1]

    def ads_limit(self, page_id: str) -> int:
        """Calls an hour of a Page's ad account."""
        if page_id in self._ads_set:
            return self._ads_set[page_id]
        if self._config.ads_limit_calls is not None:
            return self._config.ads_limit_calls
        ads = sum(len(form.ads) for form in self._world.page_by_id[page_id].forms)
        return _ADS_CALLS_AN_HOUR + _CALLS_PER_AD * ads

    def app_limit(self) -> int | None:
        """Calls an hour of the whole app; None is without a limit."""
        return self._config.app_limit_calls if self._app_set is None else self._app_set

    def set_limit(self, page_id: str, calls: int | None) -> None:
        """Set a Page's limit by hand, or (None) let it follow from its leads again; ends its block."""
        _set(self._set, page_id, calls)
        self._pages[page_id].lift()

    def set_ads_limit(self, page_id: str, calls: int | None) -> None:
        """Set the limit of a Page's ad account by hand, or (None) give it back; ends its block."""
        _set(self._ads_set, page_id, calls)
        self._ads[page_id].lift()

    def set_app_limit(self, calls: int | None) -> None:
        """Set the app's limit by hand, or (None) as it was at the start; ends its block."""
        self._app_set = calls
        self._app.lift()

    def reset(self, page_id: str) -> None:
        """Forget the calls of a Page."""
        self._pages[page_id].forget()
        self._ads[page_id].forget()

    def reset_shared(self) -> None:
        """Forget the calls of the user and of the app."""
        self._user.forget()
        self._app.forget()

    def preset(self, page_id: str, calls: int, now: float) -> None:
        """As if the Page had made so many calls just now."""
        self._pages[page_id].meter.count(now, calls)

    def clear_most(self) -> None:
        """Forget what windows have held at most; what they hold now stays."""
        for scope in (*self._pages.values(), *self._ads.values(), self._user, self._app):
            scope.meter.most = 0

    def windows(self, now: float, into_block: Mapping[str, int]) -> dict[str, object]:
        """Every window as JSON: of Pages and of their ad accounts by Page, of the user and the app by name.
        `into_block` is the journal's count by scope."""

        def told(scope: Scope, limit: int | None) -> dict[str, object]:
            return {**_window(scope, limit, now), "into_block": into_block.get(scope.scope_id, 0)}

        pages, ads = self._pages.items(), self._ads.items()
        return {
            "windows": {page_id: told(scope, self.limit(page_id, now)) for page_id, scope in pages},
            "ads_windows": {page_id: told(scope, self.ads_limit(page_id)) for page_id, scope in ads},
            "shared_windows": {
                "user": told(self._user, self._config.user_limit_calls),
                "app": told(self._app, self.app_limit()),
            },
        }

    def _scope(self, scope_id: str, window_seconds: int) -> Scope:
        return Scope(scope_id, window_seconds, self._config.block_penalty_seconds)

    def _metered(self, scope: Scope, limit: int, kind: str, now: float, *, call: bool) -> Metered:
        standing = scope.call(limit, now) if call else scope.standing(limit, now)
        rounding = self._config.usage_rounding
        usage = usage_of(standing, scope_id=scope.scope_id, kind=kind, rounding=rounding)
        return Metered(scope.scope_id, standing, usage)


def _window(scope: Scope, limit: int | None, now: float) -> dict[str, object]:
    return {
        "used": scope.meter.used(now),
        "limit": limit,
        "most": scope.meter.most,
        "window_seconds": scope.meter.window_seconds,
        "blocked_until": None if limit is None else scope.blocked_until(limit, now),
    }


def _set(limits: dict[str, int], page_id: str, calls: int | None) -> None:
    if calls is None:
        limits.pop(page_id, None)
    else:
        limits[page_id] = calls


def _recent_leads(world: World, page: Page, now: float) -> int:
    since = int(now - RETENTION_SECONDS) + 1
    return sum(world.count_since(form, since) for form in page.forms)
