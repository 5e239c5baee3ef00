"""Who may import whom, read from the source: the arrows of the design stay what they were drawn as.

Two tables. LAYERS says which of our own modules each module may lean on; DOORS says through which files a foreign
library comes in. Both match by the longest prefix; imports made inside functions count like any other.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("worker", "receiver", "sandbox", "benchmarks", "tests")

PURE = {
    "worker.errors",
    "worker.inbox",
    "worker.lead",
    "worker.batches",
    "worker.quick_dataclass",
    "worker.slices",
    "worker.outcomes",
    "worker.trail",
    "worker.foreign_text",
}
"""What any deciding file may lean on."""

PIPELINE = PURE | {
    "worker.asks",
    "worker.granted",
    "worker.listing",
    "worker.ports",
    "worker.reading",
    "worker.result_pages",
    "worker.sources",
    "worker.speed",
    "worker.verdicts",
    "worker.graph.faults",
    "worker.graph.usage",
    "worker.graph.wire",
    "worker.budget.policy",
}
"""What a pipeline may lean on: values and types. The neighbours themselves are handed to it."""

CONNECTING = PIPELINE | {
    "worker.calls",
    "worker.graph.account",
    "worker.sealing",
    "worker.steps",
    "worker.subscribing",
    "worker.tokens",
}
"""What connects a Page and what takes it away again may lean on."""

DOCTORS_FACTS = {
    "worker.doctor.facts",
    "worker.doctor.findings",
    "worker.errors",
    "worker.graph.account",
    "worker.handshaking",
    "worker.health",
}
"""What the doctor's checks may lean on: facts, and how a Page's health is judged."""

LAYERS: dict[str, set[str]] = {
    # The receiver knows the front door and the way logs are written, and nothing else of the worker.
    "receiver": {"receiver", "worker.inbox", "worker.logs"},
    # The simulated Meta knows nothing of us, or it would agree with our mistakes.
    "sandbox": {"sandbox", "worker.logs"},
    # By default the worker may lean on itself; the files below on less.
    "worker": {"worker"},
    "worker.errors": {"worker.graph.usage"},
    "worker.inbox": {"worker.quick_dataclass"},
    "worker.quick_dataclass": set(),
    "worker.trail": set(),
    "worker.logs": set(),
    "worker.json_text": set(),
    "worker.sealing": {"worker.errors"},
    "worker.metrics": set(),
    "worker.graph.counting": PURE | {"worker.graph.wire", "worker.metrics"},
    "worker.totals": {"worker.errors", "worker.metrics"},
    "worker.redis_facts": {"worker.errors", "worker.inbox", "worker.totals"},
    "worker.exposition": {
        "worker.budget.ledger",
        "worker.budget.policy",
        "worker.health",
        "worker.inbox",
        "worker.metrics",
        "worker.redis_facts",
        "worker.store.metrics",
    },
    "worker.tokens": {"worker.errors", "worker.sealing"},
    "worker.settings": {"worker.errors", "worker.inbox", "worker.sealing"},
    "worker.key_file": {"worker.errors", "worker.sealing"},
    "worker.rotation": {"worker.errors", "worker.key_file", "worker.sealing", "worker.store.tokens"},
    "worker.lead": {"worker.errors", "worker.inbox", "worker.quick_dataclass"},
    "worker.batches": PURE,
    "worker.outcomes": PURE,
    "worker.graph.usage": set(),
    "worker.graph.wire": PURE | {"worker.graph", "worker.json_text"},
    "worker.graph.faults": PURE | {"worker.graph"},
    "worker.asks": PURE | {"worker.graph.wire"},
    "worker.budget.policy": PURE | {"worker.budget", "worker.graph.usage"},
    "worker.sync": PIPELINE,
    "worker.reading": PIPELINE | {"worker.tokens"},
    "worker.listing": PIPELINE | {"worker.tokens"},
    "worker.verdicts": PIPELINE,
    "worker.granted": {"worker.budget.policy", "worker.errors", "worker.graph.usage", "worker.graph.wire"},
    "worker.limits": PIPELINE | {"worker.tokens"},
    "worker.result_pages": {"worker.asks"},
    "worker.slices": set(),
    "worker.plans": {"worker.asks", "worker.slices"},
    "worker.walking": PIPELINE
    | {"worker.giving_way", "worker.plans", "worker.sealing", "worker.slices", "worker.tokens"},
    "worker.backfill": {"worker.errors", "worker.walking"},
    "worker.reconcile": {"worker.plans", "worker.budget.policy"},
    "worker.health": PIPELINE | {"worker.graph.account"},
    "worker.page_calls": PIPELINE
    | {"worker.calls", "worker.graph.account", "worker.sealing", "worker.tokens"},
    "worker.probing": PIPELINE
    | {"worker.calls", "worker.graph.account", "worker.health", "worker.page_calls"},
    "worker.checking": {"worker.errors", "worker.health", "worker.sealing"},
    "worker.alerts": {"worker.health"},
    "worker.form": PURE,
    "worker.forms": PIPELINE | {"worker.form", "worker.sealing", "worker.tokens"},
    "worker.questions": PURE | {"worker.form"},
    "worker.when": set(),
    "worker.clock": set(),
    "worker.flow": set(),
    "worker.looks": set(),
    "worker.status_view": {
        "worker.flow",
        "worker.foreign_text",
        "worker.inbox",
        "worker.looks",
        "worker.status",
    },
    "worker.cells": set(),
    "worker.destination": {"worker.errors"},
    "worker.export": PURE | {"worker.cells", "worker.questions"},
    "worker.export_text": {"worker.errors"},
    "worker.export_file": PURE | {"worker.export_text", "worker.when"},
    "worker.importing": PURE | {"worker.export_file", "worker.store.imports"},
    "worker.rejected": {"worker.destination", "worker.export_file"},
    "worker.conditions": PURE,
    "worker.believed": set(),
    "worker.clock_notes": {"worker.believed", "worker.errors", "worker.inbox"},
    "worker.forgetting": PURE | {"worker.conditions", "worker.json_text", "worker.store.erasures"},
    "worker.leftovers": {
        "worker.conditions",
        "worker.destination",
        "worker.errors",
        "worker.export_file",
        "worker.rejected",
    },
    "worker.erased": {"worker.errors", "worker.inbox"},
    "worker.export_download": {"worker.errors", "worker.export_file", "worker.export_text"},
    "worker.scopes": {"worker.graph.account"},
    "worker.steps": {"worker.errors"},
    "worker.calls": PIPELINE,
    "worker.subscribing": PIPELINE | {"worker.calls", "worker.graph.account"},
    "worker.account_token": CONNECTING | {"worker.scopes"},
    "worker.account_pages": CONNECTING | {"worker.account_token"},
    "worker.connecting": CONNECTING
    | {"worker.account_pages", "worker.account_token", "worker.forms", "worker.health"}
    | {"worker.scopes"},
    "worker.disconnecting": CONNECTING | {"worker.health"},
    # Each neighbour is known by its own folder.
    # A request is sent under a grant, and Meta's word on usage goes into the budget: each as a value.
    "worker.graph": PURE | {"worker.graph", "worker.metrics", "worker.budget.policy"},
    "worker.budget": PURE | {"worker.budget", "worker.graph.usage"},
    "worker.store": PURE
    | {"worker.store", "worker.budget.policy", "worker.plans", "worker.form", "worker.questions"}
    | {"worker.json_text", "worker.sealing", "worker.tokens", "worker.conditions", "worker.connecting"}
    | {"worker.health", "worker.trail"},
    "worker.stream_search": {"worker.errors", "worker.inbox", "worker.stream"},
    "worker.tracing": PIPELINE | {"worker.stream_search", "worker.tokens"},
    "worker.trace_report": PURE | {"worker.stream_search", "worker.tracing"},
    "worker.proving": PIPELINE
    | {"worker.graph.account", "worker.missing", "worker.stream_search", "worker.tokens"},
    "worker.missing": PURE | {"worker.graph.account", "worker.stream_search", "worker.trace_report"},
    "worker.handshaking": set(),
    # The checks of the doctor know facts and judge; those who ask are handed their neighbours.
    "worker.doctor.findings": set(),
    "worker.doctor.facts": DOCTORS_FACTS,
    "worker.doctor.settings_checks": DOCTORS_FACTS,
    "worker.doctor.server_checks": DOCTORS_FACTS,
    "worker.doctor.work_checks": DOCTORS_FACTS | {"worker.inbox", "worker.looks"},
    "worker.doctor.meta_checks": DOCTORS_FACTS | {"worker.settings", "worker.steps"},
    "worker.doctor.page_checks": DOCTORS_FACTS | {"worker.scopes", "worker.steps"},
    "worker.doctor.ask_meta": DOCTORS_FACTS | {"worker.budget.policy", "worker.graph.wire"},
    "worker.doctor.ask_page": PIPELINE
    | DOCTORS_FACTS
    | {"worker.calls", "worker.page_calls", "worker.probing", "worker.tokens"},
    "worker.doctor.ask_redis": DOCTORS_FACTS | {"worker.inbox"},
    "worker.doctor.show": {"worker.doctor.findings"},
    "worker.stream": {"worker.batches", "worker.errors", "worker.inbox"},
    # These run servers and processes, and know nothing of leads.
    "worker.embedded": {"worker.embedded", "worker.errors"},
    "worker.supervisor": {"worker.supervisor", "worker.embedded", "worker.errors"},
    # The demo shows the whole: it alone, beside the commands, runs the simulated Meta.
    "worker.cli": {"worker", "sandbox"},
    "worker.demo": {"worker", "sandbox"},
}

DOORS: dict[str, set[str]] = {
    "flask": {"receiver.app"},
    "werkzeug": {"receiver"},
    "waitress": {"receiver.arrival", "receiver.wsgi"},
    "celery": {"receiver.publisher", "worker.app", "worker.hearing", "worker.tasks", "worker.schedule"},
    "kombu": {"receiver.publisher", "worker.app", "worker.hearing", "worker.tasks", "worker.schedule"},
    "aiohttp": {"worker.graph.client", "worker.export_download", "worker.alerts", "sandbox"},
    "redis": {
        "receiver.publisher",
        "worker.stream",
        "worker.stream_search",
        "worker.budget.ledger",
        "worker.doorbell",
        "worker.watchdog",
        "worker.erased",
        "worker.clock_notes",
        "worker.doctor.ask_redis",
        # Each makes its one client: of a process, of a command.
        "worker.runtime",
        "worker.desks",
        "worker.neighbours",  # whose types it names
        "worker.totals",
        "worker.redis_facts",
        "worker.redis_packing",
        # Each asks Redis one small thing of its own, outside the loop, and tells its absence from a mistake of ours.
        "worker.schedule",
        "worker.tasks",
    },
    "hiredis": {"receiver.publisher", "worker.redis_packing"},
    "psycopg": {"worker.store"},
    # Pools are made in one place, and handed on by another.
    "psycopg_pool": {"worker.store", "worker.neighbours", "worker.desks"},
    "alembic": {"worker.store"},
    "sqlalchemy": {"worker.store"},
    "prometheus_client": {"worker.exposition", "worker.scraping", "worker.exporter"},
    "cryptography": {"worker.sealing"},
    "orjson": {"worker.json_text"},
    "environs": {"worker.settings", "receiver.settings", "sandbox.settings"},
    "click": {"worker.cli"},
    "rich": {
        "worker.cli",
        "worker.demo",
        "worker.status",
        "worker.status_view",
        "worker.status_watch",
        "worker.budget_report",
        "worker.pages_report",
        "worker.trace_report",
        "worker.doctor.show",
    },
    "structlog": {"worker", "receiver", "sandbox"},
}

ENVIRONMENT_READERS = {
    "worker.settings",
    "receiver.settings",
    "sandbox.settings",
    "worker.supervisor.console",  # NO_COLOR is the terminal's wish, no setting of ours
}
"""Who looks into os.environ."""


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of `packages` by dotted name, parsed."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), _parsed(path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(module: str, tree: ast.Module) -> set[str]:
    """Every module that `tree` imports. `from package import name` gives package.name, which covers modules."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively, which hides from whom"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def allowed(module: str) -> set[str]:
    """What `module` may import of ours: the row of the longest prefix of its name."""
    parts = module.split(".")
    rows = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(LAYERS[row] for row in rows if row in LAYERS)


def test_modules_lean_only_on_what_lies_below_them() -> None:
    """No module imports one of ours that its row in the table does not name."""
    wrong = [
        f"{module} imports {name}"
        for module, tree in sources("worker", "receiver", "sandbox")
        for name in sorted(imported(module, tree))
        if name.split(".")[0] in OURS and not within(name, allowed(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_each_library_comes_in_by_its_own_door() -> None:
    """A foreign library is imported only by the files that wrap it, so that it can be changed in one place."""
    wrong = [
        f"{module} imports {name}"
        for module, tree in sources("worker", "receiver", "sandbox")
        for name in sorted(imported(module, tree))
        if name.split(".")[0] in DOORS and not within(module, DOORS[name.split(".")[0]])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_environment_is_read_in_settings_only() -> None:
    """What a process depends on is told in one place; nobody else looks into os.environ."""
    wrong = [
        module
        for module, tree in sources("worker", "receiver", "sandbox")
        if module not in ENVIRONMENT_READERS
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"})
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and _names(node) & {"environ", "getenv"})
    ]
    assert not wrong, "\n".join(wrong)


def test_the_front_door_imports_no_library() -> None:
    """The receiver can take the front door's names without pulling in the worker or any library."""
    trees = dict(sources("worker"))
    names = imported("worker.inbox", trees["worker.inbox"]) | imported(
        "worker.quick_dataclass", trees["worker.quick_dataclass"]
    )
    assert {
        name for name in names if name.split(".")[0] not in {"collections", "dataclasses", "re", "typing"}
    } == {"worker.quick_dataclass.quick_dataclass"}


@pytest.mark.parametrize("module", ["worker", "receiver", "sandbox"])
def test_a_package_itself_imports_nothing(module: str) -> None:
    """`import worker` costs nothing and starts nothing: a top package is its docstring."""
    trees = dict(sources(module))
    if module in trees:
        assert imported(module, trees[module]) == set()


def _names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}
