"""Commands that connect Pages and take them away again: a guided checklist, step by step, and each step alone.

They decide nothing about a Page and call nobody: worker/connecting.py and disconnecting.py do. Invariant: a token
comes by prompt, environment or stdin, never as an argument, and is never shown.
"""

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from worker.cli.arguments import ids
from worker.cli.command import SERVERS, answer_of, data_dir_option, settings_for
from worker.cli.pages import pages
from worker.errors import ConfigurationError, LeadSyncError
from worker.foreign_text import clean
from worker.settings import Settings, read_user_token

if TYPE_CHECKING:
    from rich.console import Console

    from worker.connecting import ConnectedPage, Connection, Wish
    from worker.desks import ConnectingDesk
    from worker.graph.account import PageAccount
    from worker.steps import Step

ONLY: Final = ("token", "pages", "subscribe", "webhook")
MOST_NAMED: Final = 20
"""Pages named in an error."""
_TOKEN: Final = re.compile(r"[!-~]{1,4096}\Z")
"""Visible ASCII: a blank or a line break inside would make a broken header of it."""
_LABELS: Final = {
    "exchange": "exchange", "page_token": "Page token", "pages": "Pages", "page": "Page", "role": "role",
}  # fmt: skip
_SIGNS: Final = {
    "done": ("✓", "+", "green"),
    "already": ("✓", "+", "green"),
    "left": ("–", "-", "yellow"),  # noqa: RUF001 - a dash
    "missing": ("✗", "x", "red"),
    "failed": ("✗", "x", "red"),
}
"""A state's sign, the same for a terminal without UTF-8, and its colour."""


@click.command()
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--account", help="Use the kept token of this account; needed where those of several are kept.")
@click.option(
    "--page", "page_ids", multiple=True, callback=ids, help="Connect this Page; may be given again."
)
@click.option("--all", "everything", is_flag=True, help="Connect all Pages that Meta lists.")
@click.option(
    "--webhook-url", help="Where Meta reaches the receiver: https://.../webhook; default WEBHOOK_URL."
)
@click.option(
    "--again", is_flag=True, help="Set the webhook anew though it looks right: with the values included."
)
@click.option(
    "--backfill/--no-backfill",
    "backfill",
    default=None,
    help="Bring the leads of the last 90 days now. Of new forms they come by themselves within minutes, unless"
    " BACKFILL_NEW_FORMS=false.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(ONLY),
    help="Only this step, with its checks; may be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def connect(
    token_stdin: bool,
    account: str | None,
    page_ids: tuple[str, ...],
    everything: bool,
    webhook_url: str | None,
    again: bool,
    backfill: bool | None,
    only: tuple[str, ...],
    as_json: bool,
    data_dir: Path,
) -> None:
    """Connect Pages: from a token to leads that arrive.

    Checks the token of a person or a system user, makes it long-lived, keeps it sealed; lists the Pages to choose from,
    keeps their tokens, subscribes each to its leads and reads that back; sets the app's webhook where --webhook-url or
    WEBHOOK_URL says where Meta reaches the receiver, which must run; offers the leads of the last 90 days.

    The token is asked for without showing it, or read from META_USER_TOKEN or with --token-stdin; without any the kept
    one is used. Needs META_APP_ID and META_APP_SECRET. May be run again at any time: what is done stays as it is. Exit
    status 1 where anything is left to be done. docs/connect.md explains each line.
    """
    from worker.connecting import PARTS, Wish
    from worker.store.migrate import migrate

    settings = settings_for(data_dir, *SERVERS, "META_APP_ID", "META_APP_SECRET")
    parts = frozenset(only or PARTS)
    url = _webhook_url(settings, webhook_url, parts, only)
    if parts & {"token", "pages"} and not settings.token_keys and settings.token_keys_file is None:
        raise ConfigurationError(
            "TOKEN_KEYS: is not set, so no token can be kept; `leadsync keys generate` makes a key;"
            " put it into .env, the same for all processes"
        )
    interactive = _is_terminal() and not token_stdin
    given = read_user_token() if parts & {"token", "pages"} else ""
    token = _token(given, token_stdin, interactive) if parts & {"token", "pages"} else None
    wish = Wish(parts, token, account, page_ids, url, again, settings.verify_token)
    migrate(settings.database_url)
    sheet = _Sheet(quiet=as_json)

    def choose(known: "Sequence[PageAccount]") -> Sequence[str]:
        sheet.names |= {page.page_id: page.name for page in known}
        return _choose(known, page_ids, everything=everything, interactive=interactive)

    connection = answer_of(_connect(settings, wish, choose, sheet, _wants_backfill(backfill, interactive)))
    achieved = all(step.is_achieved for step in connection.steps)
    if as_json:
        click.echo(json.dumps(_as_json(connection, achieved)))
    else:
        sheet.sum_up(connection, achieved)
    if token and token == given and _is_refused(connection):
        click.echo("the token is that of META_USER_TOKEN: change it there, or take it out of .env", err=True)
    if not achieved:
        raise click.exceptions.Exit(1)


@pages.command("disconnect")
@click.argument("page_ids", nargs=-1, required=True, callback=ids)
@click.option(
    "--anyway", is_flag=True, help="Also where Meta cannot be reached: the subscription there then stays."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def disconnect(page_ids: tuple[str, ...], anyway: bool, as_json: bool, data_dir: Path) -> None:
    """Disconnect Pages: no subscription, no token, no call any more.

    Leads and forms that are here stay. Other webhook fields of the subscription stay too. The account's token is
    forgotten with the last Page that leans on it. `leadsync connect --page ID` connects a Page again.
    """
    from worker.desks import open_connecting

    settings = settings_for(data_dir, *SERVERS, "META_APP_ID", "META_APP_SECRET")
    sheet = _Sheet(quiet=as_json)

    async def ask() -> "tuple[Step, ...]":
        async with open_connecting(settings) as opened:
            return await opened.disconnector.disconnect(page_ids, sheet.tell, anyway=anyway)

    steps = answer_of(ask())
    achieved = all(step.is_achieved for step in steps)
    if as_json:
        click.echo(json.dumps({"achieved": achieved, "steps": [step.as_json() for step in steps]}))
    if not achieved:
        raise click.exceptions.Exit(1)


async def _connect(
    settings: Settings,
    wish: "Wish",
    choose: "Callable[[Sequence[PageAccount]], Sequence[str]]",
    sheet: "_Sheet",
    wants_backfill: "Callable[[int], bool | None]",
) -> "Connection":
    from worker.connecting import PAGES, Connection
    from worker.desks import open_connecting
    from worker.doorbell import BACKFILL_BELL_OF
    from worker.tasks import ring_now

    async with open_connecting(settings) as opened:
        connection = await opened.connector.connect(wish, choose, sheet.tell)
        connected = [page for page in connection.pages if page.is_connected]
        if PAGES not in wish.parts or not connected:
            return connection
        wanted = wants_backfill(len(connected))
        begun = [_not_asked(connected[0])] if wanted is None else []
        if wanted:
            begun = [await _backfill(opened, settings, page) for page in connected]
    sheet.names |= {page.page_id: page.name for page in connection.pages}
    for step in begun:
        sheet.tell(step)
    if wanted:
        ring_now(settings, BACKFILL_BELL_OF)
    return Connection((*connection.steps, *begun), connection.pages)


def _not_asked(page: "ConnectedPage") -> "Step":
    from worker.steps import State, Step

    remedy = f"leadsync backfill --page {page.page_id} brings the leads of 90 days of a Page"
    return Step("backfill", State.LEFT, "not asked for", remedy)


async def _backfill(opened: "ConnectingDesk", settings: Settings, page: "ConnectedPage") -> "Step":
    """Begin what `leadsync backfill --page` begins."""
    from worker.budget.policy import Window
    from worker.clock import now
    from worker.orders import Order, plan_order
    from worker.steps import State, Step, failed

    page_id = page.page_id
    if not page.forms:
        return Step("backfill", State.LEFT, "no form, so there is nothing to read", page_id=page_id)
    try:
        planned = await plan_order(
            opened.desk, Order("page", page_id), lag=timedelta(seconds=settings.reconcile_lag),
            window=Window(settings.budget_window), at_once=settings.backfill_slices_per_page,
        )  # fmt: skip
        backfill_id, is_new = await opened.desk.backfills.open(planned.plan, now())
    except LeadSyncError as error:
        return failed("backfill", error, f"later: leadsync backfill --page {page_id}", page_id)
    leads = planned.plan.expected_leads
    about = "" if leads is None else f", about {leads:,} leads"
    if is_new:
        return Step("backfill", State.DONE, f"{backfill_id} has begun{about}", page_id=page_id)
    return Step("backfill", State.ALREADY, f"{backfill_id} is the same, and runs", page_id=page_id)


def _is_refused(connection: "Connection") -> bool:
    """Whether the token that was given could not be used."""
    return any(step.what in ("token", "exchange") and not step.is_achieved for step in connection.steps)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _webhook_url(settings: Settings, given: str | None, parts: frozenset[str], only: tuple[str, ...]) -> str:
    """Where the webhook is to go; empty where nothing is said, or the step is not asked for."""
    if "webhook" not in parts:
        if given is not None:
            raise click.UsageError("--webhook-url goes with the step `webhook`: add --only webhook")
        return ""
    url = (given if given is not None else settings.webhook_url).strip()
    if not url:
        if only:
            raise click.UsageError("--only webhook needs --webhook-url, or WEBHOOK_URL")
        return ""
    try:
        told = urlsplit(url)
        is_url = (
            told.scheme in ("https", "http") and bool(told.hostname) and not (told.query or told.fragment)
        )
    except ValueError:
        is_url = False
    if not is_url:
        raise click.UsageError("--webhook-url must be a URL such as https://leads.example.com/webhook")
    if not settings.verify_token:
        raise ConfigurationError(
            "META_VERIFY_TOKEN: is required for the webhook; it must be the receiver's, so set it in .env"
        )
    return url if told.path.strip("/") else f"{url.rstrip('/')}/webhook"


def _token(given: str, from_stdin: bool, interactive: bool) -> str | None:
    """The token that is given; None: the kept one."""
    if from_stdin:
        token = sys.stdin.readline().strip()
        if not token:
            raise click.UsageError("--token-stdin: standard input holds no token")
    elif given:
        token = given
    elif interactive:
        asked = "Token of a person or a system user (not shown; Enter alone: the one that is kept)"
        token = click.prompt(asked, default="", hide_input=True, show_default=False, err=True).strip()
    else:
        return None
    if token and not _TOKEN.match(token):
        raise click.UsageError("what was given is no token: it holds blanks or other signs that no token has")
    return token or None


def _choose(
    known: "Sequence[PageAccount]", page_ids: tuple[str, ...], *, everything: bool, interactive: bool
) -> Sequence[str]:
    """The Pages that the command line names, or that are chosen from a numbered list."""
    if everything:
        return [*(page.page_id for page in known), *page_ids]
    if page_ids:
        return page_ids
    if not interactive:
        named = ", ".join(f"{page.page_id} ({page.name})" for page in known[:MOST_NAMED])
        more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
        raise click.UsageError(f"say which Pages, with --page ID or --all: {clean(named)}{more}")
    for number, page in enumerate(known, 1):
        click.echo(f"  {number:>3}  {page.page_id}  {clean(page.name)}", err=True)
    asked = "Which Pages? Numbers with commas between, or all"
    with _interruptible():
        numbers: Sequence[int] = click.prompt(
            asked, default="all", value_proc=lambda text: _numbers(text, len(known)), err=True
        )
    return [known[number - 1].page_id for number in numbers]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a question at once: asyncio's own handler would wait for the answer first."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _numbers(text: str, most: int) -> list[int]:
    if text.strip().lower() == "all":
        return list(range(1, most + 1))
    words = [word.strip() for word in text.replace(" ", ",").split(",") if word.strip()]
    if not words or not all(word.isascii() and word.isdigit() and 1 <= int(word) <= most for word in words):
        raise click.BadParameter(f"numbers from 1 to {most} with commas between, or all")
    return [int(word) for word in words]


def _wants_backfill(given: bool | None, interactive: bool) -> "Callable[[int], bool | None]":
    def ask(connected: int) -> bool | None:
        if given is not None or not interactive:
            return given
        whose = "this Page" if connected == 1 else f"these {connected} Pages"
        with _interruptible():
            return click.confirm(
                f"Bring the leads of the last 90 days of {whose} now?", default=True, err=True
            )

    return ask


def _as_json(connection: "Connection", achieved: bool) -> dict[str, Any]:
    return {
        "achieved": achieved,
        "steps": [step.as_json() for step in connection.steps],
        "pages": [
            {
                "page_id": page.page_id,
                "name": page.name,
                "is_connected": page.is_connected,
                "forms": [
                    {"form_id": form.form_id, "name": form.name, "status": form.status} for form in page.forms
                ],
            }
            for page in connection.pages
        ],
    }


class _Sheet:
    """The checklist on the screen, a line a step as it ends. `names`: of Pages, by id."""

    def __init__(self, *, quiet: bool) -> None:
        self.names: dict[str, str] = {}
        self._console = None if quiet else _console()
        self._page_id: str | None = None

    def tell(self, step: "Step") -> None:
        """Show a step."""
        if self._console is None:
            return
        from rich.text import Text

        if step.page_id is not None and step.page_id != self._page_id:
            name = self.names.get(step.page_id, "")
            self._line(Text(clean(f"Page {step.page_id}  {name}".rstrip()), style="bold"))
        self._page_id = step.page_id
        sign, plain, colour = _SIGNS[step.state]
        sign = sign if self._console.encoding.lower().startswith("utf") else plain
        before = "  " if step.page_id else ""
        label = f"{_LABELS.get(step.what, step.what):<13}"
        style = "" if step.state != "already" else "dim"
        self._line(Text.assemble(f"{before}", (sign, colour), f" {label} ", (clean(step.told), style)))
        for detail in step.details:
            self._line(Text(f"{before}{' ' * 16}{clean(detail)}", style="dim"))
        if step.remedy is not None:
            self._line(Text.assemble(f"{before}{' ' * 16}", ("do: ", colour), clean(step.remedy)))

    def sum_up(self, connection: "Connection", achieved: bool) -> None:
        """Show what it all came to, and what may be next."""
        from rich.text import Text

        changed = any(step.state == "done" for step in connection.steps)
        undone = sum(not step.is_achieved for step in connection.steps)
        if not achieved:
            self._line(
                Text(f"{undone} thing{'s are' if undone != 1 else ' is'} left to be done, see above", "red")
            )
        elif not changed:
            self._line(Text("everything was so already; nothing was changed"))
        else:
            self._line(Text("all that was asked for is done", "green"))
        form = next((form for page in connection.pages if page.is_connected for form in page.forms), None)
        if achieved and form is not None:
            self._line(Text(f"try it: leadsync test-lead --form {form.form_id}"))

    def _line(self, text: Any) -> None:
        if self._console is not None:
            self._console.print(text, soft_wrap=True, highlight=False)


def _console() -> "Console":
    from rich.console import Console

    return Console()
