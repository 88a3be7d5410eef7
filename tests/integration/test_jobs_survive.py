"""What a worker and a server make good that died, and what does not make them fail."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from orders_server import SCHEMA, Server

from aevorium.errors import ArtefactError
from aevorium.governance.chain import GENESIS, AuditChain
from aevorium.jobs import folders as folders_module
from aevorium.jobs.folders import RunFolders
from aevorium.jobs.sites import OrderedRun
from aevorium.jobs.worker import Worker
from aevorium.server.record import StudyRecord
from aevorium.workspace import Workspace, remove_unfinished


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server on which one run has ended."""
    made = Server(tmp_path_factory.mktemp("served"))
    run = made.order_run(epsilon=1.0, records=1200)
    with made.working():
        assert made.ended(f"/v1/runs/{run}")["state"] == "succeeded"
    return made


def _order(server: Server) -> str:
    return str(server.post("/v1/datasets", {"rows": 5, "steps": 2})["id"])


def _ends(server: Server) -> Counter[str]:
    entries = AuditChain(server.workspace.database).entries_of(["run_ended", "dataset_ended"])
    return Counter(entry.detail["job"] for entry in entries)


def test_the_log_gets_the_end_of_a_job_whose_worker_died_before_it_said_so(server: Server):
    table, before = _order(server), _ends(server)
    job = server.jobs.claim("dead", kind="generate")
    assert job is not None
    server.jobs.finish(job, "succeeded", result={"run": "0" * 16, "rows": 5, "sha256": "0" * 64})
    for _ in range(2):
        with server.working():
            server.ended(f"/v1/datasets/{_order(server)}")
    ends = _ends(server)
    assert ends[table] == 1
    assert set(ends.values()) == {1}
    assert len(ends) == len(before) + 3


def test_a_new_server_begins_no_log_by_looking_for_one(tmp_path: Path):
    """A log that is empty, beside its empty file, was told to newcomers as one that somebody changed."""
    server = Server(tmp_path)
    with server.working():
        time.sleep(1)  # what a worker does at its start is done
    assert not server.workspace.database.exists()
    server.get("/v1/audit/verification", status=404)
    chain = AuditChain(server.workspace.database)
    chain.write_view(server.workspace.audit_log)
    assert chain.head == GENESIS
    assert server.get("/v1/audit/verification")["is_sound"]


def test_an_order_whose_entry_cannot_be_written_is_not_taken(server: Server, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ArtefactError("DATABASE_UNUSABLE", "The log cannot be written.")

    before = server.get("/v1/runs")["runs"]
    with monkeypatch.context() as patch:
        patch.setattr(AuditChain, "append", fail)
        server.post("/v1/runs", {"choices": {"epsilon": 0.1}}, status=507)
    assert server.get("/v1/runs")["runs"] == before


def test_what_a_dead_process_had_begun_to_write_is_removed(server: Server):
    folder = server.workspace.datasets
    folder.mkdir(exist_ok=True)
    left = folder / ".0123.csv.abc.part"
    old, fresh = (server.workspace.root / f".audit_log.json.{name}.part" for name in ("old", "fresh"))
    for path in (left, old, fresh):
        path.write_text("half")
    os.utime(old, (0, 0))
    with server.working():
        server.ended(f"/v1/datasets/{_order(server)}")
    assert [path.exists() for path in (left, old, fresh)] == [False, False, True]
    fresh.unlink()


def test_what_cannot_be_removed_stops_nothing(tmp_path: Path):
    (tmp_path / ".folder.part").mkdir()
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path / "absent")
    assert (tmp_path / ".folder.part").is_dir()


def test_a_story_that_cannot_be_told_and_a_queue_that_cannot_be_asked_cost_no_job(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    failed: list[str] = []

    def fail(*_: object, **__: object) -> None:
        failed.append("told")
        raise ArtefactError("DATABASE_UNUSABLE", "The database is away.")

    run = server.order_run(epsilon=0.5, records=1200)
    with monkeypatch.context() as patch:
        patch.setattr(server.jobs, "tell", fail)
        patch.setattr(server.jobs, "find", fail)
        with server.working():
            other = {**server.get("/v1/runs")["runs"][0]}
            while other["ended_at"] is None:
                time.sleep(0.1)
                other = server.get("/v1/runs")["runs"][0]
    assert failed
    assert server.get(f"/v1/runs/{run}")["state"] == "succeeded"


def test_a_lane_outlives_a_log_that_fails_unexpectedly(server: Server, monkeypatch: pytest.MonkeyPatch):
    note = Worker._note
    failed: list[str] = []

    def fail_once(self: Worker, job: Any, *rest: Any, **more: Any) -> None:
        if not failed:
            failed.append(job.id)
            raise ValueError("not what anyone expects")
        note(self, job, *rest, **more)

    monkeypatch.setattr(Worker, "_note", fail_once)
    with server.working():
        first, second = _order(server), _order(server)
        assert [server.ended(f"/v1/datasets/{table}")["state"] for table in (first, second)] == ["succeeded"] * 2
    assert failed == [first]
    with server.working():
        server.ended(f"/v1/datasets/{_order(server)}")
    assert (_ends(server)[first], _ends(server)[second]) == (1, 1)


class _SlowSite:
    """A run that goes on until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def conduct(self, run: OrderedRun) -> Any:
        self.begun.set()
        assert self.let_go.wait(60)
        raise ArtefactError("DATABASE_UNUSABLE", "It ends here.")


def test_a_worker_that_is_to_end_after_its_run_makes_tables_until_then(server: Server):
    site = _SlowSite()
    run = server.order_run(epsilon=0.1)
    worker = Worker(
        server.jobs, folders=RunFolders(server.workspace), site=site, settings=server.settings, secrets=server.secrets
    )
    draining = threading.Event()
    thread = threading.Thread(
        target=worker.work, kwargs={"should_stop": lambda: False, "should_drain": draining.is_set}
    )
    thread.start()
    assert site.begun.wait(30)
    draining.set()
    time.sleep(1)
    assert server.ended(f"/v1/datasets/{_order(server)}", seconds=30)["state"] == "succeeded"
    later = server.order_run(epsilon=0.1)
    site.let_go.set()
    thread.join(30)
    assert not thread.is_alive()
    assert server.get(f"/v1/runs/{run}")["state"] == "failed"
    assert server.get(f"/v1/runs/{later}")["state"] == "queued"
    server.post(f"/v1/runs/{later}/stop")


def test_a_run_that_was_taken_over_is_not_gone_on_with(server: Server):
    site = _SlowSite()
    run = server.order_run(epsilon=0.1)
    asked: list[bool] = []

    def conduct(given: OrderedRun) -> Any:
        server.jobs.recover()  # what a worker elsewhere does, which takes this one for dead
        asked.append(given.should_stop())
        raise ArtefactError("DATABASE_UNUSABLE", "It ends here.")

    site.conduct = conduct  # type: ignore[method-assign]
    before = _ends(server)
    worker = Worker(
        server.jobs, folders=RunFolders(server.workspace), site=site, settings=server.settings, secrets=server.secrets
    )
    worker.work(should_stop=lambda: bool(asked) and not time.sleep(1))
    assert asked == [True]
    assert server.get(f"/v1/runs/{run}")["error"]["code"] == "JOB_INTERRUPTED"
    # Whoever took it over says how it ended.
    assert _ends(server) == before


def _cut_off(server: Server, name: str) -> Workspace:
    """What is left of a run whose worker died in it."""
    finished = RunFolders(server.workspace).find()
    workspace = Workspace(server.workspace.runs / name)
    workspace.root.mkdir(parents=True)
    workspace.schema.write_text(SCHEMA)
    changes = {"run_id": name, "status": "running", "started_at": "2999-01-01T00:00:00.000+00:00"}
    finished.record.model_copy(update=changes).write(workspace)
    return workspace


def test_a_run_that_was_cut_off_hides_no_finished_one(server: Server):
    statement = server.get("/v1/statement")
    workspace = _cut_off(server, "c" * 16)
    assert server.get("/v1/statement") == statement
    with server.working():
        assert server.ended(f"/v1/datasets/{_order(server)}")["state"] == "succeeded"
    assert server.get(f"/v1/models/{'c' * 16}")["status"] == "running"
    workspace.study.unlink()


def test_a_record_is_read_once_and_again_when_it_changed(server: Server, monkeypatch: pytest.MonkeyPatch):
    workspace = _cut_off(server, "d" * 16)
    folders, loads = RunFolders(server.workspace), Counter[Path]()
    load = folders_module.load_study

    def counted(found: Workspace) -> Any:
        loads[found.root] += 1
        return load(found)

    monkeypatch.setattr(folders_module, "load_study", counted)
    assert len(folders.all()) == len(folders.all())
    assert set(loads.values()) == {1}
    record = StudyRecord.model_validate_json(workspace.study.read_text())
    record.model_copy(update={"status": "failed"}).write(workspace)
    assert folders.find("d" * 16).record.status == "failed"
    workspace.schema.write_text(SCHEMA.replace("max = 10", "max = 11"))
    with pytest.raises(ArtefactError, match="schema"):
        folders.find("d" * 16)
    workspace.study.unlink()
    with pytest.raises(ArtefactError):
        folders.find("d" * 16)
