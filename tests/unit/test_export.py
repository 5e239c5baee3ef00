"""What stored leads look like in a table and in JSON lines: which columns, in which order, and that nothing is lost."""

import csv
import io
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cells import bare, join, safe, split
from worker.destination import ReaderGone, standard_output, whole_file
from worker.errors import LeadSyncError
from worker.export import FIXED_COLUMNS, Contents, JsonLines, Table
from worker.lead import answers

FORM, OTHER_FORM = "11", "22"
TIME = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
LONG_KEY = "wie_viele_😀_möchten_sie? " * 8
FORMULAS = [
    "=1+1",
    "@SUM(A1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "\t=1",
    "\rx",
    "\nx",
    " =1",
    "\uff1d1",
]

# What Postgres holds: neither NUL nor lone surrogates.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
# The characters that mean something to one of the steps, close together.
awkward = st.text(
    st.sampled_from(list("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n'\"|\\ ;,(!a0:")) | st.just("\u200b"), max_size=12
)
values = texts | awkward
entries = st.builds(lambda name, told: {"name": name, "values": told}, values, st.lists(values, max_size=3))


def row(**changed: Any) -> dict[str, Any]:
    """A row as the store gives it: JSON as text."""
    told: dict[str, Any] = dict.fromkeys(FIXED_COLUMNS)
    told |= {
        "leadgen_id": "900",
        "created_time": TIME,
        "page_id": "5",
        "form_id": FORM,
        "is_organic": False,
        "is_test": False,
        "in_part": False,
        "cleaned": False,
        "source": "webhook",
        "field_data": [],
        "custom_disclaimer_responses": None,
        "extra": None,
    } | changed
    for name in ("field_data", "custom_disclaimer_responses", "extra"):
        told[name] = None if told[name] is None else json.dumps(told[name], ensure_ascii=False)
    return told


def form(form_id: str = FORM, **changed: Any) -> dict[str, Any]:
    """A form as the store gives it."""
    return {
        "form_id": form_id,
        "leads": 1,
        "name": None,
        "questions": None,
        "tracking_parameters": None,
        "disclaimers": None,
        **changed,
    }


def question(key: str, label: str = "", options: Mapping[str, str] | None = None) -> dict[str, Any]:
    listed = [{"key": name, "value": told} for name, told in (options or {}).items()]
    return {"key": key, "label": label or key, "type": "CUSTOM", **({"options": listed} if listed else {})}


def entry(name: str, *told: Any) -> dict[str, Any]:
    return {"name": name, "values": list(told)}


def contents(rows: Sequence[Mapping[str, Any]], forms: Sequence[Mapping[str, Any]] | None = None) -> Contents:
    """What a snapshot that holds these rows tells of them."""
    keys: dict[Any, None] = {}
    boxes: dict[Any, None] = {}
    for told in rows:
        listed = json.loads(told["field_data"]) if told["field_data"] else []
        for item in listed if isinstance(listed, list) else [None]:
            name = item.get("name") if isinstance(item, dict) else None
            keys[name if isinstance(name, str) else None] = None
        for item in json.loads(told["custom_disclaimer_responses"] or "[]"):
            key = item.get("checkbox_key") if isinstance(item, dict) else None
            boxes[key if isinstance(key, str) else None] = None
    return Contents.of(
        [form()] if forms is None else forms, [{"key": key} for key in keys], [{"key": key} for key in boxes]
    )


def table(
    rows: Sequence[Mapping[str, Any]], forms: Sequence[Mapping[str, Any]] | None = None, **layout: Any
) -> list[dict[str, str]]:
    """The table of these rows, read as a program reads it."""
    layout = {"format": "csv", **layout}
    made = Table(contents(rows, forms), UTC, **layout)
    text = made.header() + made.text(rows)
    dialect = "excel" if layout["format"] == "csv" else "excel-tab"
    header, *lines = csv.reader(io.StringIO(text, newline=""), dialect)
    assert len(set(header)) == len(header), "a name that comes twice"
    assert all(len(line) == len(header) for line in lines)
    return [dict(zip(header, line, strict=True)) for line in lines]


def questions(told: Mapping[str, str]) -> list[str]:
    """The columns that are not the same in every export."""
    return [name for name in told if name not in (*FIXED_COLUMNS, "extra")]


@given(st.lists(values, max_size=4))
def test_joined_values_can_be_split_again(told: list[str]) -> None:
    """Any values in one cell come back as they were; only a single empty one reads as none."""
    assert split(join(told)) == (() if told == [""] else tuple(told))


@given(values)
def test_a_defused_cell_can_be_read_back(text: str) -> None:
    """What `safe` adds, `bare` takes away, and nothing else."""
    assert bare(safe(text)) == text


@pytest.mark.parametrize(
    ("told", "cell"),
    [
        (["a"], "a"),
        (["a", "b"], "a | b"),
        (["", "b", ""], " | b | "),
        (["a|b", "c |d"], "a|b | c |d"),
        (["a | b", "c"], r"a \| b | c"),
        (["|", r"\|"], r"\| | \\|"),
        (["a |", "| b"], r"a \| | \| b"),
    ],
)
def test_several_values_are_one_cell(told: list[str], cell: str) -> None:
    """Values are joined by a lone pipe; a lone pipe within one is marked, any other stays as it is."""
    assert join(told) == cell
    assert split(cell) == tuple(told)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_defused(text: str) -> None:
    """A cell that a spreadsheet would calculate is text behind an apostrophe."""
    assert safe(text)[0] == "'"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "-5.2",
            "+3",
            "-1.234,56",
            "-5%",
            "-1e5",
            "+4915112345678",
            "+49 151 123-456/78",
            "+1 (555) 123.4567",
        ),
        *(
            "",
            "a=b",
            "ann@example.org",
            "5-3",
            "O'Neill",
            "a - b",
            "2026-11-20T12:00:00+00:00",
            "a\n- b\n- c",
            "a; -5",
        ),
    ],
)
def test_what_is_no_formula_stays(text: str) -> None:
    """Plain numbers, phone numbers and ordinary texts are not altered."""
    assert safe(text) == text


@pytest.mark.parametrize(
    "text",
    ["+1+1", "-1-1", "+49 151 ext. 5", "--5", "+A1", "-", "+", "\uff0b4915112345678", "-5 Euro", "+49\n1"],
)
def test_what_is_not_plainly_a_number_is_defused(text: str) -> None:
    """Whatever begins like a formula and is not all number gets its apostrophe, once and at its very beginning."""
    assert safe(text) == f"'{text}"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a;=1+1", "a;'=1+1"),
        ("a\n=1", "a\n'=1"),
        ("a; @x", "a; '@x"),
        ("a\t-2+cmd|'x'!A", "a\t'-2+cmd|'x'!A"),
    ],
)
def test_a_formula_behind_another_separator_is_defused(text: str, cell: str) -> None:
    """A spreadsheet that splits at semicolons, tabs or at every line break finds no formula either."""
    assert safe(text) == cell


def test_an_apostrophe_of_the_person_stays_told() -> None:
    """Who wrote an apostrophe before a formula gets a second one, so that both can be told apart."""
    assert [safe("=1"), safe("'=1"), safe("'a")] == ["'=1", "''=1", "'a"]


@given(st.lists(st.lists(entries, max_size=5), min_size=1, max_size=3), st.sampled_from(["csv", "tsv"]))
def test_any_answers_come_back_from_the_table(leads: list[list[dict[str, Any]]], format: str) -> None:
    """Whatever was answered, the parsed table has the same values of the same keys in the same order."""
    rows = [row(field_data=field_data) for field_data in leads]
    told = contents(rows)
    made = Table(told, UTC, format=format)  # type: ignore[arg-type]
    dialect = "excel" if format == "csv" else "excel-tab"
    header, *lines = csv.reader(io.StringIO(made.header() + made.text(rows), newline=""), dialect)
    assert len(set(header)) == len(header)
    for line, field_data in zip(lines, leads, strict=True):
        expected: dict[str, tuple[str, ...]] = dict.fromkeys(told.keys, ())
        for answer in answers(field_data):  # type: ignore[arg-type]
            expected[answer.name] += answer.values
        first = len(FIXED_COLUMNS)
        found = [split(bare(cell)) for cell in line[first : first + len(told.keys)]]
        assert found == [() if told == ("",) else told for told in expected.values()]


@given(st.lists(st.lists(entries, max_size=5), min_size=1, max_size=3))
def test_any_answers_come_back_from_json_lines(leads: list[list[dict[str, Any]]]) -> None:
    """Each lead is one line, and its answers are what was stored, unaltered."""
    rows = [row(field_data=field_data) for field_data in leads]
    lines = JsonLines(contents(rows), UTC).text(rows).split("\n")
    assert lines.pop() == ""
    for line, field_data in zip(lines, leads, strict=True):
        expected: dict[str, list[str]] = {}
        for told in field_data:
            expected.setdefault(told["name"], []).extend(told["values"])
        assert json.loads(line)["field_data"] == expected
        assert list(json.loads(line)["field_data"]) == list(expected)


def test_columns_stand_in_the_order_of_the_forms() -> None:
    """Fixed columns, the defined questions form by form, other keys as they appear, checkboxes, extra."""
    rows = [
        row(field_data=[entry("z", "1"), entry("b", "2")]),
        row(
            form_id=OTHER_FORM,
            field_data=[entry("y", "3"), entry("a", "4")],
            custom_disclaimer_responses=[{"checkbox_key": "c1", "is_checked": "1"}],
            extra={"vehicle": {"id": "7"}},
        ),
    ]
    forms = [
        form(questions=[question("a"), question("b")], tracking_parameters=[{"key": "utm", "value": "x"}]),
        form(
            OTHER_FORM,
            questions=[question("b"), question("never answered")],
            disclaimers={"checkboxes": [{"key": "c2"}]},
        ),
    ]
    first, second = table(rows, forms)
    assert list(first) == [
        *FIXED_COLUMNS,
        *("a", "b", "utm", "never answered", "z", "y", "disclaimer:c2", "disclaimer:c1"),
        "extra",
    ]
    assert (first["z"], first["b"], first["a"], second["a"], second["y"]) == ("1", "2", "", "4", "3")
    assert json.loads(second["extra"]) == {"vehicle": {"id": "7"}}


def test_the_fixed_columns_tell_the_lead() -> None:
    """Times carry the zone's offset, flags are true or false, the form's name is its definition's."""
    rows = [row(is_organic=True, stored_at=TIME, ad_name='Sommer, "heiß"')]
    made = Table(contents(rows, [form(name="Newsletter")]), ZoneInfo("Europe/Berlin"), format="csv")
    (told,) = csv.DictReader(io.StringIO(made.header() + made.text(rows), newline=""))
    assert told["created_time"] == told["stored_at"] == "2026-11-21T00:30:00+01:00"
    assert (told["is_organic"], told["is_test"], told["received_at"]) == ("true", "false", "")
    assert (told["form_name"], told["ad_name"]) == ("Newsletter", 'Sommer, "heiß"')


def test_a_key_may_be_any_text() -> None:
    """A key that is a fixed column's name, empty, long or like another column is a column of its own."""
    keys = [
        "platform",
        "extra",
        "as_stored",
        "",
        "question:platform",
        "disclaimer:c",
        LONG_KEY,
        "=1",
        "Ä",
        "a\nb,c",
    ]
    rows = [
        row(
            field_data=[entry(key, f"to {key}") for key in keys],
            custom_disclaimer_responses=[{"checkbox_key": "c", "is_checked": ""}],
            platform="fb",
        )
    ]
    (told,) = table(rows)
    assert questions(told) == [
        *(
            "question:question:platform",
            "question:extra",
            "question:as_stored",
            "question:",
            "question:platform",
        ),
        *("question:disclaimer:c", LONG_KEY, "'=1", "Ä", "a\nb,c", "disclaimer:c"),
    ]
    assert told["platform"] == "fb"
    assert told["question:question:platform"] == "to platform"
    assert told["question:platform"] == "to question:platform"


def test_the_same_key_twice_in_a_lead_keeps_both() -> None:
    """Two entries of one key are one cell with all values, and a list with all values in JSON."""
    rows = [row(field_data=[entry("q", "a", "b"), entry("r", "x"), entry("q", "c")])]
    (told,) = table(rows)
    assert told["q"] == "a | b | c"
    assert json.loads(JsonLines(contents(rows), UTC).text(rows))["field_data"] == {
        "q": ["a", "b", "c"],
        "r": ["x"],
    }


def test_checkboxes_say_yes_or_no() -> None:
    """Graph's "1" and "" are yes and no, true and false in JSON; a lead that was not asked says nothing."""
    boxes = [
        {"checkbox_key": "a", "is_checked": "1"},
        {"checkbox_key": "b", "is_checked": ""},
        {"checkbox_key": "c", "is_checked": "later"},
    ]
    rows = [row(custom_disclaimer_responses=boxes), row()]
    asked, not_asked = table(rows)
    assert [asked[f"disclaimer:{key}"] for key in "abc"] == ["yes", "no", "later"]
    assert [not_asked[f"disclaimer:{key}"] for key in "abc"] == ["", "", ""]
    first, second = map(json.loads, JsonLines(contents(rows), UTC).text(rows).splitlines())
    assert (first["disclaimers"], second["disclaimers"]) == ({"a": True, "b": False, "c": "later"}, {})


@pytest.mark.parametrize(
    "field_data",
    [[entry("q", "a"), "odd", {"name": 5, "values": ["b"]}], {"name": "q", "values": ["a"]}, "odd"],
)
def test_what_has_no_column_is_told_as_it_is_stored(field_data: Any) -> None:
    """Entries of an unknown shape are in `as_stored`, which a table has only where there are some."""
    rows = [row(field_data=field_data), row(field_data=[entry("q", "x")])]
    odd, ordinary = table(rows)
    assert json.loads(odd["as_stored"]) == {"field_data": field_data, "custom_disclaimer_responses": None}
    assert ordinary["as_stored"] == ""
    first, second = map(json.loads, JsonLines(contents(rows), UTC).text(rows).splitlines())
    assert first["as_stored"]["field_data"] == field_data
    assert second["as_stored"] is None
    assert "as_stored" not in table([row()])[0]


def test_a_checkbox_of_an_unknown_shape_is_told_as_it_is_stored() -> None:
    """It has no column of its own, takes none from the others, and is not lost."""
    boxes = ["odd", {"checkbox_key": 5, "is_checked": "1"}, {"checkbox_key": "a", "is_checked": "1"}]
    rows = [row(custom_disclaimer_responses=boxes)]
    (told,) = table(rows)
    assert told["disclaimer:a"] == "yes"
    assert json.loads(told["as_stored"])["custom_disclaimer_responses"] == boxes
    line = json.loads(JsonLines(contents(rows), UTC).text(rows))
    assert line["disclaimers"] == {"a": True}
    assert line["as_stored"]["custom_disclaimer_responses"] == boxes


def test_an_answer_that_is_no_text_is_told_both_ways() -> None:
    """Numbers and objects among the values are their JSON, and in JSON lines as they were stored, too."""
    field_data = [entry("q", 5, {"a": [1.5]}, True, None)]
    rows = [row(field_data=field_data)]
    assert table(rows)[0]["q"] == '5 | {"a": [1.5]} | true | null'
    assert json.loads(JsonLines(contents(rows), UTC).text(rows))["as_stored"]["field_data"] == field_data


def test_json_lines_always_have_the_same_fields_and_exact_numbers() -> None:
    """No field of a line depends on the lead, and Graph's own JSON goes in as Postgres holds it."""
    plain, full = row(field_data=None), row(field_data=[entry("q", "=1", "a | b")])
    full["extra"] = '{"price": 0.10, "huge": 1' + "0" * 5_000 + ', "text": "\\u0007 ü"}'
    text = JsonLines(contents([plain, full], [form(name="N")]), UTC).text([plain, full])
    assert '"price": 0.10, "huge": 1000' in text
    lines = [json.loads(line, parse_int=str) for line in text.splitlines()]
    assert (
        list(lines[0])
        == list(lines[1])
        == [*FIXED_COLUMNS, "field_data", "disclaimers", "extra", "as_stored"]
    )
    assert (lines[0]["field_data"], lines[0]["extra"], lines[0]["ad_id"]) == ({}, None, None)
    assert (lines[1]["field_data"], lines[1]["form_name"]) == ({"q": ["=1", "a | b"]}, "N")
    assert lines[1]["extra"]["text"] == "\x07 ü"


def test_each_of_the_json_lines_is_a_lead() -> None:
    """There is no header: whoever reads line by line need not pass one over."""
    rows = [row(), row(leadgen_id="901")]
    made = JsonLines(contents(rows), UTC)
    lines = (made.header() + made.text(rows)).splitlines()
    assert [json.loads(line)["leadgen_id"] for line in lines] == ["900", "901"]


@pytest.mark.parametrize(
    ("time", "zone"),
    [
        (datetime(9999, 12, 31, 23, 59, tzinfo=UTC), "Pacific/Auckland"),
        (datetime(1, 1, 1, tzinfo=UTC), "America/New_York"),
    ],
)
def test_a_time_at_the_end_of_the_calendar_is_exported(time: datetime, zone: str) -> None:
    """In the zone it would lie in a year that there is not, so it is told as it is, and ends no export."""
    rows = [row(created_time=time)]
    made = Table(contents(rows), ZoneInfo(zone), format="csv")
    assert f",{time.isoformat()}," in f",{made.text(rows)}"
    assert (
        json.loads(JsonLines(contents(rows), ZoneInfo(zone)).text(rows))["created_time"] == time.isoformat()
    )


def test_a_numeral_beyond_python_is_exported() -> None:
    """An answer that is a number of five thousand digits ends no export."""
    odd = row()
    odd["field_data"] = '[{"name": "q", "values": [1' + "0" * 5_000 + "]}]"
    made = Table(Contents.of([form()], [{"key": "q"}], []), UTC, format="csv")
    assert "1" + "0" * 5_000 in made.text([odd])


def test_labels_are_what_people_read() -> None:
    """With labels, headers are the questions' wording, choices the options' and a checkbox its text."""
    colors = question("color", "Which color?", {"r": "Red", "g": "Green, really"})
    forms = [
        form(
            questions=[colors, question("email", "E-mail")],
            disclaimers={"checkboxes": [{"key": "c", "text": "Call me"}]},
        )
    ]
    rows = [
        row(
            field_data=[entry("color", "r", "g", "other"), entry("email", "r"), entry("utm", "x")],
            custom_disclaimer_responses=[{"checkbox_key": "c", "is_checked": "1"}],
        ),
        row(form_id=OTHER_FORM, field_data=[entry("color", "r")]),
    ]
    first, second = table(rows, forms, labels=True)
    assert questions(first) == ["Which color?", "E-mail", "utm", "Call me"]
    assert (first["Which color?"], first["E-mail"]) == ("Red | Green, really | other", "r")
    assert second["Which color?"] == "r", "options are those of the lead's own form"
    assert table(rows, forms)[0]["color"] == "r | g | other"
    assert questions(table(rows, forms)[0]) == ["color", "email", "utm", "disclaimer:c"]


def test_labels_that_clash_name_their_keys() -> None:
    """Two columns, or two choices, of one label are told apart by the key; so is a label that changed."""
    forms = [
        form(
            questions=[
                question("a", "Name"),
                question("b", "Name"),
                question("c", "platform"),
                question("d", "Old"),
                question("e", "", {"x": "Same", "y": "Same", "z": "Only"}),
            ]
        ),
        form(OTHER_FORM, questions=[question("d", "New")]),
    ]
    rows = [row(field_data=[entry("e", "x", "y", "z")])]
    (told,) = table(rows, forms, labels=True)
    assert questions(told) == ["Name (a)", "Name (b)", "platform (c)", "Old (d)", "e"]
    assert told["e"] == "Same (x) | Same (y) | Only"


def test_a_formula_in_any_column_is_defused_unless_raw_is_ordered() -> None:
    """Answers, ad names and headers are defused alike; `raw` leaves all as it is."""
    rows = [row(field_data=[entry("=k", "=1")], ad_name="@ad", campaign_name="+4915112345678")]
    (told,) = table(rows)
    assert (told["'=k"], told["ad_name"], told["campaign_name"]) == ("'=1", "'@ad", "+4915112345678")
    (raw,) = table(rows, raw=True)
    assert (raw["=k"], raw["ad_name"]) == ("=1", "@ad")


def test_a_tab_separated_table_holds_tabs_and_line_breaks() -> None:
    """What would break a line or a cell is quoted, as in csv."""
    (told,) = table([row(field_data=[entry("q", 'a\tb\r\n"c"')])], format="tsv")
    assert told["q"] == 'a\tb\r\n"c"'


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """The name belongs to the old content until the new is complete; then only its owner may read it."""
    path = tmp_path / "leads.csv"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as sink:
            sink.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["leads.csv"]
    assert path.read_text() == "old"
    with whole_file(path) as sink:
        sink.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1


ENDING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])


@pytest.fixture
def ends_us(number: signal.Signals) -> Iterator[None]:
    """The signal as a terminal leaves it, whoever started the tests."""
    before = signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@ENDING
@pytest.mark.usefixtures("ends_us")
def test_a_signal_that_ends_us_leaves_no_other_file(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told by the usual status; a second one does not interrupt the clearing away."""
    unlink = os.unlink

    def twice(path: str) -> None:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.raise_signal(number)
        unlink(path)

    monkeypatch.setattr(os, "unlink", twice)

    def end() -> None:
        with whole_file(tmp_path / "leads.csv") as sink, whole_file(tmp_path / "other") as other:
            sink.write(b"half")
            other.write(b"half")
            assert signal.getsignal(number) is not signal.SIG_DFL, "it would end the tests"
            signal.raise_signal(number)

    with pytest.raises(SystemExit) as ended:
        end()
    assert ended.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is signal.SIG_DFL


@ENDING
def test_an_ignored_signal_ends_no_writing(tmp_path: Path, number: signal.Signals) -> None:
    """As nohup wants it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with whole_file(tmp_path / "leads.csv") as sink:
            signal.raise_signal(number)
            sink.write(b"whole")
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert (tmp_path / "leads.csv").read_text() == "whole"


def test_a_file_is_written_in_any_thread(tmp_path: Path) -> None:
    """Only the main one may say what signals do."""

    def write() -> None:
        with whole_file(tmp_path / "leads.csv") as sink:
            sink.write(b"whole")

    with ThreadPoolExecutor(1) as threads:
        threads.submit(write).result()
    assert (tmp_path / "leads.csv").read_text() == "whole"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """A symbolic link stays one; what it points to gets the content."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with whole_file(tmp_path / "link") as sink:
        sink.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A missing folder or a full disk is an error that names the file and the reason."""
    with (
        pytest.raises(LeadSyncError, match="cannot be written: No such file"),
        whole_file(tmp_path / "no" / "x"),
    ):
        pass
    with (
        pytest.raises(LeadSyncError, match="/dev/full cannot be written: No space"),
        whole_file(Path("/dev/full")) as sink,
    ):
        sink.write(b"x")


def test_a_reader_who_has_enough_is_no_error_of_ours() -> None:
    """A closed pipe is told apart from a file that cannot be written."""

    class Closed(io.BytesIO):
        def write(self, content: Any) -> int:
            raise BrokenPipeError

    with pytest.raises(ReaderGone), standard_output(Closed()) as sink:
        sink.write(b"x")
