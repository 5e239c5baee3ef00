"""Bytes of an export file as leads: every encoding, separator and damage that has been seen or may be expected."""

import codecs
import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.export_file import ExportedLead, ExportFile, ExportRow, Refused
from worker.export_text import NotAnExport
from worker.lead import Lead

META = (
    "id",
    "created_time",
    "ad_id",
    "ad_name",
    "adset_id",
    "adset_name",
    "campaign_id",
    "campaign_name",
    "form_id",
    "form_name",
    "is_organic",
    "platform",
)
HEADER = (*META, "full_name", "phone_number", "inbox_url", "lead_status")
ROW = {
    "id": "l:900000000000001",
    "created_time": "2025-09-12T15:05:13+05:30",
    "ad_id": "ag:120210000000000001",
    "ad_name": "Autumn",
    "adset_id": "as:120210000000000002",
    "adset_name": "Set, all",
    "campaign_id": "c:120210000000000003",
    "campaign_name": "Campaign",
    "form_id": "f:12312312312",
    "form_name": "Form",
    "is_organic": "false",
    "platform": "ig",
    "full_name": "Ann Ä 😀",
    "phone_number": "p:+49 (30) 1234-567",
    "inbox_url": "https://business.facebook.com/latest/inbox",
    "lead_status": "complete",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-16-le+bom", "utf-16-be+bom")
SECRET = "hunter2"


def encoded(text: str, encoding: str) -> bytes:
    """`text` as a file of this encoding."""
    if encoding.endswith("+bom"):
        mark = codecs.BOM_UTF16_LE if "-le" in encoding else codecs.BOM_UTF16_BE
        return mark + text.encode(encoding.removesuffix("+bom"), "surrogatepass")
    return text.encode(encoding, "surrogatepass")


def table(
    rows: Sequence[Sequence[str]], delimiter: str = "\t", end: str = "\n", quoting: Any = csv.QUOTE_MINIMAL
) -> str:
    """Rows as the csv module writes them."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return text.getvalue()


def read(text: str | bytes, encoding: str = "utf-8", zone: Any = UTC) -> list[ExportRow]:
    """The rows of a file."""
    content = text if isinstance(text, bytes) else encoded(text, encoding)
    return list(ExportFile(io.BytesIO(content), zone))


def read_one(header: Sequence[str] = HEADER, zone: Any = UTC, **changed: str) -> ExportRow:
    """The one row of a file, ROW but for what is changed."""
    cells = {**ROW, **changed}
    (row,) = read(table([header, [cells.get(name, "") for name in header]]), zone=zone)
    return row


def lead_of(row: ExportRow) -> Lead:
    assert isinstance(row, ExportedLead), row
    return row.lead


def reason_of(row: ExportRow) -> str:
    assert isinstance(row, Refused), row
    assert SECRET not in row.reason
    return row.reason


def small(*rows: str, header: str = "id\tq\tr") -> list[ExportRow]:
    """The rows of a file that is typed as text."""
    return read("".join(f"{line}\n" for line in (header, *rows)))


def answers_of(row: ExportRow) -> list[tuple[str, list[str]]]:
    """The answers as pairs."""
    field_data: Any = lead_of(row).field_data
    return [(entry["name"], entry["values"]) for entry in field_data]


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_row_is_a_lead_in_every_encoding_and_separator(encoding: str, delimiter: str) -> None:
    """The header decides what is what; marks go from ids and phones; form name, inbox and status are kept beside."""
    (row,) = read(table([HEADER, [ROW[name] for name in HEADER]], delimiter), encoding)
    lead = lead_of(row)
    assert lead == Lead(
        leadgen_id="900000000000001",
        created_time=datetime(2025, 9, 12, 9, 35, 13, tzinfo=UTC),
        form_id="12312312312",
        ad_id="120210000000000001",
        ad_name="Autumn",
        adset_id="120210000000000002",
        adset_name="Set, all",
        campaign_id="120210000000000003",
        campaign_name="Campaign",
        is_organic=False,
        platform="ig",
        partner_name=None,
        retailer_item_id=None,
        field_data=[
            {"name": "full_name", "values": ["Ann Ä 😀"]},
            {"name": "phone_number", "values": ["+49 (30) 1234-567"]},
        ],
        custom_disclaimer_responses=None,
        extra={
            "form_name": "Form",
            "inbox_url": "https://business.facebook.com/latest/inbox",
            "lead_status": "complete",
        },
        is_test=False,
        in_part=True,
        cleaned=False,
    )


def test_columns_are_found_by_name() -> None:
    """In any order, whatever their case and blanks; the questions keep the order of the file and their keys."""
    header = [" Lead_Status", "Wie viele?", " ID ", "Created  Time", "Yes, I want", "FORM_ID", "Platform"]
    (row,) = read(
        table([header, ["complete", "5", "7", "2026-01-01T00:00:00+0000", "ja", "f:12", "Facebook"]])
    )
    assert answers_of(row) == [("Wie viele?", ["5"]), ("Yes, I want", ["ja"])]
    lead = lead_of(row)
    assert (lead.leadgen_id, lead.form_id, lead.platform) == ("7", "12", "fb")
    assert lead.extra == {"lead_status": "complete"}


def test_a_question_may_have_the_name_of_one_of_metas_columns() -> None:
    """Meta's own come first, but for inbox and status, which come last."""
    (row,) = read(table([["id", "platform", "platform", "lead_status", "lead_status"], list("1abcd")]))
    assert lead_of(row).platform == "a"
    assert answers_of(row) == [("platform", ["b"]), ("lead_status", ["c"])]
    assert lead_of(row).extra == {"lead_status": "d"}


def test_an_empty_cell_is_a_skipped_question() -> None:
    """It has no values; a blank is an answer; ids, names and times that are empty are not known."""
    row = read_one(
        full_name="", phone_number=" ", ad_id="", ad_name="", created_time="", is_organic="", platform=""
    )
    assert answers_of(row) == [("full_name", []), ("phone_number", [" "])]
    lead = lead_of(row)
    assert (lead.ad_id, lead.ad_name, lead.created_time, lead.is_organic, lead.platform) == (None,) * 5


def test_several_values_stay_one() -> None:
    """The file joins them by a comma, which may as well be in a text: nobody can tell."""
    assert answers_of(read_one(full_name="red, blue"))[0] == ("full_name", ["red, blue"])


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        ("p:+44 20 7946 0000", "+44 20 7946 0000"),
        ("p:0171-[555]", "0171-[555]"),
        ("p:<test lead: dummy data for phone_number>", "<test lead: dummy data for phone_number>"),
        ("z:80331", "80331"),
        ("z:SW1A 1AA", "SW1A 1AA"),
        ("p:", "p:"),
        ("p: ", "p: "),
        ("p:ask me", "p:ask me"),
        ("P:+44", "P:+44"),
        (" p:+44", " p:+44"),
        ("p:+44 or +45", "p:+44 or +45"),
        ("tel p:+44", "tel p:+44"),
        ("z:none", "z:none"),
        ("l:5", "l:5"),
        ("f:x", "f:x"),
        ("'=1+1", "'=1+1"),
        ("  blanks  ", "  blanks  "),
        ("0,5", "0,5"),
    ],
)
def test_nothing_of_an_answer_is_altered_but_the_marks_of_phones_and_zip_codes(cell: str, kept: str) -> None:
    """A mark goes only where the whole cell is a phone or a zip code behind it."""
    assert answers_of(read_one(full_name=cell))[0] == ("full_name", [kept])


def test_test_leads_are_told() -> None:
    """The dummy answers of Meta's testing tool mark the lead."""
    assert lead_of(read_one(phone_number="p:<test lead: dummy data for phone_number>")).is_test
    assert not lead_of(read_one()).is_test


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("2025-09-12T15:05:13+05:30", "2025-09-12T09:35:13"),
        ("2025-09-12T15:05:13+0530", "2025-09-12T09:35:13"),
        ("2025-09-12T15:05:13Z", "2025-09-12T15:05:13"),
        ("2025-09-12T15:05:13.250-04:00", "2025-09-12T19:05:13.250"),
        ("2025-09-12T15:05:13", "2025-09-12T13:05:13"),
        ("2025-09-12 15:05:13", "2025-09-12T13:05:13"),
        (" 2025-09-12 15:05 ", "2025-09-12T13:05:00"),
    ],
)
def test_times_are_read_with_their_offset_or_in_the_zone(cell: str, meant: str) -> None:
    """ISO 8601 with or without a colon in the offset; where there is none the operator's zone counts."""
    found = lead_of(read_one(created_time=cell, zone=ZoneInfo("Europe/Berlin")))
    assert found.created_time == datetime.fromisoformat(meant).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "cell",
    [
        "09/12/2025 3:05 PM",
        "12.09.2025 15:05",
        "2025-09-12",
        "1757669713",
        "45912.62",
        "2025-W37-5T15:05:13",
        "20250912T150513",
        f"{SECRET}",
        "2025-09-12T15:05:13+05:30\x00",
    ],
)
def test_other_times_are_refused(cell: str) -> None:
    """What may be a day or a month, or lost its clock, is not guessed."""
    assert "created_time is not ISO 8601" in reason_of(read_one(created_time=cell))


@pytest.mark.parametrize(
    "cell", ["2025-02-30T00:00:00Z", "2025-01-01T25:00:00Z", "0001-01-01T00:00:00+05:30"]
)
def test_a_time_that_there_is_not_is_refused(cell: str) -> None:
    """February has no 30th."""
    assert reason_of(read_one(created_time=cell)) == "created_time is no time that there is"


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("0", False),
        ("1", True),
        ("FALSE", False),
        ("True", True),
        ("yes", True),
        ("No", False),
        (" 1 ", True),
    ],
)
def test_flags_come_in_many_spellings(cell: str, meant: bool) -> None:
    """All of them say the same."""
    assert lead_of(read_one(is_organic=cell)).is_organic is meant


def test_a_flag_that_is_none_is_refused() -> None:
    """Nobody guesses whether a lead was paid for."""
    assert "is_organic is none of" in reason_of(read_one(is_organic="vielleicht"))


@pytest.mark.parametrize(
    ("cell", "meant"),
    [("fb", "fb"), ("Facebook", "fb"), ("INSTAGRAM", "ig"), ("ig", "ig"), ("msg", "msg"), ("", None)],
)
def test_platforms_are_told_as_graph_tells_them(cell: str, meant: str | None) -> None:
    """The long names are shortened, an unknown one is kept."""
    assert lead_of(read_one(platform=cell)).platform == meant


@pytest.mark.parametrize("column", ["id", "ad_id", "adset_id", "campaign_id", "form_id"])
@pytest.mark.parametrize("cell", ["1.23457E+17", "1,23457E+17", "1.23E17", "123457e+12", "123456789012345.0"])
def test_ids_that_a_spreadsheet_damaged_are_refused(column: str, cell: str) -> None:
    """Their digits are lost, so the lead is not stored under a wrong id."""
    assert reason_of(read_one(**{column: cell})) == (
        f"{column} was damaged by a spreadsheet, which took it for a number"
    )


@pytest.mark.parametrize("cell", ["abc", "l:l:5", "0", "12 34", "-5", "\u0665", "1" * 33, "5\x00"])
def test_what_is_no_id_is_refused(cell: str) -> None:
    """An id is digits behind its mark."""
    assert reason_of(read_one(id=cell)) == "id is not an id"


def test_ids_need_no_mark() -> None:
    """Files that went through other tools have lost them."""
    assert lead_of(read_one(id=" 900000000000001 ", ad_id="23")).leadgen_id == "900000000000001"


@pytest.mark.parametrize("cell", ["", " ", "l:"])
def test_a_row_without_an_id_is_refused(cell: str) -> None:
    """There is nothing to store it under, and a mark alone is no id."""
    assert reason_of(read_one(id=cell)) == "has no id"
    assert lead_of(read_one(ad_id=cell)).ad_id is None


def test_rows_with_too_many_or_too_few_cells_are_refused_and_stop_no_other() -> None:
    """Each is refused with its line and its cells as they stand."""
    rows = small("1\ta", "2\ta\tb", "3\ta\tb\tc", "4\ta\tb")
    assert [lead_of(rows[i]).leadgen_id for i in (1, 3)] == ["2", "4"]
    assert rows[0] == Refused(2, "has too few cells", ("1", "a"))
    assert rows[2] == Refused(4, "has too many cells", ("3", "a", "b", "c"))


def test_blank_lines_are_no_rows() -> None:
    """Neither are lines of separators alone."""
    assert [lead_of(row).leadgen_id for row in small("", "1\ta\tb", "\t\t", "", "2\ta\tb", "\t")] == [
        "1",
        "2",
    ]


def test_a_column_without_a_name_must_be_empty() -> None:
    """Spreadsheets add such columns; a value in one belongs to nobody."""
    rows = small("1\ta\t", "2\ta\tb", header="id\tq\t")
    assert answers_of(rows[0]) == [("q", ["a"])]
    assert reason_of(rows[1]) == "has a value in a column without a name"


def test_a_header_once_more_is_refused_and_nothing_else() -> None:
    """Files that were joined bring it along, with a byte order mark perhaps."""
    rows = small("1\ta\tb", "id\tq\tr", "\ufeffid\tq\tr", "2\ta\tb")
    assert [reason_of(row) for row in rows[1:3]] == ["is the header once more"] * 2
    assert [lead_of(rows[i]).leadgen_id for i in (0, 3)] == ["1", "2"]
    rows = read(table([HEADER, HEADER, [ROW[name] for name in HEADER]]))
    assert reason_of(rows[0]) == "is the header once more"
    assert lead_of(rows[1])


def test_what_follows_another_header_is_refused() -> None:
    """The columns of another form are not those of this one, so its leads are not read by the wrong names."""
    rows = small(
        "1\t5\tann",
        "id\tform_id\tphone\temail",
        "2\t5\t+1\tb@example.org",
        "3\t5\tx",
        header="id\tform_id\tname",
    )
    assert lead_of(rows[0])
    assert reason_of(rows[1]) == "is a second, different header; split the file there"
    assert [reason_of(row) for row in rows[2:]] == [
        "comes after a second, different header; split the file there"
    ] * 2


def test_quoted_cells_may_hold_line_breaks_and_separators() -> None:
    """The row is one, its line is its first, and the next row's is counted on."""
    rows = read('id,q,r\r\n1,"a\nb\r\nc, ""d""",x\r\n2,y,z\r\n')
    assert answers_of(rows[0]) == [("q", ['a\nb\r\nc, "d"']), ("r", ["x"])]
    assert [row.line for row in rows] == [2, 5]


def test_a_quoted_name_in_the_header_may_hold_a_line_break() -> None:
    """The header is all of its lines: none of them is taken for a row."""
    (row,) = read('id,"which\none?",form_id\r\n1,this,5\r\n')
    assert answers_of(row) == [("which\none?", ["this"])]
    assert (row.line, lead_of(row).form_id) == (3, "5")


def test_a_quoted_row_of_too_many_or_too_few_cells_is_refused_and_stops_no_other() -> None:
    """Counted as it is quoted, over all of its lines; one of nothing but empty quotes is blank."""
    rows = read('id,q,r\n1,"a\nb",c,d\n2,"x"\n"",""\n3,"a",b\n')
    assert rows[0] == Refused(2, "has too many cells", ("1", "a\nb", "c", "d"))
    assert rows[1] == Refused(4, "has too few cells", ("2", "x"))
    assert [lead_of(row).leadgen_id for row in rows[2:]] == ["3"]


def test_quotes_that_people_typed_are_kept_where_the_file_does_not_quote() -> None:
    """A nickname, an inch, a quote without an end: none of them swallows the rows that follow."""
    rows = small('1\t"Joe" Smith\tx', '2\t5" pipe\tx', '3\t"open\tx', "4\ty\tx", '5\tz\topen"', "6\ty\tx")
    assert [lead_of(row).leadgen_id for row in rows] == list("123456")
    assert [answers_of(row)[0][1] for row in rows[:3]] == [['"Joe" Smith'], ['5" pipe'], ['"open']]


def test_a_quote_that_opens_in_one_row_and_closes_in_another_is_two_rows() -> None:
    """Where each line alone is a row with an id, no cell reaches from one into the other."""
    rows = small('1\ta\t"open', '2\ta\tclosed"', "3\ta\tb")
    assert [lead_of(row).leadgen_id for row in rows] == ["1", "2", "3"]
    assert answers_of(rows[0])[1] == ("r", ['"open'])


def test_one_record_is_no_longer_than_a_line_may_be() -> None:
    """Lines that each close a quote and open the next do not gather in memory until the file ends."""
    line = b'"' + b"," * 50_000 + b'"\n'
    export = ExportFile(io.BytesIO(b'id,created_time\n1,"\n' + line * 200), UTC)
    assert isinstance(next(iter(export)), Refused)
    assert export.bytes_read < 2_000_000


def test_a_quote_that_is_never_closed_costs_its_own_row() -> None:
    """The rest of the file is not taken for its cell."""
    rows = small('1\t"open', "2\ta\tb", "3\ta\tb")
    assert reason_of(rows[0]) == "has a quote that is not closed"
    assert [lead_of(row).leadgen_id for row in rows[1:]] == ["2", "3"]


def test_a_line_without_end_is_refused_and_memory_stays_small() -> None:
    """What is longer than any lead is dropped up to its end."""
    rows = read(b"id\tq\n1\t" + b"x" * 5_000_000 + b"\n2\ty\n")
    assert reason_of(rows[0]) == "is longer than a lead can be"
    assert len(rows[0].cells[1]) < 1_100_000
    assert lead_of(rows[1]).leadgen_id == "2"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
def test_lines_end_in_every_way(end: str, last: str) -> None:
    """Also where a block of the file ends between the two halves of an end, and without an end at the last."""
    rows = [[str(n), "x" * (n % 97)] for n in range(1, 9_000)]
    text = table([["id", "q"], *rows], end=end)
    found = read(text if last else text.removesuffix(end))
    assert [lead_of(row).leadgen_id for row in found] == [row[0] for row in rows]
    assert found[-1].line == 9_000


def test_bytes_that_are_not_utf8_are_refused_with_their_row() -> None:
    """A file that was saved in an old code page would lose its umlauts; rows without any are read."""
    rows = read("id\tq\n1\tMüller\n2\tMeier\n".encode("cp1252"))
    assert reason_of(rows[0]) == "holds bytes that are not UTF-8; save the file as UTF-8"
    assert lead_of(rows[1])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nul_and_lone_surrogates_in_an_answer_are_cleaned(encoding: str) -> None:
    """As in an answer of Graph: U+FFFD stands for them, and the lead is marked."""
    rows = read("id\tquestion\n1\ta\x00b\n2\ta\ud83db\n3\ta\n", encoding)
    assert [lead_of(row).cleaned for row in rows] == [True, True, False]
    assert answers_of(rows[0]) == [("question", ["a\ufffdb"])]
    assert "\ud83d" not in str(lead_of(rows[1]).field_data)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("a\udc80b", "a\ufffd\ufffd\ufffdb"),
        ("\U0001f480\udc80", "\U0001f480\ufffd\ufffd\ufffd"),
        ("\udcc3\udca4", "\ufffd" * 6),
        ("a\udcff\ud83d", "a" + "\ufffd" * 6),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be+bom"])
def test_half_an_emoji_in_utf16_is_no_byte(answer: str, kept: str, encoding: str) -> None:
    """Whichever half it is, the row is a lead, and two halves are not taken for the bytes of a letter."""
    (row,) = read(f"id\tquestion\n1\t{answer}\n", encoding)
    assert lead_of(row).cleaned
    assert answers_of(row) == [("question", [kept])]


def test_a_file_that_ends_within_a_character_loses_its_last_row_only() -> None:
    """Half a character shows that the download broke off, so what is read of the row is not trusted."""
    content = encoded("id\tq\n1\ta\n2\tb", "utf-16-le+bom")
    assert lead_of(read(content)[1]).leadgen_id == "2"
    rows = read(content + b"x")
    assert lead_of(rows[0]).leadgen_id == "1"
    assert reason_of(rows[1]) == "is cut off: the file ends within a character"


def test_a_quoted_row_is_cut_off_where_its_last_line_is() -> None:
    """That is why it is refused, even where its cells are as many as there should be."""
    content = encoded('id,q,r\n1,"a",b\n2,"a\nb",c', "utf-16-le+bom")
    first, last = read(content + b"x")
    assert lead_of(first).leadgen_id == "1"
    assert (last.line, reason_of(last)) == (3, "is cut off: the file ends within a character")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (codecs.BOM_UTF8 + b"\r\n \n", "is empty"),
        (codecs.BOM_UTF16_LE, "is empty"),
        (b"<!DOCTYPE html><html><head><title>id, log in</title>", "is a web page"),
        (b"\n  <html>\n", "is a web page"),
        (b'for (;;);{"error":1357001}', "is an error message of Meta"),
        (b'{"error":{}}', "is an error message of Meta"),
        (b"PK\x03\x04whatever", "is a spreadsheet's workbook"),
        (b"\xd0\xcf\x11\xe0whatever", "is a spreadsheet's workbook"),
        (b"created_time\tad_id\n", "names no column `id`"),
        (b"lead id|email\n", "names no column `id`"),
        (bytes(range(256)) * 20, "names no column `id`"),
    ],
)
def test_what_is_no_export_is_one_clear_error(content: bytes, told: str) -> None:
    """Nothing of it is read as a lead."""
    with pytest.raises(NotAnExport, match=told):
        read(content)


def test_a_header_alone_has_no_rows() -> None:
    """A form without leads is no error."""
    assert read(table([HEADER])) == []


@pytest.mark.parametrize(("delimiter", "others"), [("\t", ",;"), (",", "\t;"), (";", ",\t")])
def test_the_separator_is_the_one_that_makes_columns_of_the_header(delimiter: str, others: str) -> None:
    """Keys of questions may hold the others."""
    header = ["id", f"yes{others[0]}_send{others[1]}_me", "form_id"]
    (row,) = read(table([header, ["1", "x", "2"]], delimiter))
    assert answers_of(row) == [(header[1], ["x"])]
    assert lead_of(row).form_id == "2"


class OneByte(io.RawIOBase):
    """A pipe that gives a byte at a time."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._content.read(1)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_pipe_may_give_a_byte_at_a_time(encoding: str) -> None:
    """The encoding is found, and characters come together, however the bytes come."""
    content = encoded(table([HEADER, [ROW[name] for name in HEADER]], end="\r\n"), encoding)
    export: Any = ExportFile(OneByte(content), UTC)  # type: ignore[arg-type]
    assert [lead_of(row).platform for row in export] == ["ig"]
    assert export.bytes_read == len(content)


KEYS = st.text(min_size=1, max_size=8).filter(
    lambda key: key.strip() and not key.startswith("\ufeff") and "\x00" not in key
)
CELLS = st.text(max_size=12) | st.sampled_from(
    ["a\nb", "\r\n", '"', '""x', "a,b;c\td", "'", "\ufeff", "=1", "\u2028"]
)


@st.composite
def exports(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """Questions, and answers to them."""
    questions = draw(st.lists(KEYS, max_size=4))
    answers = st.lists(CELLS, min_size=len(questions), max_size=len(questions))
    return questions, draw(st.lists(answers, max_size=6))


@given(
    exports(),
    st.sampled_from(ENCODINGS),
    st.sampled_from("\t,;"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_is_written_as_an_export_is_read_back(
    export: tuple[list[str], list[list[str]]], encoding: str, delimiter: str, end: str, quoting: Any
) -> None:
    """Rows -> file -> rows in each encoding and separator, whatever people wrote, but for marks and what is cleaned."""
    questions, rows = export
    questions = [f"q:{key}" for key in questions]
    header = ["id", "created_time", "form_id", *questions]
    fixed = ["2026-10-01T12:00:00+02:00", "f:12"]
    lines = [[f"l:{n}", *fixed, *answers] for n, answers in enumerate(rows, 1)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    # A minimal writer leaves a lone carriage return bare, which no reader can tell from a line's end.
    bare = any("\r" in cell for line in lines for cell in line)
    csv.writer(
        text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL if bare else quoting
    ).writerows(lines)
    found = read(text.getvalue(), encoding)
    assert [lead_of(row).leadgen_id for row in found] == [str(n) for n in range(1, len(rows) + 1)]
    for row, answers in zip(found, rows, strict=True):
        if not lead_of(row).cleaned:
            assert answers_of(row) == [
                (key, [answer] if answer else []) for key, answer in zip(questions, answers, strict=True)
            ]
