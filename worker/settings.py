"""The environment and the file `.env` -> Settings, read once. Nothing else in the worker looks at os.environ.

Invariant: every problem is reported in one ConfigurationError, one a line, and no message holds a secret's value.
"""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from environs import Env, EnvError, EnvValidationError, ValidationError, validate

from worker.errors import ConfigurationError
from worker.inbox import is_id
from worker.sealing import Key, parse_keys

DOTENV: Final = ".env"
CONNECTS_ALONE: Final = "META_USER_TOKEN"
MOST_SECONDS: Final = 10 * 366 * 86_400
"""Ten years: whoever waits for longer has mistyped, and a date so far off is none that Python knows."""
LONGEST_COMMAND: Final = 4_096
"""Of characters, of a command line that the environment gives."""
GRAPH_VERSION: Final = "v26.0"
"""The version of Graph that leadsync is written for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment says to worker, schedule and commands. Times in seconds.

    `database_url` and `redis_url` are empty where they are not set: `up` and `demo` then bring their own servers.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    app_id: str
    app_secrets: tuple[str, ...] = field(repr=False)
    verify_token: str = field(repr=False)
    webhook_url: str
    graph_url: str
    graph_version: str
    graph_timeout: float
    page_tokens: Mapping[str, str] = field(repr=False)
    page_tokens_file: Path | None
    token_keys: tuple[Key, ...] = field(repr=False)
    token_keys_file: Path | None
    worker_concurrency: int
    calls_per_page: int
    calls_per_process: int
    references_in_flight: int
    drain_seconds: float
    linger_seconds: float
    claim_after: float
    ring_every: float
    lease_seconds: float
    transient_first: float
    transient_longest: float
    transient_attempts: int
    not_visible_first: float
    not_visible_longest: float
    not_visible_for: float
    park_after_deaths: int
    parked_probe_every: float
    health_every: float
    health_resubscribe: bool
    health_events_kept: float
    alert_url: str = field(repr=False)
    alert_secret: str = field(repr=False)
    alert_command: str = field(repr=False)
    budget_window: float
    budget_floor: int
    budget_share: float
    budget_refresh: float
    forms_discover: float
    backfill_slices_per_page: int
    backfill_slices_per_process: int
    backfill_share_beside_live: float
    backfill_new_forms: bool
    reconcile_every: float
    reconcile_overlap: float
    reconcile_lag: float
    reconcile_deep: float
    export_url: str
    export_cookie: str = field(repr=False)
    export_token: str = field(repr=False)
    receiver_port: int
    metrics_port: int
    log_style: Literal["console", "json"]
    log_level: str


def read_user_token() -> str:
    """The token in META_USER_TOKEN, for `connect` alone: what runs for months should not hold it."""
    env = _LiteralEnv()
    _read_file(env)
    return str(env.str(CONNECTS_ALONE, "")).strip()


def read_settings(*needed: str) -> Settings:
    """The settings in the process environment and, behind it, in the file `.env` of the current directory.

    `needed` names variables that the calling command cannot do without. Raises ConfigurationError.
    """
    env = _LiteralEnv(eager=False)
    _read_file(env)
    settings = _read(env)
    lacking = [name for name in needed if not env.str(name, "")]
    problems = _problems(env)
    if settings.alert_url and not settings.alert_secret:
        problems.append("ALERT_SECRET: is required where ALERT_URL is set; the alerts are signed with it")
    problems += [f"{name}: is required; set it in the environment or in .env" for name in lacking]
    if problems:
        raise ConfigurationError("\n".join(sorted(problems)))
    return settings


class _LiteralEnv(Env):
    """environs' own, but that the file is taken as it stands: a `${` in a password is no reference to anything."""

    def _load_dotenv(self, path: str | Path, *, override: bool = False) -> None:
        found = {
            name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None
        }
        self._environ = {**self._environ, **found} if override else {**found, **self._environ}


def _read_file(env: Env) -> None:
    try:
        env.read_env(DOTENV, recurse=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{DOTENV}: cannot be read ({type(error).__name__}); it must be a file of UTF-8 text"
        ) from None


def _read(env: Env) -> Settings:
    positive = validate.Range(
        min=0, min_inclusive=False, max=MOST_SECONDS, error=f"must be more than 0, at most {MOST_SECONDS}"
    )
    at_least_one = validate.Range(min=1, error="must be at least 1")

    def seconds(name: str, default: float) -> float:
        return env.float(name, default, validate=positive)

    def count(name: str, default: int) -> int:
        return env.int(name, default, validate=at_least_one)

    def text(name: str, default: str, check: Callable[[str], object] | None = None) -> str:
        # A value that fails its check reads as None here and is reported by _problems.
        return env.str(name, default, validate=[_utf8, check] if check else _utf8) or default

    return Settings(
        database_url=text("DATABASE_URL", "", _url("postgresql", "postgres")),
        redis_url=text("REDIS_URL", "", _url("redis", "rediss", "unix")),
        app_id=text("META_APP_ID", "", validate.Regexp(r"[0-9]{0,32}\Z", error="must be digits only")),
        app_secrets=_secrets(text("META_APP_SECRET", "", _check_secrets)),
        verify_token=text("META_VERIFY_TOKEN", ""),
        webhook_url=text("WEBHOOK_URL", "", _url("https", "http")),
        graph_url=text("GRAPH_URL", "https://graph.facebook.com", _url("https", "http")).rstrip("/"),
        graph_version=text(
            "GRAPH_VERSION", GRAPH_VERSION, validate.Regexp(r"v\d{1,3}\.\d\Z", error="must look like v26.0")
        ),
        graph_timeout=seconds("GRAPH_TIMEOUT_SECONDS", 20),
        page_tokens=_tokens(text("PAGE_TOKENS", "", _check_tokens)),
        page_tokens_file=env.path("PAGE_TOKENS_FILE", None) if text("PAGE_TOKENS_FILE", "") else None,
        token_keys=parse_keys(text("TOKEN_KEYS", "", _check_keys)),
        token_keys_file=env.path("TOKEN_KEYS_FILE", None) if text("TOKEN_KEYS_FILE", "") else None,
        worker_concurrency=count("WORKER_CONCURRENCY", 2),
        calls_per_page=count("CALLS_IN_FLIGHT_PER_PAGE", 8),
        calls_per_process=count("CALLS_IN_FLIGHT_PER_PROCESS", 64),
        references_in_flight=count("REFERENCES_IN_FLIGHT", 2_000),
        drain_seconds=seconds("DRAIN_SECONDS", 30),
        linger_seconds=seconds("LINGER_SECONDS", 3),
        claim_after=seconds("CLAIM_AFTER_SECONDS", 45),
        ring_every=seconds("RING_EVERY_SECONDS", 5),
        lease_seconds=seconds("LEASE_SECONDS", 90),
        transient_first=seconds("TRANSIENT_FIRST_SECONDS", 2),
        transient_longest=seconds("TRANSIENT_LONGEST_SECONDS", 900),
        transient_attempts=count("TRANSIENT_ATTEMPTS", 25),
        not_visible_first=seconds("NOT_VISIBLE_FIRST_SECONDS", 5),
        not_visible_longest=seconds("NOT_VISIBLE_LONGEST_SECONDS", 600),
        not_visible_for=seconds("NOT_VISIBLE_FOR_SECONDS", 7_200),
        park_after_deaths=count("PARK_AFTER_DEATHS", 10),
        parked_probe_every=seconds("PARKED_PROBE_EVERY_SECONDS", 900),
        health_every=seconds("HEALTH_EVERY_SECONDS", 3_600),
        health_resubscribe=env.bool("HEALTH_RESUBSCRIBE", True),
        health_events_kept=seconds("HEALTH_EVENTS_KEPT_SECONDS", 90 * 86_400),
        alert_url=text("ALERT_URL", "", _url("https", "http")),
        alert_secret=text("ALERT_SECRET", ""),
        alert_command=text("ALERT_COMMAND", "", _check_command),
        budget_window=env.float(
            "BUDGET_WINDOW_SECONDS",
            86_400,
            validate=validate.Range(min=5, max=MOST_SECONDS, error=f"must be from 5 to {MOST_SECONDS}"),
        ),
        budget_floor=count("BUDGET_FLOOR_CALLS", 4_800),
        budget_share=env.float(
            "BUDGET_SHARE",
            0.95,
            validate=validate.Range(
                min=0, max=1, min_inclusive=False, error="must be more than 0, at most 1"
            ),
        ),
        budget_refresh=seconds("BUDGET_REFRESH_SECONDS", 900),
        forms_discover=seconds("FORMS_DISCOVER_SECONDS", 3_600),
        backfill_slices_per_page=count("BACKFILL_SLICES_PER_PAGE", 8),
        backfill_slices_per_process=count("BACKFILL_SLICES_PER_PROCESS", 16),
        backfill_share_beside_live=env.float(
            "BACKFILL_SHARE_BESIDE_LIVE",
            0.5,
            validate=validate.Range(min=0.05, max=1, error="must be from 0.05 to 1"),
        ),
        backfill_new_forms=env.bool("BACKFILL_NEW_FORMS", True),
        reconcile_every=seconds("RECONCILE_EVERY_SECONDS", 900),
        reconcile_overlap=seconds("RECONCILE_OVERLAP_SECONDS", 3_600),
        reconcile_lag=env.float(
            "RECONCILE_LAG_SECONDS",
            300,
            validate=validate.Range(min=0, max=MOST_SECONDS, error=f"must be from 0 to {MOST_SECONDS}"),
        ),
        reconcile_deep=seconds("RECONCILE_DEEP_SECONDS", 86_400),
        export_url=text("EXPORT_URL", "https://www.facebook.com", _url("https", "http")).rstrip("/"),
        export_cookie=text("EXPORT_COOKIE", ""),
        export_token=text("EXPORT_TOKEN", ""),
        receiver_port=count("RECEIVER_PORT", 8_000),
        metrics_port=env.int(
            "METRICS_PORT", 9_464, validate=validate.Range(min=0, max=65_535, error="must be 0 to 65535")
        ),
        log_style=_style(text("LOG_STYLE", "console", validate.OneOf(["console", "json"]))),
        log_level=text("LOG_LEVEL", "info", validate.OneOf(["debug", "info", "warning", "error"])),
    )


def _problems(env: Env) -> list[str]:
    try:
        env.seal()
    except EnvValidationError as error:
        told = error.error_messages
        named = told.items() if isinstance(told, Mapping) else [("settings", told)]
        return [f"{name}: {_sentence(messages)}" for name, messages in named]
    except EnvError as error:
        return [f"settings: {type(error).__name__}"]
    return []


def _sentence(messages: object) -> str:
    return "; ".join(map(str, messages)) if isinstance(messages, list) else str(messages)


def _utf8(text: str) -> None:
    """An environment may hold any bytes; what is no text can neither be sent nor written down."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("is not UTF-8") from None
    if "\0" in text:
        raise ValidationError("holds NUL")


def _url(*schemes: str) -> Callable[[str], None]:
    def check(url: str) -> None:
        if not url:
            return
        try:
            scheme = urlsplit(url).scheme
        except ValueError:
            scheme = ""
        if scheme not in schemes:
            raise ValidationError(f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")

    return check


def _secrets(text: str) -> tuple[str, ...]:
    return tuple(secret.strip() for secret in text.split(",") if secret.strip())


def _check_secrets(text: str) -> None:
    if text and not _secrets(text):
        raise ValidationError("holds nothing but commas")


def _check_tokens(text: str) -> None:
    for number, pair in enumerate(_pairs(text), 1):
        page_id, equals, token = pair.partition("=")
        if not (equals and is_id(page_id.strip()) and token.strip()):
            raise ValidationError(f"entry {number} is not PAGE_ID=TOKEN; separate entries by commas")


def _tokens(text: str) -> dict[str, str]:
    split = (pair.partition("=") for pair in _pairs(text))
    return {page_id.strip(): token.strip() for page_id, _, token in split}


def _check_keys(text: str) -> None:
    try:
        parse_keys(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def _check_command(text: str) -> None:
    # shlex takes time squared.
    if len(text) > LONGEST_COMMAND:
        raise ValidationError(f"is longer than {LONGEST_COMMAND:,} characters; put it into a script")
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if text and not words:
        raise ValidationError("is not a command line; quotes must be closed")


def _pairs(text: str) -> list[str]:
    return [pair.strip() for pair in text.split(",") if pair.strip()]


def _style(text: str) -> Literal["console", "json"]:
    return "json" if text == "json" else "console"


def environment() -> dict[str, str]:
    """A copy of the process environment, for the child processes that `up` and `demo` start.

    Without the token that is `connect`'s alone: what runs for months should not hold it.
    """
    return {name: value for name, value in os.environ.items() if name != CONNECTS_ALONE}
