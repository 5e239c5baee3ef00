"""Time that jumps, for what measures its own loop."""

import pytest

from tests.fakes.time import loop_time
from worker import sources, sync


@pytest.fixture
def jumping_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run and its source measure their loop's time."""
    monkeypatch.setattr(sync, "monotonic", loop_time)
    monkeypatch.setattr(sources, "monotonic", loop_time)
