"""What a process does beside its queues: it runs, and whatever ends it is told."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

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
