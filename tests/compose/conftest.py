"""These tests build images and start a whole stack, so they run only where somebody names this folder."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """True, which ignores, unless a path on the command line lies in this folder."""
    named = (config.invocation_params.dir / arg.split("::")[0] for arg in config.args)
    return None if any(path.resolve().is_relative_to(HERE) for path in named) else True
