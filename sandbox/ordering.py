"""The order of a form's leads: a place in it -> the leads behind it, or ahead of it, one after the other.

Graph's order is not documented, so it is a setting: by time, either way, or none that a caller could make out.
Nothing is held or sorted whole: historic leads are computed from their places, those created since stand sorted
in the world. What a place looks like to a caller is told in listing.py.

Invariant: within one walk two leads never change their order, whatever is created, deleted or expires meanwhile.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Literal

from sandbox.mixing import mix
from sandbox.request import TimeRange
from sandbox.world import Form, World

Key = tuple[int, int]
"""(created_time, number) of a lead."""
Order = Literal["newest_first", "oldest_first", "shuffled"]
ORDERS: tuple[Order, ...] = ("newest_first", "oldest_first", "shuffled")


class Ordered:
    """A form's leads of a time range, oldest first and newest last."""

    def __init__(self, world: World, form: Form, within: TimeRange, ties: int = 0) -> None:
        """`ties` other than 0 puts leads of the same second into an order that hangs on it."""
        self._world, self._form, self._ties = world, form, ties
        self._historic = _places(world, form, within)
        self._fresh = world.fresh_of(form)
        self._first = 0 if within.since is None else bisect_left(self._fresh, (within.since, -1))
        end = len(self._fresh) if within.until is None else bisect_left(self._fresh, (within.until, -1))
        self._end = max(self._first, end)

    def above(self, key: Key | None) -> Iterator[Key]:
        """The leads behind `key`, upwards; from the beginning without one."""
        if not self._ties:
            return self._upwards(key)
        if key is None:
            return self._shaken(self._upwards(None), down=False)
        rank = self._rank(key)
        keys = self._shaken(self._upwards((key[0], -1)), down=False)
        return (each for each in keys if each[0] != key[0] or self._rank(each) > rank)

    def below(self, key: Key | None) -> Iterator[Key]:
        """The leads ahead of `key`, downwards; from the end without one."""
        if not self._ties:
            return self._downwards(key)
        if key is None:
            return self._shaken(self._downwards(None), down=True)
        rank = self._rank(key)
        keys = self._shaken(self._downwards((key[0] + 1, -1)), down=True)
        return (each for each in keys if each[0] != key[0] or self._rank(each) < rank)

    def _shaken(self, keys: Iterator[Key], *, down: bool) -> Iterator[Key]:
        for _, group in groupby(keys, key=itemgetter(0)):
            yield from sorted(group, key=self._rank, reverse=down)

    def _rank(self, key: Key) -> tuple[int, int]:
        return mix(self._ties, key[1]), key[1]

    def _upwards(self, key: Key | None) -> Iterator[Key]:
        places, first = self._historic, self._first
        if key is not None:
            places = places[bisect_right(places, key, key=self._historic_key) :]
            first = max(first, bisect_right(self._fresh, key))
        historic = self._world.historic_keys(self._form, places)
        fresh = map(self._fresh.__getitem__, range(first, self._end))
        return _both(historic, fresh, len(places), self._end - first, down=False)

    def _downwards(self, key: Key | None) -> Iterator[Key]:
        places, end = self._historic, self._end
        if key is not None:
            places = places[: bisect_left(places, key, key=self._historic_key)]
            end = min(end, bisect_left(self._fresh, key))
        historic = self._world.historic_keys(self._form, places[::-1])
        fresh = map(self._fresh.__getitem__, range(end - 1, self._first - 1, -1))
        return _both(historic, fresh, len(places), end - self._first, down=True)

    def _historic_key(self, place: int) -> Key:
        return self._world.historic_key(self._form, place)


def _both(
    historic: Iterator[Key], fresh: Iterator[Key], old_count: int, new_count: int, *, down: bool
) -> Iterator[Key]:
    if new_count <= 0:
        return historic
    return merge(historic, fresh, reverse=down) if old_count else fresh


class Shuffled:
    """A form's leads of a time range in no order at all, the same for every caller with the same range."""

    def __init__(self, world: World, form: Form, within: TimeRange) -> None:
        self._world, self._form, self._within = world, form, within
        self._historic = _places(world, form, within)
        self._fresh = world.scattered_of(form)
        self._step = _coprime(len(self._historic))
        """Historic leads are met in steps of this round the circle of their places."""

    def above(self, key: Key | None) -> Iterator[Key]:
        """The leads behind `key`; from the beginning without one."""
        at = -1 if key is None else self._place(key)
        new = 0 if key is None else bisect_right(self._fresh, self._scattered(key))
        if key is not None and key[1] >= self._world.historic:
            at = len(self._historic)
        yield from self._old(range(at + 1, len(self._historic)))
        yield from self._new(range(new, len(self._fresh)))

    def below(self, key: Key | None) -> Iterator[Key]:
        """The leads ahead of `key`, backwards; from the end without one."""
        at = len(self._historic)
        new = len(self._fresh)
        if key is not None:
            new = bisect_left(self._fresh, self._scattered(key))
            at = at if key[1] >= self._world.historic else self._place(key)
        yield from self._new(range(new - 1, -1, -1))
        yield from self._old(range(at - 1, -1, -1))

    def _scattered(self, key: Key) -> tuple[int, int]:
        """Where the lead stands among those created since; a historic one before all of them."""
        return (self._world.scatter(key[1]), key[1]) if key[1] >= self._world.historic else (-1, -1)

    def _old(self, steps: range) -> Iterator[Key]:
        count, step = len(self._historic), self._step
        for each in steps:
            yield self._world.historic_key(self._form, self._historic[each * step % count])

    def _new(self, steps: range) -> Iterator[Key]:
        since, until = self._within.since, self._within.until
        for each in steps:
            number = self._fresh[each][1]
            time = self._world.created_time_of(number)
            if (since is None or time >= since) and (until is None or time < until):
                yield time, number

    def _place(self, key: Key) -> int:
        """How many steps it is to a historic lead; 0 where the range does not hold it."""
        place = self._world.place_of(key[1])
        if not self._historic or place not in self._historic:
            return 0
        count = len(self._historic)
        return (place - self._historic.start) * pow(self._step, -1, count) % count


Leads = Ordered | Shuffled


def _places(world: World, form: Form, within: TimeRange) -> range:
    """The places of the form's historic leads in the range."""
    places = range(world.history_of(form))

    def time(place: int) -> int:
        return world.historic_key(form, place)[0]

    first = 0 if within.since is None else bisect_left(places, within.since, key=time)
    end = len(places) if within.until is None else bisect_left(places, within.until, key=time)
    return places[first : max(first, end)]


def _coprime(count: int) -> int:
    """A step that meets every place of a circle of `count` once, far from its neighbours."""
    step = max(1, int(count * 0.381966))
    while math.gcd(step, count) > 1:
        step += 1
    return step
