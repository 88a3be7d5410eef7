"""The end of a run's log, as the server noted it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aevorium.governance.chain import GENESIS, AuditChain
from aevorium.jobs.checks import verify_server
from aevorium.jobs.folders import RunFolders
from aevorium.workspace import Workspace

JOB = "0123456789abcdef"


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(Workspace(tmp_path))


def _note(folders: RunFolders, head: str, *, state: str = "failed") -> None:
    detail = {"job": JOB, "state": state, "code": None, "head": head}
    AuditChain(folders.root.database).append(actor="worker", action="run_ended", detail=detail)


def _is_held(folders: RunFolders) -> bool:
    checks = verify_server(folders, homes=()).checks
    return next(check.is_sound for check in checks if check.subject == f"Run {JOB}: its log and the server's")


def test_a_run_whose_worker_died_before_its_logs_first_entry_is_sound(folders: RunFolders):
    log = AuditChain(folders.workspace_of(JOB).database)
    _note(folders, log.head)
    assert log.head == GENESIS
    assert folders.workspace_of(JOB).database.is_file()
    assert _is_held(folders)


def test_a_run_that_succeeded_with_an_empty_log_is_not(folders: RunFolders):
    log = AuditChain(folders.workspace_of(JOB).database)
    _note(folders, log.head, state="succeeded")
    assert not _is_held(folders)


def test_a_run_whose_log_lost_its_last_entry_is_not(folders: RunFolders):
    log = AuditChain(folders.workspace_of(JOB).database)
    log.append(actor="server", action="run_started", detail={})
    _note(folders, log.head)
    assert _is_held(folders)
    folders.workspace_of(JOB).database.unlink()
    AuditChain(folders.workspace_of(JOB).database).append(actor="server", action="run_started", detail={"again": 1})
    assert not _is_held(folders)
