"""The export file: its columns, prefixes and styles."""

import csv
import io
import json
from datetime import datetime
from typing import Any

import pytest

from sandbox.download import span_of
from sandbox.exportfile import ExportStyle, ExportTable
from sandbox.formorders import change_forms
from sandbox.parts import Sandbox
from sandbox.world import Form, Lead
from tests.fakes.sandboxes import NOW, made

OWN = [
    "id", "created_time", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name",
    "form_id", "form_name", "is_organic", "platform",
]  # fmt: skip


def style(**changed: Any) -> ExportStyle:
    usual = {"encoding": "utf-8", "separator": "tab", "zone": "+00:00", "flags": "digits", "status": False}
    return ExportStyle(**{**usual, **changed})


def form_with(sandbox: Sandbox, *questions: dict[str, Any]) -> Form:
    page_id = sandbox.world.pages[0].page_id
    return change_forms(sandbox, {"page": page_id, "questions": list(questions)}, NOW)


def row(sandbox: Sandbox, lead: Lead, told: ExportStyle) -> dict[str, str]:
    """The lead's line as a reader of the file gets it."""
    table = ExportTable(lead.form, told)
    truth = sandbox.graph.reads.truth(lead)
    text = table.header() + table.line(truth, lead.created_time)
    reader = csv.reader(io.StringIO(text), delimiter="," if told.separator == "comma" else "\t")
    header, cells = list(reader)
    return dict(zip(header, cells, strict=True))


def test_the_columns_are_the_leads_own_and_then_the_questions() -> None:
    """Headers are the names of the fields, then the keys of the questions in the order of the form."""
    sandbox = made(leads=30)
    lead = sandbox.world.lead(1)
    keys = [question.key for question in lead.form.questions]
    assert list(row(sandbox, lead, style())) == [*OWN, *keys, *[key for key, _ in lead.form.tracking]]
    assert list(row(sandbox, lead, style(status=True)))[-2:] == ["inbox_url", "lead_status"]


def test_ids_and_phones_have_their_prefixes() -> None:
    """Every id carries the letters of what it names, phone answers p:, names nothing."""
    sandbox = made(leads=0)
    form = form_with(
        sandbox, {"key": "tel", "type": "PHONE"}, {"key": "wa", "type": "WHATSAPP_NUMBER"}, {"key": "text"}
    )
    lead = sandbox.world.create(form, now=NOW, kind="ad")
    assert lead.ad is not None
    told = row(sandbox, lead, style())
    assert told["id"] == f"l:{lead.leadgen_id}"
    assert told["ad_id"] == f"ag:{lead.ad.ad_id}"
    assert told["adset_id"] == f"as:{lead.ad.adset_id}"
    assert told["campaign_id"] == f"c:{lead.ad.campaign_id}"
    assert told["form_id"] == f"f:{form.form_id}"
    assert (told["ad_name"], told["form_name"]) == (lead.ad.ad_name, form.name)
    assert told["tel"].startswith("p:")
    assert told["wa"].startswith("p:")
    assert not told["text"].startswith("p:")


def test_an_organic_lead_has_no_ad_and_says_so() -> None:
    """Cells of the ad are empty, is_organic is 1 or true as the setting says, and 0 or false of an ad's lead."""
    sandbox = made(leads=0)
    form = sandbox.world.forms[0]
    organic = sandbox.world.create(form, now=NOW, kind="organic")
    told = row(sandbox, organic, style())
    assert {told[name] for name in OWN[2:8]} == {""}
    assert told["is_organic"] == "1"
    assert row(sandbox, organic, style(flags="words"))["is_organic"] == "true"
    paid = sandbox.world.create(form, now=NOW, kind="ad")
    flags = [row(sandbox, paid, style(flags=flags))["is_organic"] for flags in ("digits", "words")]
    assert flags == ["0", "false"]


def test_the_time_is_told_by_the_clock_of_the_setting() -> None:
    """created_time is ISO 8601 with a colon in its offset, the same moment in any zone."""
    sandbox = made(leads=0)
    lead = sandbox.world.create(sandbox.world.forms[0], now=NOW)
    told = row(sandbox, lead, style(zone="+05:30"))["created_time"]
    assert told == "2026-09-21T19:43:20+05:30"
    west = row(sandbox, lead, style(zone="-03:00"))["created_time"]
    assert datetime.fromisoformat(west) == datetime.fromisoformat(told)


@pytest.mark.parametrize("separator", ["tab", "comma"])
def test_answers_are_what_graph_tells(separator: str) -> None:
    """Several values are joined by a comma, skipped ones are empty, and quotes hide separators and line ends."""
    sandbox = made(leads=600)
    for number in range(600):
        lead = sandbox.world.lead(number)
        told = row(sandbox, lead, style(separator=separator))
        truth: Any = sandbox.graph.reads.truth(lead)
        answers = {entry["name"]: ", ".join(entry.get("values") or []) for entry in truth["field_data"]}
        for question in lead.form.questions:
            wanted = answers.get(question.key, "")
            phone = question.type in ("PHONE", "WHATSAPP_NUMBER")
            assert told[question.key] == (f"p:{wanted}" if phone and wanted else wanted)


@pytest.mark.parametrize(
    ("encoding", "start", "codec"),
    [
        ("utf-8", b"id", "utf-8"),
        ("utf-8-sig", b"\xef\xbb\xbfid", "utf-8-sig"),
        ("utf-16", b"\xff\xfei\x00d\x00", "utf-16"),
    ],
)
def test_the_file_is_encoded_as_the_setting_says(encoding: str, start: bytes, codec: str) -> None:
    """A byte order mark stands at the beginning alone, and the pieces together are one text."""
    told = style(encoding=encoding)
    pieces = told.encode("id\tÜ🌞\n", first=True) + told.encode("שרה\n", first=False)
    assert pieces.startswith(start)
    assert pieces.decode(codec) == "id\tÜ🌞\nשרה\n"


def test_hostile_text_breaks_no_file() -> None:
    """NUL and lone surrogates are written somehow; the file still has as many lines and cells."""
    sandbox = made(leads=300, hostile_text=True)
    for number in range(300):
        lead = sandbox.world.lead(number)
        table = ExportTable(lead.form, style())
        truth = sandbox.graph.reads.truth(lead)
        assert style(encoding="utf-16").encode(table.line(truth, lead.created_time), first=False)
        assert json.loads(json.dumps(truth)) == truth


def test_the_span_is_cut_to_the_forms_life() -> None:
    """A missing or too early from_date is the form's creation, a missing or future to_date is now."""
    form = made().world.forms[0]
    life = span_of(form, "", "", NOW)
    assert (life.since, life.until) == (form.created_time, int(NOW) + 1)
    assert span_of(form, "5", str(int(NOW) + 900), NOW) == life
    assert span_of(form, "x", "-1", NOW) == life
    part = span_of(form, str(int(NOW) - 100), str(int(NOW) - 50), NOW)
    assert (part.since, part.until) == (int(NOW) - 100, int(NOW) - 49)
