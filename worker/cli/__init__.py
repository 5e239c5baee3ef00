"""The operator's commands, a file a subject. They unwrap arguments, call what does the work, and print.

Invariant: results go to stdout, everything else to stderr; an error is one line that says what to do, and exit
status 1, or 2 where the settings or arguments are wrong. No command but `demo` and `export` prints an answer of a
person, and none a token; `keys` prints a key that it has just made.
"""

from typing import Final

import click

from worker.cli.backfill import backfill, backfills, reconcile
from worker.cli.budget import budget
from worker.cli.command import CommandGroup
from worker.cli.connect import connect
from worker.cli.dead_letters import dead_letters
from worker.cli.doctor import doctor
from worker.cli.export import export
from worker.cli.files import export_csv, import_
from worker.cli.forget import forget
from worker.cli.keys import keys
from worker.cli.metrics import metrics
from worker.cli.pages import pages
from worker.cli.retention import retention
from worker.cli.running import demo, health, migrate, sandbox, schedule, status, up, worker
from worker.cli.test_lead import test_lead
from worker.cli.trace import trace


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leadsync")
def main() -> None:
    """Every announced Meta lead becomes one row in Postgres.

    `leadsync demo` shows the whole path against a simulated Graph API; `leadsync up` runs it for real with the
    settings in .env (see .env.example), and `leadsync connect` then connects your Pages. Is something wrong?
    `leadsync doctor`.
    """


_SECTIONS: Final = {
    "Try it": (demo, sandbox),
    "Run it": (up, worker, schedule, metrics, migrate, health),
    "Pages at Meta": (connect, test_lead, pages, budget, keys),
    "How it goes": (doctor, status, trace, dead_letters),
    "Leads of the past": (backfill, backfills, reconcile, import_, export_csv),
    "Stored leads": (export, forget, retention),
}
assert isinstance(main, CommandGroup)
for _title, _commands in _SECTIONS.items():
    main.add_section(_title, *_commands)
