"""What the command line of `leadsync connect` means, before anybody is asked anything."""

import importlib
import io
import os
from collections.abc import Mapping
from dataclasses import fields

import click
import pytest

from worker.connecting import Connection
from worker.errors import ConfigurationError
from worker.graph.account import PageAccount
from worker.settings import Settings, read_settings, read_user_token
from worker.steps import State, Step

# The package's attribute of that name is the command itself.
command = importlib.import_module("worker.cli.connect")
KNOWN = [PageAccount("7", "Café", (), None), PageAccount("8", "Roofs\x1b[2J", (), None)]
URL = "https://leads.example.com/webhook"
ALL = frozenset({"token", "pages", "subscribe", "webhook"})


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path) -> "type[object]":
    """Settings from these variables alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("META_USER_TOKEN", "META_VERIFY_TOKEN", "WEBHOOK_URL"):
        monkeypatch.delenv(name, raising=False)

    def settings(variables: Mapping[str, str]) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return read_settings()

    return settings


def test_the_token_comes_from_stdin_before_the_environment(given, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said for this run beats what is set; without either the kept one is used."""
    given({"META_USER_TOKEN": " of-the-environment "})
    token = read_user_token()
    monkeypatch.setattr("sys.stdin", io.StringIO("of-stdin\nrest"))
    assert command._token(token, from_stdin=True, interactive=False) == "of-stdin"
    assert command._token(token, from_stdin=False, interactive=True) == "of-the-environment"
    assert command._token("", from_stdin=False, interactive=False) is None


def test_a_refused_token_is_told_from_a_refused_scope() -> None:
    """Only the former is a matter of META_USER_TOKEN, which is used again until somebody takes it away."""
    kept = Step("token", State.DONE, "kept")
    assert command._is_refused(Connection((Step("token", State.FAILED, "refused"),), ()))
    assert not command._is_refused(Connection((kept, Step("scopes", State.MISSING, "one")), ()))


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "umläut\n", "x" * 5_000])
def test_what_is_no_token_is_refused_and_not_quoted(
    given, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It may be a password that was pasted in the wrong place."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(click.UsageError) as refused:
        command._token("", from_stdin=True, interactive=False)
    assert not text.strip() or text.strip() not in str(refused.value)


def test_processes_that_run_on_do_not_get_the_user_token(given) -> None:
    """What `up` starts has no use for it."""
    from worker.settings import environment

    given({"META_USER_TOKEN": "hunter2"})
    assert "hunter2" not in environment().values()


def test_a_user_token_in_the_file_is_read_by_connect_alone(given, tmp_path) -> None:
    """Whoever else reads the file, as each worker does, does not hold it afterwards."""
    (tmp_path / ".env").write_text("META_USER_TOKEN=hunter2\n")
    assert "hunter2" not in str([getattr(given({}), each.name) for each in fields(Settings)])
    assert "hunter2" not in os.environ.values()
    assert read_user_token() == "hunter2"
    assert "hunter2" not in os.environ.values()
    given({"META_USER_TOKEN": ""})
    assert read_user_token() == ""


@pytest.mark.parametrize(
    ("url", "meant"), [(URL, URL), ("https://leads.example.com", URL), ("https://leads.example.com/", URL)]
)
def test_an_address_without_a_path_is_the_receivers(given, url: str, meant: str) -> None:
    """The receiver answers at /webhook."""
    settings = given({"META_VERIFY_TOKEN": "v", "WEBHOOK_URL": url})
    assert command._webhook_url(settings, None, ALL, ()) == meant
    assert (
        command._webhook_url(settings, "https://other.example.com/in", ALL, ())
        == "https://other.example.com/in"
    )


@pytest.mark.parametrize(
    "url", ["leads.example.com/webhook", "ftp://x/webhook", "https://", "https://x/?a=b", "http://[x"]
)
def test_what_is_no_address_is_refused(given, url: str) -> None:
    """Before Meta is asked."""
    with pytest.raises(click.UsageError):
        command._webhook_url(given({"META_VERIFY_TOKEN": "v"}), url, ALL, ())


def test_a_webhook_needs_the_receivers_verify_token(given) -> None:
    """Another one would only fail at Meta."""
    with pytest.raises(ConfigurationError, match="META_VERIFY_TOKEN"):
        command._webhook_url(given({}), URL, ALL, ())


def test_an_address_that_nobody_will_use_is_refused(given) -> None:
    """And the step alone without one, too; the whole without one leaves the webhook as it is."""
    with pytest.raises(click.UsageError):
        command._webhook_url(given({}), URL, frozenset({"pages"}), ("pages",))
    with pytest.raises(click.UsageError):
        command._webhook_url(given({}), None, frozenset({"webhook"}), ("webhook",))
    assert command._webhook_url(given({}), None, ALL, ()) == ""


def test_pages_are_those_named_or_all() -> None:
    """Named ones need not be listed; with --all they come on top."""
    assert command._choose(KNOWN, ("9",), everything=False, interactive=True) == ("9",)
    assert command._choose(KNOWN, ("9",), everything=True, interactive=False) == ["7", "8", "9"]


def test_without_a_choice_the_error_names_the_pages() -> None:
    """And nothing in a Page's name steers the terminal."""
    with pytest.raises(click.UsageError) as refused:
        command._choose(KNOWN, (), everything=False, interactive=False)
    assert "7 (Café), 8 (Roofs\N{REPLACEMENT CHARACTER}[2J)" in refused.value.message


@pytest.mark.parametrize(
    ("text", "numbers"), [("all", [1, 2, 3]), ("2", [2]), ("1, 3", [1, 3]), (" 3 1 ", [3, 1])]
)
def test_numbers_are_read(text: str, numbers: list[int]) -> None:
    """With commas or blanks between."""
    assert command._numbers(text, 3) == numbers


@pytest.mark.parametrize("text", ["", "0", "4", "-1", "x", "1-2", "²"])
def test_other_numbers_are_asked_for_again(text: str) -> None:
    """Nothing outside the list can be chosen."""
    with pytest.raises(click.BadParameter):
        command._numbers(text, 3)


def test_each_state_has_a_sign() -> None:
    """No step ends in a state that cannot be shown."""
    assert set(command._SIGNS) == set(State)


def test_the_checklist_shows_each_page_once_with_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """A step's remedy stands below it, and a name cannot steer the terminal."""
    sheet = command._Sheet(quiet=False)
    sheet.names["8"] = KNOWN[1].name
    sheet.tell(Step("page_token", State.DONE, "now kept", page_id="8"))
    sheet.tell(Step("forms", State.FAILED, "not told", "ask again", "8", ("7  Offer",)))
    shown = capsys.readouterr().out
    assert shown.count("Page 8") == 1
    assert "\x1b" not in shown
    assert [line.split() for line in shown.splitlines()[-2:]] == [["7", "Offer"], ["do:", "ask", "again"]]
