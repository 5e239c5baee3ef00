"""worker/store/lead_rows.py: rows -> the parameter that LEAD_ROWS reads."""

import json
from typing import Any

import pytest

from tests.fakes.leads import a_lead, in_flight
from tests.fakes.time import NOW
from worker.outcomes import DeadLetter, Stored
from worker.store.lead_rows import COLUMNS, json_of
from worker.store.leads import row_of
from worker.store.statements import Row, RowsRefused

NAMES = [name for name, _ in COLUMNS]


def written(row: Row) -> list[Any]:
    """The one row that json_of wrote."""
    parameter = json_of([row])
    (told,) = json.loads(parameter.dumps(parameter.obj))  # type: ignore[misc]
    return list(told)


def test_each_value_stands_at_its_columns_place() -> None:
    """In whatever order a row names its columns."""
    row = {name: name for name in reversed(NAMES)}
    assert written(row) == NAMES


def test_what_a_row_does_not_name_is_null() -> None:
    """The places behind it stay where they are."""
    assert dict(zip(NAMES, written({"cleaned": False}), strict=True)) == dict.fromkeys(NAMES) | {
        "cleaned": False
    }


@pytest.mark.parametrize("outcome", [Stored(a_lead(1)), DeadLetter("lead_gone")])
def test_every_word_of_a_row_has_a_column(outcome: Stored | DeadLetter) -> None:
    """A word without one would be dropped in silence."""
    assert row_of(in_flight(1), outcome, NOW).keys() <= set(NAMES)


def test_rows_nested_too_deeply_are_refused_as_postgres_does() -> None:
    """So that whoever writes them looks for the one."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RowsRefused) as refused:
        json_of([{"field_data": deep}])
    assert refused.value.sqlstate == "54001"
