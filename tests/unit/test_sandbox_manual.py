"""docs/sandbox.md against the code."""

from dataclasses import fields
from pathlib import Path

from sandbox.config import SandboxConfig
from sandbox.control import routes
from sandbox.deliveries import VARIANTS
from sandbox.faults import CLASSES, KINDS, FaultRule
from sandbox.orders import RUN_KEYS
from tests.fakes.sandboxes import made

MANUAL = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()


def test_the_manual_names_all_that_can_be_asked_for() -> None:
    """Every setting, route, order, variant and fault of the code stands in the manual."""
    names = {f"`{each.name}`" for each in fields(SandboxConfig)} | {
        f"`{name}`" for name in CLASSES | KINDS | RUN_KEYS
    }
    names |= {f"`{each.name}`" for each in fields(FaultRule) if each.name != "name"}
    names |= {f"`{name}`" for name in VARIANTS}
    names |= {
        f"`{route.path}`" if route.method == "*" else f"`{route.method} {route.path}`"
        for route in routes(made())
    }
    assert {name for name in names if name not in MANUAL} == set()
