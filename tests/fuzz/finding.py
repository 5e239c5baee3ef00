"""A target that failed an input -> the find, kept as a file; one a kind of failure, the smallest input of it."""

import hashlib
import re
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.growth import Runaway, limited
from tests.fuzz.target import Target, Violation, allowed_seconds


@dataclass(slots=True)
class Finds:
    """The finds of one target, in `folder`."""

    target: Target
    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)

    def run(self, data: bytes) -> None:
        """Give the target an input; what it fails is kept, and the run goes on."""
        try:
            with limited(allowed_seconds(len(data)) * 4):
                self.target.run(data)
        except Exception as error:
            self.keep(kind_of(error), data, "".join(traceback.format_exception(error)[-3:]))
        except Runaway as error:
            self.keep("runaway", data, str(error))

    def keep(self, kind: str, data: bytes, told: str) -> None:
        """Keep the input, unless a smaller one failed in the same way."""
        if len(data) >= self.sizes.get(kind, 1 << 30):
            return
        self.sizes[kind] = len(data)
        name = (
            f"{re.sub(r'[^a-z0-9]+', '_', kind.lower())[:60]}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}"
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)
        (self.folder / f"{name}.txt").write_text(f"{kind}\n{told}\n", errors="backslashreplace")


def kind_of(error: Exception) -> str:
    """What failed, and in which line of ours: failures of one kind have one cause, mostly."""
    if isinstance(error, Violation):
        return f"violation: {error}"
    places = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    ours = [f for f in places if "/worker/" in f.filename or "/receiver/" in f.filename] or places[-1:]
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
