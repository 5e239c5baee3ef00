"""Work beside the tasks of a process: what goes wrong there is told, since nobody waits for it."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from worker.errors import StoreUnavailable
from worker.runtime import Family, Runtime
from worker.settings import read_settings


@pytest.mark.parametrize("error", [StoreUnavailable("Postgres is away"), KeyError("an answer")])
def test_a_failure_beside_is_told(error: Exception) -> None:
    """A fault of ours by its type only: its text may quote an answer."""
    runtime = Runtime(read_settings(), Family())

    async def fails(_: Callable[[], bool]) -> dict[str, int]:
        raise error

    with capture_logs() as told:
        asyncio.run(runtime._told("alerts", fails))
    assert [(each["event"], each["what"]) for each in told] == [("not_refreshed", "alerts")]
    assert "an answer" not in str(told)
