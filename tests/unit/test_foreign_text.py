"""Names that strangers gave -> text that a terminal shows and does not obey."""

import importlib
import unicodedata

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.command import CommandGroup, print_rows
from worker.foreign_text import clean
from worker.steps import State, Step

SHOWN = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "text", ["Café 店 Ωmega عربي 🎂", "👩\u200d👩\u200d👧", "मी\u200dय", "[bold]x[/bold]"]
)
def test_letters_of_all_scripts_stay_as_they_are(text: str) -> None:
    """Only what steers a terminal is replaced; joiners shape letters and families of emoji."""
    assert clean(text) == text


@pytest.mark.parametrize(
    "steers", ["\x00", "\x1b", "\n", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ud800"]
)
def test_what_steers_a_terminal_is_replaced(steers: str) -> None:
    """Escapes, line breaks, marks of direction, lone surrogates: each becomes one sign that is none."""
    assert clean(f"a{steers}b") == f"a{SHOWN}b"


@given(st.text())
def test_nothing_is_lost_or_added(text: str) -> None:
    """Sign by sign, and what was cleaned once is clean."""
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    assert clean(cleaned) == cleaned
    assert not any(unicodedata.category(sign) in {"Cc", "Zl", "Zp"} for sign in cleaned)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Sommer [/b] 2026", "Sommer [/b] 2026"),
        ("[link=https://x.example]Dach[/link]", "[link=https://x.example]Dach[/link]"),
        ("Angebot :smile:", "Angebot :smile:"),
        ("Dach\x1b[2J\nSolar", f"Dach{SHOWN}[2J{SHOWN}Solar"),
    ],
)
def test_a_name_in_a_table_is_shown_as_it_is(
    name: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`retention` once died of a form called "Sommer [/b] 2026", and hid or obeyed what stood in others."""
    monkeypatch.setenv("COLUMNS", "200")
    print_rows([{"form_id": "71", "name": name}], False, empty="")
    told = capsys.readouterr().out
    assert f" {shown} " in told
    assert "\x1b" not in told


def test_a_sign_that_an_output_lacks_is_shown_by_its_number() -> None:
    """Where stdout is not UTF-8, `connect` and every list once died of the first name with such a sign."""

    @click.command()
    def listing() -> None:
        print_rows([{"name": "Łódź ☕"}], False, empty="")
        # The package's attribute of that name is the command itself.
        sheet = importlib.import_module("worker.cli.connect")._Sheet(quiet=False)
        sheet.names["7"] = "Łódź ☕"
        sheet.tell(Step("page_token", State.DONE, "now kept", page_id="7"))

    group = CommandGroup(sections={}, commands={"listing": listing})
    done = CliRunner(charset="latin-1").invoke(group, ["listing"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.count("\\u0141ód\\u017a \\u2615") == 2
