"""What `coverage json` found -> held to its goals: 90% of statements, 80% of branches, all of the pure files.

    python -m tests.coverage_goals FILE       exit status 1 where a goal is missed, with the lines that no test runs

A file is pure by what it imports, so the list keeps itself: nothing but values of the standard library, and other
pure files of ours. This file measures nothing and runs no test.
"""

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
STATEMENTS: Final = 90.0
BRANCHES: Final = 80.0

VALUES: Final = frozenset(
    [
        "__future__",
        "abc",
        "base64",
        "bisect",
        "codecs",
        "collections",
        "contextlib",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "io",
        "itertools",
        "json",
        "math",
        "numbers",
        "operator",
        "orjson",
        "random",
        "re",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
        "uuid",
        "zlib",
        "zoneinfo",
    ]
)
"""What computes and does nothing else. Not time, os, pathlib, secrets, asyncio, logging: they know the world."""


def imports(path: Path) -> set[str]:
    """What a file imports when it runs, within functions too: `package.module`, `package.module.name`."""
    found: set[str] = set()
    for node in _running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All of a tree but what only the type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


def pure_files(root: Path = ROOT) -> set[str]:
    """The pure files of worker, receiver and sandbox, by their paths from `root`; packages and `__main__` aside."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for package in ("worker", "receiver", "sandbox")
        for path in (root / package).rglob("*.py")
        if path.stem not in ("__init__", "__main__") and "migrations" not in path.parts
    }
    wanted = {module: imports(path) for module, path in files.items()}
    pure = set(wanted)
    while impure := {module for module in pure if not all(_is_value(name, pure) for name in wanted[module])}:
        pure -= impure
    return {str(files[module].relative_to(root)) for module in pure}


def _is_value(name: str, pure: set[str]) -> bool:
    """Whether an imported name is of a module that computes only."""
    parts = name.split(".")
    prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return bool(prefixes & (VALUES | pure))


def misses(told: Mapping[str, Any], pure: set[str]) -> list[str]:
    """One line for each goal that is missed."""
    totals = told["totals"]
    found = [
        f"{what}: {share:.1f}%, the goal is {goal:.0f}%"
        for what, share, goal in (
            ("statements", _share(totals["covered_lines"], totals["num_statements"]), STATEMENTS),
            ("branches", _share(totals["covered_branches"], totals["num_branches"]), BRANCHES),
        )
        if share < goal
    ]
    for path in sorted(pure):
        file = told["files"].get(path)
        if file is None:
            found.append(f"{path}: not measured at all, and a pure file is covered whole")
            continue
        lines = [str(line) for line in file["missing_lines"]]
        branches = [f"{start} to {end if end > 0 else 'the end'}" for start, end in file["missing_branches"]]
        if lines or branches:
            found.append(
                f"{path}: no test runs {', '.join([*lines, *branches])}, and a pure file is covered whole"
            )
    return found


def _share(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def main(file: str) -> int:
    """Print the shares and the goals that are missed; the exit status."""
    told, pure = json.loads(Path(file).read_text()), pure_files()
    totals = told["totals"]
    print(
        f"{_share(totals['covered_lines'], totals['num_statements']):.1f}% of {totals['num_statements']:,} statements,"
        f" {_share(totals['covered_branches'], totals['num_branches']):.1f}% of {totals['num_branches']:,} branches,"
        f" {len(pure)} pure files"
    )
    found = misses(told, pure)
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
