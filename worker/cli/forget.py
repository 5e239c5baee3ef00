"""The command that forgets people: ids, or an answer by which leads are found -> erased rows, and what is left to do.

It unwraps arguments, asks before it erases, shows progress and prints; what is erased is decided elsewhere. Invariant:
it prints ids and counts and never an answer, and an answer that is read from a prompt or from standard input is in no
argument of a process.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli.arguments import an_id, ids
from worker.cli.command import SERVERS, answer_of, data_dir_option, settings_for
from worker.conditions import Condition
from worker.errors import LeadSyncError, StoreUnavailable
from worker.inbox import is_id
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.desks import ErasureDesk
    from worker.forgetting import Forgotten, Found, Order

LIST_BATCH: Final = 10_000
AGAIN: Final = "what was erased stays erased; the same order once more does the rest"
_INTERRUPTED: Final = 130
"""What a shell tells of a process that Ctrl-C ended."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Wish:
    """How an order is to be carried out."""

    conditions: tuple[Condition, ...]
    leftovers: tuple[Path, ...]
    yes: bool
    dry_run: bool
    vacuum: bool
    as_json: bool


@click.command()
@click.argument("leadgen_ids", nargs=-1, metavar="[LEADGEN_ID]...", callback=ids)
@click.option(
    "--answer",
    "named",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Leads that answered VALUE to the question KEY (* for any); repeatable: all must match. Without =VALUE it is"
    " asked for and not shown, which keeps it out of the list of processes and of the shell's history.",
)
@click.option("--value-stdin", is_flag=True, help="Read the values from standard input, one a line.")
@click.option("--page", "page_id", callback=an_id, help="The Page of ids that have no row yet.")
@click.option(
    "--from",
    "list_file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Erase what such a list names, one id a line; - is standard input.",
)
@click.option("--list", "print_list", is_flag=True, help="Print all ids that were erased by order.")
@click.option(
    "--in",
    "leftovers",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also take whoever is erased out of this leftover of an import (FILE.rejected.tsv); repeatable.",
)
@click.option("--yes", is_flag=True, help="Do not ask before leads that were found are erased.")
@click.option("--dry-run", is_flag=True, help="Tell what would be erased, and erase nothing.")
@click.option("--vacuum", is_flag=True, help="Afterwards let Postgres take away what the rows were before.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
@click.pass_context
def forget(
    ctx: click.Context, leadgen_ids: tuple[str, ...], named: tuple[str, ...], value_stdin: bool, page_id: str | None,
    list_file: Path | None, print_list: bool, leftovers: tuple[Path, ...], yes: bool, dry_run: bool, vacuum: bool,
    as_json: bool, data_dir: Path,
) -> None:  # fmt: skip
    """Erase people's answers for good, by id or by an answer.

    What stays is the id and when it was, so that no webhook, backfill, reconciliation, import, replay or restored
    backup brings the lead back; and a line in the table erasures without personal data. Ids that have no row yet are
    kept out from now on.

    E-mail addresses and texts are compared without case, phone numbers by their digits. Nothing is erased at Meta,
    which keeps leads for 90 days. docs/forgetting.md tells more.
    """
    orders = sum(map(bool, (leadgen_ids, named, list_file, print_list)))
    if orders > 1:
        raise click.UsageError("give LEADGEN_IDs, --answer, --from or --list: one of them")
    if not (orders or leftovers or vacuum):
        raise click.UsageError("name LEADGEN_IDs, or give --answer KEY")
    if value_stdin and not (yes or dry_run):
        raise click.UsageError("--value-stdin leaves nobody to ask: add --yes or --dry-run")
    wish = _Wish(_conditions(named, value_stdin), leftovers, yes, dry_run, vacuum, as_json)
    settings = settings_for(data_dir, *SERVERS)
    try:
        if print_list:
            answer_of(_print_list(settings))
            return
        asked = _listed(list_file) if list_file else dict.fromkeys(leadgen_ids, page_id)
        answer_of(_carry_out(settings, asked, "restore" if list_file else "id", wish))
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}; {AGAIN}") from None
    except KeyboardInterrupt:
        click.echo(f"leadsync: stopped; {AGAIN}", err=True)
        ctx.exit(_INTERRUPTED)


def _conditions(named: Sequence[str], value_stdin: bool) -> tuple[Condition, ...]:
    return tuple(_condition(each, value_stdin) for each in named)


def _condition(named: str, value_stdin: bool) -> Condition:
    key, equals, value = named.partition("=")
    if not equals:
        value = _asked_for(key, value_stdin)
    try:
        return Condition.of(key, value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--answer") from None


def _asked_for(key: str, value_stdin: bool) -> str:
    if value_stdin:
        try:
            return sys.stdin.readline()
        except UnicodeDecodeError:
            # The value itself is not quoted: it is somebody's answer.
            raise click.UsageError(
                f"--value-stdin: the value of {key} is not {sys.stdin.encoding}; convert it, e.g. with iconv"
            ) from None
    if not sys.stdin.isatty():
        raise click.UsageError("--answer without =VALUE asks for it at a terminal; or give --value-stdin")
    return str(click.prompt(f"Answer to {key} (not shown)", hide_input=True, err=True))


def _listed(path: Path) -> dict[str, str | None]:
    """Ids with their Pages, as --list prints them."""
    found: dict[str, str | None] = {}
    with click.open_file(str(path), encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            if not is_id(words[0]):
                raise LeadSyncError(
                    f"line {number} of {path} begins with no id; give a file as --list writes it"
                )
            found[words[0]] = words[1] if len(words) > 1 and is_id(words[1]) else None
    return found


async def _print_list(settings: Settings) -> None:
    from worker.desks import open_erasures

    async with open_erasures(settings) as oblivion:
        after = ""
        while pages := await oblivion.rows.ordered(after, LIST_BATCH):
            click.echo("\n".join(f"{leadgen_id}\t{page_id}" for leadgen_id, page_id in pages.items()))
            after = list(pages)[-1]


async def _carry_out(
    settings: Settings, asked: Mapping[str, str | None], by_order_of: str, wish: _Wish
) -> None:
    from worker.desks import open_erasures
    from worker.forgetting import Order

    async with open_erasures(settings) as oblivion:
        told: dict[str, Any] = {"dry_run": wish.dry_run}
        if wish.conditions:
            found = await _find(oblivion, wish)
            told |= _tell_found(found, wish)
            asked = found.pages
            question = ", ".join(condition.key for condition in wish.conditions)
            order = Order("answer", question)
            if asked and not (wish.yes or wish.dry_run):
                click.confirm("Erase them for good?", abort=True, err=True)
        else:
            order = Order(by_order_of)
        if asked:
            told |= await _erase(oblivion, asked, order, wish)
        told |= await _clean(oblivion, order, wish)
        if wish.vacuum and not wish.dry_run:
            await oblivion.rows.vacuum()
            _say(
                wish,
                "Postgres has taken away what erased rows were before, as far as nobody looks at it still",
            )
        if wish.as_json:
            click.echo(json.dumps(told, default=str))


async def _find(oblivion: "ErasureDesk", wish: _Wish) -> "Found":
    total = await oblivion.rows.about()
    with _progress("looking through the answers", total) as advance:
        return await oblivion.forgetter.find(wish.conditions, advance)


def _tell_found(found: "Found", wish: _Wish) -> dict[str, Any]:
    forms = sorted(found.forms.values(), key=lambda form: (form.page_id, form.form_id or ""))
    _say(wish, f"{_many(len(found.pages), 'lead')} in {_many(len(forms), 'form')} with this answer")
    for form in forms:
        where = f"form {form.form_id}" if form.form_id else "no form"
        _say(
            wish,
            f"  {form.leads:,}  {where} of Page {form.page_id}, since {form.since:%Y-%m-%d}",
        )
    if found.unread:
        _note(
            f"{_many(found.unread, 'reference')} unread still, which may have this answer:"
            " run this again once `leadsync status` shows none waiting"
        )
    told = [
        {"page_id": form.page_id, "form_id": form.form_id, "leads": form.leads, "since": form.since}
        for form in forms
    ]
    return {"found": len(found.pages), "forms": told, "unread": found.unread}


async def _erase(
    oblivion: "ErasureDesk", asked: Mapping[str, str | None], order: "Order", wish: _Wish
) -> dict[str, Any]:
    if wish.dry_run:
        _say(wish, f"{_many(len(asked), 'lead')} would be erased (dry run: nothing was)")
        return {"asked": len(asked)}
    with _progress("erasing", len(asked)) as advance:
        done = await oblivion.forgetter.forget(asked, order, advance)
    _tell_erased(done, wish)
    was = {state: done.was[state] for state in ("stored", "waiting", "dead", "nothing")}
    return {
        "asked": len(asked),
        "erased": done.erased,
        "was": was,
        "already": done.was["erased"],
        "set_aside": done.set_aside,
        "redis_told": done.is_listed,
    }


def _tell_erased(done: "Forgotten", wish: _Wish) -> None:
    states = [f"{done.was[state]:,} {state}" for state in ("stored", "waiting", "dead") if done.was[state]]
    had_rows = done.erased - done.was["nothing"]
    _say(wish, f"{had_rows:,} erased" + (f" ({', '.join(states)})" if states else ""))
    if nothing := done.was["nothing"]:
        _say(
            wish,
            f"{nothing:,} had no row here: a tombstone keeps {'it' if nothing == 1 else 'them'} out from now on",
        )
    if already := done.was["erased"]:
        _say(wish, f"{already:,} {'was' if already == 1 else 'were'} erased already")
    if done.set_aside:
        _say(wish, f"{done.set_aside:,} set-aside webhook bodies that named them are gone")
    if not done.is_listed:
        _note(
            "Redis is away: the ids are not kept beside the database yet, the schedule does that; bodies that were set"
            " aside are looked through by the same order once more"
        )
    if done.was["stored"]:
        _note(
            "Meta keeps its own copy until 90 days after a lead's creation; docs/forgetting.md tells what can be done"
        )


async def _clean(oblivion: "ErasureDesk", order: "Order", wish: _Wish) -> dict[str, Any]:
    from worker.clock import now
    from worker.leftovers import clean

    files: list[dict[str, Any]] = []
    for path in wish.leftovers:
        try:
            cleaned = await clean(path, wish.conditions, oblivion.rows.erased_among, dry_run=wish.dry_run)
        except LeadSyncError as error:
            told = str(error)
            raise LeadSyncError(told if str(path) in told else f"{path} {told}") from None
        done = "would go" if wish.dry_run else "went"
        _say(wish, f"{path}: {cleaned.dropped:,} of {_many(cleaned.rows, 'row')} {done}")
        files.append({"file": str(path), "rows": cleaned.rows, "dropped": cleaned.dropped})
    dropped = sum(told["dropped"] for told in files)
    if dropped and not wish.dry_run:
        await oblivion.rows.tell(order.by_order_of, order.question, {"files": dropped}, now())
    return {"files": files} if files else {}


def _say(wish: _Wish, line: str) -> None:
    """To standard output, or where that is for JSON, nowhere."""
    if not wish.as_json:
        click.echo(line)


def _note(line: str) -> None:
    click.echo(f"leadsync: {line}", err=True)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Advance]:
    """A bar at a terminal; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda done: bar.update(task, completed=done, total=max(total, done))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
