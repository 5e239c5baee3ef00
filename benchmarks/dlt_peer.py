"""A peer of backfill_speed.py: what a competent user writes with dlt, run by an environment that has dlt.

    each form, a resource of its own: GET /{form}/leads -> paging.next -> ... -> extract, normalize, COPY -> table leads

It is dlt's `rest_api` source into its `postgres` destination, configured and not programmed, and tuned in good faith:
all forms side by side on WORKERS threads, a kept-alive session a Page without a look for proxies, 500 leads a call,
two processes to normalize, types told so that none is inferred, answers kept as one JSON column instead of two child
tables, CSV by COPY instead of INSERT, appended rather than merged. The proof stands in the session: Graph's `next`
lacks it. It follows `next` through empty result pages too, as leadsync does and the SDK does not.

Like the other peers it is told its job on standard input, says that it is ready, waits for a line, works, tells what it
did as one line of JSON, and stays until its input is closed. It imports nothing of ours: `make peers` makes its
environment, and dlt's packages are in no other.

What it does not do, and leadsync does: count calls against Meta's limit, keep each lead once, show a lead before the
last one was read. The source `facebook_ads` that dlt's makers publish besides goes by the ads of an ad account with
the official SDK's cursor, so it brings no organic lead and ends where the SDK does.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

DATASET: Final = "dlt_leads"
TABLE: Final = "leads"
WORKERS: Final = 16
"""Threads that read; as many slices leadsync has in flight in one process."""
SETTINGS: Final = {
    "EXTRACT__WORKERS": str(WORKERS),
    "EXTRACT__MAX_PARALLEL_ITEMS": str(2 * WORKERS),
    "NORMALIZE__WORKERS": "2",
    # Else all that was extracted is one file, which only one of the two can normalize.
    "DATA_WRITER__FILE_MAX_ITEMS": "10000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "RUNTIME__LOG_LEVEL": "ERROR",
    # A benchmark asks nobody outside.
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}
COLUMNS: Final = {
    **dict.fromkeys(
        (
            "id", "form_id", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name", "platform",
            "partner_name", "retailer_item_id",
        ),
        "text",
    ),
    "created_time": "timestamp",
    "is_organic": "bool",
    **dict.fromkeys(("field_data", "custom_disclaimer_responses"), "json"),
}  # fmt: skip


def resources(job: Mapping[str, Any]) -> list[Any]:
    """Each form's leads, all into one table."""
    from dlt.sources.helpers.requests import Client
    from dlt.sources.rest_api import rest_api_resources

    made: list[Any] = []
    for token, proof, form_ids in job["pages"]:
        attributes = {"params": {"appsecret_proof": proof}, "trust_env": False}
        client = Client(raise_for_status=False, max_connections=WORKERS, session_attrs=attributes)
        forms = rest_api_resources(
            {
                "client": {
                    "base_url": f"{job['graph_url']}/{job['version']}/",
                    "auth": {"type": "bearer", "token": token},
                    "paginator": {"type": "json_link", "next_url_path": "paging.next"},
                    "session": client.session,
                },
                "resource_defaults": {
                    "table_name": TABLE,
                    "write_disposition": "append",
                    "max_table_nesting": 0,
                    "columns": {name: {"data_type": kind} for name, kind in COLUMNS.items()},
                },
                "resources": [
                    {
                        "name": f"form_{form_id}",
                        "endpoint": {
                            "path": f"{form_id}/leads",
                            "params": {"fields": ",".join(job["fields"]), "limit": job["limit"]},
                            "data_selector": "data",
                        },
                    }
                    for form_id in form_ids
                ],
            }
        )
        # Told in the configuration, `parallelized` is lost with dlt 1.31: the forms are read one after the other.
        made += [form.parallelize() for form in forms]
    return made


def credentials(database_url: str) -> str:
    """The same database for dlt, which wants a host and a password named even where a socket needs neither."""
    url = urlsplit(database_url)
    host = url.hostname or "localhost"
    return f"postgresql://{url.username}:{url.password or 'none'}@{host}:{url.port or 5432}{url.path}?{url.query}"


def main(told: TextIO, tell: TextIO) -> None:
    """The job, once."""
    job = json.loads(told.readline())
    with tempfile.TemporaryDirectory(prefix="leadsync-dlt-") as folder:
        os.chdir(folder)
        os.environ |= SETTINGS | {"DLT_DATA_DIR": folder}
        import dlt

        pipeline = dlt.pipeline(
            "leads",
            pipelines_dir=folder,
            destination=dlt.destinations.postgres(credentials(os.environ["DATABASE_URL"])),
            dataset_name=DATASET,
        )
        leads = resources(job)
        _say(tell, {"ready": True})
        told.readline()
        began, cpu = time.monotonic(), _cpu()
        pipeline.run(leads, loader_file_format="csv")
        seconds, cpu = time.monotonic() - began, _cpu() - cpu
        stored = pipeline.last_trace.last_normalize_info.row_counts.get(TABLE, 0)
        _say(tell, {"leads": stored, "seconds": seconds, "cpu": cpu})
        told.readline()
        os.chdir("/")


def _cpu() -> float:
    """User and system seconds of this process and of the normalizing ones, which have ended by then."""
    return sum(os.times()[:4])


def _say(tell: TextIO, words: Mapping[str, object]) -> None:
    print(json.dumps(words), file=tell, flush=True)


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever dlt prints is none of the answers
    main(sys.stdin, answers)
