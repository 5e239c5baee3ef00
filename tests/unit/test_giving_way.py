"""Backfills beside live leads, in simulated time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.fakes.time import loop_time, run_jumping
from worker.giving_way import LONGEST_REST_SECONDS, PLACES, Turns


class Walks:
    """Walks side by side, each with result pages of so many seconds' work."""

    def __init__(self, *, share: float, beside_live: bool) -> None:
        self.turns = Turns(share, loop_time)
        self.turns.beside_live = beside_live
        self.at_work = self.most = self.pages = 0
        self.worked = 0.0

    async def walk(self, *pages: float) -> None:
        for seconds in pages:
            async with self.turns.turn():
                self.at_work += 1
                self.most = max(self.most, self.at_work)
                await asyncio.sleep(seconds)
                self.at_work -= 1
            self.worked += seconds
            self.pages += 1


def timed(work: Coroutine[Any, Any, Any]) -> float:
    async def inner() -> float:
        began = loop_time()
        await work
        return loop_time() - began

    return run_jumping(inner())


async def together(*work: Coroutine[Any, Any, Any]) -> None:
    await asyncio.gather(*work)


def test_without_live_leads_result_pages_are_taken_side_by_side_and_nothing_rests() -> None:
    """All of the time is the backfill's, as far as there are connections."""
    walks = Walks(share=0.5, beside_live=False)
    took = timed(together(*(walks.walk(0.1, 0.1) for _ in range(6))))
    assert (walks.most, walks.pages) == (PLACES, 12)
    assert took == pytest.approx(walks.worked / PLACES)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_beside_live_leads_the_work_on_result_pages_takes_its_share_of_the_time(share: float) -> None:
    """One at a time, and each is followed by a rest of its own length's due, however many walks wait."""
    walks = Walks(share=share, beside_live=True)
    took = timed(together(*(walks.walk(0.02, 0.1, 0.05) for _ in range(8))))
    assert (walks.most, walks.pages) == (1, 24)
    assert walks.worked / took == pytest.approx(share)


def test_a_whole_share_gives_no_way() -> None:
    """Who has a core for each process can say so."""
    walks = Walks(share=1, beside_live=True)
    timed(together(*(walks.walk(0.1) for _ in range(6))))
    assert walks.most == PLACES


def test_a_write_that_hung_is_not_followed_by_as_long_a_rest() -> None:
    """It waited for Postgres, and the machine was idle meanwhile."""
    walks = Walks(share=0.1, beside_live=True)
    assert timed(walks.walk(60.0)) == pytest.approx(60 + LONGEST_REST_SECONDS)


def test_a_failed_write_gives_its_turn_away_at_once() -> None:
    """The error reaches the walk without a rest, and the next one is not held up."""
    turns = Turns(0.1, loop_time)
    turns.beside_live = True

    async def broken() -> None:
        async with turns.turn():
            await asyncio.sleep(1)
            raise OSError("gone")

    async def scenario() -> None:
        with pytest.raises(OSError, match="gone"):
            await broken()
        async with turns.turn():
            pass

    assert timed(scenario()) == pytest.approx(1)


def test_what_is_told_of_live_leads_holds_from_the_next_turn() -> None:
    """They stop coming in: turns that wait are taken side by side again, those that rest end first."""
    walks = Walks(share=0.5, beside_live=True)

    async def scenario() -> None:
        all_walks = asyncio.gather(*(walks.walk(0.1, 0.1, 0.1, 0.1) for _ in range(6)))
        await asyncio.sleep(0.5)
        assert walks.most == 1
        walks.turns.beside_live = False
        await all_walks

    timed(scenario())
    assert (walks.most, walks.pages) == (PLACES, 24)
