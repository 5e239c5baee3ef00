"""What the environment may say, and how its mistakes are told."""

from pathlib import Path

import pytest

from receiver.errors import ConfigurationError
from receiver.settings import Settings, read_settings

NAMES = (
    "META_APP_SECRET",
    "META_VERIFY_TOKEN",
    "REDIS_URL",
    "RECEIVER_HOST",
    "RECEIVER_PORT",
    "RECEIVER_THREADS",
    "RECEIVER_MAX_BODY_BYTES",
    "STREAM_MAX_ENTRIES",
    "REDIS_MEMORY_SHARE",
    "LOG_STYLE",
    "LOG_LEVEL",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours and no .env file."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_two_secrets_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """App secret and verify token are all that must be set."""
    monkeypatch.setenv("META_APP_SECRET", "new, old,,new")
    monkeypatch.setenv("META_VERIFY_TOKEN", "tok")
    assert read_settings() == Settings(app_secrets=("new", "old"), verify_token="tok")


def test_the_file_serves_where_the_environment_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` of the current directory is read, and the environment goes before it."""
    Path(".env").write_text("META_APP_SECRET=filed\nMETA_VERIFY_TOKEN=tok\nRECEIVER_PORT=1\n")
    monkeypatch.setenv("RECEIVER_PORT", "2")
    settings = read_settings()
    assert (settings.app_secrets, settings.port) == (("filed",), 2)


@pytest.mark.parametrize("quote", ["", "'"])
def test_a_value_of_the_file_is_taken_as_it_stands(quote: str) -> None:
    """What looks like a reference to a variable is part of a password, and stays one."""
    Path(".env").write_text(f"META_VERIFY_TOKEN={quote}a${{HOME}}$b{quote}\nMETA_APP_SECRET=x\n")
    assert read_settings().verify_token == "a${HOME}$b"


def test_every_problem_is_told_at_once_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error lists every problem, one a line, and quotes no value that may hold a secret."""
    monkeypatch.setenv("META_APP_SECRET", " , ")
    monkeypatch.setenv("REDIS_URL", "http://:hunter2@host")
    monkeypatch.setenv("RECEIVER_PORT", "70000")
    monkeypatch.setenv("RECEIVER_MAX_BODY_BYTES", "much")
    monkeypatch.setenv("REDIS_MEMORY_SHARE", "1.5")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    told = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in told] == [
        "LOG_LEVEL",
        "META_APP_SECRET",
        "META_VERIFY_TOKEN",
        "RECEIVER_MAX_BODY_BYTES",
        "RECEIVER_PORT",
        "REDIS_MEMORY_SHARE",
        "REDIS_URL",
    ]
    assert "hunter2" not in str(caught.value)


def test_settings_never_show_a_secret() -> None:
    """The repr of the settings may be logged."""
    shown = repr(Settings(app_secrets=("s1",), verify_token="s2", redis_url="redis://:s3@host"))
    assert not any(secret in shown for secret in ("s1", "s2", "s3"))
