"""Listings: the leads behind a cursor -> one result page with cursors.

A cursor holds the time and number of the lead it points at, so leads that arrive while someone pages
neither shift nor repeat what is listed. In which order leads stand is told in ordering.py; rendering them is left
to reads.py.

Invariant: following `after` from the first page to the last meets each lead that stood there all along once.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from sandbox.errors import BAD_CURSOR
from sandbox.ordering import Key, Leads
from sandbox.request import GraphRefusal

_START: Final = "start"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a listing; `key` None is before its first lead."""

    key: Key | None
    rested: bool = False
    """An empty result page was already answered here."""
    walk: int = 0
    """What the order of leads of the same second hangs on, from the first result page to the last."""
    issued_at: float = 0.0

    def opaque(self) -> str:
        """As it is sent."""
        time, number = (_START, 0) if self.key is None else self.key
        text = f"{time}:{number}:{int(self.rested)}:{self.walk}:{self.issued_at:.3f}"
        return base64.urlsafe_b64encode(text[::-1].encode()).decode().rstrip("=") + "ZD"


def read_cursor(opaque: str) -> Cursor:
    """The place that an opaque cursor stands for. Raises GraphRefusal where it is none of ours."""
    try:
        text = base64.urlsafe_b64decode(opaque.removesuffix("ZD") + "==").decode()[::-1]
        time, number, rested, walk, issued_at = text.split(":")
        key = None if time == _START else (int(time), int(number))
        return Cursor(key, rested == "1", int(walk), float(issued_at))
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


@dataclass(frozen=True, slots=True)
class Reader:
    """How to page through leads."""

    accept: Callable[[Key], bool]
    """Whether this lead is listed at all."""
    downwards: bool
    """From the newest to the oldest."""
    shorten: Callable[[int, int], int]
    """(number of the first lead, limit) -> how many leads the page holds though there may be more."""
    mark: Cursor
    """What every cursor of the answer has in common."""

    def after(self, leads: Leads, cursor: Cursor | None, limit: int) -> ResultPage:
        """The result page behind `cursor`, or the first one."""
        key = cursor.key if cursor else None
        found, more = self._take(leads.below(key) if self.downwards else leads.above(key), limit)
        if more and not (cursor and cursor.rested) and self.shorten(found[0][1], limit) == 0:
            rest = replace(self.mark, key=key, rested=True)
            return ResultPage((), rest, rest, has_next=True, has_previous=key is not None)
        if more:
            found = found[: max(1, self.shorten(found[0][1], limit))]
        return self._page(found, has_next=more, has_previous=key is not None)

    def before(self, leads: Leads, cursor: Cursor, limit: int) -> ResultPage:
        """The result page ahead of `cursor`; nothing stands ahead of the beginning."""
        if cursor.key is None:
            return self._page([], has_next=False, has_previous=False)
        keys = leads.above(cursor.key) if self.downwards else leads.below(cursor.key)
        found, more = self._take(keys, limit)
        return self._page(found[::-1], has_next=True, has_previous=more)

    def _take(self, keys: Iterator[Key], limit: int) -> tuple[list[Key], bool]:
        """Up to `limit` leads that are listed, and whether there are more."""
        found: list[Key] = []
        for key in filter(self.accept, keys):
            if len(found) == limit:
                return found, True
            found.append(key)
        return found, False

    def _page(self, found: list[Key], *, has_next: bool, has_previous: bool) -> ResultPage:
        if not found:
            return ResultPage((), None, None, has_next=False, has_previous=False)
        before, after = replace(self.mark, key=found[0]), replace(self.mark, key=found[-1])
        numbers = tuple([number for _, number in found])
        return ResultPage(numbers, before, after, has_next, has_previous)
