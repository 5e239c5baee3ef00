"""A stack's processes and the key that seals tokens: made once, given on, found again by the commands."""

import json
import socket
import stat
import sys
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
    for name in (
        "TOKEN_KEYS",
        "TOKEN_KEYS_FILE",
        "DATABASE_URL",
        "REDIS_URL",
        "RECEIVER_HOST",
        "RECEIVER_PORT",
    ):
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


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("*", "127.0.0.1"),
        ("::", "[::1]"),
        ("[::]", "[::1]"),
        ("::1", "[::1]"),
        ("fd00::7", "[fd00::7]"),
        ("leads.internal", "leads.internal"),
    ],
)
def test_the_receiver_is_asked_where_it_listens(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, asked: str
) -> None:
    """Asked on 127.0.0.1 whatever RECEIVER_HOST says, it never got ready, and `up` ended itself after a minute."""
    seen: list[str] = []
    monkeypatch.setattr("worker.stack.answers", lambda url: not seen.append(url))
    monkeypatch.setenv("RECEIVER_HOST", host)
    monkeypatch.setenv("RECEIVER_PORT", "8123")
    stack = built(settings, tmp_path / "data")
    assert stack.webhook_url == f"http://{asked}:8123/webhook"
    (receiver,) = (spec for spec in stack.specs if spec.name == "receiver")
    assert receiver.is_ready is not None
    assert receiver.is_ready()
    assert seen == [f"http://{asked}:8123/healthz"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0"])
def test_a_port_is_taken_where_the_receiver_is_to_listen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Another address of this machine is in nobody's way, unless all are wanted; the exporter keeps to its own."""
    with socket.create_server(("127.0.0.2", 0)) as other:
        wanted = replace(settings, receiver_port=other.getsockname()[1], metrics_port=0)
        monkeypatch.setenv("RECEIVER_HOST", host)
        with pytest.raises(ConfigurationError, match="RECEIVER_PORT"):
            refuse_taken_ports(wanted)
        monkeypatch.setenv("RECEIVER_HOST", "127.0.0.1")
        refuse_taken_ports(wanted)
        monkeypatch.setenv("RECEIVER_HOST", host)
        refuse_taken_ports(replace(wanted, receiver_port=0, metrics_port=wanted.receiver_port))


def test_an_up_that_embeds_nothing_makes_its_folder(settings: Settings, tmp_path: Path) -> None:
    """With all servers and keys set nobody else makes it, and the note of where they are failed in a traceback."""
    data = tmp_path / "deep" / "data"
    remember(built(replace(settings, token_keys=(new_key(),)), data), data)
    assert remembered(data) == {
        "DATABASE_URL": SERVERS["database_url"],
        "REDIS_URL": SERVERS["redis_url"],
    }
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(settings: Settings, tmp_path: Path) -> None:
    """It names the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"^the data directory \S+/file/data cannot be made: "):
        built(settings, tmp_path / "file" / "data")


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
