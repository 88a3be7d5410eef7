"""`WorkerLock`: held by the one process that works through a queue, and given up by it when it dies.

It lies where the queue lies. A lock in a shared folder is not enough: two hosts may each be given it, and whoever works
takes everything that is running for the work of a dead one.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from aevorium.errors import ArtefactError
from aevorium.state.store import Store

__all__ = ["WorkerLock"]

_NUMBER = 0x41455631
"""PostgreSQL: number of the advisory lock; any constant that nobody else takes."""


class WorkerLock:
    """The lock of a queue: a file beside an SQLite database, a session's advisory lock in PostgreSQL.

    Args:
        store: The database of the queue.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: Connection | None = None
        self._file = None if store.path is None else FileLock(_beside(store.path))

    def acquire(self) -> bool:
        """Takes the lock, unless another process holds it.

        Raises:
            ArtefactError: DATABASE_UNUSABLE.
        """
        if self._file is not None:
            try:
                self._file.acquire(timeout=0)
            except Timeout:
                return False
            return True
        with self._store.usable():
            connection = self._store.session()
            try:
                is_free = bool(connection.scalar(text(f"SELECT pg_try_advisory_lock({_NUMBER})")))
            except BaseException:
                _drop(connection)
                raise
        if is_free:
            self._connection = connection
        else:
            connection.close()
        return is_free

    def is_held(self) -> bool:
        """Whether no other process has it. A session that broke has lost it; then it is taken again if it is free."""
        if self._file is not None:
            return True
        if self._connection is not None:
            try:
                self._connection.scalar(text("SELECT 1"))
                return True
            except SQLAlchemyError:
                _drop(self._connection)
                self._connection = None
        try:
            return self.acquire()
        except ArtefactError:
            return True  # where nobody can ask for it, nobody else gets it

    def release(self) -> None:
        """Gives it up."""
        if self._file is not None:
            self._file.release()
        if self._connection is not None:
            # Said before the session ends: PostgreSQL notices the end of a session only some time after it.
            with suppress(SQLAlchemyError):
                self._connection.execute(text(f"SELECT pg_advisory_unlock({_NUMBER})"))
            _drop(self._connection)
            self._connection = None


def _drop(connection: Connection) -> None:
    """Ends a session, which would otherwise go back to the pool and take its lock with it."""
    connection.invalidate()
    connection.close()


def _beside(database: Path) -> Path:
    return database.with_name(f".{database.name}.worker.lock")
