"""The kinds of Redis on which the ledger keeps its contract."""

import fakeredis
import pytest

from tests.contract.ledger_bench import Runner, real


@pytest.fixture(params=["fake", "redis_6_url", "redis_7_url"])
def on_ledger(request: pytest.FixtureRequest) -> Runner:
    """The neighbours that keep this contract."""
    if request.param == "fake":
        server = fakeredis.FakeServer()
        return Runner("fake", lambda: fakeredis.FakeAsyncRedis(server=server))
    return Runner(request.param, real(request.getfixturevalue(request.param)))


@pytest.fixture(params=["redis_6_url", "redis_7_url"])
def on_real_ledger(request: pytest.FixtureRequest) -> Runner:
    """The neighbours that can be full."""
    return Runner(request.param, real(request.getfixturevalue(request.param)))
