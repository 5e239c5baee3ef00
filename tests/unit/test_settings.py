"""What the environment says to the worker, and how its mistakes are told."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.settings import read_settings

SECRETS = {
    "META_APP_SECRET": "app-hunter2",
    "DATABASE_URL": "postgresql://user:db-hunter2@host/db",
    "REDIS_URL": "redis://:redis-hunter2@host/0",
    "PAGE_TOKENS": "7=token-hunter2",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variable at all and no .env file; whatever a test's own .env brings in goes with the test."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    os.environ.clear()
    yield
    os.environ.clear()
    os.environ.update(before)


def told(*needed: str) -> list[str]:
    """The lines of the error that these settings meet."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(*needed)
    assert "hunter2" not in str(caught.value)
    return str(caught.value).splitlines()


def test_nothing_need_be_set() -> None:
    """The defaults are those that the README promises: retries of 25 and 2 hours, Meta's own host."""
    settings = read_settings()
    assert (settings.graph_url, settings.graph_version) == ("https://graph.facebook.com", "v26.0")
    assert (settings.transient_first, settings.transient_longest, settings.transient_attempts) == (2, 900, 25)
    assert (settings.not_visible_first, settings.not_visible_longest) == (5, 600)
    assert settings.not_visible_for == 7_200
    assert (settings.database_url, settings.redis_url, settings.app_secrets) == ("", "", ())
    assert (dict(settings.page_tokens), settings.page_tokens_file) == ({}, None)


def test_what_is_set_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets and tokens may be several, separated by commas and blanks."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("META_APP_SECRET", " new , old,,")
    monkeypatch.setenv("PAGE_TOKENS", "7=a=b , 8= c,")
    monkeypatch.setenv("PAGE_TOKENS_FILE", "tokens.json")
    monkeypatch.setenv("GRAPH_URL", "http://127.0.0.1:9000/")
    monkeypatch.setenv("DRAIN_SECONDS", "0.5")
    settings = read_settings("META_APP_SECRET", "DATABASE_URL", "REDIS_URL")
    assert settings.app_secrets == ("new", "old")
    assert dict(settings.page_tokens) == {"7": "a=b", "8": "c"}
    assert settings.page_tokens_file == Path("tokens.json")
    assert (settings.graph_url, settings.drain_seconds) == ("http://127.0.0.1:9000", 0.5)


def test_the_file_serves_where_the_environment_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` of the current directory is read, and the environment goes before it."""
    Path(".env").write_text("META_APP_SECRET=filed\nWORKER_CONCURRENCY=3\n")
    monkeypatch.setenv("WORKER_CONCURRENCY", "4")
    settings = read_settings("META_APP_SECRET")
    assert (settings.app_secrets, settings.worker_concurrency) == (("filed",), 4)


@pytest.mark.parametrize("quote", ["", "'"])
def test_a_value_of_the_file_is_taken_as_it_stands(quote: str) -> None:
    """What looks like a reference to a variable is part of a password, and stays one."""
    Path(".env").write_text(f"META_VERIFY_TOKEN={quote}a${{HOME}}$b{quote}\n")
    assert read_settings().verify_token == "a${HOME}$b"


def test_a_command_that_is_a_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking it apart takes time squared, at every start of every process."""
    monkeypatch.setenv("ALERT_COMMAND", "x" * 4_097)
    with pytest.raises(ConfigurationError, match=r"^ALERT_COMMAND: is longer than 4,096 characters; put it"):
        read_settings()
    monkeypatch.setenv("ALERT_COMMAND", "x" * 4_096)
    assert read_settings().alert_command == "x" * 4_096


def test_every_problem_is_told_at_once_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error lists every problem by its name, one a line, and quotes no value that may hold a secret."""
    wrong = {
        "DATABASE_URL": "mysql://user:hunter2@host",
        "REDIS_URL": "http://:hunter2@host",
        "GRAPH_URL": "ftp://hunter2",
        "GRAPH_VERSION": "26",
        "GRAPH_TIMEOUT_SECONDS": "0",
        "PAGE_TOKENS": "7=ok,hunter2",
        "WORKER_CONCURRENCY": "0",
        "CALLS_IN_FLIGHT_PER_PAGE": "many",
        "DRAIN_SECONDS": "-1",
        "LINGER_SECONDS": "nan",
        "LEASE_SECONDS": "inf",
        "LOG_LEVEL": "loud",
        "LOG_STYLE": "xml",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    lines = told("META_APP_SECRET")
    assert [line.partition(":")[0] for line in lines] == sorted([*wrong, "META_APP_SECRET"])
    assert all(line.partition(": ")[2] for line in lines)


@pytest.mark.parametrize("commas", [",", " , ,"])
def test_commas_are_no_app_secret(monkeypatch: pytest.MonkeyPatch, commas: str) -> None:
    """A required secret that is only separators is missing, and is told so at the start."""
    monkeypatch.setenv("META_APP_SECRET", commas)
    assert len(told("META_APP_SECRET")) == 1


@pytest.mark.parametrize("name", ["META_APP_SECRET", "DATABASE_URL", "REDIS_URL"])
def test_what_a_command_needs_must_be_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A missing or empty variable that is needed is named once."""
    monkeypatch.setenv(name, "")
    assert told(name) == [f"{name}: is required; set it in the environment or in .env"]


@pytest.mark.parametrize("tokens", ["hunter2", "=hunter2", "x=hunter2", "7=", "7=hunter2;8 hunter2,9"])
def test_a_broken_list_of_tokens_is_told_by_its_place(monkeypatch: pytest.MonkeyPatch, tokens: str) -> None:
    """The entry is named by its number, never by what stands in it."""
    monkeypatch.setenv("PAGE_TOKENS", tokens)
    (line,) = told()
    assert line.startswith("PAGE_TOKENS: entry ")


def test_no_repr_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed in a traceback or a log, the settings tell neither secret, token nor a URL with a password."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(*SECRETS)
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
