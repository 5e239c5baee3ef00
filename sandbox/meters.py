"""Who has used how much: the meter of every Page, ad account and user, and their limits.

Limits follow from the leads in the world, unless they are set by hand. usage.py does the sums; graph.py
decides who is asked about.

Invariant: a call is counted before it is judged, so refused calls count too, as Meta's do.
"""

from sandbox.config import SandboxConfig
from sandbox.usage import CALLS_PER_LEAD, Meter, Usage, usage_of
from sandbox.world import RETENTION_SECONDS, Page, World

_HOUR = 3_600
_ADS_CALLS_AN_HOUR = 100_000
"""Advanced access, plus 40 per active ad.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting"""
_CALLS_PER_AD = 40
_LIMIT_FRESH_SECONDS = 1.0
"""A Page's limit is worked out anew at most this often."""


class Meters:
    """All meters of one world."""

    def __init__(self, world: World, config: SandboxConfig) -> None:
        self._world, self._config = world, config
        self._pages = {page.page_id: Meter(config.limit_window_seconds) for page in world.pages}
        self._ads = {page.page_id: Meter(_HOUR) for page in world.pages}
        self._user = Meter(_HOUR)
        self._set: dict[str, int] = {}
        self._limits: dict[str, tuple[float, int]] = {}

    def page(self, page_id: str, now: float, calls: int = 0) -> Usage:
        """Count lead calls of a Page; its usage after them."""
        meter = self._pages[page_id]
        meter.count(now, calls)
        return usage_of(meter, self.limit(page_id, now), scope_id=page_id, kind="leadgen", now=now)

    def ads(self, page_id: str, now: float, calls: int = 0) -> Usage:
        """Count ad calls; each Page advertises with an ad account of its own."""
        meter, page = self._ads[page_id], self._world.page_by_id[page_id]
        meter.count(now, calls)
        ads = sum(len(form.ads) for form in page.forms)
        limit = _ADS_CALLS_AN_HOUR + _CALLS_PER_AD * ads
        return usage_of(meter, limit, scope_id=f"9{page_id[1:]}", kind="ads_management", now=now)

    def user(self, now: float, calls: int = 0) -> Usage:
        """Count calls of the user token."""
        self._user.count(now, calls)
        return usage_of(self._user, self._config.user_limit_calls, scope_id="user", kind="user", now=now)

    def used(self, page_id: str, now: float) -> int:
        """Lead calls of a Page in the window."""
        return self._pages[page_id].used(now)

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

    def set_limit(self, page_id: str, calls: int | None) -> None:
        """Set a Page's limit by hand, or (None) let it follow from its leads again."""
        if calls is None:
            self._set.pop(page_id, None)
        else:
            self._set[page_id] = calls

    def reset(self, page_id: str) -> None:
        """Forget the calls of a Page."""
        self._pages[page_id] = Meter(self._config.limit_window_seconds)
        self._ads[page_id] = Meter(_HOUR)

    def preset(self, page_id: str, calls: int, now: float) -> None:
        """As if the Page had made so many calls just now."""
        self._pages[page_id].count(now, calls)


def _recent_leads(world: World, page: Page, now: float) -> int:
    since = int(now - RETENTION_SECONDS) + 1
    return sum(world.count_since(form, since) for form in page.forms)
