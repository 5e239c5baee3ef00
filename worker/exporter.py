"""The exporter's process: settings -> /metrics over HTTP until somebody ends it.

It gathers nothing itself (scraping.py does). Invariant: the port is taken before anything is said to be ready; a
neighbour that is away ends nothing.
https://prometheus.github.io/client_python/exporting/http/
"""

import asyncio
import signal
from collections.abc import Callable
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from worker.desks import open_scraper
from worker.errors import LeadSyncError
from worker.scraping import Exporter
from worker.settings import Settings

log = structlog.get_logger("metrics")


async def serve(settings: Settings, host: str, port: int, *, on_ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises LeadSyncError where the port cannot be had."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with open_scraper(settings) as scraper:
        registry = CollectorRegistry()
        registry.register(Exporter(scraper, loop, version=version("leadsync")))
        ProcessCollector(registry=registry)
        try:
            server, _ = start_http_server(port, host, registry)
        except OSError as error:
            raise LeadSyncError(
                f"port {port} of {host} cannot be listened on: {error.strerror}; choose another by --port"
            ) from None
        on_ready(server.server_port)
        await ended.wait()
        await asyncio.to_thread(server.shutdown)
        server.server_close()
    log.info("exporter_stopped")
