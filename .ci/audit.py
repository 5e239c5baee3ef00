"""Lock files -> pip-audit -> known vulnerabilities, and a green only where every package was really looked up.

    python .ci/audit.py PIP_AUDIT LOCK...     exit status 0 none known, 1 some known, 2 not everything was audited

pip-audit by itself passes over a package that the service does not answer for, and ends with 0: behind a mirror that
serves packages and no vulnerabilities that is a false green. It asks PyPI (https://docs.pypi.org/api/json/); this file
asks nobody. Packages that a lock names for other Pythons or machines only are not among those that must be told.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

WORDS = (
    "--require-hashes",
    "--disable-pip",
    "--progress-spinner",
    "off",
    "--format",
    "json",
    "--requirement",
)
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==[^ ;]+ *(;?)")


def audit(pip_audit: str, lock: Path) -> int:
    """Audit one lock and print one line for each finding; the exit status."""
    told = subprocess.run([pip_audit, *WORDS, str(lock)], capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(told.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (told.stderr.strip() or "pip-audit said nothing").splitlines()[-1]
        return _failed(f"{lock.name} was not audited; pip-audit ended with: {last[:300]}")
    looked_up = {_plain(package["name"]) for package in packages if "vulns" in package}
    known = [(package, vulnerability) for package in packages for vulnerability in package.get("vulns", ())]
    for package, vulnerability in known:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(
            f"{lock.name}: {package['name']} {package['version']}: {vulnerability['id']}, mended in {fixed}"
        )
    if missing := sorted(wanted(lock) - looked_up):
        return _failed(
            f"{lock.name}: {len(missing)} packages were not audited ({missing[0]} first): PyPI's vulnerability service"
            " does not answer for them here; run this where https://pypi.org/pypi/ is reached directly"
        )
    if not known:
        print(f"{lock.name}: {len(looked_up)} packages, no known vulnerability")
    return 1 if known else 0


def wanted(lock: Path) -> set[str]:
    """The packages that a lock names for every Python and machine."""
    found = (PINNED.match(line) for line in lock.read_text().splitlines())
    return {_plain(pinned[1]) for pinned in found if pinned and not pinned[2]}


def _plain(name: str) -> str:
    """One spelling of a package's name: https://packaging.python.org/en/latest/specifications/name-normalization/."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _failed(words: str) -> int:
    print(f"error: {words}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(max(audit(sys.argv[1], Path(lock)) for lock in sys.argv[2:]))
