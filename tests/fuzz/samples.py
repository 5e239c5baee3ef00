"""Inputs that are kept: those that are as they should be, and every find that was ever made, a folder a target."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "samples" / "fuzz"


def samples_of(name: str, folder: Path = FOLDER) -> list[bytes]:
    """The kept inputs of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((folder / name).glob("*"))]


def paths_of(names: Sequence[str]) -> list[Path]:
    """The files of all kept inputs of these targets."""
    return [path for name in names for path in sorted((FOLDER / name).glob("*"))]
