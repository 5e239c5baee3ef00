"""Which form a test lead is made of, where the command line does not name it."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from worker.cli.test_lead import _choose
from worker.desks import TraceDesk

FORMS = [
    {"form_id": "71", "name": "Solar", "page_id": "11"},
    {"form_id": "72", "name": "Dach", "page_id": "11"},
    {"form_id": "81", "name": "Roof", "page_id": "12"},
]


def chosen(forms: list[dict[str, Any]], page_id: str | None) -> tuple[str, str]:
    """The form and its Page, where these are active."""

    async def active_forms() -> list[dict[str, Any]]:
        return forms

    desk = cast(TraceDesk, SimpleNamespace(rows=SimpleNamespace(active_forms=active_forms)))
    return asyncio.run(_choose(desk, None, page_id))


def test_of_a_named_page_any_active_form_will_do() -> None:
    """Each shows whether the Page's leads arrive, so what the doctor prints works as it stands."""
    assert chosen(FORMS, "11") == ("71", "11")
    assert chosen(FORMS, "12") == ("81", "12")


def test_without_a_page_the_only_form_is_taken_and_of_several_none() -> None:
    """The error names them; one that nobody knows of is said to be that."""
    assert chosen(FORMS[:1], None) == ("71", "11")
    with pytest.raises(click.UsageError) as refused:
        chosen(FORMS, None)
    assert "72  Dach  Page 11" in refused.value.message
    with pytest.raises(click.UsageError) as refused:
        chosen([*FORMS, {"form_id": "91", "name": "Roof\x1b[2J\n", "page_id": "13"}], None)
    assert "91  Roof\ufffd[2J\ufffd  Page 13" in refused.value.message
    with pytest.raises(click.UsageError, match="no active form is known yet"):
        chosen(FORMS, "13")
