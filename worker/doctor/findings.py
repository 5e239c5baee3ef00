"""The noun of the doctor: a finding. What a check came to, on what evidence, and what to type. Pure.

It finds nothing itself (the checks do). Invariants: a finding holds no token, no secret and no answer of a person; what
is wrong has a remedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Verdict(StrEnum):
    """How a check ended, the worst last but for what could not be checked."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` (`<group>.<name>`) came to. `evidence` is a clause without a capital; of what was not checked it
    says why. `remedy` names what to type. `page_id`: it is about that Page alone."""

    check: str
    verdict: Verdict
    evidence: str
    remedy: str | None = None
    page_id: str | None = None

    @property
    def group(self) -> str:
        """What it is about: settings, postgres, redis, meta, work, or page."""
        return self.check.partition(".")[0]

    @property
    def name(self) -> str:
        """In words."""
        return self.check.partition(".")[2].replace("_", " ")

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "check": self.check,
            "verdict": str(self.verdict),
            "evidence": self.evidence,
            "remedy": self.remedy,
            "page_id": self.page_id,
        }


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands where a fact would be that could not be found out; `why` is a clause for people."""

    why: str


GROUPS: Final = ("settings", "postgres", "redis", "meta", "work", "page")
"""In the order in which they are told."""


def ok(check: str, evidence: str, page_id: str | None = None) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, evidence, None, page_id)


def warn(check: str, evidence: str, remedy: str, page_id: str | None = None) -> Finding:
    """Leads come, and something is to be done."""
    return Finding(check, Verdict.WARN, evidence, remedy, page_id)


def fail(check: str, evidence: str, remedy: str, page_id: str | None = None) -> Finding:
    """Leads are late, refused or in danger."""
    return Finding(check, Verdict.FAIL, evidence, remedy, page_id)


def not_checked(check: str, why: str, page_id: str | None = None) -> Finding:
    """It could not be found out."""
    return Finding(check, Verdict.NOT_CHECKED, why, None, page_id)


def none_checked(checks: Sequence[str], why: str, page_id: str | None = None) -> list[Finding]:
    """None of these could be found out."""
    return [not_checked(check, why, page_id) for check in checks]


def worst(findings: Sequence[Finding]) -> Verdict:
    """The worst of what was checked; NOT_CHECKED where nothing was."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.OK)
    return next((each for each in order if any(f.verdict is each for f in findings)), Verdict.NOT_CHECKED)


def set_webhook(url: str = "") -> str:
    """The command that sets the app's webhook; `url` is where it goes, empty where that is not known."""
    return f"leadsync connect --only webhook --webhook-url {url or 'https://your.host/webhook'}"


def ago(seconds: float) -> str:
    """A time that is past, roughly."""
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A length of time, roughly."""
    seconds = max(0.0, seconds)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes, roughly."""
    for length, unit in ((2**30, "GB"), (2**20, "MB")):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1024:.0f} kB"
