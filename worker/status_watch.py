"""One look after another -> a screen that is drawn anew, or a line each where there is no terminal.

It works out no figure (status.py and flow.py do) and draws none (status_view.py does). Invariant: however it ends, the
terminal is as it was before and its cursor is seen.
"""

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from worker.desks import open_lookout
from worker.flow import Flow
from worker.settings import Settings
from worker.status import WATCHING, look
from worker.status_view import plain_line, view

_ENDED_BY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def watch(settings: Settings, console: Console, *, every: float, as_json: bool) -> None:
    """Look every `every` seconds and show it, until the process is told to end.

    A terminal gets a screen; whatever else `console` writes to gets one line a look, or with `as_json` one object.
    """
    is_screen = console.is_terminal and not console.is_dumb_terminal and not as_json
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in _ENDED_BY:
        loop.add_signal_handler(number, task.cancel)
    try:
        if is_screen:
            with _screen(console, every) as show:
                await _look_again_and_again(settings, every, show)
        else:
            write = _json_line if as_json else plain_line
            await _look_again_and_again(
                settings, every, lambda report, flow: _print(console, write(report, flow))
            )
    except asyncio.CancelledError:
        pass
    finally:
        for number in _ENDED_BY:
            loop.remove_signal_handler(number)


async def _look_again_and_again(
    settings: Settings, every: float, show: Callable[[dict[str, Any], Flow], None]
) -> None:
    loop, flow = asyncio.get_running_loop(), Flow()
    async with open_lookout(settings) as lookout:
        while True:
            began = loop.time()
            report = await look(lookout, WATCHING, flow.stored_until)
            flow.note(report)
            show(report, flow)
            await asyncio.sleep(max(0.0, every - (loop.time() - began)))


@contextmanager
def _screen(console: Console, every: float) -> Iterator[Callable[[dict[str, Any], Flow], None]]:
    # A line of the pool, that Postgres is away, would be written across the screen, which says so in its place.
    logging.disable(logging.CRITICAL)
    try:
        with Live("looking ...", console=console, screen=True, auto_refresh=False) as live:

            def show(report: dict[str, Any], flow: Flow) -> None:
                drawn = view(report, flow, width=console.width, height=console.height, every=every)
                live.update(drawn, refresh=True)

            yield show
    finally:
        logging.disable(logging.NOTSET)


def _json_line(report: dict[str, Any], flow: Flow) -> str:
    rates = {"announced_per_second": flow.announced(), "stored_per_second": flow.stored()}
    return json.dumps({**report, "rates": rates}, default=str)


def _print(console: Console, line: str) -> None:
    console.file.write(line + "\n")
    console.file.flush()
