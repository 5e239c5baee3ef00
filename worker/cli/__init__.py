"""The operator's commands, a file a subject. They unwrap arguments, call what does the work, and print.

Invariant: results go to stdout, everything else to stderr; an error is one line that says what to do, and exit
status 1, or 2 where the settings or arguments are wrong. No command but `demo` and `export` prints an answer of a
person, and none a token; `keys` prints a key that it has just made.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

import click

from worker.cli.command import CommandGroup

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "Try it": {"demo": "running.demo", "sandbox": "running.sandbox"},
        "Run it": {
            "up": "running.up",
            "worker": "running.worker",
            "schedule": "running.schedule",
            "metrics": "metrics.metrics",
            "migrate": "running.migrate",
            "health": "running.health",
        },
        "Pages at Meta": {
            "connect": "connect.connect",
            "test-lead": "test_lead.test_lead",
            "pages": "connect.pages",  # where `disconnect` joins its fellows
            "budget": "budget.budget",
            "keys": "keys.keys",
        },
        "How it goes": {
            "doctor": "doctor.doctor",
            "status": "running.status",
            "trace": "trace.trace",
            "dead-letters": "dead_letters.dead_letters",
        },
        "Leads of the past": {
            "backfill": "backfill.backfill",
            "backfills": "backfill.backfills",
            "reconcile": "reconcile.reconcile",
            "import": "import_leads.import_",
            "export-csv": "export_csv.export_csv",
        },
        "Stored leads": {
            "export": "export.export",
            "forget": "forget.forget",
            "retention": "retention.retention",
        },
    }
)
"""The commands by what they are for, and where each is: to load all of them took half a second of CPU at each start of
any."""

PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {name: place for commands in SECTIONS.values() for name, place in commands.items()}
)


class Commands(MutableMapping[str, click.Command]):
    """The commands by name, each loaded when it is first asked for. Names alone load nothing."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            file, _, attribute = self._places[name].partition(".")
            self._loaded[name] = getattr(import_module(f"worker.cli.{file}"), attribute)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name], self._loaded[name] = "", command

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@click.group(
    cls=CommandGroup,
    sections=SECTIONS,
    commands=Commands(PLACES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="leadsync")
def main() -> None:
    """Every announced Meta lead becomes one row in Postgres.

    `leadsync demo` shows the whole path against a simulated Graph API; `leadsync up` runs it for real with the
    settings in .env (see .env.example), and `leadsync connect` then connects your Pages. Is something wrong?
    `leadsync doctor`.
    """
