"""Facts for tests of the doctor: everything is well, unless a test says otherwise."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.fakes.meta import APP_ID, SCOPES
from tests.fakes.time import NOW
from worker.doctor.examination import judge
from worker.doctor.facts import (
    CallbackFacts,
    Everything,
    Given,
    MetaFacts,
    PageFacts,
    PageRows,
    PageTold,
    PostgresFacts,
    RedisFacts,
    RowsFacts,
    StreamFacts,
)
from worker.doctor.findings import Finding, Verdict
from worker.graph.account import AppSubscription, TokenFacts
from worker.health import Facts

PAGE = "153125381133"
URL = "https://leads.example.com/webhook"
NOW_MS = int(NOW.timestamp() * 1000)

GIVEN = Given((), True, True, True, "v26.0", "", None, frozenset({"k1"}), True)
POSTGRES = PostgresFacts(160_003, False, "0005", "0005", (), True, 2**30, 2**35, 80, 97, True, True)
ROWS = RowsFacts({"k1": (3, 1)}, 1, 0, None, NOW + timedelta(minutes=5))
REDIS = RedisFacts("7.2.4", False, False, True, "always", "noeviction", 2**20, 2**29, True, True)
STREAM = StreamFacts(
    0,
    None,
    dict.fromkeys(("live", "upkeep", "backfill", "schedule"), NOW_MS - 3_000),
    {"references": 9},
    {},
    0,
    None,
)
APP = AppSubscription("page", URL, True, ("leadgen",))
META = MetaFacts("v26.0", timedelta(seconds=-0.6), APP)
CALLBACK = CallbackFacts(URL, None, None)
TOKEN = TokenFacts(APP_ID, "PAGE", "3000", PAGE, True, None, None, SCOPES)
HEALTH = Facts(
    NOW, PAGE, True, token=TOKEN, answered=True, subscribed=("leadgen",), has_form=True, was_listed=True,
    last_webhook=NOW - timedelta(minutes=7),
)  # fmt: skip
EVERYTHING = Everything(
    NOW,
    GIVEN,
    POSTGRES,
    ROWS,
    REDIS,
    STREAM,
    META,
    CALLBACK,
    (PageFacts(PAGE, PageRows(), PageTold(HEALTH, 2)),),
)


def of(**changed: Any) -> list[Finding]:
    """The findings where these facts are other than well."""
    return list(judge(replace(EVERYTHING, **changed)))


def of_page(rows: Any = None, told: Any = None) -> list[Finding]:
    """The findings where these facts about the one Page are other than well."""
    return of(pages=(PageFacts(PAGE, rows or PageRows(), told or PageTold(HEALTH, 2)),))


def of_health(**changed: Any) -> list[Finding]:
    """The findings where Meta tells this of the one Page."""
    return of_page(told=PageTold(replace(HEALTH, **changed), 2))


def red(findings: list[Finding]) -> dict[str, str]:
    """What is not well, and how."""
    return {
        each.check: str(each.verdict) for each in findings if each.verdict in (Verdict.WARN, Verdict.FAIL)
    }


def skipped(findings: list[Finding]) -> set[str]:
    """What was not checked."""
    return {each.check for each in findings if each.verdict is Verdict.NOT_CHECKED}


def remedy_of(findings: list[Finding], check: str) -> str:
    """What to do about a check that is not well."""
    (remedy,) = [each.remedy or "" for each in findings if each.check == check]
    return remedy
