"""The evaluator of alarm rules against values that Prometheus' promtool gives for the same series."""

import pytest

from tests.promql import At, Labels, Samples, parse

C: Labels = frozenset({"__name__": "c", "page": "7"}.items())
D: Labels = frozenset({"__name__": "c", "page": "8"}.items())
SERIES: Samples = {
    "c": {
        C: [(60.0 * n, value) for n, value in enumerate((0.0, 10.0, 20.0, 5.0, 15.0, 25.0))],
        D: [(60.0 * n, 1.0) for n in range(3)],
    }
}


@pytest.mark.parametrize(
    ("expression", "moment", "values"),
    [
        ("increase(c[5m])", 300, {45.0, 0.0}),  # a counter that began anew
        ("increase(c[5m])", 270, {39.375, 0.0}),  # grown towards the end of the window
        ("delta(c[2m])", 120, {20.0, 0.0}),
        ("c > 4", 240, {15.0}),
        ("c", 240, {15.0}),  # the other is no more
        ("sum(c)", 60, {11.0}),
        ('sum by (page) (c{page!="8"}) / sum by (page) (c) * 2', 60, {2.0}),
        ('c{page=~"7|9"} == 10 or c == 1', 60, {10.0, 1.0}),
        ("c == 10 and c > 11", 60, set()),
        ("time() - c > 50", 60, {50.0 + 9.0}),
        ('absent(c{page="9"})', 60, {1.0}),
        ("absent(c)", 60, set()),
    ],
)
def test_values_are_prometheus_own(expression: str, moment: float, values: set[float]) -> None:
    """Selecting, growth with its extrapolation, sums, comparing and joining."""
    told = At(SERIES, moment, 60.0).value(parse(expression))
    assert isinstance(told, dict)
    assert {round(value, 6) for value in told.values()} == values


@pytest.mark.parametrize(
    "expression", ["rate(c[5m])", "c offset 5m", "c unless d", "c ^ 2", "sum without (a) (c)"]
)
def test_what_is_not_known_is_refused(expression: str) -> None:
    """A rule that leans on more than this evaluator knows fails its test and is not judged wrongly."""
    with pytest.raises(ValueError, match=r"not known here|expected"):
        parse(expression)
