"""Structured logs: one event a line, as JSON or for a console. Ids only: no token, answer or personal datum.

This file sets up structlog and the standard library's root logger; it holds no event of its own and imports
nothing of ours, so receiver, worker and sandbox share it. Called once, at the start of a process.
"""

import logging
import sys
from typing import Final, Literal

import structlog

# These tell each start and each tick at level info.
_CHATTY: Final = ("alembic", "celery", "kombu")


def configure(style: Literal["console", "json"], level: str) -> None:
    """Send every log line of this process to stderr in `style`; `level` is a standard level name."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        # With rich at hand the default would print tracebacks with the values of all locals, answers among them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        # What the level suppresses is dropped before anything is built of it.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if style == "json" else []),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for library in _CHATTY:
            logging.getLogger(library).setLevel(logging.WARNING)
