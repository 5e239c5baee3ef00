"""What the doctor shows: what is wrong with what to type, one line for a Page that is well, everything in JSON."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.fakes.doctor import GIVEN, PAGE, REDIS, of, of_health
from tests.fakes.time import NOW
from worker.cli import main
from worker.doctor.findings import Finding, Unknown, Verdict, ago, size, worst
from worker.doctor.show import as_json, render


def shown(findings: list[Finding], *, utf8: bool = True, whole: bool = False) -> str:
    """As it stands on a terminal of 80 columns."""
    out = io.StringIO()
    Console(file=out, width=80).print(render(findings, utf8=utf8, whole_pages=whole))
    return out.getvalue()


def test_what_is_wrong_is_shown_with_what_to_type() -> None:
    """Below it, behind `do:`."""
    text = shown(of(redis=replace(REDIS, fsync="everysec")))
    assert "✗ fsync" in text
    assert "do: redis-cli: `CONFIG SET appendfsync always`" in text
    assert "1 wrong" in text


def test_of_a_page_that_is_well_one_line_is_told() -> None:
    """Unless it was asked about alone."""
    assert f"✓ Page {PAGE}: all well" in shown(of())
    assert "lead access" not in shown(of())
    assert "lead access" in shown(of(), whole=True)
    text = shown(of_health(subscribed=()))
    assert f"✗ Page {PAGE}\n" in text
    assert "✗ subscription" in text


def a_page(page_id: str, **changed: Any) -> list[Finding]:
    """What is found of this Page, which is like the first."""
    return [
        replace(each, page_id=page_id, remedy=each.remedy and each.remedy.replace(PAGE, page_id))
        for each in of_health(**changed)
        if each.page_id
    ]


def test_pages_that_are_alike_are_told_once() -> None:
    """One dead token parks two hundred Pages, and that is one thing to read; what differs is told apart."""
    well = [each for page_id in ("11", "12", "13") for each in a_page(page_id)]
    text = shown(of() + well)
    assert "✓ 4 Pages: all well" in text
    gone = [each for page_id in ("21", "22", "23", "24", "25") for each in a_page(page_id, subscribed=())]
    text = shown(of() + gone)
    assert text.count("✗ subscription") == 1
    assert "the same: Page 22, 23, 24 and 1 more" in text
    assert f"✓ Page {PAGE}: all well" in text
    assert "5 wrong" in text
    late = [
        replace(each, evidence=each.evidence + " 12 wait") if each.check == "page.subscription" else each
        for each in a_page("31", subscribed=())
    ]
    assert shown(gone + late).count("✗ subscription") == 2


def test_several_that_were_not_checked_for_one_reason_are_one_line() -> None:
    """The reason is told once."""
    unasked = Unknown("Meta was not asked")
    text = shown(of(given=replace(GIVEN, asks_meta=False), meta=unasked, callback=unasked))
    assert text.count("Meta was not asked") == 1


def test_a_terminal_without_utf8_gets_plain_signs() -> None:
    """And nothing else than ASCII."""
    text = shown(of(redis=replace(REDIS, fsync="everysec"), meta=Unknown("x")), utf8=False)
    assert text.isascii()
    assert "x fsync" in text


def test_json_holds_every_finding_and_the_worst() -> None:
    """As plain values."""
    told = json.loads(json.dumps(as_json(of(redis=replace(REDIS, max_memory=0)), NOW)))
    assert told["verdict"] == "warn"
    assert told["counts"]["warn"] == 1
    assert len(told["findings"]) == sum(told["counts"].values())
    assert set(told["findings"][0]) == {"check", "verdict", "evidence", "remedy", "page_id"}


def test_the_worst_of_what_was_checked_counts() -> None:
    """What was not checked is neither good nor bad."""
    found = {verdict: Finding("a.b", verdict, "x") for verdict in Verdict}
    assert worst([found[Verdict.OK], found[Verdict.NOT_CHECKED]]) is Verdict.OK
    assert worst([found[Verdict.OK], found[Verdict.WARN]]) is Verdict.WARN
    assert worst([*found.values()]) is Verdict.FAIL
    assert worst([]) is Verdict.NOT_CHECKED


def test_all_settings_that_cannot_be_used_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its name, exit status 1, and everything else is not checked."""
    monkeypatch.chdir(tmp_path)
    env = {"GRAPH_VERSION": "26", "DATABASE_URL": "mysql://x", "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = CliRunner().invoke(main, ["doctor", "--json"], env=env)
    assert done.exit_code == 1
    found = json.loads(done.output)["findings"]
    wrong = [each["evidence"].partition(":")[0] for each in found if each["verdict"] == "fail"]
    assert wrong == ["DATABASE_URL", "GRAPH_VERSION"]
    assert {each["verdict"] for each in found if each["check"] != "settings.values"} == {"not_checked"}


def test_in_an_empty_folder_what_is_lacking_is_told_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no traceback where nothing is set."""
    monkeypatch.chdir(tmp_path)
    env = dict.fromkeys(
        ("DATABASE_URL", "REDIS_URL", "META_APP_SECRET", "META_APP_ID", "META_VERIFY_TOKEN"), ""
    )
    done = CliRunner().invoke(main, ["doctor", "--json"], env=env)
    assert done.exit_code == 1
    found = {each["check"]: each for each in json.loads(done.output)["findings"]}
    assert (
        "DATABASE_URL, REDIS_URL, META_APP_SECRET, META_VERIFY_TOKEN" in found["settings.needed"]["evidence"]
    )
    assert [name for name, each in found.items() if each["verdict"] == "fail"] == ["settings.needed"]


def test_sizes_and_times_are_told_roughly() -> None:
    """For people."""
    assert [ago(each) for each in (-1, 59, 600, 7_300, 200_000)] == [
        "0 s ago", "59 s ago", "10 min ago", "2 h ago", "2 d ago"
    ]  # fmt: skip
    assert [size(each) for each in (2_048, 3 * 2**20, 5 * 2**30)] == ["2 kB", "3.0 MB", "5.0 GB"]
