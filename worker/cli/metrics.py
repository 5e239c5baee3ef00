"""The command that serves /metrics. It unwraps arguments and calls what does the work."""

from pathlib import Path

import click
import structlog

from worker import logs
from worker.cli.command import SERVERS, answer_of, data_dir_option, settings_for
from worker.settings import read_settings

log = structlog.get_logger("metrics")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Default METRICS_PORT; 0: any that is free.")
@data_dir_option
def metrics(host: str, port: int | None, data_dir: Path) -> None:
    """Serve /metrics for Prometheus. Ends on SIGTERM or Ctrl-C.

    Each scrape asks Redis and Postgres; one of them away costs its own series only. There is no password: anybody who
    reaches the port reads counts, ids of Pages and reasons, though no token and no answer.
    """
    from worker.exporter import serve

    settings = settings_for(data_dir, *SERVERS)
    logs.configure(settings.log_style, read_settings().log_level)
    wanted = settings.metrics_port if port is None else port
    answer_of(serve(settings, host, wanted, on_ready=lambda taken: log.info("exporter_started", port=taken)))
