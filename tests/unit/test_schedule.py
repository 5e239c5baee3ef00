"""When the schedule rings for what, by the settings alone."""

from dataclasses import replace

import pytest

from worker.app import create_app
from worker.inbox import TIDY_TASK
from worker.settings import read_settings


@pytest.mark.parametrize(("window", "every"), [(86_400, 600), (1_200, 300), (300, 75), (20, 60)])
def test_what_is_over_is_forgotten_some_times_a_window(window: float, every: float) -> None:
    """No table waits an hour for it, which a schedule that is started again and again never reaches."""
    settings = replace(read_settings(), budget_window=window, redis_url="redis://127.0.0.1:1/0")
    assert create_app(settings).conf.beat_schedule[TIDY_TASK]["schedule"] == every
