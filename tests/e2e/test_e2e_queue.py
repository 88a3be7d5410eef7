"""A server that stays, two nodes that stay, and runs that are ordered of it one after another."""

from __future__ import annotations

import json

import pytest
from desk import Desk

from aevorium.jobs.checks import verify_server
from aevorium.jobs.folders import RunFolders
from aevorium.privacy.ledger import SqliteLedger
from aevorium.workspace import Workspace

pytestmark = pytest.mark.timeout(240)


def _typed(desk: Desk, *arguments: str, status: int = 0) -> dict[str, object]:
    process = desk.start("-m", "aevorium", "--json", *arguments)
    found, answer = process.end()
    assert found == status, process.text
    return answer["data"] if status == 0 else answer["error"]


def test_a_server_conducts_what_is_ordered_with_the_same_nodes_and_one_authority(desk: Desk) -> None:
    first = _typed(desk, "runs", "submit", "--schema", "schema.toml", "--epsilon", "2", "--records", "400")
    server = desk.server("--queue")
    server.wait_for_text("waits for orders")
    nodes = [desk.node(name, "--stay") for name in ("north", "south")]
    ended = _typed(desk, "runs", "watch", str(first["id"]))
    assert ended["state"] == "succeeded", (ended, server.text)
    second = _typed(desk, "runs", "submit", "--schema", "schema.toml", "--epsilon", "1", "--records", "400")
    assert _typed(desk, "runs", "watch", str(second["id"]))["state"] == "succeeded"

    folders = RunFolders(Workspace(desk.workspace))
    runs = {run.record.run_id: run.record for run in folders.all()}
    assert runs.keys() == {first["id"], second["id"]}
    # One authority for all runs: a node that trusts it need not be told anew.
    assert len({record.server for record in runs.values()}) == 1
    assert not any(record.is_simulated_federation for record in runs.values())
    for name in ("north", "south"):
        ledger = SqliteLedger(desk.home / name / "ledger.db")
        assert [ledger.run(str(run["id"])) is not None for run in (first, second)] == [True, True]
    result = verify_server(folders, homes=(desk.home,))
    assert result.is_sound, result.findings
    assert sum(check.subject.endswith("its log and the server's") for check in result.checks) == 2

    server.interrupt()
    assert server.wait() == 0, server.text
    for node in nodes:
        node.interrupt()


def test_a_run_that_waits_for_nodes_is_stopped(desk: Desk) -> None:
    run = _typed(desk, "runs", "submit", "--schema", "schema.toml", "--epsilon", "2")
    server = desk.server("--queue")
    server.wait_for_text("waits for orders")
    watching = desk.start("-m", "aevorium", "--json", "runs", "watch", str(run["id"]))
    watching.wait_for_text("Waiting for 2 nodes")
    _typed(desk, "runs", "stop", str(run["id"]))
    status, answer = watching.end()
    assert (status, answer["data"]["state"]) == (0, "stopped")
    log = json.loads((desk.workspace / "audit_log.json").read_text(encoding="utf-8"))
    assert [entry["action"] for entry in log["entries"]] == ["run_ordered", "run_stop_asked", "run_ended"]
