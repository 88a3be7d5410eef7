"""Small SQLite databases that survive a crash: the node's ledger, the audit chain."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aevorium.errors import ArtefactError

__all__ = ["Database"]

_WAIT_SECONDS = 60.0
"""How long a process waits for another's transaction."""

_RETRY_SECONDS = 0.01
"""Pause before the switch to WAL is tried again."""


class Database:
    """One SQLite file with a version. Each use has a connection of its own, so threads and processes may share it.

    A transaction that has ended is on the disk (write-ahead log, full synchronisation). On POSIX systems the file, and
    its folder if made here, are the owner's alone.

    Args:
        path: The file; it and its folder are made when absent.
        migrations: For each version, from the first on, the statements that make it of the one before. The file
            stores its version; one that is older is brought up to the newest in a single transaction.
        is_kept: Whether connections stay open between uses, for a process that is asked often: to open one takes longer
            than most questions. They do not outlive a fork.

    Raises:
        ArtefactError: DATABASE_UNUSABLE, if the file is no such database, is of a newer version, or cannot be opened.
    """

    def __init__(self, path: Path, *, migrations: Sequence[Sequence[str]], is_kept: bool = False) -> None:
        self.path = path
        self._is_kept = is_kept
        self._idle: deque[tuple[tuple[int, int], sqlite3.Connection]] = deque()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.name == "posix":
                path.touch(mode=0o600)
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from error
        self._migrate(migrations)

    def _migrate(self, migrations: Sequence[Sequence[str]]) -> None:
        newest = len(migrations)
        with self._connect() as connection:
            if _version_of(connection) == newest:
                return  # whoever opens a file for reading must not wait for its writer
        with self.write() as connection:
            found = _version_of(connection)
            for statements in migrations[found:]:
                for statement in statements:
                    connection.execute(statement)
            if found < newest:
                connection.execute(f"PRAGMA user_version = {newest:d}")
        if found > newest:
            raise self._unusable(
                f"It has version {found}; this version of Aevorium reads {newest}",
                hint="Use the version of Aevorium that wrote it, or a newer one.",
            )

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading: one consistent state."""
        with self._connect() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that excludes every other writer; an exception undoes it."""
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            file, connection = self._idle_one() or self._opened()
            is_sound = False
            try:
                yield connection
                is_sound = True
            finally:
                if self._is_kept and is_sound:
                    self._idle.append((file, connection))
                else:
                    connection.close()
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error

    def _idle_one(self) -> tuple[tuple[int, int], sqlite3.Connection] | None:
        """A connection that waits, if there is one to the file that has the name now: it may have been replaced."""
        while self._idle:
            try:
                file, connection = self._idle.pop()
            except IndexError:
                return None  # another thread was faster
            if file == self._file():
                return file, connection
            connection.close()
        return None

    def _opened(self) -> tuple[tuple[int, int], sqlite3.Connection]:
        # Looked at first: a file that is replaced meanwhile is not taken for this one.
        file = self._file()
        # A connection is used by one thread at a time, and by another the next time.
        connection = sqlite3.connect(
            self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=not self._is_kept
        )
        try:
            connection.row_factory = sqlite3.Row
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return file, connection

    def _file(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Closes the connections that wait."""
        while self._idle:
            self._idle.pop()[1].close()

    def _unusable(self, reason: str, *, hint: str | None = None) -> ArtefactError:
        return ArtefactError(
            "DATABASE_UNUSABLE", f"The database {str(self.path)!r} cannot be used. {reason}.", hint=hint
        )


def _version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switches a new file to WAL, which it then keeps.

    The switch needs the file alone, and SQLite does not apply its own waiting to it: of two processes that make the
    file at the same time one would be told at once that it is locked.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            if mode != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
