"""docs/sandbox.md against the code."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from sandbox import download
from sandbox.config import SandboxConfig
from sandbox.control import routes
from sandbox.deliveries import VARIANTS
from sandbox.exportfile import ENCODINGS, FLAGS, SEPARATORS
from sandbox.faults import CLASSES, KINDS, FaultRule
from sandbox.formorders import NEW_FORM_KEYS
from sandbox.ordering import ORDERS
from sandbox.orders import RUN_KEYS
from sandbox.sender import Progress
from sandbox.subscriptionorders import SUBSCRIPTION_KEYS
from sandbox.tokenorders import TOKEN_KEYS
from sandbox.usage import ROUNDINGS
from sandbox.world import STATUSES
from tests.fakes.sandboxes import NOW, asked, made

MANUAL = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()


def test_the_manual_names_all_that_can_be_asked_for() -> None:
    """Every setting, route, order, variant and fault of the code stands in the manual."""
    names = {f"`{each.name}`" for each in fields(SandboxConfig)} | {
        f"`{name}`" for name in CLASSES | KINDS | RUN_KEYS | NEW_FORM_KEYS | TOKEN_KEYS | SUBSCRIPTION_KEYS
    }
    names |= {f"`{each.name}`" for each in fields(FaultRule) if each.name != "name"}
    names |= {f"`{name}`" for name in VARIANTS}
    names |= {
        f"`{route.path}`" if route.method == "*" else f"`{route.method} {route.path}`"
        for route in (*routes(made()), download.routes(made())[0])
    }
    assert {name for name in names if name not in MANUAL} == set()
    words = {*ROUNDINGS, *ORDERS, *ENCODINGS, *SEPARATORS, *FLAGS, *STATUSES}
    assert {word for word in words if word not in MANUAL} == set()


def test_the_manual_shows_all_that_a_run_tells() -> None:
    """Every count of GET /sandbox/send stands in the manual's example."""
    assert {name for name in Progress().report() if f'"{name}": ' not in MANUAL} == set()


def test_the_manual_shows_all_that_is_told_of_calls() -> None:
    """Every field of GET /sandbox/calls stands in the manual's example."""
    sandbox = made()
    asked(sandbox, "/me")
    told: dict[str, Any] = {
        **sandbox.journal.report(),
        **sandbox.graph.meters.windows(NOW, sandbox.journal.into_block),
    }
    page_id = sandbox.world.pages[0].page_id
    names = {*told, *told["pages"][page_id], *told["windows"][page_id], *told["shared_windows"]}
    assert {name for name in names if f'"{name}": ' not in MANUAL} == set()
