"""Rows of table leadgen -> one JSON parameter of a statement, and the statement's view of it as a table. It runs none.

    rows -> JSON array of arrays, the columns in the order of COLUMNS -> LEAD_ROWS

Names are left out because Postgres spent more on 33 of them a lead than on the answers: reading objects by
jsonb_to_recordset took 22 microseconds a lead, this takes 12.
"""

from collections.abc import Sequence
from typing import Final

from psycopg.types.json import Jsonb

from worker.json_text import write_json
from worker.store.statements import Row, RowsRefused

COLUMNS: Final = (
    ("leadgen_id", "text"),
    ("state", "text"),
    ("page_id", "text"),
    ("form_id", "text"),
    ("ad_id", "text"),
    ("ad_name", "text"),
    ("adset_id", "text"),
    ("adset_name", "text"),
    ("campaign_id", "text"),
    ("campaign_name", "text"),
    ("created_time", "timestamptz"),
    ("is_organic", "boolean"),
    ("platform", "text"),
    ("partner_name", "text"),
    ("retailer_item_id", "text"),
    ("field_data", "jsonb"),
    ("custom_disclaimer_responses", "jsonb"),
    ("extra", "jsonb"),
    ("is_test", "boolean"),
    ("in_part", "boolean"),
    ("cleaned", "boolean"),
    ("source", "text"),
    ("first_seen_at", "timestamptz"),
    ("attempts", "integer"),
    ("reason", "text"),
    ("failed_for", "text"),
    ("due_at", "timestamptz"),
    ("turn", "bigint"),
    ("received_at", "timestamptz"),
    ("announced", "integer"),
    ("taken_ms", "integer"),
    ("read_ms", "integer"),
    ("trail", "text"),
)
"""What a row may say, and its type."""
_NAMES: Final = tuple(name for name, _ in COLUMNS)
TOLD_BY_FILES: Final = (
    "form_id",
    "ad_id",
    "ad_name",
    "adset_id",
    "adset_name",
    "campaign_id",
    "campaign_name",
    "created_time",
    "is_organic",
    "platform",
)
"""Columns that Meta's export tells too."""


def _taken_out(place: int, name: str, of_type: str) -> str:
    if of_type == "jsonb":
        return f"nullif(e -> {place}, 'null'::jsonb) as {name}"
    return f"(e ->> {place})::{of_type} as {name}"


_TAKEN_OUT: Final = ",\n    ".join(
    _taken_out(place, name, of_type) for place, (name, of_type) in enumerate(COLUMNS)
)

LEAD_ROWS: Final = f"""(select
    {_TAKEN_OUT}
from jsonb_array_elements(%(rows)s::jsonb) as e
-- Not to be merged with what surrounds it, which would take a column out as often as it names it.
offset 0) as r"""
"""`rows`, as json_of makes it, as a table with one row a leadgen_id."""


def json_of(rows: Sequence[Row]) -> Jsonb:
    """Rows as LEAD_ROWS reads them; a column that a row does not name is null. Raises RowsRefused where one is nested
    too deeply."""
    try:
        return Jsonb(write_json([list(map(row.get, _NAMES)) for row in rows]), dumps=_as_it_is)
    except RecursionError:
        # statement_too_complex: what Postgres itself says of a value nested too deeply.
        raise RowsRefused("54001") from None


def _as_it_is(text: bytes) -> bytes:
    """It is JSON already."""
    return text
