"""Tokens of one process: opened from their rows for minutes, with the settings behind them."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from worker.errors import StoreUnavailable, TokenRefused
from worker.sealing import Key, KeyRing, Keys, KeysUnreadable, Sealed, TokenLocked, new_key, of_page
from worker.tokens import KEPT_SECONDS, GivenTokens, StoredTokens, TokenRow

T = TypeVar("T")
PAGE, OTHER = "153125381133", "153125381134"
KEY, LOST = new_key(), new_key()


@dataclass
class FakeRows:
    """Rows in memory; `away` is raised instead of an answer."""

    rows: dict[str, TokenRow] = field(default_factory=dict)
    away: Exception | None = None
    asked: int = 0

    def put(self, page_id: str, token: str, *, is_refused: bool = False, key: Key = KEY) -> None:
        self.rows[page_id] = TokenRow(KeyRing((key,)).seal(token, of_page(page_id)), is_refused)

    async def page_token(self, page_id: str) -> TokenRow | None:
        self.asked += 1
        if self.away is not None:
            raise self.away
        return self.rows.get(page_id)

    async def pages_with_tokens(self) -> tuple[str, ...]:
        if self.away is not None:
            raise self.away
        return tuple(self.rows)


class Bench:
    """Stored tokens with their neighbours, and a clock that stands still."""

    def __init__(self, given: dict[str, str] | None = None, keys: Keys | None = None) -> None:
        self.rows, self.at = FakeRows(), 5_000.0
        self.tokens = StoredTokens(
            self.rows, keys or Keys((KEY,), None), GivenTokens(given or {}, None), lambda: self.at
        )

    def token(self, page_id: str = PAGE) -> str:
        return run(self.tokens.token_for(page_id))

    def has_another(self, refused: str, page_id: str = PAGE) -> bool:
        return run(self.tokens.has_another(page_id, refused))


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_an_opened_token_is_kept_for_minutes_and_then_looked_up_anew() -> None:
    """Postgres is asked once in 300 seconds a Page; a token connected meanwhile counts from then on."""
    bench = Bench()
    bench.rows.put(PAGE, "first")
    assert [bench.token(), bench.token()] == ["first", "first"]
    bench.rows.put(PAGE, "second")
    bench.at += KEPT_SECONDS - 0.1
    assert (bench.token(), bench.rows.asked) == ("first", 1)
    bench.at += 0.1
    assert (bench.token(), bench.rows.asked) == ("second", 2)
    assert KEPT_SECONDS == 300


def test_a_token_taken_away_is_used_for_minutes_only() -> None:
    """After them the Page is refused."""
    bench = Bench()
    bench.rows.put(PAGE, "token")
    bench.token()
    bench.rows.rows.clear()
    bench.at += KEPT_SECONDS
    with pytest.raises(TokenRefused, match="leadsync connect"):
        bench.token()


def test_a_row_goes_before_the_settings() -> None:
    """Whoever connects a Page means that token; Pages without a row use the settings'."""
    bench = Bench({PAGE: "given", OTHER: "other"})
    bench.rows.put(PAGE, "stored")
    assert (bench.token(), bench.token(OTHER)) == ("stored", "other")


def test_a_refused_row_yields_to_the_settings() -> None:
    """Meta is known to refuse it, so a given token is the better one; without one it is tried all the same."""
    bench = Bench({PAGE: "given"})
    bench.rows.put(PAGE, "refused", is_refused=True)
    bench.rows.put(OTHER, "refused", is_refused=True)
    assert (bench.token(), bench.token(OTHER)) == ("given", "refused")


def test_that_there_was_none_is_not_kept() -> None:
    """A Page connected a moment after it was asked for is read with its token at once."""
    bench = Bench()
    with pytest.raises(TokenRefused):
        bench.token()
    bench.rows.put(PAGE, "connected")
    assert bench.token() == "connected"


def test_a_locked_row_falls_back_on_the_settings() -> None:
    """A key that was lost costs no Page whose token is given besides."""
    bench = Bench({PAGE: "given"})
    bench.rows.put(PAGE, "locked", key=LOST)
    assert bench.token() == "given"


def test_a_locked_row_with_nothing_behind_it_says_which_key_is_missing() -> None:
    """And once the key is back, or the Page connected again, its token is found at once."""
    bench = Bench()
    bench.rows.put(PAGE, "hunter2", key=LOST)
    for _ in range(2):
        with pytest.raises(TokenLocked, match=LOST.key_id) as told:
            bench.token()
        assert "hunter2" not in str(told.value)
    bench.rows.put(PAGE, "again")
    assert bench.token() == "again"


def test_another_page_s_row_is_worth_nothing() -> None:
    """A sealed token that was copied to another Page's row does not open there."""
    bench = Bench()
    bench.rows.put(OTHER, "token")
    bench.rows.rows[PAGE] = bench.rows.rows[OTHER]
    with pytest.raises(TokenLocked):
        bench.token()
    assert bench.token(OTHER) == "token"


@pytest.mark.parametrize("kept", [True, False])
def test_postgres_away_is_told_as_such(kept: bool) -> None:
    """No Page is parked for it, and none read with the settings' token in place of a row that may be there."""
    bench = Bench({PAGE: "given"})
    if kept:
        bench.rows.put(PAGE, "stored")
        bench.token()
        bench.at += KEPT_SECONDS
    bench.rows.away = StoreUnavailable("told")
    with pytest.raises(StoreUnavailable):
        bench.token()
    with pytest.raises(StoreUnavailable):
        run(bench.tokens.page_ids())


def test_postgres_away_does_not_end_a_kept_token() -> None:
    """For its minutes it serves without Postgres."""
    bench = Bench()
    bench.rows.put(PAGE, "stored")
    bench.token()
    bench.rows.away = StoreUnavailable("told")
    assert bench.token() == "stored"


def test_an_unreadable_key_file_is_told_as_such(tmp_path: Path) -> None:
    """The same look may work later: the Page is not parked."""
    bench = Bench(keys=Keys((), tmp_path / "missing"))
    bench.rows.put(PAGE, "stored")
    with pytest.raises(KeysUnreadable):
        bench.token()


def test_there_is_another_token_once_one_was_connected() -> None:
    """Asked after a refusal, the row is looked at anew, whatever was kept."""
    bench = Bench()
    bench.rows.put(PAGE, "dead")
    bench.token()
    assert not bench.has_another("dead")
    bench.rows.put(PAGE, "new")
    assert bench.has_another("dead")
    assert bench.token() == "new"
    assert not bench.has_another("new")


def test_the_settings_token_is_another_one() -> None:
    """Once the row's token is known to be refused, the given one is the next."""
    bench = Bench({PAGE: "given"})
    bench.rows.put(PAGE, "dead")
    bench.token()
    assert not bench.has_another("dead")
    bench.rows.put(PAGE, "dead", is_refused=True)
    assert bench.has_another("dead")
    assert not bench.has_another("given")


@pytest.mark.parametrize("away", [StoreUnavailable("told"), TokenRefused("told")])
def test_without_a_look_there_is_no_other_token(away: Exception) -> None:
    """Where the rows cannot be looked at, or hold nothing, the refusal stands."""
    bench = Bench()
    bench.rows.put(PAGE, "dead")
    bench.token()
    bench.rows.away = away
    assert not bench.has_another("dead")


def test_pages_with_a_token_come_from_both() -> None:
    """Each once, in order."""
    bench = Bench({PAGE: "given", "9": "given"})
    bench.rows.put(PAGE, "stored")
    bench.rows.put(OTHER, "stored")
    assert run(bench.tokens.page_ids()) == (PAGE, OTHER, "9")


def test_no_repr_tells_a_token() -> None:
    """Neither of the whole nor of what is kept or of a row."""
    bench = Bench({OTHER: "hunter2-given"})
    bench.rows.put(PAGE, "hunter2-stored")
    bench.token()
    bench.token(OTHER)
    shown = f"{bench.tokens!r} {vars(bench.tokens)!r} {bench.rows!r}"
    assert "hunter2" not in shown
    sealed: Sealed = bench.rows.rows[PAGE].sealed
    assert repr(sealed.box) not in shown
