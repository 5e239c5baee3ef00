"""Settings -> one serving process: the receiver on waitress, until a signal ends it.

    python -m receiver.wsgi

waitress gathers a whole request before it gives it a thread, so that clients that send slowly, or never to
the end, hold a connection and not one of our few threads. This file holds no route and builds nothing when it
is imported.

Invariant: SIGTERM and SIGINT let the requests that have a thread finish, and end the process within seconds.
"""

import logging
import resource
import signal
import sys
from types import FrameType
from typing import Any, Final

import structlog
import waitress

from receiver.app import create_app
from receiver.arrival import StampingDispatcher
from receiver.errors import ConfigurationError
from receiver.publisher import open_publisher
from receiver.settings import Settings, read_settings
from worker import logs

MOST_CONNECTIONS: Final = 4_000
FILES_PER_CONNECTION: Final = 2
"""The socket, and the temporary file that a body over half a MiB overflows into."""
FILES_KEPT_BACK: Final = 128
"""For Redis, the broker, logs and what Python opens itself."""
IDLE_SECONDS: Final = 20
"""A connection on which nothing moves is closed after this."""
HEADER_BYTES: Final = 32 * 1024
CHUNK_FRAMING_BYTES: Final = 64 * 1024
"""waitress counts the framing of a chunked body too; the exact cap is Flask's."""
USAGE_EXIT: Final = 2

_log = structlog.get_logger()


def main() -> int:
    """Serve with the settings of the environment; the exit code."""
    try:
        settings = read_settings()
    except ConfigurationError as problems:
        sys.stderr.write(f"receiver: cannot start\n{problems}\n")
        return USAGE_EXIT
    logs.configure(settings.log_style, settings.log_level)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return serve(settings)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; 0 then, and 1 where the address cannot be had. For the main thread
    only."""
    publisher = open_publisher(settings)
    try:
        server = waitress.create_server(
            create_app(settings, publisher), _dispatcher=_threads(settings), **server_options(settings)
        )
    except (OSError, ValueError) as error:
        _log.error("receiver_not_started", host=settings.host, port=settings.port, error=str(error))
        return 1
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    _log.info("receiver_started", host=settings.host, port=_port(server))
    server.run()
    publisher.close()
    _log.info("receiver_stopped")
    return 0


def server_options(settings: Settings) -> dict[str, Any]:
    """https://docs.pylonsproject.org/projects/waitress/en/stable/arguments.html"""
    return {
        "host": settings.host,
        "port": settings.port,
        "threads": settings.threads,
        "connection_limit": _connections(),
        "backlog": 2_048,
        "channel_timeout": IDLE_SECONDS,
        "cleanup_interval": 5,
        "asyncore_use_poll": True,
        "max_request_header_size": HEADER_BYTES,
        "max_request_body_size": settings.max_body_bytes + CHUNK_FRAMING_BYTES,
        "ident": None,
        "log_socket_errors": False,
    }


def _threads(settings: Settings) -> StampingDispatcher:
    dispatcher = StampingDispatcher()
    dispatcher.set_thread_count(settings.threads)
    return dispatcher


def _connections() -> int:
    """As many connections as our open files allow, having asked for what the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS * FILES_PER_CONNECTION + FILES_KEPT_BACK
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        soft = ceiling
    files = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
    return max(1, (files - FILES_KEPT_BACK) // FILES_PER_CONNECTION)


def _port(server: Any) -> int:
    """The port in use; it is not the one asked for where that was 0."""
    listens = getattr(server, "effective_listen", None)
    return int(listens[0][1] if listens else server.effective_port)


def _end(number: int, frame: FrameType | None) -> None:
    # A second signal ends the process as it stands.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
