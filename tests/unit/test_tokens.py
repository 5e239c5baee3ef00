"""Where Page tokens come from: the settings and, over them, a file that may change at any moment."""

import json
import os
from pathlib import Path

import pytest

from worker.errors import Transient
from worker.tokens import GivenTokens, TokensUnreadable

PAGE, OTHER = "153125381133", "153125381134"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def write(file: Path, content: object) -> None:
    """Replace the file's content, with a time of change that is surely another one."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_tokens_of_the_settings_serve_without_a_file() -> None:
    """A Page's token is the one given for it."""
    assert GivenTokens({PAGE: "given"}, None).find(PAGE) == "given"


def test_the_file_goes_before_the_settings(file: Path) -> None:
    """A token in the file replaces the given one of its Page and no other."""
    write(file, {PAGE: "filed"})
    tokens = GivenTokens({PAGE: "given", OTHER: "other"}, file)
    assert (tokens.find(PAGE), tokens.find(OTHER)) == ("filed", "other")


def test_another_page_s_token_is_never_found() -> None:
    """A Page without a token has none."""
    assert GivenTokens({PAGE: "secret"}, None).find(OTHER) is None


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_token_is_none(file: Path, empty: str) -> None:
    """A Page with an empty token is refused before Meta is asked with it."""
    write(file, {PAGE: empty})
    assert GivenTokens({}, file).find(PAGE) is None


def test_a_changed_file_is_read_again(file: Path) -> None:
    """A token renewed, added or taken away counts from the next call, without a restart."""
    write(file, {PAGE: "old"})
    tokens = GivenTokens({}, file)
    assert tokens.find(PAGE) == "old"
    write(file, {PAGE: "new", OTHER: "added"})
    assert (tokens.find(PAGE), tokens.find(OTHER)) == ("new", "added")
    write(file, {OTHER: "added"})
    assert tokens.find(PAGE) is None


@pytest.mark.parametrize("half", ["", '{"153125381133": "n', "[]", "null", '{"153125381133": 5}', '"x"'])
def test_a_half_written_file_changes_nothing(file: Path, half: str) -> None:
    """While the file is no JSON object of tokens, those read before stay in force; then it is read again."""
    write(file, {PAGE: "old"})
    tokens = GivenTokens({}, file)
    assert tokens.find(PAGE) == "old"
    write(file, half)
    assert tokens.find(PAGE) == "old"
    write(file, {PAGE: "new"})
    assert tokens.find(PAGE) == "new"


def test_a_file_that_is_away_for_a_moment_changes_nothing(file: Path) -> None:
    """An editor that deletes and writes anew costs no call."""
    write(file, {PAGE: "old"})
    tokens = GivenTokens({}, file)
    assert tokens.find(PAGE) == "old"
    file.unlink()
    assert tokens.find(PAGE) == "old"


@pytest.mark.parametrize("content", [None, '{"1', b"\xff\xfe"])
def test_an_unreadable_file_may_pass_and_is_not_quoted(file: Path, content: str | bytes | None) -> None:
    """Where nothing was ever read the Page is not parked: the same look may work later."""
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TokensUnreadable) as told:
        GivenTokens({}, file).find(PAGE)
    assert isinstance(told.value, Transient)
    assert str(told.value).startswith("PAGE_TOKENS_FILE cannot be read: ")
    assert told.value.__suppress_context__ or told.value.__context__ is None


def test_an_unreadable_file_hides_no_given_token(file: Path) -> None:
    """The settings' tokens serve while the file is away."""
    assert GivenTokens({PAGE: "given"}, file).find(PAGE) == "given"


def test_a_token_is_what_stands_between_the_blanks(file: Path) -> None:
    """A line break behind a token would make a broken header of it."""
    write(file, {PAGE: " token\n"})
    assert GivenTokens({}, file).find(PAGE) == "token"


def test_no_repr_tells_a_token(file: Path) -> None:
    """Printed in a traceback or a log, the tokens stay unknown."""
    write(file, {PAGE: "filed-secret"})
    tokens = GivenTokens({OTHER: "given-secret"}, file)
    tokens.find(PAGE)
    assert "secret" not in repr(tokens)
