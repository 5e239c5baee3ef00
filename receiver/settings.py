"""The environment and the file `.env` -> Settings, read once. Nothing else here looks at os.environ.

Invariant: every problem is in one ConfigurationError, one a line, and no message holds a secret's value. Some lines
stand in worker/settings.py again: the receiver may lean on nothing of the worker but its front door.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from environs import Env, EnvError, EnvValidationError, ValidationError, validate

from receiver.errors import ConfigurationError

DOTENV: Final = ".env"
DEFAULT_REDIS: Final = "redis://127.0.0.1:6379/0"
SMALLEST_BODY: Final = 1_024
LARGEST_BODY: Final = 32 * 1024 * 1024
"""Half of what publisher.py keeps of bodies set aside, so that the newest always fits."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment says to the receiver.

    `app_secrets` are all in force at once, so that a secret can be rotated without refusing a delivery.
    """

    app_secrets: tuple[str, ...] = field(repr=False)
    verify_token: str = field(repr=False)
    redis_url: str = field(repr=False, default=DEFAULT_REDIS)
    host: str = "127.0.0.1"
    port: int = 8_000
    threads: int = 8
    max_body_bytes: int = 4 * 1024 * 1024
    stream_max_entries: int = 1_000_000
    redis_memory_share: float = 0.8
    log_style: Literal["console", "json"] = "console"
    log_level: str = "info"


def read_settings() -> Settings:
    """The settings in the process environment and, behind it, in the file `.env` of the current directory.

    Raises ConfigurationError.
    """
    env = _LiteralEnv(eager=False)
    _read_file(env)
    settings = _read(env)
    problems = _problems(env)
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
    def text(name: str, default: str, check: Callable[[str], object] | None = None) -> str:
        # A value that fails its check reads as None here and is reported by _problems.
        return env.str(name, default, validate=[_utf8, check] if check else _utf8) or default

    def needed(name: str) -> str:
        # No default: a default is never checked.
        return env.str(name, validate=[_utf8, _required]) or ""

    def count(name: str, default: int, most: int, least: int = 1) -> int:
        within = validate.Range(least, most, error=f"must be from {least} to {most}")
        return env.int(name, default, validate=within)

    return Settings(
        app_secrets=_secrets(needed("META_APP_SECRET")),
        verify_token=needed("META_VERIFY_TOKEN").strip(),
        redis_url=text("REDIS_URL", DEFAULT_REDIS, _redis_url),
        host=text("RECEIVER_HOST", "127.0.0.1"),
        port=count("RECEIVER_PORT", 8_000, 65_535, least=0),
        threads=count("RECEIVER_THREADS", 8, 256),
        max_body_bytes=count("RECEIVER_MAX_BODY_BYTES", 4 * 1024 * 1024, LARGEST_BODY, least=SMALLEST_BODY),
        stream_max_entries=count("STREAM_MAX_ENTRIES", 1_000_000, 1_000_000_000),
        redis_memory_share=env.float("REDIS_MEMORY_SHARE", 0.8, validate=_share),
        log_style=_style(text("LOG_STYLE", "console", validate.OneOf(["console", "json"]))),
        log_level=text("LOG_LEVEL", "info", validate.OneOf(["debug", "info", "warning", "error"])),
    )


def _secrets(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(secret.strip() for secret in text.split(",") if secret.strip()))


def _required(text: str) -> None:
    if not text.strip(", \t"):
        raise ValidationError("is required; set it in the environment or in .env")


def _utf8(text: str) -> None:
    """An environment may hold any bytes; what is no text can be neither a key nor an address."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("is not UTF-8") from None
    if "\0" in text:
        raise ValidationError("holds NUL")


def _redis_url(url: str) -> None:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if url and scheme not in ("redis", "rediss", "unix"):
        raise ValidationError("must be a URL that begins with redis:// or rediss:// or unix://")


def _share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValidationError("must be more than 0 and at most 1")


def _style(text: str) -> Literal["console", "json"]:
    return "json" if text == "json" else "console"


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
