"""The lock files: each package is one version, known by its hashes, and nothing is installed past them."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))


def requirements(text: str) -> list[str]:
    """The requirements of a lock, each with its continuation lines."""
    joined = re.sub(r" *\\\n *", " ", text)
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def unpinned(text: str) -> list[str]:
    """The requirements that are not one version known by a hash: a folder, a URL, an index, a range."""
    pinned = re.compile(r"^[A-Za-z0-9._-]+(\[[^]]*\])?==[^ ;*]+( ; [^-]+)?( --hash=sha256:[0-9a-f]{64})+$")
    return [line for line in requirements(text) if not pinned.match(line.rstrip())]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_each_package_of_each_lock_is_one_version_known_by_hashes(lock: Path) -> None:
    """Whatever an index serves under that name and version, only these files are installed."""
    assert requirements(lock.read_text())
    assert unpinned(lock.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "flask==3.1.0",
        "flask>=3",
        "-e .",
        "git+https://x/y",
        "--index-url https://x",
        "flask==3.* --hash=md5:1",
    ],
)
def test_what_is_not_pinned_is_noticed(line: str) -> None:
    """The look itself can fail."""
    assert unpinned(f"# made by make lock\n{line}\n") == [line]


def test_the_makefile_installs_nothing_from_a_lock_without_its_hashes() -> None:
    """pip checks hashes only where it is told to, or where a line has one: it is told to everywhere."""
    makefile = (ROOT / "Makefile").read_text()
    assert {lock.name for lock in LOCKS} == set(re.findall(r"\$\(call install,([^,)]+)", makefile))
    installs = [line for line in makefile.splitlines() if "pip" in line.lower() and " -r " in line]
    assert len(installs) >= 3
    assert not [line for line in installs if "--require-hashes" not in line]


@pytest.mark.parametrize(("is_tampered", "status"), [(False, 0), (True, 1)])
def test_a_package_of_another_hash_is_not_installed(tmp_path: Path, is_tampered: bool, status: int) -> None:
    """The install fails before anything of it is unpacked; with the true hash it is installed."""
    wheel, info = tmp_path / "strange-1.0-py3-none-any.whl", "strange-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("strange.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if is_tampered:
        digest = f"{int(digest[0], 16) ^ 1:x}{digest[1:]}"
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"strange==1.0 \\\n    --hash=sha256:{digest}\n")
    assert unpinned(lock.read_text()) == []
    words = ("--isolated", "--no-index", "--find-links", tmp_path, "--target", tmp_path / "installed")
    told = subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, "--require-hashes", "-r", lock],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told.returncode == status, told.stdout + told.stderr
    assert ("DO NOT MATCH THE HASHES" in told.stderr) == is_tampered
    assert (tmp_path / "installed" / "strange.py").exists() != is_tampered
