"""Findings -> one JSON object, or lines to look at: group by group, what is wrong with what to type below it.

It judges nothing. Invariant: on the screen, of a Page that is well one line is told; in JSON every finding stands.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.doctor.findings import GROUPS, Finding, Verdict, worst

NAMED: Final = 3
"""Pages named that are like another one; `--json` has all, each with its findings."""
AGE: Final = re.compile(r"\b\d+ (?:s|min|h|d) ago\b")
TITLES: Final = {
    "settings": "Settings",
    "postgres": "Postgres",
    "redis": "Redis",
    "meta": "Meta",
    "work": "Work",
    "page": "Pages",
}
_SIGNS: Final = {
    Verdict.OK: ("✓", "+", "green"),
    Verdict.WARN: ("!", "!", "yellow"),
    Verdict.FAIL: ("✗", "x", "red"),
    Verdict.NOT_CHECKED: ("–", "-", "dim"),  # noqa: RUF001 - a dash
}
"""A verdict's sign, the same for a terminal without UTF-8, and its colour."""


def as_json(findings: Sequence[Finding], at: datetime) -> dict[str, Any]:
    """`verdict` (the worst), `at`, `counts` by verdict, and all `findings`."""
    return {
        "verdict": str(worst(findings)),
        "at": at.isoformat(),
        "counts": {str(each): _count(findings, each) for each in Verdict},
        "findings": [finding.as_json() for finding in findings],
    }


def render(findings: Sequence[Finding], *, utf8: bool, whole_pages: bool) -> Group:
    """Lines. `whole_pages`: tell of a Page what is well, too."""
    parts: list[Any] = []
    for group in GROUPS:
        ours = [each for each in findings if each.group == group]
        if ours:
            parts.append(Text(TITLES[group], "bold"))
            parts += [_lines([each for each in ours if each.page_id is None], utf8=utf8)]
            parts += _pages([each for each in ours if each.page_id], utf8=utf8, whole=whole_pages)
    return Group(*parts, Text(""), _summary(findings))


def _pages(findings: Sequence[Finding], *, utf8: bool, whole: bool) -> Iterable[Any]:
    """What is alike of several Pages is told of the first; the others are named."""
    alike: dict[tuple[object, ...], list[str]] = {}
    found: dict[str, list[Finding]] = {}
    for each in findings:
        found.setdefault(str(each.page_id), []).append(each)
    for page_id, ours in found.items():
        alike.setdefault(tuple(_kind(each) for each in ours if _is_shown(each, whole)), []).append(page_id)
    for page_id, *others in alike.values():
        shown = [each for each in found[page_id] if _is_shown(each, whole)]
        sign = _sign(worst(found[page_id]), utf8=utf8)
        if not shown and others:
            yield Text.assemble("  ", sign, f" {len(others) + 1:,} Pages: all well")
            continue
        yield Text.assemble("  ", sign, f" Page {page_id}", "" if shown else ": all well")
        yield Padding(_lines(shown, utf8=utf8), (0, 0, 0, 2))
        if others:
            more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
            yield Text(f"    the same: Page {', '.join(others[:NAMED])}{more}", "bold")


def _is_shown(finding: Finding, whole: bool) -> bool:
    return whole or finding.verdict is not Verdict.OK


def _kind(finding: Finding) -> tuple[object, ...]:
    """A finding without the Page's id, and without ages, which differ by seconds."""
    told = (
        AGE.sub("AGO", text.replace(finding.page_id or "", ""))
        for text in (finding.evidence, finding.remedy or "")
    )
    return finding.check, finding.verdict, *told


def _lines(findings: Sequence[Finding], *, utf8: bool) -> Table:
    """A row each; of several that were not checked for the same reason, one."""
    table = Table.grid(padding=(0, 1))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    alike = Counter(each.evidence for each in findings if each.verdict is Verdict.NOT_CHECKED)
    for each in findings:
        quiet = "dim" if each.verdict in (Verdict.OK, Verdict.NOT_CHECKED) else ""
        evidence = each.evidence
        if each.verdict is Verdict.NOT_CHECKED:
            if not (times := alike.pop(each.evidence, 0)):
                continue
            evidence = f"{f'and {times - 1} more ' if times > 1 else ''}not checked: {evidence}"
        sign = Text.assemble("  ", _sign(each.verdict, utf8=utf8))
        table.add_row(sign, Text(each.name), Text(evidence, quiet))
        if each.remedy:
            table.add_row("", "", Text.assemble(("do: ", "bold"), each.remedy))
    return table


def _sign(verdict: Verdict, *, utf8: bool) -> Text:
    sign, plain, colour = _SIGNS[verdict]
    return Text(sign if utf8 else plain, colour)


def _summary(findings: Sequence[Finding]) -> Text:
    failed, warned, skipped = (
        _count(findings, each) for each in (Verdict.FAIL, Verdict.WARN, Verdict.NOT_CHECKED)
    )
    told = [f"{failed} wrong"] if failed else []
    told += [f"{warned} to look at"] if warned else []
    told += [] if told else ["all is well"]
    told += [f"{skipped} not checked"] if skipped else []
    return Text(", ".join(told), _SIGNS[worst(findings)][2])


def _count(findings: Sequence[Finding], verdict: Verdict) -> int:
    return sum(each.verdict is verdict for each in findings)
