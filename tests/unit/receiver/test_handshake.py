"""When the subscription's challenge is echoed."""

import pytest

from receiver.handshake import answer

ASKED = {"hub.mode": "subscribe", "hub.verify_token": "tökén", "hub.challenge": "1158201444"}


def test_the_challenge_goes_back_unchanged() -> None:
    """Whoever knows the verify token gets the challenge back as it came."""
    assert answer(ASKED, "tökén") == "1158201444"
    assert answer({**ASKED, "hub.challenge": "<b>&"}, "tökén") == "<b>&"


@pytest.mark.parametrize(
    "asked",
    [
        {**ASKED, "hub.verify_token": "token"},
        {**ASKED, "hub.verify_token": ""},
        {**ASKED, "hub.verify_token": "\ud800"},
        {**ASKED, "hub.mode": "unsubscribe"},
        {**ASKED, "hub.challenge": ""},
        {},
        *({name: value for name, value in ASKED.items() if name != left_out} for left_out in ASKED),
    ],
)
def test_anything_else_gets_nothing(asked: dict[str, str]) -> None:
    """A wrong token, another mode or a missing parameter gets no challenge."""
    assert answer(asked, "tökén") is None
