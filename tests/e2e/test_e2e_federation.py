"""A study over real processes: what comes out, who is let in, and what happens when something goes wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from aevorium.privacy.accountant import epsilon
from aevorium.privacy.ledger import SqliteLedger
from aevorium.server.record import load_study
from aevorium.workspace import Workspace

if TYPE_CHECKING:
    from tests.e2e.conftest import Desk

pytestmark = pytest.mark.timeout(240)


def test_nodes_before_after_and_too_late_and_what_the_run_leaves(desk: Desk) -> None:
    before = desk.node("before")
    assert before.wait_for("node_state")["state"] == "waiting"
    server = desk.server("--rounds", "25", "--epochs", "4", "--batch-size", "50")
    listening = server.wait_for("server_listening")
    after = desk.node("after")
    server.wait_for("nodes_online", where=lambda event: len(event["names"]) == 2)
    late = desk.node("late")
    twin = desk.node("before")
    second = desk.server()
    status, answer = twin.end()
    assert (status, answer["error"]["code"]) == (2, "NODE_NAME_TAKEN")
    status, answer = second.end()
    assert (status, answer["error"]["code"]) == (4, "PORT_UNAVAILABLE")

    status, answer = server.end()
    assert status == 0, server.text
    assert {node["name"] for node in answer["data"]["nodes"]} == {"after", "before"}
    assert [event["round"] for event in server.events if event.get("event") == "round_finished"] == [*range(1, 26)]
    for node in (before, after):
        status, answer = node.end()
        assert status == 0, node.text
        assert [event["phase"] for event in node.events if event.get("event") == "node_answered"][:3] == [
            "plan", "count", "statistics",
        ]  # fmt: skip
    status, answer = late.end()
    assert (status, answer["error"]["code"]) == (1, "RUN_MISSED"), late.text

    workspace = Workspace(desk.workspace)
    for path in (workspace.checkpoint(25), workspace.privacy_statement, workspace.report_html, workspace.audit_log):
        assert path.is_file()
    record, _ = load_study(workspace)
    assert record.server == listening["fingerprint"]
    assert not record.is_simulated_federation
    assert record.is_noise_secret
    for node in record.nodes:
        run = SqliteLedger(desk.home / node.name / "ledger.db").run(record.run_id)
        assert run is not None
        spent = epsilon(run.events, delta=record.plan.delta)
        assert node.spent == spent <= record.plan.epsilon == 3.0
        assert f"{spent:.4g}" in workspace.privacy_statement.read_text(encoding="utf-8")
    assert SqliteLedger(desk.home / "late" / "ledger.db").run(record.run_id) is None
    verified = desk.start("-m", "aevorium", "--json", "--quiet", "audit", "verify", "--home", str(desk.home))
    verified._process.wait(timeout=60)
    assert verified._process.returncode == 0, verified.text


def test_a_wrong_schema_at_one_node_is_refused_there_and_ends_the_run(desk: Desk) -> None:
    other = (desk.folder / "schema.toml").read_text().replace("max = 90", "max = 91")
    (desk.folder / "other.toml").write_text(other)
    right = desk.node("right")
    wrong = desk.start(
        "-m", "aevorium", "--json", "node", "--data", str(desk.table("wrong")), "--schema", "other.toml"
    )  # fmt: skip
    server = desk.server()
    status, answer = server.end()
    assert (status, answer["error"]["code"]) == (3, "SCHEMA_MISMATCH")
    status, answer = wrong.end()
    assert (status, answer["error"]["code"]) == (3, "SCHEMA_MISMATCH")
    assert right.end()[0] == 0
    assert not (desk.workspace / "encoder.json").exists()
    for name in ("right", "wrong"):
        ledger = SqliteLedger(desk.home / name / "ledger.db")
        assert not [release for run in ledger.runs("2026").values() for release in run.releases]


def test_when_both_nodes_are_killed_the_server_fails_in_time_with_a_reason(desk: Desk) -> None:
    nodes = [desk.node(name, rows=400) for name in ("one", "two")]
    server = desk.server("--epochs", "3000", "--timeout", "20")
    server.wait_for("phase_started", where=lambda event: event["phase"] == "training")
    began = time.monotonic()
    for node in nodes:
        node.wait_for("node_asked", where=lambda event: event["phase"] == "train")
        node.kill()
    status, answer = server.end()
    assert status == 4
    assert answer["error"]["code"] in ("NODE_UNREACHABLE", "TOO_FEW_NODES")
    # The time-out of the exchange, the farewell to nodes that are gone, and a generous margin.
    assert time.monotonic() - began < 20 + 20 + 30
    record, _ = load_study(Workspace(desk.workspace))
    assert record.status == "failed"
    assert [node.spent for node in record.nodes] == [3.0, 3.0]


def test_one_interrupt_finishes_the_round_and_lets_the_nodes_go(desk: Desk) -> None:
    nodes = [desk.node(name) for name in ("one", "two")]
    server = desk.server("--rounds", "400", "--epochs", "1", "--batch-size", "100")
    server.wait_for("round_finished")
    server.interrupt()
    status, answer = server.end()
    assert (status, answer["error"]["code"]) == (1, "RUN_INTERRUPTED"), server.text
    assert [node.end()[0] for node in nodes] == [0, 0]
    record, _ = load_study(Workspace(desk.workspace))
    rounds = [event["round"] for event in server.events if event.get("event") == "round_finished"]
    assert len(Workspace(desk.workspace).checkpoints()) == rounds[-1] < 400
    for node in record.nodes:
        assert 0 < node.spent < 3.0
