"""A worker that could not acknowledge a doorbell connects anew instead of going deaf."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from kombu.asynchronous import Hub, get_event_loop, set_event_loop
from kombu.message import Message

from receiver.publisher import DOORBELL_EXPIRES_SECONDS
from worker.doorbell import MESSAGE_EXPIRES_SECONDS
from worker.hearing import HeardRequest


class Channel:
    """A broker's channel that acknowledges, or whose connection is gone."""

    no_ack_consumers = None

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.acknowledged = 0

    def basic_ack(self, tag: str, multiple: bool = False) -> None:
        if self.error:
            raise self.error
        self.acknowledged += 1


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The main process' event loop."""
    former, hub = get_event_loop(), Hub()
    HeardRequest.hub = set_event_loop(hub)
    # Where a child tells that it has taken a task.
    pipe, end = os.pipe()
    hub.add_reader(pipe, lambda: None)
    yield hub
    hub.close()
    os.close(pipe)
    os.close(end)
    HeardRequest.hub = None
    set_event_loop(former)


def ring() -> None:
    """A task."""


def request(hub: Hub, channel: Channel, **headers: str) -> HeardRequest:
    app = Celery("test", set_as_current=False)
    task = app.task(name="ring")(ring)
    message = Message(
        body=json.dumps([[], {}, {}]),
        channel=channel,
        delivery_tag="1",
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "1", "task": "ring", **headers},
    )

    def soon(logger: object, errors: tuple[type[Exception], ...]) -> None:
        hub.call_soon(message.ack_log_error, logger, errors)

    return HeardRequest(message, on_ack=soon, app=app, task=task, connection_errors=(OSError,))


def turn(hub: Hub) -> None:
    """What the loop does in one turn with all that is due."""
    for due in hub._pop_ready():
        due()


def test_an_acknowledged_doorbell_changes_nothing(hub: Hub) -> None:
    """The connection is good, and nothing is left to look at."""
    channel = Channel()
    for _ in range(20):
        request(hub, channel).acknowledge()
    for _ in range(3):
        turn(hub)
    assert channel.acknowledged == 20
    assert not hub._pop_ready()


def test_one_that_could_not_be_acknowledged_is_a_lost_connection(hub: Hub) -> None:
    """Celery swallows the failure; the loop ends all the same, once, as it does when it sees the connection lost."""
    channel = Channel(ConnectionResetError("gone"))
    for _ in range(3):
        request(hub, channel).acknowledge()
    turn(hub)
    with pytest.raises(ConnectionResetError, match="could not be acknowledged"):
        turn(hub)
    request(hub, channel).acknowledge()
    for _ in range(3):
        turn(hub)


def test_the_second_lost_connection_is_noticed_as_the_first(hub: Hub) -> None:
    """Celery resets the loop after each, and kombu forgets then that there is one."""
    (children,) = hub.readers
    for _ in range(2):
        hub.reset()
        hub.add_reader(children, lambda: None)
        request(hub, Channel(ConnectionResetError("gone"))).acknowledge()
        turn(hub)
        with pytest.raises(ConnectionResetError, match="could not be acknowledged"):
            turn(hub)


def test_a_loop_that_is_being_closed_is_not_disturbed(hub: Hub) -> None:
    """Celery closes it after every lost connection, and runs what is due once more."""
    request(hub, Channel(ConnectionResetError("gone"))).acknowledge()
    turn(hub)
    hub.close()


@pytest.mark.parametrize("expires", [DOORBELL_EXPIRES_SECONDS, MESSAGE_EXPIRES_SECONDS])
def test_a_doorbell_of_a_machine_whose_clock_is_behind_is_heard(hub: Hub, expires: int) -> None:
    """Celery's expiry is a moment of the sender's clock: a worker 50 minutes ahead threw every one away, unseen."""
    for behind, is_heard in ((timedelta(minutes=50), True), (timedelta(hours=2), False)):
        until = datetime.now(UTC) - behind + timedelta(seconds=expires)
        rung = request(hub, Channel(), expires=until.isoformat())
        rung.task.backend.mark_as_revoked = lambda *_, **__: None
        assert bool(rung.maybe_expire()) is not is_heard
