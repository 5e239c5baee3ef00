"""One report of status.py, and the flow of the last minutes -> a screen of given size, or one line. Pure.

It asks nobody and writes nowhere. Invariants: the screen is never wider or longer than it was given; no text of Meta's
(names of Pages and forms) is read as markup or reaches the terminal with a control character in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from worker.flow import Flow
from worker.foreign_text import clean
from worker.inbox import QUEUES
from worker.looks import is_ahead, is_silent
from worker.status import SILENT_SECONDS, count

LABEL_WIDTH: Final = 11
TWO_COLUMNS: Final = 120
"""From this width on, the sections stand in two columns."""
GUTTER: Final = 3
BAR_WIDTH: Final = 8
OVERDUE_SECONDS: Final = 60
_BLOCKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Section:
    """A label and its lines; `is_wrong` where somebody should look."""

    label: str
    lines: Sequence[Text]
    is_wrong: bool = False


def view(report: Mapping[str, Any], flow: Flow, *, width: int, height: int, every: float) -> Text | Table:
    """The screen, `width` columns and at most `height` lines; `every`: seconds between two looks."""
    is_wide = width >= TWO_COLUMNS
    column = (width - GUTTER) // 2 if is_wide else width
    left = [_flow(report, flow, column), _lag(report), _work(report), _waiting(report), _dead(report)]
    right = [_budget(report), _backfills(report), _health(report)]
    title = _title(report, [*left, *right], width, every)
    room = max(1, height - 2)
    if not is_wide:
        lines = [title, *_fitted([*left, *right], room, column)]
        return Text("\n").join(lines[:height])
    table = Table.grid(padding=0)
    for wide in (column, GUTTER, width - GUTTER - column):
        table.add_column(width=wide, no_wrap=True)
    parts = [Text("\n").join(_fitted(sections, room, column)[:room]) for sections in (left, right)]
    table.add_row(parts[0], "", parts[1])
    whole = Table.grid(padding=0)
    whole.add_column(width=width, no_wrap=True)
    whole.add_row(title)
    whole.add_row(table)
    return whole


def _fitted(sections: Sequence[Section], room: int, width: int) -> list[Text]:
    """The lines of all sections; the longest ones end in how many more there are, until all fit."""
    sizes = [len(section.lines) for section in sections]
    while sum(sizes) > room and max(sizes) > 1:
        sizes[max(range(len(sizes)), key=lambda place: sizes[place])] -= 1
    gap = sum(sizes) + len(sections) <= room
    lines: list[Text] = []
    for section, size in zip(sections, sizes, strict=True):
        if gap:
            lines.append(Text(""))
        for number, line in enumerate(_cut(section.lines, size)):
            label = section.label if number == 0 else ""
            whole = Text(f"{label:<{LABEL_WIDTH}}", "bold red" if section.is_wrong else "bold cyan") + line
            whole.truncate(width, overflow="ellipsis")
            lines.append(whole)
    return lines


def _cut(lines: Sequence[Text], size: int) -> Sequence[Text]:
    if size >= len(lines):
        return lines
    more = Text(f"{len(lines) - size + 1} more", "dim")
    if size > 1:
        return [*lines[: size - 1], more]
    return [lines[0] + Text(f"  and {len(lines) - 1} more", "dim")]


def _title(report: Mapping[str, Any], sections: Sequence[Section], width: int, every: float) -> Text:
    wrong = [section.label.lower() for section in sections if section.is_wrong]
    said = Text(f"look at {', '.join(wrong)}", "bold red") if wrong else Text("nothing stands out", "green")
    left = (
        Text("leadsync", "bold") + Text(f"  {report['at']:%H:%M:%S} UTC, every {every:g} s  ", "dim") + said
    )
    hint = "Ctrl-C ends"
    left.truncate(max(1, width - len(hint) - 1), overflow="ellipsis")
    left.pad_right(max(0, width - cell_len(left.plain) - len(hint)))
    return left + Text(hint, "dim")


def _away(told: Any, who: str) -> list[Text]:
    """A line in place of what a neighbour could not tell; none where it is there."""
    if isinstance(told, Mapping) and "error" in told:
        return [Text(f"{who} is away: {clean(told['error'])}", "red")]
    return []


def _flow(report: Mapping[str, Any], flow: Flow, width: int) -> Section:
    bars = max(0, width - LABEL_WIDTH - 36)
    announced = _away(report["stream"], "Redis") or [
        _rate_line("announced", flow.announced(), flow.announced_series(), bars, "cyan")
    ]
    stored = _away(report["flow"], "Postgres") or [
        _rate_line("stored", flow.stored(), flow.stored_series(), bars, "green")
    ]
    return Section("FLOW", [*announced, *stored])


def _rate_line(name: str, rate: float | None, series: Sequence[float | None], bars: int, colour: str) -> Text:
    peak = max((value for value in series[-bars:] if value is not None), default=0.0) if bars else 0.0
    return (
        Text(f"{name:<10}{_a_second(rate):>10}  ")
        + Text(sparkline(series, bars), colour)
        + Text(f"  peak {_a_second(peak)}" if peak else "", "dim")
    )


def _a_second(rate: float | None) -> str:
    return "?/s" if rate is None else f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s"


def sparkline(series: Sequence[float | None], width: int) -> str:
    """The last `width` values as bars up to their peak, the latest at the right; a hole where one is not known."""
    shown = list(series)[-width:] if width > 0 else []
    peak = max((value for value in shown if value is not None), default=0.0)
    bars = "".join(" " if value is None else _bar_of(value, peak) for value in shown)
    return bars.rjust(max(0, width))


def _bar_of(value: float, peak: float) -> str:
    return _BLOCKS[0] if peak <= 0 else _BLOCKS[min(len(_BLOCKS) - 1, int(value / peak * len(_BLOCKS)))]


def _lag(report: Mapping[str, Any]) -> Section:
    stream, lag, at = report["stream"], report["lag"], report["at"]
    lines, is_wrong = _away(stream, "Redis"), False
    if not lines:
        oldest = stream["oldest_at"]
        age = None if oldest is None else max(0.0, at.timestamp() - oldest / 1000)
        line = Text(f"stream    {stream['length']:>8,} references")
        if age is not None:
            is_wrong = age > SILENT_SECONDS
            line.append(f", the oldest {span(age)}", "red" if is_wrong else "")
        lines = [line]
    away = _away(lag, "Postgres")
    if away:
        return Section("LAG", [*lines, *away], is_wrong)
    overdue = lag["oldest_overdue"]
    late = 0.0 if overdue is None else max(0.0, (at - overdue).total_seconds())
    told = "no row is overdue" if overdue is None else f"the longest due row is {span(late)} overdue"
    lines.append(Text(f"waiting   {told}", "yellow" if late > OVERDUE_SECONDS else ""))
    return Section("LAG", lines, is_wrong)


def _work(report: Mapping[str, Any]) -> Section:
    stream, at = report["stream"], report["at"].timestamp()
    if away := _away(stream, "Redis"):
        return Section("WORK", away, is_wrong=True)
    parts, is_wrong = [], False
    for name in (*QUEUES, "schedule"):
        looked = stream["progress"].get(name)
        age = None if looked is None else at - looked / 1000
        silent = age is None or is_silent(age, SILENT_SECONDS)
        is_wrong |= silent
        word = "never" if age is None else f"{span(-age)} ahead" if is_ahead(age) else span(max(0.0, age))
        parts.append(Text(f"{name} ").append(word, "red" if silent else "green"))
    lines = [Text("   ").join(parts)]
    if stream["reconcile_wanted"]:
        pages = clean(", ".join(stream["reconcile_wanted"]))
        lines.append(Text(f"webhooks without values: Page {pages}", "yellow"))
    if stream["set_aside"]:
        lines.append(Text(f"{stream['set_aside']:,} bodies set aside", "yellow"))
    return Section("WORK", lines, is_wrong)


def _counts(report: Mapping[str, Any], state: str) -> Iterator[Mapping[str, Any]]:
    found = (row for row in report["rows"] if row["state"] == state)
    yield from sorted(found, key=lambda row: (-row["count"], row["reason"]))


def _waiting(report: Mapping[str, Any]) -> Section:
    if away := _away(report["rows"], "Postgres"):
        return Section("WAITING", away, is_wrong=True)
    lines = [
        Text(f"{count(row):>9}  ").append(clean(row["reason"]) or "just leased", "yellow")
        for row in _counts(report, "waiting")
    ]
    stored = next((count(row) for row in _counts(report, "stored")), "?")
    none = Text("none", "green").append(f"; {stored} rows are stored", "dim")
    if lines:
        lines[0].append(f"   beside {stored} stored", "dim")
    return Section("WAITING", lines or [none])


def _dead(report: Mapping[str, Any]) -> Section:
    if away := _away(report["rows"], "Postgres"):
        return Section("DEAD", away, is_wrong=True)
    lines = [
        Text(f"{count(row):>9}  ").append(clean(row["reason"]), "red") for row in _counts(report, "dead")
    ]
    return Section("DEAD", lines or [Text("none", "green")], is_wrong=bool(lines))


def _budget(report: Mapping[str, Any]) -> Section:
    budget, at = report["budget"], report["at"]
    if away := _away(report["rows"], "Postgres") or _away(budget, "Redis"):
        return Section("BUDGET", away, is_wrong=True)
    lines = []
    if budget["app_closed_until"]:
        lines.append(Text(f"the app is closed by Meta until {_clock(budget['app_closed_until'], at)}", "red"))
    lines += [_budget_line(page, at) for page in budget["pages"]]
    closed = bool(budget["app_closed_until"]) or any(page["closed_until"] for page in budget["pages"])
    return Section("BUDGET", lines or [Text("no Page has asked for calls lately", "dim")], is_wrong=closed)


def _budget_line(page: Mapping[str, Any], at: datetime) -> Text:
    part = page["spent"] / page["limit"] if page["limit"] else 1.0
    colour = "red" if page["closed_until"] or part >= 0.9 else "yellow" if part >= 0.7 else "green"
    line = bar(part, BAR_WIDTH, colour).append(f" {part:>4.0%}  {page['page_id']:<15}")
    line.append(f" {page['spent']:,} of {page['limit']:,}")
    if page["closed_until"]:
        line.append(f", closed until {_clock(page['closed_until'], at)}", "red")
    return line + _name(page)


def bar(part: float, width: int, colour: str) -> Text:
    """A bar of `width` columns, filled by `part`, 0 to 1."""
    full = round(width * min(1.0, max(0.0, part)))
    return Text("█" * full, colour).append("░" * (width - full), "dim")


def _name(what: Mapping[str, Any]) -> Text:
    return Text(f"  {clean(what['name'])}" if what["name"] else "", "dim")


def _backfills(report: Mapping[str, Any]) -> Section:
    found = report["backfills"]
    if away := _away(found, "Postgres"):
        return Section("BACKFILLS", away, is_wrong=True)
    lines = [_backfill_line(row) for row in found]
    return Section("BACKFILLS", lines or [Text("none runs", "dim")])


def _backfill_line(row: Mapping[str, Any]) -> Text:
    part = row["slices_done"] / row["slices"] if row["slices"] else 0.0
    if row["expected_leads"]:
        # What Meta counted may have grown; only the slices know when it is done.
        part = max(part, min(0.99, row["leads"] / row["expected_leads"]))
    of = f" of {row['expected_leads']:,}" if row["expected_leads"] else ""
    line = bar(part, BAR_WIDTH, "blue").append(f" {part:>4.0%}  #{row['backfill_id']} {row['edge']} ")
    line.append(f"{row['object_id']}  {row['leads']:,}{of} leads")
    if row["waits_for"]:
        line.append(f", waits: {clean(row['waits_for'])}", "yellow")
    return line + _name(row)


def _health(report: Mapping[str, Any]) -> Section:
    health, at = report["health"], report["at"]
    if away := _away(health, "Postgres"):
        return Section("HEALTH", away, is_wrong=True)
    lines = []
    for page in report["pages"]:
        waits = count({"count": page["waiting"], "is_at_least": page["is_at_least"]})
        since = span((at - page["parked_at"]).total_seconds())
        told = f" parked {since}: {clean(page['parked_reason'])}, {waits} waiting"
        lines.append(Text(f"{page['page_id']:<15}").append(told, "red") + _name(page))
    parked = {page["page_id"] for page in report["pages"]}
    for page in health["wrong"]:
        if page["page_id"] not in parked:
            aspects = ", ".join(f"{name} {clean(word)}" for name, word in page["aspects"].items())
            lines.append(Text(f"{page['page_id']:<15}").append(f" {aspects}", "yellow") + _name(page))
    well = Text(f"{health['pages']:,} Pages, none parked, nothing wrong with any", "green")
    return Section("HEALTH", lines or [well], is_wrong=bool(lines))


def span(seconds: float) -> str:
    """A time span in one unit, rounded down."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _clock(moment: datetime, at: datetime) -> str:
    return moment.strftime("%H:%M:%S" if (moment - at).total_seconds() < 43_200 else "%m-%d %H:%M")


def plain_line(report: Mapping[str, Any], flow: Flow) -> str:
    """The report in one line of `name=value`, without any name of Meta's: for a pipe or a log."""
    words = {"announced": _a_second(flow.announced()), "stored": _a_second(flow.stored())}
    stream, rows, lag, at = report["stream"], report["rows"], report["lag"], report["at"]
    if "error" in stream:
        words["redis"] = "away"
    else:
        oldest = stream["oldest_at"]
        words["stream"] = str(stream["length"])
        words["oldest"] = f"{max(0.0, at.timestamp() - oldest / 1000) if oldest is not None else 0:.0f}s"
    if "error" in lag:
        words["postgres"] = "away"
    else:
        overdue = lag["oldest_overdue"]
        words["overdue"] = f"{max(0.0, (at - overdue).total_seconds()) if overdue else 0:.0f}s"
        for state in ("waiting", "dead"):
            found = [row for row in rows if row["state"] == state]
            more = "+" * any(row["is_at_least"] for row in found)
            words[state] = f"{sum(row['count'] for row in found)}{more}"
        words |= {"backfills": str(len(report["backfills"])), "parked": str(len(report["pages"]))}
        words["unwell"] = str(len(report["health"]["wrong"]))
    if report["budget"].get("pages"):
        page = report["budget"]["pages"][0]
        words["tightest"] = f"{page['page_id']}:{page['spent']}/{page['limit']}"
    return f"{at:%Y-%m-%dT%H:%M:%SZ} " + " ".join(f"{name}={value}" for name, value in words.items())
