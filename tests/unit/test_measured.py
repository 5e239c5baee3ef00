"""How sections of docs/measured.md are written and merged."""

from benchmarks.measured import HEAD, Run, merged, section, sections_of
from benchmarks.report import Finding, Spread, ratio

ABOUT = {
    "at": "2026-11-25T02:00:00+00:00", "cores": 2, "processor": "P", "load_average_before": 0.25, "commit": "abc",
    "python": "3.12.1", "celery": "5.7.0",
}  # fmt: skip
NAMES = ["first", "second", "third"]


def run(name: str, *findings: Finding) -> Run:
    told = {"machine": ABOUT, "findings": [finding.as_json() for finding in findings]}
    return Run(
        name, "Claim: x.", f"python -m benchmarks.{name}", 61.2, told, "a table  \n## not a section of ours\n"
    )


def test_a_section_carries_its_own_run() -> None:
    """Commit, date, command, versions, each finding with its goal, and all that was printed stand in the section."""
    spread = Spread.over([1.0, 3.0, 2.0])
    text = section(
        run(
            "first",
            Finding("a : b", spread, goal=2.5),
            Finding("c", spread, " ms", 0, goal=2.0, at_least=False),
        )
    )
    assert "`python -m benchmarks.first`, 61 s, 2026-11-25, commit abc" in text
    assert "P, 2 cores, load 0.2 before; celery 5.7.0, python 3.12.1" in text
    assert "| a : b | 2.00 x (1.00-3.00) | at least 2.5 x | **not met** |" in text
    assert "| c | 2 ms (1-3) | at most 2 ms | met |" in text
    assert "```text\na table\n" in text


def test_a_merge_changes_one_section() -> None:
    """A section takes the place of its own former one; the others stay as they were, in the order of the names."""
    document = ""
    for name in ("third", "first"):
        document = merged(document, name, section(run(name)), NAMES)
    before = sections_of(document)
    anew = section(run("first", Finding("new", Spread.over([1.0]))))
    document = merged(document, "first", anew, NAMES)
    assert list(sections_of(document)) == ["first", "third"]
    assert sections_of(document) == {"first": anew, "third": before["third"]}
    assert document.startswith(HEAD)
    document = merged(document, "second", section(run("second")), NAMES)
    assert list(sections_of(document)) == NAMES


def test_a_benchmark_that_is_gone_leaves_no_figures() -> None:
    """What has no name any more has no section after the next merge."""
    document = merged("", "third", section(run("third")), NAMES)
    assert list(sections_of(merged(document, "first", section(run("first")), ["first"]))) == ["first"]


def test_a_ratio_is_taken_within_each_pair() -> None:
    """A slow moment slows both sides of a pair, so the median is over ratios and not a ratio of medians."""
    assert ratio([10.0, 1.0, 20.0], [5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 10.0, 3)


def test_without_a_goal_nothing_is_met() -> None:
    """A figure that nobody set a goal for is neither met nor missed."""
    assert Finding("x", Spread.over([1.0])).is_met is None
