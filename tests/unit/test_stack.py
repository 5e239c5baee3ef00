"""A stack's processes and the key that seals tokens: made once, given on, found again by the commands."""

import json
import socket
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from worker.cli.command import settings_for
from worker.errors import ConfigurationError
from worker.sealing import new_key, parse_keys
from worker.settings import Settings, read_settings
from worker.stack import KEYS_FILE, Stack, build_stack, refuse_taken_ports, remember, remembered

SERVERS = {"database_url": "postgresql://x@127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1/0"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with servers of their own, so that none is prepared."""
    monkeypatch.chdir(tmp_path)
    for name in ("TOKEN_KEYS", "TOKEN_KEYS_FILE", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return replace(read_settings(), **SERVERS)


def built(settings: Settings, data_dir: Path) -> Stack:
    with ExitStack() as held:
        return build_stack(settings, data_dir, held=held)


def test_a_port_that_is_taken_is_named_before_anything_is_started(settings: Settings) -> None:
    """Otherwise `up` says that it is up while another process answers in its place; port 0 takes any."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=rf"^RECEIVER_PORT: port {port} .*\nMETRICS_PORT: port {port}"
        ):
            refuse_taken_ports(replace(settings, receiver_port=port, metrics_port=port))
        refuse_taken_ports(replace(settings, receiver_port=0, metrics_port=0))
    refuse_taken_ports(replace(settings, receiver_port=port, metrics_port=0))


def test_without_a_key_one_is_made_once_for_its_owner(settings: Settings, tmp_path: Path) -> None:
    """Every process of the stack gets the file, and the next `up` the same key."""
    stack = built(settings, tmp_path / "data")
    path = tmp_path / "data" / KEYS_FILE
    first = path.read_text()
    assert stack.token_keys_file == path
    assert len(parse_keys(first)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {spec.env["TOKEN_KEYS_FILE"] for spec in stack.specs} == {str(path)}
    assert not any(parse_keys(first)[0].text in " ".join(spec.argv) for spec in stack.specs)
    built(settings, tmp_path / "data")
    assert path.read_text() == first


@pytest.mark.parametrize("given", ["keys", "file"])
def test_a_key_that_is_set_is_used(settings: Settings, tmp_path: Path, given: str) -> None:
    """No other is made beside it."""
    keys = {"token_keys": (new_key(),)} if given == "keys" else {"token_keys_file": tmp_path / "mine"}
    stack = built(replace(settings, **keys), tmp_path / "data")  # type: ignore[arg-type]
    assert stack.token_keys_file is None
    assert not (tmp_path / "data" / KEYS_FILE).exists()
    assert "TOKEN_KEYS_FILE" not in json.dumps([sorted(spec.env) for spec in stack.specs])


def test_commands_find_the_key_that_up_made(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the note in the data directory, unless a setting names another; the note holds no key."""
    stack, data = built(settings, tmp_path / "data"), tmp_path / "data"
    remember(stack, data)
    assert remembered(data)["TOKEN_KEYS_FILE"] == str(data / KEYS_FILE)
    assert (data / KEYS_FILE).read_text().strip() not in (data / "urls.json").read_text()
    assert settings_for(data).token_keys_file == data / KEYS_FILE
    monkeypatch.setenv("TOKEN_KEYS", new_key().text)
    assert settings_for(data).token_keys_file is None
