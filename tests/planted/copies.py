"""The work tree -> copies of it, in which what is run is the copy's own code.

It plants nothing. Invariant: a copy is used only after a process in it has said that the product's packages are the
copy's, since an editable install in the same environment leads to the original.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

PACKAGES: Final = ("receiver", "worker", "sandbox", "tests")


class CopyUnusable(Exception):
    """In the copy other code would run than its own; one line."""


def copy_tree(root: Path, into: Path) -> Path:
    """Copy what git tracks or would track of `root`, as it lies there, and compile it."""
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, told.split("\0")):
        if (root / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, into / name)
    # By content, not by time: a second copy may use what was compiled, but not for a file that a patch has changed.
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *PACKAGES]
    subprocess.run([sys.executable, *compiled], cwd=into, check=True, stdout=subprocess.DEVNULL)
    return into


def env_of(tree: Path) -> dict[str, str]:
    """The environment of processes that are to run the code in `tree`."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def prove(tree: Path) -> None:
    """Raises CopyUnusable where a process of this environment finds the product elsewhere than in `tree`."""
    look = f"import json, {', '.join(PACKAGES)}; print(json.dumps([m.__file__ for m in ({', '.join(PACKAGES)})]))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd="/", env=env_of(tree), capture_output=True, text=True, check=True
    )
    for found in json.loads(done.stdout):
        if not Path(found).is_relative_to(tree):
            raise CopyUnusable(f"{found} would run instead of the copy in {tree}; look at PYTHONPATH")
