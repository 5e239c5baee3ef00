"""One scope's calls against its limit: calls -> what is used, whether the last is refused, when access returns.

Going over the limit opens a block. It lasts until enough calls have left the window, and every call made into
it counts, is refused, and pushes its end back by a penalty: "continuing to make calls will continue to increase
your call count and extend the time before calls will be successful again".
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
By how much Meta pushes is not documented; the penalty is a setting. Which calls fall into which scope is
told by meters.py, how a standing is told to the caller by usage.py.

Invariant: a call is counted before it is judged, and while a block lasts every call is refused.
"""

from typing import NamedTuple

from sandbox.rolling import Meter


class Standing(NamedTuple):
    """Where a scope stands after a call, or now."""

    used: int
    limit: int
    over: bool = False
    """The call found the window full."""
    into_block: bool = False
    """The call was made while a block lasted."""
    regain_seconds: float = 0.0
    """Until a call can succeed again; 0 while one can."""

    @property
    def refused(self) -> bool:
        """Whether the call is refused."""
        return self.over or self.into_block


class Scope:
    """A Page, an ad account, a user or an app: whatever has a limit of its own."""

    __slots__ = ("_block_limit", "_penalty_seconds", "_pushed_seconds", "_until", "meter", "scope_id")

    def __init__(self, scope_id: str, window_seconds: float, penalty_seconds: float) -> None:
        self.scope_id = scope_id
        self.meter = Meter(window_seconds)
        self._penalty_seconds = penalty_seconds
        self._until = self._pushed_seconds = 0.0
        self._block_limit = 0

    def call(self, limit: int, now: float) -> Standing:
        """Count and judge one call made now."""
        into_block = now < self._until and self.blocked_until(limit, now) is not None
        used = self.meter.count(now)
        if used < limit and not into_block:
            return Standing(used, limit)
        over = used > limit
        if over or into_block:
            self._push(limit, now, into_block=into_block)
        return Standing(used, limit, over, into_block, self._regain_seconds(limit, now))

    def standing(self, limit: int, now: float) -> Standing:
        """Where the scope stands, without a call."""
        return Standing(self.meter.used(now), limit, regain_seconds=self._regain_seconds(limit, now))

    def blocked_until(self, limit: int, now: float) -> float | None:
        """When the block ends; None if there is none."""
        if now >= self._until:
            return None
        if limit > self._block_limit:
            # A limit that grew (new leads) lets calls through sooner; what was pushed on top stays.
            end = now + self.meter.regained_in(limit, now) + self._pushed_seconds
            self._until, self._block_limit = min(self._until, end), limit
        return self._until if now < self._until else None

    def lift(self) -> None:
        """End the block; the next call over the limit opens a new one."""
        self._until = self._pushed_seconds = 0.0
        self._block_limit = 0

    def forget(self) -> None:
        """Forget all calls and the block."""
        self.meter = Meter(self.meter.window_seconds)
        self.lift()

    def _push(self, limit: int, now: float, *, into_block: bool) -> None:
        """Open the block, or push its end back."""
        end = now + self.meter.regained_in(limit, now)
        if into_block:
            self._pushed_seconds += self._penalty_seconds
            end = max(end, self._until + self._penalty_seconds)
        else:
            self._pushed_seconds = 0.0
        self._until, self._block_limit = end, limit

    def _regain_seconds(self, limit: int, now: float) -> float:
        # A limit that fell during a block can need longer than the block.
        blocked = (self.blocked_until(limit, now) or now) - now
        return max(blocked, self.meter.regained_in(limit, now))
