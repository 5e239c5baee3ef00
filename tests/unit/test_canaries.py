"""What the canaries are known by, held to what the sandbox makes; and the look for them, which notices each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.config import SandboxConfig
from sandbox.parts import Sandbox
from sandbox.people import People
from sandbox.tokens import page_token, user_token
from tests.system.canaries import ANSWER, TOKEN, look

CANARY = page_token(1, "153125381133")
NOWHERE = {"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://x@127.0.0.1:1/x"}


def in_log(tmp_path: Path, text: str, **besides: object) -> list[str]:
    log = tmp_path / "whole.log"
    log.write_text(text)
    return look(log=log, redis_folder=tmp_path / "redis", pids=(), **{**NOWHERE, **besides})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1, 2, 2**31])
def test_every_token_of_the_sandbox_is_known(seed: int) -> None:
    """As it is, cut short, and as Postgres shows bytes."""
    for token in (page_token(seed, "153125381133"), user_token(seed)):
        assert TOKEN.search(token.encode())
        assert TOKEN.search(token[:50].encode())
        assert TOKEN.search(token.encode().hex().encode())
    assert not TOKEN.search(b"EAAGsomething that is none, 4541414700")


def test_nearly_every_person_of_the_sandbox_is_known() -> None:
    """By an address or a number, in UTF-8 and in the escapes of JSON."""
    told = [
        People(1, form.questions, form.tracking, hostile=False).field_data(number)
        for form in Sandbox(SandboxConfig(), 1_790_000_000.0).world.forms
        for number in range(50)
    ]
    for text in (told, [json.dumps(json.loads(each), ensure_ascii=False) for each in told]):
        known = [bool(ANSWER.search(each.encode("utf-8", "surrogatepass"))) for each in text]
        assert sum(known) > 0.95 * len(known)


def test_a_log_without_any_is_clean(tmp_path: Path) -> None:
    """Ids, addresses of documents and servers are none; servers that are away are passed over."""
    assert (
        in_log(tmp_path, "page_id=153125381133 https://example.com/privacy graph=http://127.0.0.1:9900\n")
        == []
    )


@pytest.mark.parametrize(
    "text", [CANARY, "lead12@example.com", "Lead.7@EXAMPLE.COM", "lead7%40example.com", "+491512345678"]
)
def test_one_in_the_log_is_told_and_not_shown(tmp_path: Path, text: str) -> None:
    """With its line."""
    (place,) = in_log(tmp_path, f"one\ntwo {text} end\n")
    assert "line 2" in place
    assert text not in place


def test_a_secret_in_the_log_is_told(tmp_path: Path) -> None:
    """Such as the app's, which is in the environment on purpose."""
    assert in_log(tmp_path, "hunter2", secrets=["hunter2"]) == ["log: a secret in line 1"]


@pytest.mark.parametrize("given", [(), ("PAGE_TOKENS",)])
def test_one_of_a_process_is_told(tmp_path: Path, given: tuple[str, ...]) -> None:
    """In its arguments; in its environment too, save in a variable that is meant for it."""
    (tmp_path / "log").write_text("")
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", CANARY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PAGE_TOKENS": f"1={CANARY}"},
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        places = look(log=tmp_path / "log", redis_folder=tmp_path, pids=[process.pid], given=given, **NOWHERE)
    finally:
        process.kill()
        process.communicate()
    assert [place.split(" of ")[0] for place in places] == [
        "process: a token in the arguments",
        *(["process: a token in the environment"] if not given else []),
    ]
    assert not any(CANARY in place for place in places)
