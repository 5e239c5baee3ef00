"""What is typed after a command -> ids, a time zone, a moment; or click's word on the option that is wrong.

It holds no command. Invariant: nothing is guessed: what is no id, no zone or no single moment is refused.
"""

from datetime import datetime, tzinfo

import click

from worker.inbox import is_id
from worker.when import UnknownZone, UnreadableTime, parse_when, zone_of


def an_id(_: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """An id, or none where none was given."""
    if text is not None and not is_id(text):
        raise click.BadParameter("is not an id: 1 to 32 digits", param=parameter)
    return text


def ids(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Ids, each once."""
    for text in texts:
        an_id(context, parameter, text)
    return tuple(dict.fromkeys(texts))


def a_zone(_: click.Context, parameter: click.Parameter, name: str) -> tzinfo:
    """A time zone by its name."""
    try:
        return zone_of(name)
    except UnknownZone as error:
        raise click.BadParameter(str(error), param=parameter) from None


def moment(
    text: str | None, option: str, zone: tzinfo, now: datetime, *, end: bool = False
) -> datetime | None:
    """When `option` says, in `zone`; with `end` a day is taken in whole."""
    if text is None:
        return None
    try:
        return parse_when(text, zone, now, end=end)
    except UnreadableTime as error:
        raise click.BadParameter(str(error), param_hint=option) from None
