"""Settings -> findings: what cannot be used, what is lacking. Pure; reading them is settings.py's.

Invariant: no finding holds a value, but for the names of variables.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from worker.doctor.facts import Given
from worker.doctor.findings import Finding, fail, not_checked, ok, warn

FIRST_OF_EACH: Final = (
    "postgres.reachable",
    "redis.reachable",
    "meta.reachable",
    "work.stream",
    "page.token",
)
_SERVERS: Final = ("DATABASE_URL", "REDIS_URL")


def of_problems(problems: Sequence[str]) -> Iterator[Finding]:
    """Settings that cannot be used, each as `NAME: what is wrong`; nothing else can be looked at then."""
    for problem in problems:
        yield fail(
            "settings.values",
            problem,
            "correct it in the environment or in .env (.env.example explains each)",
        )
    for check in FIRST_OF_EACH:
        yield not_checked(check, "the settings cannot be used")


def of_given(given: Given) -> Iterator[Finding]:
    """Settings that can be used."""
    yield ok("settings.values", "each can be used")
    yield _needed(given)
    yield _app_id(given)
    yield _token_file(given)


def _needed(given: Given) -> Finding:
    check = "settings.needed"
    if not given.lacking:
        return ok(check, "all that are needed are set")
    remedy = "set them in .env (.env.example explains each)"
    if set(given.lacking) & set(_SERVERS):
        remedy += "; where `leadsync up` runs its own servers, run this in its folder or give --data-dir"
    return fail(check, f"not set: {', '.join(given.lacking)}", remedy)


def _app_id(given: Given) -> Finding:
    if given.has_app:
        return ok("settings.app_id", "META_APP_ID is set")
    told = "META_APP_ID is not set, so Meta cannot be asked about tokens and subscriptions"
    return warn("settings.app_id", told, "set META_APP_ID in .env (App settings > Basic)")


def _token_file(given: Given) -> Finding:
    if given.token_file is None:
        return ok("settings.token_file", "PAGE_TOKENS_FILE can be read, or is not set")
    remedy = 'correct it: a file that leadsync may read, with one JSON object {"PAGE": "TOKEN"}'
    return fail("settings.token_file", given.token_file, remedy)
