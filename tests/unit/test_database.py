"""A database file that several processes make at the same time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aevorium.database import Database

_MAKE = """
import sys
from pathlib import Path
from aevorium.database import Database
print("ready", flush=True)
sys.stdin.readline()
Database(Path(sys.argv[1]), migrations=[["CREATE TABLE t (x)"]])
"""


def test_many_processes_make_one_file_and_none_finds_it_locked(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / f"{attempt}.db"
        makers = [
            subprocess.Popen(
                [sys.executable, "-c", _MAKE, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        for maker in makers:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "ready\n"
        for maker in makers:
            assert maker.stdin is not None
            maker.stdin.write("\n")
            maker.stdin.flush()
        answers = [maker.communicate() for maker in makers]
        assert [maker.returncode for maker in makers] == [0] * 6, answers
        with Database(path, migrations=[["CREATE TABLE t (x)"]]).read() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_file_that_stays_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aevorium.database._WAIT_SECONDS", 0.1)
    path = tmp_path / "locked.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(Exception, match="locked") as caught:
            Database(path, migrations=[["CREATE TABLE t (x)"]])
    finally:
        holder.close()
    assert getattr(caught.value, "code", None) == "DATABASE_UNUSABLE"


def test_an_older_file_is_brought_up_to_date_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    first, second = ["CREATE TABLE t (x)"], ["ALTER TABLE t ADD COLUMN y", "UPDATE t SET y = x + 1"]
    with Database(path, migrations=[first]).write() as connection:
        connection.execute("INSERT INTO t (x) VALUES (1)")
    for _ in range(2):
        with Database(path, migrations=[first, second]).read() as connection:
            assert [tuple(row) for row in connection.execute("SELECT x, y FROM t")] == [(1, 2)]


def test_a_migration_that_fails_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    first = ["CREATE TABLE t (x)"]
    Database(path, migrations=[first])
    with pytest.raises(Exception, match="no such table") as caught:
        Database(path, migrations=[first, ["ALTER TABLE t ADD COLUMN y", "UPDATE other SET y = 1"]])
    assert getattr(caught.value, "code", None) == "DATABASE_UNUSABLE"
    with Database(path, migrations=[first]).read() as connection:
        assert [row["name"] for row in connection.execute("PRAGMA table_info(t)")] == ["x"]


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    Database(path, migrations=[["CREATE TABLE t (x)"], ["CREATE TABLE u (x)"]])
    with pytest.raises(Exception, match="has version 2") as caught:
        Database(path, migrations=[["CREATE TABLE t (x)"]])
    assert getattr(caught.value, "code", None) == "DATABASE_UNUSABLE"


_MIGRATIONS = [["CREATE TABLE t (x)"]]


def _count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def test_connections_that_are_kept_see_what_others_write_and_forget_what_failed(tmp_path: Path) -> None:
    kept = Database(tmp_path / "kept.db", migrations=_MIGRATIONS, is_kept=True)
    with kept.read() as first:
        pass
    with kept.read() as again:
        assert again is first
    with Database(kept.path, migrations=_MIGRATIONS).write() as other:
        other.execute("INSERT INTO t VALUES (1)")
    assert _count(kept) == 1
    with pytest.raises(ZeroDivisionError), kept.write() as connection:
        connection.execute("INSERT INTO t VALUES (2 + ?)", (1 // 0,))
    with pytest.raises(Exception, match="no such table"), kept.write() as connection:
        connection.execute("INSERT INTO t SELECT 2 FROM u")
    assert _count(kept) == 1
    with Database(kept.path, migrations=_MIGRATIONS).write() as other:  # nobody holds a lock
        other.execute("INSERT INTO t VALUES (2)")
    assert _count(kept) == 2
    kept.close()


def test_connections_that_are_kept_do_not_outlive_their_file(tmp_path: Path) -> None:
    kept = Database(tmp_path / "kept.db", migrations=_MIGRATIONS, is_kept=True)
    with kept.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    kept.path.rename(tmp_path / "moved.db")
    for rest in ("-wal", "-shm"):
        kept.path.with_name(f"kept.db{rest}").unlink(missing_ok=True)
    Database(kept.path, migrations=_MIGRATIONS)
    assert _count(kept) == 0
    kept.close()


def test_threads_share_connections_that_are_kept(tmp_path: Path) -> None:
    kept = Database(tmp_path / "kept.db", migrations=_MIGRATIONS, is_kept=True)

    def add(number: int) -> None:
        with kept.write() as connection:
            connection.execute("INSERT INTO t VALUES (?)", (number,))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(100)))
    assert _count(kept) == 100
    kept.close()
