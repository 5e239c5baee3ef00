"""Leads by creation without those that are erased, so that erasing by age reads none of them again."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("drop index leadgen_created")
    op.execute("create index leadgen_created on leadgen (page_id, created_time) where state <> 'erased'")
