"""The ledger in Redis: requests for calls -> grants, refusals, or that it knows nothing of a Page.

It sends and decides nothing: the sums are spend.lua's, their parameters policy.py's; granting.py says what becomes of
an answer. Invariant: a server that has never run the script since it started may have forgotten what it was told, so
the ledger begins a new life in which every Page is unknown, in the same step that loads the script.
https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias
from zlib import crc32

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from worker.budget.policy import Lane, Limit, Shares, Spent, Window
from worker.errors import LedgerUnavailable

PAGE_PREFIX: Final = "leadsync:budget:page:"
CALLS_PREFIX: Final = "leadsync:budget:calls:"
SCOPES: Final = "leadsync:budget:scopes"
LEDGER: Final = "leadsync:budget:ledger"
APP_SCOPE: Final = "app"
SLOW_SHARE: Final = 0.1
"""Near the limit, calls of backfill and upkeep are this part of a bucket apart."""
_LANES: Final = (Lane.LIVE, Lane.WAITING, Lane.BACKFILL, Lane.UPKEEP)
_SCRIPT: Final = Path(__file__).with_name("spend.lua")


@dataclass(frozen=True, slots=True)
class Granted:
    """So many calls, and how many more of the `limit` could have been had; `on_trial`: scopes tried by this call."""

    calls: int
    left: int
    on_trial: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Refused:
    """None for so many seconds; `why` is `budget`, `slow` or the scope that is closed."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The ledger does not know the Page in this life of it: tell it what was spent."""

    epoch: str


Answered: TypeAlias = Granted | Refused | Unknown


@dataclass(frozen=True, slots=True)
class ScopeState:
    """What Meta said of a scope last: closed for `seconds` more, after so many throttles in a row; its percentage."""

    scope: str
    seconds: float
    strikes: int
    percent: float
    told_seconds_ago: float


@dataclass(frozen=True, slots=True)
class Account:
    """What the ledger has of one Page: calls in the window by lane, those saved, the limit in force."""

    limit: Limit
    spent: Mapping[str, int]
    saved: int


def page_scope(page_id: str) -> str:
    """The scope that a Page's calls fall in."""
    return f"page:{page_id}"


class Ledger:
    """The ledger as one process sees it. `client` belongs to this process' event loop.

    `clock_ms` replaces Redis' own clock; `machine` names the machine whose steady clock comes with the requests.
    """

    def __init__(
        self,
        client: "aioredis.Redis",
        window: Window,
        shares: Shares,
        *,
        machine: str,
        clock_ms: "int | None" = None,
    ) -> None:
        self._client = client
        self._window = window
        self._shares = shares
        self._machine = machine
        self.clock_ms = clock_ms
        self._source = _SCRIPT.read_text(encoding="utf-8")
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def request(
        self, page_id: str, calls: int, lane: Lane, scopes: Sequence[str], steady: float
    ) -> Answered:
        """Ask for `calls` calls, at `steady` seconds of this machine's steady clock."""
        window, shares = self._window, self._shares
        answer = await self._step(
            "request", page_id, lane.value, calls, self._machine, _ms(steady), _ms(window.jump),
            _ms(window.recent), _ms(window.trial), _ms(window.bucket * SLOW_SHARE),
            shares.live, shares.over_waiting, shares.most, shares.waiting, shares.backfill, shares.upkeep,
            APP_SCOPE, page_scope(page_id), *scopes,
        )  # fmt: skip
        words = [word.decode() if isinstance(word, bytes) else word for word in answer]
        if words[0] == "granted":
            return Granted(int(words[1]), int(words[2]), tuple(words[5:]), int(words[4]))
        if words[0] == "refused":
            return Refused(max(0.0, (int(words[1]) - int(words[3])) / 1000), str(words[2]))
        return Unknown(str(words[1]))

    async def seed(self, page_id: str, epoch: str, limit: Limit, spent: Sequence[Spent]) -> bool:
        """Tell what a Page has spent; false where the ledger began yet another life meanwhile."""
        told: list[str | int] = []
        for one in sorted(spent, key=lambda one: -one.age):
            told += (_ms(one.age), one.lane.value, one.calls)
        return bool(await self._step("seed", page_id, epoch, limit.calls, limit.told, *told))

    async def change_limit(self, page_id: str, limit: Limit) -> None:
        """Put a new limit in force, if the ledger knows the Page at all."""
        await self._step("limit", page_id, limit.calls, limit.told)

    async def tell(
        self,
        scope: str,
        *,
        percent: float | None,
        regain: timedelta,
        throttled: bool,
        link_page: str | None = None,
    ) -> float:
        """Meta's word on a scope; for how many seconds that closes it, 0 where it is open.

        `link_page`: a Page whose calls fall in this scope too, as has now been seen.
        """
        window = self._window
        ends, now = await self._step(
            "tell", "", scope, "" if percent is None else repr(percent), _ms(regain.total_seconds()),
            int(throttled), _ms(window.first_pause), _ms(window.longest_pause), link_page or "",
        )  # fmt: skip
        return max(0.0, (int(ends) - int(now)) / 1000)

    async def saved(self, page_id: str, calls: int) -> None:
        """Note calls that were not needed."""
        await self._step("saved", page_id, calls)

    async def account(self, page_id: str) -> Account | None:
        """What the ledger has of a Page, or None where it knows nothing."""
        return (await self.accounts([page_id])).get(page_id)

    def _sums(self, page_id: str, entries: Sequence[bytes], now: int) -> tuple[dict[str, int], int]:
        """Calls of the buckets that are still in the window, by lane, and those saved."""
        sums = dict.fromkeys((*(lane.value for lane in _LANES), "saved", "refused"), 0)
        for entry in entries:
            if self._counts(page_id, entry, now):
                for name, count in zip(sums, map(int, entry.split()[1:]), strict=True):
                    sums[name] += count
        saved = sums.pop("saved")
        del sums["refused"]
        return sums, saved

    async def accounts(self, page_ids: Sequence[str]) -> dict[str, Account]:
        """What the ledger has of these Pages, those that it knows; in two round trips at most."""
        sums = (*(lane.value for lane in _LANES), "saved")
        async with self._redis(), self._client.pipeline(transaction=False) as pipe:
            for page_id in page_ids:
                pipe.hmget(PAGE_PREFIX + page_id, "limit", "told", *sums)
                pipe.lindex(CALLS_PREFIX + page_id, 0)
            pipe.time()
            *answers, (seconds, _) = await pipe.execute()
        now = seconds * 1000 if self.clock_ms is None else self.clock_ms
        known: dict[str, Account] = {}
        stale: list[str] = []
        for page_id, values, oldest in zip(page_ids, answers[::2], answers[1::2], strict=True):
            if values[0] is None or values[1] is None:
                continue
            if oldest is not None and not self._counts(page_id, oldest, now):
                stale.append(page_id)  # the sums are those of its last request; buckets have left since
            limit, told, *counts = (int(value or 0) for value in values)
            spent = dict(zip(sums, counts, strict=True))
            saved = spent.pop("saved")
            known[page_id] = Account(Limit(limit, told, ""), spent, saved)
        async with self._redis(), self._client.pipeline(transaction=False) as pipe:
            for page_id in stale:
                pipe.lrange(CALLS_PREFIX + page_id, 0, -1)
            for page_id, entries in zip(stale, await pipe.execute(), strict=True):
                known[page_id] = Account(known[page_id].limit, *self._sums(page_id, entries, now))
        return known

    def _counts(self, page_id: str, entry: bytes, now: int) -> bool:
        """Whether a bucket's calls are still in the window."""
        bucket, held = _ms(self._window.bucket), self._phase(page_id) + _ms(self._window.hold)
        return (int(entry.split(b" ", 1)[0]) + 1) * bucket + held > now

    async def scopes(self, names: Sequence[str] | None = None) -> tuple[ScopeState, ...]:
        """What is known of these scopes, by default of all."""
        async with self._redis():
            seconds, micros = await self._client.time()
            if names is None:
                found = {name.decode(): text async for name, text in self._client.hscan_iter(SCOPES)}
            else:
                values = await self._client.hmget(SCOPES, list(names)) if names else []
                found = {name: text for name, text in zip(names, values, strict=True) if text}
        now = seconds * 1000 + micros // 1000 if self.clock_ms is None else self.clock_ms
        return tuple(
            _scope_state(name, text, now)
            for name, text in sorted(found.items())
            if not name.startswith("link:")
        )

    async def forget_scopes(self) -> int:
        """Drop what Meta said of scopes so long ago that it says nothing any more."""
        old = [
            state.scope
            for state in await self.scopes()
            if state.seconds <= 0 and state.strikes == 0 and state.told_seconds_ago > self._window.seconds
        ]
        if old:
            async with self._redis():
                await self._client.hdel(SCOPES, *old)
        return len(old)

    def _phase(self, page_id: str) -> int:
        """Pages' buckets end at different moments, so that what they free does not wake them all at once."""
        return crc32(page_id.encode()) % max(1, _ms(self._window.bucket))

    async def _step(self, step: str, page_id: str, *arguments: object) -> Any:
        keys = (PAGE_PREFIX + page_id, CALLS_PREFIX + page_id, SCOPES, LEDGER)
        window = self._window
        clock = "" if self.clock_ms is None else self.clock_ms
        told = (
            step, clock, _ms(window.bucket), _ms(window.hold), _ms(window.seconds), self._phase(page_id),
            secrets.token_hex(8), *arguments,
        )  # fmt: skip
        async with self._redis():
            try:
                return await self._client.evalsha(self._sha, len(keys), *keys, *map(str, told))
            except NoScriptError:
                pass
            # EVAL loads the script as it runs it, and what it runs first is the beginning of a new life.
            restart = ("restart", *told[1:7])
            await self._client.eval(self._source, len(keys), *keys, *map(str, restart))
            return await self._client.evalsha(self._sha, len(keys), *keys, *map(str, told))

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[None]:
        try:
            yield
        except NoScriptError:
            raise LedgerUnavailable("Redis lost the ledger's script; ask again") from None
        except ResponseError as error:
            raise LedgerUnavailable(f"Redis refuses the ledger: {str(error).split(' ', 1)[0]}") from None
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(f"Redis cannot grant calls now: {type(error).__name__}") from None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _scope_state(name: str, text: bytes, now: int) -> ScopeState:
    ends, strikes, _, percent, told_at = map(float, text.split())
    return ScopeState(
        scope=name,
        seconds=max(0.0, (ends - now) / 1000),
        strikes=int(strikes),
        percent=percent,
        told_seconds_ago=max(0.0, (now - told_at) / 1000),
    )
