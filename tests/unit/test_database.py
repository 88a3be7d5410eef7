"""A database file that several processes make at the same time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from aevorium.database import Database

_MAKE = """
import sys
from pathlib import Path
from aevorium.database import Database
print("ready", flush=True)
sys.stdin.readline()
Database(Path(sys.argv[1]), version=1, tables=("CREATE TABLE t (x)",))
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
        with Database(path, version=1, tables=()).read() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_file_that_stays_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aevorium.database._WAIT_SECONDS", 0.1)
    path = tmp_path / "locked.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(Exception, match="locked") as caught:
            Database(path, version=1, tables=("CREATE TABLE t (x)",))
    finally:
        holder.close()
    assert getattr(caught.value, "code", None) == "DATABASE_UNUSABLE"
