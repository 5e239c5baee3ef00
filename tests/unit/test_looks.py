"""Whether somebody is at work, by when it last looked."""

import time

import pytest
from click.testing import CliRunner

from worker.cli import running
from worker.errors import LeadSyncError


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (5.0, None),
        (-30.0, None),
        (300.0, "has not looked at its work for 300 s"),
        (-7_200.0, "7200 s ahead of this clock"),
        (None, "has not looked at its work yet"),
    ],
)
def test_health_fails_where_the_last_look_is_old_or_in_the_future(
    age: float | None, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back makes every look one of the future, however long ago it was."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    at = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: at)
    monkeypatch.setattr(running, "last_look", lambda url, who: None if age is None else at - age)
    ended = CliRunner().invoke(running.health, ["schedule"])
    if told is None:
        assert (ended.exit_code, ended.exception) == (0, None)
    else:
        assert isinstance(ended.exception, LeadSyncError)
        assert told in str(ended.exception)
