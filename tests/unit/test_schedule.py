"""When the schedule rings for what: by the settings, and by a clock that is set."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from celery.beat import ScheduleEntry

from tests.fakes.time import FrozenClock
from worker.app import create_app
from worker.inbox import DEEP_TASK, TIDY_TASK
from worker.schedule import DoorbellScheduler
from worker.settings import read_settings

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(("window", "every"), [(86_400, 600), (1_200, 300), (300, 75), (20, 60)])
def test_what_is_over_is_forgotten_some_times_a_window(window: float, every: float) -> None:
    """No table waits an hour for it, which a schedule that is started again and again never reaches."""
    settings = replace(read_settings(), budget_window=window, redis_url=NOWHERE)
    assert create_app(settings).conf.beat_schedule[TIDY_TASK]["schedule"] == every


@pytest.mark.parametrize(("period", "every"), [(86_400, 600), (6_000, 600), (225, 22.5), (20, 5)])
def test_a_form_is_compared_in_full_not_much_later_than_asked(period: float, every: float) -> None:
    """Looking once a period would let a form that was not quite due wait for two."""
    settings = replace(read_settings(), reconcile_deep=period, redis_url=NOWHERE)
    assert create_app(settings).conf.beat_schedule[DEEP_TASK]["schedule"] == every


class HeardSchedule(DoorbellScheduler):
    """The schedule on a clock that is handed in; what it rings for is counted."""

    producer = None

    def __init__(self, clock: FrozenClock) -> None:
        app = create_app(replace(read_settings(), redis_url=NOWHERE))
        app.now = clock
        self.clock = clock
        self.rung: Counter[str] = Counter()
        super().__init__(app=app, lazy=False)

    def apply_async(
        self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> None:
        self.rung[entry.task] += 1

    def run(self, seconds: float) -> Counter[str]:
        """What it rings for while so much time passes."""
        self.rung.clear()
        while seconds > 0:
            slept = max(0.1, self.tick())
            self.clock.move(slept)
            seconds -= slept
        return Counter(self.rung)


@pytest.mark.parametrize("step", [timedelta(hours=-2), timedelta(seconds=-7), timedelta(hours=2)])
def test_a_clock_that_is_set_stops_no_ring(step: timedelta) -> None:
    """NTP sets back a machine that booted two hours ahead: nothing waits until the clock has caught up."""
    clock = FrozenClock()
    schedule = HeardSchedule(clock)
    well = schedule.run(1_300)
    clock.now += step
    after = schedule.run(1_300)
    assert set(after) == set(well) == {entry.task for entry in schedule.schedule.values()}
    assert all(after[task] >= well[task] - 1 for task in well), (well, after)
