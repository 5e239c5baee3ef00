"""The vocabulary of the log against its table in docs/operations.md."""

import ast
import re
from pathlib import Path

from receiver.tally import Verdict

ROOT = Path(__file__).parents[2]
LOGGERS = {"log", "_log", "_quietly"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
COUNTED_WITH_A_LINE = {Verdict.UNSIGNED, Verdict.TOO_LARGE, Verdict.HANDSHAKE_REFUSED}


def logged() -> set[str]:
    found: set[str] = set()
    for part in ("receiver", "worker", "sandbox"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                owner = node.func.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                if name in LOGGERS and node.func.attr in LEVELS and isinstance(node.args[0], ast.Constant):
                    found.add(node.args[0].value)
    return found


def documented() -> set[str]:
    table = (ROOT / "docs/operations.md").read_text().split("## Log events")[1].split("\n## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {event for cell in first_cells for event in re.findall(r"`([a-z_]+)`", cell)}


def test_every_event_is_in_the_table_and_the_table_holds_no_other() -> None:
    """Operators can look up every event, and none that does not exist."""
    assert logged() | {verdict.value for verdict in COUNTED_WITH_A_LINE} == documented()
