"""Brings the database's schema forward to this version's. It never goes back and never touches rows.

Invariant: safe when many processes start at once: an advisory lock lets one migrate while the others wait and then
find nothing to do. Alembic runs the revisions in migrations/versions, each in a transaction.
"""

import itertools
import time
from pathlib import Path
from typing import Final

import psycopg
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from worker.errors import StoreUnavailable

log = structlog.get_logger("store")

# Any fixed number: it names leadsync's migration among the advisory locks of the database.
_LOCK: Final = 7_203_118_442


def migrate(database_url: str) -> tuple[str | None, str]:
    """Apply what is missing; returns the revisions before and after. Raises StoreUnavailable."""
    config = _config()
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(database_url, connect_timeout=10),
        poolclass=NullPool,
    )
    try:
        with engine.connect() as connection:
            connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
            connection.commit()
            before = MigrationContext.configure(connection).get_current_revision()
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, psycopg.OperationalError):
            raise StoreUnavailable(f"Postgres cannot be reached to migrate: {type(cause).__name__}") from None
        raise
    finally:
        engine.dispose()
    return before, head()


def migrate_when_up(database_url: str) -> None:
    """As `migrate`, but waits for Postgres, however long; said in the log once a minute."""
    for attempt in itertools.count():
        try:
            migrate(database_url)
            return
        except StoreUnavailable as error:
            if attempt % 60 == 0:
                log.warning("waiting_for_postgres", error=str(error))
            time.sleep(1)


def head() -> str:
    """The newest revision that this version of leadsync knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
