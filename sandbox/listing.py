"""Listings: a form's or ad's leads, in order -> one result page with cursors.

A cursor holds the time and number of the lead it points at, so leads that arrive while someone pages
neither shift nor repeat what is listed. Graph's order is not documented; ours is a setting. Rendering leads
is left to reads.py.

Invariant: following `after` from the first page to the last meets each lead that stood there all along once.
"""

import base64
import binascii
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sandbox.errors import parameter
from sandbox.request import GraphRefusal, TimeRange
from sandbox.world import Form, World

Key = tuple[float, int]
"""(created_time, number)."""
BAD_CURSOR: Final = parameter("Invalid cursor: the after or before cursor is malformed or no longer valid.")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a listing. `rested`: an empty result page was already answered here."""

    key: Key
    rested: bool = False

    def opaque(self) -> str:
        """As it is sent."""
        text = f"{self.key[0]}:{self.key[1]}:{int(self.rested)}"
        return base64.urlsafe_b64encode(text[::-1].encode()).decode().rstrip("=") + "ZD"


def read_cursor(opaque: str) -> Cursor:
    """The place that an opaque cursor stands for. Raises GraphRefusal where it is none of ours."""
    try:
        text = base64.urlsafe_b64decode(opaque.removesuffix("ZD") + "==").decode()[::-1]
        time, number, rested = text.split(":")
        return Cursor((float(time), int(number)), rested == "1")
    except (ValueError, binascii.Error):
        raise GraphRefusal(BAD_CURSOR) from None


@dataclass(frozen=True, slots=True)
class ResultPage:
    """The numbers of the leads on one result page; cursors are None where there is nothing to point at."""

    numbers: tuple[int, ...]
    before: Cursor | None
    after: Cursor | None
    has_next: bool
    has_previous: bool


class Listing:
    """A form's leads within a time range, oldest first: the historic ones, then those created since."""

    def __init__(self, world: World, form: Form, within: TimeRange) -> None:
        self._world, self._form = world, form
        self._fresh = world.fresh_of(form)
        self._historic = range(*self._places(within))
        first = 0 if within.since is None else bisect_left(self._fresh, (within.since, -1))
        end = len(self._fresh) if within.until is None else bisect_left(self._fresh, (within.until, -1))
        self._range = range(first, max(first, end))

    def __len__(self) -> int:
        return len(self._historic) + len(self._range)

    def key(self, index: int) -> tuple[int, int]:
        """(created_time, number) of the lead at `index`."""
        if index < len(self._historic):
            return self._world.historic_key(self._form, self._historic[index])
        return self._fresh[self._range[index - len(self._historic)]]

    def index(self, key: Key) -> int:
        """Where a lead with `key` stands or would stand."""
        if key[1] < self._world.historic:
            return bisect_left(
                self._historic, key, key=lambda place: self._world.historic_key(self._form, place)
            )
        place = bisect_left(self._fresh, key) - self._range.start
        return len(self._historic) + min(max(0, place), len(self._range))

    def _places(self, within: TimeRange) -> tuple[int, int]:
        places = range(self._world.history_of(self._form))

        def time(place: int) -> int:
            return self._world.historic_key(self._form, place)[0]

        first = 0 if within.since is None else bisect_left(places, within.since, key=time)
        end = len(places) if within.until is None else bisect_left(places, within.until, key=time)
        return first, max(first, end)


@dataclass(frozen=True, slots=True)
class Reader:
    """How to page through a listing."""

    accept: Callable[[int], bool]
    """Whether the lead with this number is listed at all."""
    newest_first: bool
    shorten: Callable[[int, int], int]
    """(number of the first lead, limit) -> how many leads the page holds though there may be more."""

    def after(self, listing: Listing, cursor: Cursor | None, limit: int) -> ResultPage:
        """The result page behind `cursor`, or the first one."""
        numbers, more, keys = self._walk(listing, cursor, limit, self.newest_first)
        if more and not (cursor and cursor.rested) and self.shorten(numbers[0], limit) == 0:
            at = Cursor(
                cursor.key if cursor else (math.inf if self.newest_first else -math.inf, self._edge(listing))
            )
            rest = Cursor(at.key, rested=True)
            return ResultPage((), rest, rest, has_next=True, has_previous=cursor is not None)
        if more:
            held = max(1, self.shorten(numbers[0], limit))
            numbers, keys = numbers[:held], keys[:held]
        return _page(numbers, keys, has_next=more, has_previous=cursor is not None)

    def before(self, listing: Listing, cursor: Cursor, limit: int) -> ResultPage:
        """The result page ahead of `cursor`."""
        numbers, more, keys = self._walk(listing, cursor, limit, not self.newest_first)
        return _page(numbers[::-1], keys[::-1], has_next=True, has_previous=more)

    def _edge(self, listing: Listing) -> int:
        """A number that puts an infinite time at the end where paging starts."""
        return 2**62 if self.newest_first else -1

    def _walk(
        self, listing: Listing, cursor: Cursor | None, limit: int, down: bool
    ) -> tuple[list[int], bool, list[tuple[int, int]]]:
        if down:
            at = (len(listing) if cursor is None else listing.index(cursor.key)) - 1
            steps = range(at, -1, -1)
        else:
            at = 0 if cursor is None else listing.index(cursor.key)
            if cursor is not None and at < len(listing) and listing.key(at) == cursor.key:
                at += 1
            steps = range(at, len(listing))
        numbers: list[int] = []
        keys: list[tuple[int, int]] = []
        for index in steps:
            key = listing.key(index)
            if self.accept(key[1]):
                if len(numbers) == limit:
                    return numbers, True, keys
                numbers.append(key[1])
                keys.append(key)
        return numbers, False, keys


def _page(
    numbers: list[int], keys: list[tuple[int, int]], *, has_next: bool, has_previous: bool
) -> ResultPage:
    before = Cursor(keys[0]) if keys else None
    after = Cursor(keys[-1]) if keys else None
    return ResultPage(tuple(numbers), before, after, has_next and bool(keys), has_previous and bool(keys))
