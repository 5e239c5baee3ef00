"""A failed system test -> what its stack was doing, beside what the assertion says."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.system.whole import Whole


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """`stored == leads` was false tells nobody why; states, books and the end of the log mostly do."""
    report = yield
    if report.when == "call" and report.failed:
        given: dict[str, Any] = getattr(item, "funcargs", {})
        report.sections += [
            (f"{name} at the end", it.report()) for name, it in given.items() if isinstance(it, Whole)
        ]
    return report
