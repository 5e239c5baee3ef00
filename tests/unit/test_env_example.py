"""The file .env.example against the code that reads settings."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"')


def read_by_code() -> set[str]:
    sources = [(ROOT / part / "settings.py").read_text() for part in ("worker", "receiver")]
    return {name for source in sources for name in NAME.findall(source)}


def named_in_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    """.env.example names exactly the variables that worker and receiver read."""
    assert set(named_in_example()) == read_by_code()


def test_the_values_of_the_example_are_the_defaults(monkeypatch, tmp_path) -> None:
    """Copying .env.example unchanged gives the same settings as having none."""
    from worker.settings import read_settings

    monkeypatch.chdir(tmp_path)
    for name in named_in_example():
        monkeypatch.delenv(name, raising=False)
    default = read_settings()
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    assert read_settings() == default
