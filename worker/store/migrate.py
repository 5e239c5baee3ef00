"""Brings the database's schema forward to this version's. It never goes back and never touches rows.

A schema that is newer stays as it is, and this version goes on with it: while a new version is rolled out the former
one's processes may start again, and after a step back they have to. So a revision may add, and may drop what no former
version asks for; it never renames or narrows.
Invariant: safe when many processes start at once: an advisory lock lets one migrate while the others wait and then
find nothing to do. Alembic runs the revisions in migrations/versions, each in a transaction; it is loaded only where
there is something to migrate, for it takes half a second of CPU and 25 MB.
"""

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from worker.errors import StoreUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger("store")

# Any fixed number: it names leadsync's migration among the advisory locks of the database.
_LOCK: Final = 7_203_118_442
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(database_url: str) -> tuple[str | None, str]:
    """Apply what is missing; the revisions before and after, the same where nothing was. Raises StoreUnavailable."""
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

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
            if is_newer(before):
                log.warning("schema_is_newer", revision=before, ours=head())
                return before, str(before)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, psycopg.OperationalError):
            raise _away(cause) from None
        raise
    finally:
        engine.dispose()
    return before, head()


def migrate_when_up(database_url: str) -> None:
    """As `migrate`, where it is needed, but waits for Postgres, however long; said in the log once a minute."""
    for attempt in itertools.count():
        try:
            if _revision(database_url) != head():
                migrate(database_url)
            return
        except StoreUnavailable as error:
            if attempt % 60 == 0:
                log.warning("waiting_for_postgres", error=str(error))
            time.sleep(1)


def head() -> str:
    """The newest revision that this version of leadsync knows: their files bear their numbers."""
    return max(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def is_newer(revision: str | None) -> bool:
    """Whether a later version of leadsync made this schema."""
    return revision is not None and revision.isdigit() and int(revision) > int(head())


def _revision(database_url: str) -> str | None:
    """The schema's revision; None where there is no schema of ours. Raises StoreUnavailable."""
    try:
        with psycopg.connect(database_url, connect_timeout=10) as connection:
            row = connection.execute("select version_num from alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.OperationalError as error:
        raise _away(error) from None
    return str(row[0]) if row else None


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _away(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"Postgres cannot be reached to migrate: {type(error).__name__}")
