"""One Graph call as asked and as answered, and how its parts are read.

Path and parameters -> version, node, edge, fields, filter. Pure; what the call means is told in reads.py
and who may make it in graph.py.

Invariant: nothing that a caller sends raises anything but GraphRefusal.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from sandbox.errors import GraphError, parameter
from sandbox.faults import Fault

SUPPORTED_VERSIONS: Final = ("v21.0", "v22.0", "v23.0", "v24.0", "v25.0", "v26.0")
"""https://developers.facebook.com/docs/graph-api/changelog"""
OLDEST_VERSION: Final = SUPPORTED_VERSIONS[0]
"""What an expired, unknown or missing version is served as."""

_VERSION: Final = re.compile(r"v[0-9]+\.[0-9]+\Z")
_ARGUMENT: Final = re.compile(r"\.([a-z_]+)\(([^()]*)\)")
_NESTED: Final = re.compile(r"\{[^{}]*\}|\.[a-z_]+\([^()]*\)")


class GraphRefusal(Exception):
    """Graph answers with this error."""

    def __init__(self, error: GraphError) -> None:
        super().__init__(error.name)
        self.error = error


@dataclass(frozen=True, slots=True)
class Request:
    """One Graph call: `params` from query and body together, the token from wherever it came."""

    method: str
    path: str
    params: Mapping[str, str]
    base_url: str = ""
    via: str = "single"
    verified: bool = False
    """Whether the callback that the call names has echoed a challenge."""

    @property
    def meant(self) -> str:
        """GET, POST or DELETE; a POST may say in a parameter which it is meant as."""
        return (self.method == "POST" and self.params.get("method", "").upper()) or self.method


@dataclass(frozen=True, slots=True)
class Answer:
    """What Graph answers; `fault` is set where the answer is to be sent the wrong way."""

    status: int
    body: str
    version: str
    result: str
    """200, or the error's name, or the fault's class: what the counts call it."""
    kind: str = "other"
    page_id: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    fault: Fault | None = None


def split_path(path: str) -> tuple[str, tuple[str, ...]]:
    """The version it is served as, and the rest of the path; slashes at the ends or doubled do not matter."""
    parts = tuple([part for part in path.split("/") if part])
    if parts and _VERSION.match(parts[0]):
        return (parts[0] if parts[0] in SUPPORTED_VERSIONS else OLDEST_VERSION), parts[1:]
    return OLDEST_VERSION, parts


@lru_cache(maxsize=1_024)
def wanted_fields(text: str) -> tuple[str, ...]:
    """The names in a `fields` parameter; what is asked of nested objects is dropped."""
    before = None
    while before != text:
        before, text = text, _NESTED.sub("", text)
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def nested_arguments(text: str, field: str) -> Mapping[str, str]:
    """What a `fields` parameter hands to one of its fields: `field.user_id(1).app_id(2)` -> user_id, app_id."""
    found = re.search(rf"(?:^|,)\s*{re.escape(field)}((?:\.[a-z_]+\([^()]*\))*)", text)
    return dict(_ARGUMENT.findall(found[1])) if found else {}


@lru_cache(maxsize=1_024)
def query_params(query: str) -> Mapping[str, str]:
    """A query string's parameters; the batch's items mostly share one. Not to be changed."""
    return dict(parse_qsl(query, keep_blank_values=True, errors="replace"))


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Created at or after `since` and before `until`; unix seconds, None is open."""

    since: int | None = None
    until: int | None = None


_OPERATORS: Final = ("LESS_THAN", "GREATER_THAN", "GREATER_THAN_OR_EQUAL")


def time_range(filtering: str) -> TimeRange:
    """The range that all filters together leave. Raises GraphRefusal for what Graph does not support."""
    try:
        filters = json.loads(filtering)
    except (ValueError, RecursionError):
        raise GraphRefusal(parameter("param filtering must be an array.")) from None
    if not isinstance(filters, list):
        raise GraphRefusal(parameter("param filtering must be an array."))
    since: int | None = None
    until: int | None = None
    for each in filters:
        operator, value = _filter(each)
        if operator == "LESS_THAN":
            until = value if until is None else min(until, value)
        else:
            start = value + (operator == "GREATER_THAN")
            since = start if since is None else max(since, start)
    return TimeRange(since, until)


def _filter(given: object) -> tuple[str, int]:
    if not isinstance(given, dict):
        raise GraphRefusal(parameter("param filtering[0] must be an object."))
    name, operator = given.get("field"), given.get("operator")
    if name != "time_created" or operator not in _OPERATORS:
        text = f"Filtering field '{name}' with operation '{str(operator).lower()}' is not supported"
        raise GraphRefusal(parameter(text))
    try:
        return str(operator), int(given["value"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise GraphRefusal(parameter("param filtering[0][value] must be a unix time.")) from None


def whole_number(params: Mapping[str, str], name: str, default: int) -> int:
    """A parameter that must be a positive whole number."""
    text = params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0):
        raise GraphRefusal(parameter(f"param {name} must be non-negative."))
    return int(text)
