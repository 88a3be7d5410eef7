"""The hash of the code changes with every source, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aevorium.governance.code import code_hash, hash_of_sources


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_bytes(b"x = 1\n")
    (tmp_path / "sub" / "b.py").write_bytes(b"y = 2\n")
    return tmp_path


CHANGES: list[Callable[[Path], object]] = [
    lambda package: (package / "a.py").write_bytes(b"x = 2\n"),
    lambda package: (package / "sub" / "b.py").unlink(),
    lambda package: (package / "sub" / "b.py").rename(package / "sub" / "c.py"),
    lambda package: (package / "sub" / "b.py").rename(package / "b.py"),
    lambda package: (package / "new.py").touch(),
    # The same bytes, divided otherwise.
    lambda package: ((package / "a.py").write_bytes(b""), (package / "sub" / "b.py").write_bytes(b"x = 1\ny = 2\n")),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_source_shows(package: Path, change: Callable[[Path], object]) -> None:
    before = hash_of_sources(package)
    change(package)
    assert hash_of_sources(package) != before


def test_what_python_does_not_run_and_how_lines_end_do_not_show(package: Path) -> None:
    before = hash_of_sources(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_bytes(b"1")
    (package / "a.py").write_bytes(b"x = 1\r\n")
    assert hash_of_sources(package) == before


def test_an_installation_has_one_hash() -> None:
    assert len(code_hash()) == 64
    assert code_hash() == code_hash()
