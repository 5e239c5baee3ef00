"""What a process does before its first look, and beside its queues: it runs, and whatever ends it is told."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.fakes.time import BEGINNING, loop_time, run_jumping
from worker.errors import StoreUnavailable
from worker.runtime import Runtime
from worker.store.statements import RowsRefused


@pytest.mark.parametrize(
    ("error", "level", "told"),
    [
        (StoreUnavailable("away"), "warning", "away"),
        (RowsRefused("23514"), "error", "RowsRefused"),
        (ValueError("hunter2"), "error", "ValueError"),
        (ExceptionGroup("", [ValueError("hunter2")]), "warning", "ValueError"),
    ],
)
def test_what_ends_work_beside_is_told(error: Exception, level: str, told: str) -> None:
    """Nobody waits for it; a fault of ours shows by its type, since its text may quote an answer."""

    async def work(_: Any) -> dict[str, int]:
        raise error

    process = SimpleNamespace(
        _settings=SimpleNamespace(drain_seconds=1), _family=SimpleNamespace(is_stopping=lambda: False)
    )
    with capture_logs() as logs:
        asyncio.run(Runtime._told(cast(Runtime, process), "erasures", work))
    assert [(log["log_level"], log["what"], log["error"]) for log in logs] == [(level, "erasures", told)]


def test_what_a_drain_finds_out_before_its_first_look_is_asked_at_once() -> None:
    """Whoever rang waits for the slowest answer and not for their sum; by the first look the bell is lifted."""
    answered: set[str] = set()
    looked: list[tuple[float, set[str]]] = []

    def after(seconds: float, what: str) -> Any:
        async def answer(*_: Any) -> int:
            await asyncio.sleep(seconds)
            answered.add(what)
            return 0

        return answer

    async def look(*_: Any, **__: Any) -> Counter[str]:
        looked.append((loop_time() - BEGINNING, set(answered)))
        return Counter()

    process = SimpleNamespace(
        _settings=SimpleNamespace(drain_seconds=1.0, linger_seconds=1.0),
        _family=SimpleNamespace(is_stopping=lambda: False),
        _stream=SimpleNamespace(
            create_group=after(1.0, "group"),
            progress=after(2.0, "progress"),
            unhush=after(4.0, "unhush"),
            backlog=after(0.0, "backlog"),
        ),
        _store=SimpleNamespace(ping=after(3.0, "ping")),
        _run=look,
    )
    assert run_jumping(Runtime.drain(cast(Runtime, process))) == (Counter(), False)
    assert looked == [(4.0, {"group", "progress", "unhush", "ping"})]
