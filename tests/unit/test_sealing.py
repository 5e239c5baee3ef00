"""Tokens are sealed for whom they are, and only a holder of the key opens them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ConfigurationError, TokenRefused
from worker.sealing import KeyRing, Sealed, TokenLocked, new_key, of_account, of_page, parse_keys

PAGE, OTHER = of_page("153125381133"), of_page("153125381134")
RING = KeyRing((new_key(),))


@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_a_sealed_token_opens_to_itself(token: str) -> None:
    """Whatever the token holds, it comes back as it was."""
    assert RING.open(RING.seal(token, PAGE), PAGE) == token


def test_sealing_twice_gives_different_bytes() -> None:
    """Nobody can tell from the database that two Pages have the same token."""
    assert RING.seal("token", PAGE).box != RING.seal("token", PAGE).box


@pytest.mark.parametrize("whose", [OTHER, of_account("153125381133"), ""])
def test_a_token_opens_for_its_own_page_only(whose: str) -> None:
    """A row copied from one Page to another, or to an account of the same id, is worth nothing."""
    with pytest.raises(TokenLocked, match="altered"):
        RING.open(RING.seal("token", PAGE), whose)


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_token_that_was_altered_does_not_open(place: int, bit: int) -> None:
    """One bit anywhere is noticed."""
    sealed = RING.seal("token", PAGE)
    box = bytearray(sealed.box)
    box[place % len(box)] ^= 1 << bit
    with pytest.raises(TokenLocked):
        RING.open(replace(sealed, box=bytes(box)), PAGE)


@pytest.mark.parametrize("box", [b"", b"short", b"twelve bytes"])
def test_bytes_that_were_never_sealed_are_refused(box: bytes) -> None:
    """Garbage in the row is a locked token, which parks its Page alone."""
    with pytest.raises(TokenLocked):
        RING.open(Sealed(RING.keys[0].key_id, box), PAGE)
    assert issubclass(TokenLocked, TokenRefused)


def test_any_key_opens_and_the_first_one_seals() -> None:
    """While keys are rotated, what the old one sealed opens, and what is sealed anew needs the new one."""
    old, new = new_key(), new_key()
    before = KeyRing((old,)).seal("token", PAGE)
    both = KeyRing((new, old))
    assert both.open(before, PAGE) == "token"
    after = both.seal("token", PAGE)
    assert after.key_id == new.key_id != before.key_id
    assert KeyRing((new,)).open(after, PAGE) == "token"


def test_a_missing_key_is_named_by_its_id() -> None:
    """The operator learns which key to give back."""
    sealed = RING.seal("hunter2", PAGE)
    with pytest.raises(TokenLocked, match=sealed.key_id) as told:
        KeyRing((new_key(),)).open(sealed, PAGE)
    assert "hunter2" not in str(told.value)


def test_without_a_key_nothing_is_sealed() -> None:
    """The error says how to get one."""
    with pytest.raises(ConfigurationError, match="leadsync keys generate"):
        KeyRing().seal("token", PAGE)


def test_keys_are_read_from_lines_and_commas() -> None:
    """The same text serves in a variable and in a file, with comments."""
    first, second, third = new_key(), new_key(), new_key()
    text = f"# of 2026\n {first.text} , {second.text}\n\n{third.text}  # the oldest\n"
    assert parse_keys(text) == (first, second, third)
    assert parse_keys("") == parse_keys("\n # nothing\n") == ()


@pytest.mark.parametrize(
    "word",
    ["hunter2", "aHVudGVyMg==", new_key().text[:-2], new_key().text + "A"],
    ids=["no base64", "too short", "cut off", "one too many"],
)
def test_a_word_that_is_no_key_is_refused_by_its_place(word: str) -> None:
    """The message quotes nothing of it."""
    with pytest.raises(ValueError, match="key 2 is not") as told:
        parse_keys(f"{new_key().text},{word}")
    assert word not in str(told.value)


def test_no_repr_tells_a_key_or_what_it_sealed() -> None:
    """Printed in a traceback, key ring and sealed token stay closed."""
    key = new_key()
    sealed = KeyRing((key,)).seal("hunter2", PAGE)
    shown = f"{key!r} {KeyRing((key,))!r} {sealed!r}"
    assert not [secret for secret in (key.text, repr(key.secret), repr(sealed.box)) if secret in shown]
