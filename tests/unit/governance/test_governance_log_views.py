"""The file beside a chain: whole at any time, complete in the end, and not written for every entry."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aevorium.governance.chain import AuditChain, verify_entries
from aevorium.governance.log_views import LogViews


def _length(path: Path) -> int:
    view = json.loads(path.read_text(encoding="utf-8"))
    assert verify_entries(view["entries"], expected_head=view["head"]).is_sound
    return len(view["entries"])


def _add(chain: AuditChain, number: int = 0) -> None:
    chain.append(actor="somebody", action="did", detail={"number": number})


def test_the_first_entry_is_in_the_file_at_once_and_the_others_when_its_rest_ends(tmp_path: Path) -> None:
    chain, path, views = AuditChain(tmp_path / "audit.db"), tmp_path / "log.json", LogViews()
    _add(chain)
    views.renew(path, chain)
    assert _length(path) == 1
    for number in range(5):
        _add(chain, number)
        views.renew(path, chain)
    deadline = time.monotonic() + 30
    while _length(path) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _length(path) == 6


def test_many_entries_take_few_writings_and_the_end_writes_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, path, views = AuditChain(tmp_path / "audit.db"), tmp_path / "log.json", LogViews(rest=1e6)
    written: list[str] = []
    write = AuditChain.write_view

    def counted(self: AuditChain, path: Path) -> str:
        written.append(write(self, path))
        return written[-1]

    monkeypatch.setattr(AuditChain, "write_view", counted)

    def order(number: int) -> None:
        _add(chain, number)
        views.renew(path, chain)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(order, range(40)))
    assert len(written) == 1
    views.close()
    assert _length(path) == 40
    assert len(written) == 2
    views.close()
    assert len(written) == 2


def test_a_file_that_another_process_wrote_shorter_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, path, views = AuditChain(tmp_path / "audit.db"), tmp_path / "log.json", LogViews(rest=0.0)
    _add(chain)
    write = AuditChain.write_view

    def overtaken(self: AuditChain, path: Path) -> str:
        head = write(self, path)
        monkeypatch.setattr(AuditChain, "write_view", write)
        _add(AuditChain(tmp_path / "audit.db"))
        return head

    monkeypatch.setattr(AuditChain, "write_view", overtaken)
    views.renew(path, chain)
    views.close()
    assert _length(path) == 2


def test_a_file_that_cannot_be_written_later_hurts_nobody(tmp_path: Path) -> None:
    chain, folder, views = AuditChain(tmp_path / "audit.db"), tmp_path / "views", LogViews(rest=1e6)
    for _ in range(2):
        _add(chain)
        views.renew(folder / "log.json", chain)
    (folder / "log.json").unlink()
    folder.rmdir()
    folder.write_text("in the way")
    views.close()
    folder.unlink()
    _add(chain)
    views = LogViews()
    views.renew(folder / "log.json", chain)
    assert _length(folder / "log.json") == 3
