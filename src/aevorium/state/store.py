"""`Store`: the server's database, brought up to date when it is opened.

SQLite (write-ahead log) unless a URL names PostgreSQL. Both hold the same tables and pass the same tests.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from aevorium.errors import ArtefactError, ConfigError

__all__ = ["Store", "sqlite_url"]

_WAIT_SECONDS = 60
"""How long a transaction waits for another's."""

_CONNECTIONS = {"sqlite": 40, "postgresql": 15}
"""At most so many at once, all of them kept: SQLite's are of this process alone, one for each thread that answers."""

_RETRY_SECONDS = 0.01
"""Pause before the switch to write-ahead logging is tried again."""

_MIGRATION_LOCK = 0x41455630
"""PostgreSQL: number of the advisory lock under which tables are made; any constant that nobody else takes."""


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


class Store:
    """The server's database. Threads and processes may share it; a transaction that has ended is on the disk.

    Args:
        url: `sqlite:///FILE`, or `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`. A password is never shown.

    Raises:
        ConfigError: CONFIG_INVALID, if the URL is none, or of another system.
        ArtefactError: DATABASE_UNUSABLE, if it cannot be opened, or is of a newer version.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._name = self._engine.url.render_as_string(hide_password=True)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this machine."""
        return self._engine.dialect.name == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file, if it is one of this machine."""
        return Path(str(self._engine.url.database)) if self.is_sqlite else None

    def session(self) -> Connection:
        """A connection that the caller closes. Each of its statements is a transaction."""
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction for reading: one consistent state."""
        with self.usable(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that changes something; an exception undoes it. In SQLite it excludes every other writer."""
        with self.usable(), self._engine.connect() as connection:
            connection = connection.execution_options(is_writing=True)
            with connection.begin():
                yield connection

    def check(self) -> None:
        """Passes if the database answers; raises ArtefactError (DATABASE_UNUSABLE) if not."""
        with self.read() as connection:
            connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Turns what the database's driver raises into DATABASE_UNUSABLE."""
        try:
            yield
        except DBAPIError as error:
            # The driver's own words; SQLAlchemy's would add statement and parameters, which hold what people sent.
            reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
            message = f"The database {self._name!r} cannot be used. {reason}."
            raise ArtefactError("DATABASE_UNUSABLE", message) from error
        except SQLAlchemyError as error:
            raise ArtefactError(
                "DATABASE_UNUSABLE", f"The database {self._name!r} cannot be used. {type(error).__name__}."
            ) from error

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def _migrate(self) -> None:
        with self.write() as connection, as_file(files("aevorium.state") / "migrations") as scripts:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            config = Config()
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise ArtefactError(
                    "DATABASE_UNUSABLE",
                    f"The database {self._name!r} cannot be used. It is of a version that this Aevorium does not know.",
                    hint="Use the version of Aevorium that wrote it, or a newer one.",
                ) from error


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("CONFIG_INVALID", "The database's URL cannot be read.", hint=_FORMS) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database:
        return _sqlite(parsed)
    if backend != "postgresql":
        raise ConfigError("CONFIG_INVALID", f"A database of kind {backend!r} is not possible.", hint=_FORMS)
    try:
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=_CONNECTIONS["postgresql"],
            max_overflow=0,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(
            "DEPENDENCY_MISSING",
            "PostgreSQL needs the package psycopg, which is not installed.",
            hint="Type: pip install 'aevorium[postgresql]'",
        ) from error


_FORMS = "Write sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE."


def _sqlite(url: URL) -> Engine:
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.name == "posix":
            path.touch(mode=0o600)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ArtefactError("DATABASE_UNUSABLE", f"The database {str(path)!r} cannot be used. {reason}.") from error
    engine = create_engine(
        url,
        connect_args={"timeout": _WAIT_SECONDS, "isolation_level": None},
        pool_size=_CONNECTIONS["sqlite"],
        max_overflow=0,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # The switch of a new file needs the file alone, and SQLite does not apply its own waiting to it.
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _begin(connection: Connection) -> None:
    """A writer takes its place at once: to begin as a reader and become a writer can fail when another came between."""
    if connection.get_execution_options().get("is_writing"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    # Locks nothing, so it has no failure to translate: straight to the driver, for every request reads.
    reader = connection.connection.driver_connection
    if reader is not None:
        reader.execute("BEGIN")
