"""Rotating keys: killed anywhere, met by writers anywhere, every token opens with some key of the file."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import rotation
from worker.errors import ConfigurationError, StoreUnavailable
from worker.rotation import BATCH, add_key, drop_unused, outside, seal_anew
from worker.sealing import Key, KeyRing, Keys, Sealed, new_key, of_account, of_page, parse_keys
from worker.store.tokens import SealedRow

OLD, OTHER, NEW = new_key(), new_key(), new_key()
Place = tuple[bool, str]


def whose(place: Place) -> str:
    return of_page(place[1]) if place[0] else of_account(place[1])


@dataclass
class FakeRows:
    """Tokens in memory. `before` is run before each statement, with its number."""

    sealed: dict[Place, Sealed] = field(default_factory=dict)
    before: Callable[[int], None] = lambda _: None
    statements: "itertools.count[int]" = field(default_factory=itertools.count)
    batches: list[int] = field(default_factory=list)

    def put(self, place: Place, token: str, key: Key) -> None:
        self.sealed[place] = KeyRing((key,)).seal(token, whose(place))

    def opened(self, *keys: Key) -> dict[Place, str]:
        return {place: KeyRing(keys).open(sealed, whose(place)) for place, sealed in self.sealed.items()}

    async def keys_used(self) -> list[dict[str, Any]]:
        self.before(next(self.statements))
        used: dict[str, Counter[bool]] = {}
        for (is_page, _), sealed in self.sealed.items():
            used.setdefault(sealed.key_id, Counter())[is_page] += 1
        return [{"key_id": key_id, "pages": n[True], "accounts": n[False]} for key_id, n in used.items()]

    async def sealed_otherwise(
        self, key_id: str, most: int, after: SealedRow | None = None
    ) -> Sequence[SealedRow]:
        self.before(next(self.statements))
        begin = (after.is_page, after.owner_id) if after else (False, "")
        places = sorted(p for p, s in self.sealed.items() if s.key_id != key_id and p > begin)[:most]
        self.batches.append(len(places))
        return [SealedRow(*place, self.sealed[place]) for place in places]

    async def reseal(self, row: SealedRow, sealed: Sealed) -> bool:
        self.before(next(self.statements))
        place = (row.is_page, row.owner_id)
        if self.sealed[place] != row.sealed:
            return False
        self.sealed[place] = sealed
        return True


def rows_under(key: Key, pages: int = 3, accounts: int = 2) -> FakeRows:
    rows = FakeRows()
    places = [(True, str(n)) for n in range(100, 100 + pages)] + [
        (False, str(n)) for n in range(100, 100 + accounts)
    ]
    for place in places:
        rows.put(place, f"token of {place}", key)
    return rows


def seal(rows: FakeRows, *keys: Key) -> rotation.Resealed:
    return asyncio.run(seal_anew(rows, KeyRing(keys), lambda _: None))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token.keys"
    path.write_text(f"{OLD.text}\n")
    return path


def test_every_token_is_sealed_with_the_first_key() -> None:
    """Afterwards the new key alone opens all, Pages' and accounts', each for its own."""
    rows = rows_under(OLD)
    before = rows.opened(OLD)
    done = seal(rows, NEW, OLD)
    assert (done.moved, done.locked) == (5, {})
    assert rows.opened(NEW) == before
    assert asyncio.run(outside(rows, NEW.key_id)) == 0


def test_nothing_to_do_is_nothing_done() -> None:
    """A second run moves no token."""
    assert seal(rows_under(NEW), NEW, OLD) == rotation.Resealed(0, {})


def test_batches_are_bounded_and_progress_is_told() -> None:
    """However many tokens there are, no more than a batch is in memory, and each batch is told."""
    rows, told = rows_under(OLD, pages=2 * BATCH + 10, accounts=0), list[int]()
    asyncio.run(seal_anew(rows, KeyRing((NEW, OLD)), told.append))
    assert rows.batches[:3] == [BATCH, BATCH, 10]
    assert told == [BATCH, 2 * BATCH, 2 * BATCH + 10]


def test_a_locked_token_holds_up_no_other() -> None:
    """Tokens whose key we lack, more than a batch of them, are counted by that key and left as they are."""
    rows = rows_under(OTHER, pages=BATCH + 5, accounts=0)
    rows.put((True, "999"), "ours", OLD)
    locked = {place: sealed for place, sealed in rows.sealed.items() if place != (True, "999")}
    done = seal(rows, NEW, OLD)
    assert (done.moved, dict(done.locked)) == (1, {OTHER.key_id: BATCH + 5})
    assert locked.items() <= rows.sealed.items()


@given(st.data())
def test_a_token_written_meanwhile_is_never_lost_nor_old(data: st.DataObject) -> None:
    """Whoever connects a Page between any two statements, under either key, finds his token and no former one."""
    rows = rows_under(OLD)
    places = sorted(rows.sealed)
    writes = data.draw(
        st.dictionaries(st.integers(0, 20), st.tuples(st.sampled_from(places), st.sampled_from((OLD, NEW))))
    )
    expected = rows.opened(OLD)

    def write(number: int) -> None:
        if number in writes:
            place, key = writes[number]
            expected[place] = f"written at {number}"
            rows.put(place, expected[place], key)

    rows.before = write
    seal(rows, NEW, OLD)
    rows.before = lambda _: None
    assert rows.opened(NEW, OLD) == expected
    seal(rows, NEW, OLD)
    assert rows.opened(NEW) == expected


@pytest.mark.parametrize("at", range(8))
def test_interrupted_anywhere_it_goes_on_where_it_was(file: Path, at: int) -> None:
    """Ended at each of its statements, every token opens with the file's keys, and the next run needs no other key."""
    rows = rows_under(OLD)
    before, keys = rows.opened(OLD), Keys((), file)
    add_key(file, keys, "2026-11-24")

    def killed(number: int) -> None:
        if number == at:
            raise StoreUnavailable("killed")

    rows.before = killed
    with pytest.raises(StoreUnavailable):
        asyncio.run(seal_anew(rows, keys.ring(), lambda _: None))
    rows.before = lambda _: None
    assert rows.opened(*parse_keys(file.read_text())) == before
    seal(rows, *parse_keys(file.read_text()))
    assert rows.opened(parse_keys(file.read_text())[0]) == before


def test_a_writer_without_end_does_not_hold_the_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was left with the former key alone cannot keep the rotation going for ever."""
    rows = rows_under(OLD, pages=1, accounts=0)
    rows.before = lambda _: rows.put((True, "100"), "again", OLD)
    monkeypatch.setattr(rotation, "PASSES", 3)
    assert seal(rows, NEW, OLD).moved == 0
    assert rows.opened(OLD) == {(True, "100"): "again"}


def test_a_new_key_is_on_the_disk_and_read_before_it_seals(file: Path) -> None:
    """It stands first, the others behind it."""
    keys = Keys((OTHER,), file)
    key_id = add_key(file, keys, "2026-11-24")
    assert [key.key_id for key in keys.ring()] == [key_id, OLD.key_id, OTHER.key_id]
    assert "# made 2026-11-24\n" in file.read_text()


def test_a_key_that_another_wrote_over_never_seals(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is not what was just written, nothing is sealed with a key that may be in no file."""
    monkeypatch.setattr(rotation, "replace", lambda path, text: path.write_text(f"{OTHER.text}\n"))
    with pytest.raises(ConfigurationError, match="by another meanwhile"):
        add_key(file, Keys((), file), "2026-11-24")


def test_keys_that_seal_nothing_are_taken_out(file: Path) -> None:
    """One that is still needed stays, and so does the first, needed or not."""
    spare = new_key()
    file.write_text(f"# ours\n{NEW.text}\n{OLD.text}\n{spare.text}  # spare\n{NEW.text}\n")
    rows = rows_under(OLD)
    assert asyncio.run(drop_unused(file, rows)) == (spare.key_id,)
    assert parse_keys(file.read_text()) == (NEW, OLD, NEW)
    assert file.read_text().startswith("# ours\n")
    assert asyncio.run(drop_unused(file, rows)) == ()


def test_a_token_that_comes_as_its_key_goes_brings_the_key_back(file: Path) -> None:
    """Whoever stores a token under a key at the moment of its end can still open it."""
    file.write_text(f"{NEW.text}\n{OLD.text}\n{OTHER.text}\n")
    rows = rows_under(NEW)

    def write(number: int) -> None:
        if number == 1:
            rows.put((True, "100"), "late", OLD)

    rows.before = write
    assert asyncio.run(drop_unused(file, rows)) == (OTHER.key_id,)
    assert parse_keys(file.read_text()) == (NEW, OLD)


@pytest.mark.parametrize("content", [b"hunter2\n", b"\xff\xfe", None])
def test_an_unreadable_file_is_told_and_not_quoted(file: Path, content: bytes | None) -> None:
    """One line, which names the setting."""
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="TOKEN_KEYS_FILE: ") as told:
        asyncio.run(drop_unused(file, rows_under(OLD)))
    assert "hunter2" not in str(told.value)
