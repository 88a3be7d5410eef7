"""A study over real processes: what comes out, who is let in, and what happens when something goes wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from desk import SCHEMA, Desk
from seeded import open_seeded

from aevorium.governance.policy import NodePolicy
from aevorium.governance.secrets import Secrets
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.ledger import SqliteLedger
from aevorium.schema.table import TableSchema
from aevorium.server.record import load_study
from aevorium.workspace import Workspace

SEEDED = Path(__file__).parent / "seeded.py"

pytestmark = pytest.mark.timeout(240)


def test_nodes_before_after_and_too_late_and_what_the_run_leaves(desk: Desk) -> None:
    before = desk.node("before")
    assert before.wait_for("node_state")["state"] == "waiting"
    server = desk.server("--rounds", "12", "--epochs", "2", "--batch-size", "50")
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
    assert [event["round"] for event in server.events if event.get("event") == "round_finished"] == [*range(1, 13)]
    for node in (before, after):
        status, answer = node.end()
        assert status == 0, node.text
        assert [event["phase"] for event in node.events if event.get("event") == "node_answered"][:3] == [
            "plan", "count", "statistics",
        ]  # fmt: skip
    status, answer = late.end()
    assert (status, answer["error"]["code"]) == (1, "RUN_MISSED"), late.text

    workspace = Workspace(desk.workspace)
    for path in (workspace.checkpoint(12), workspace.privacy_statement, workspace.report_html, workspace.audit_log):
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
        assert f"{spent:.12g}" in workspace.privacy_statement.read_text(encoding="utf-8")
    assert SqliteLedger(desk.home / "late" / "ledger.db").run(record.run_id) is None
    verified = desk.start("-m", "aevorium", "--json", "--quiet", "audit", "verify", "--home", str(desk.home))
    assert verified.wait() == 0, verified.text


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


def test_a_node_that_is_killed_in_training_and_started_again_goes_on_with_the_run(desk: Desk) -> None:
    stays, killed = desk.node("stays", rows=400), desk.node("killed", rows=400)
    server = desk.server("--rounds", "3", "--epochs", "10", "--batch-size", "40")
    server.wait_for("round_finished")
    killed.wait_for("node_asked", where=lambda event: event["phase"] == "train" and event["detail"] == "round 2")
    killed.kill()
    again = desk.node("killed", rows=400)
    status, _ = server.end()
    assert status == 0, server.text
    rounds = [event for event in server.events if event.get("event") == "round_finished"]
    assert [(event["round"], event["nodes_ok"]) for event in rounds] == [(1, 2), (2, 2), (3, 2)]
    for node in (stays, again):
        status, _ = node.end()
        assert status == 0, node.text
    record, _ = load_study(Workspace(desk.workspace))
    for node in record.nodes:
        run = SqliteLedger(desk.home / node.name / "ledger.db").run(record.run_id)
        assert run is not None
        assert [release.round for release in run.releases if release.phase == "training"] == [1, 2, 3]
        assert {release.state for release in run.releases} == {"committed"}
        assert node.spent == epsilon(run.events, delta=record.plan.delta) <= record.plan.epsilon
        assert run.events == run.planned_events
    verified = desk.start("-m", "aevorium", "--json", "--quiet", "audit", "verify", "--home", str(desk.home))
    assert verified.wait() == 0, verified.text


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


def test_one_process_and_many_give_the_same_numbers_where_noise_is_fixed(desk: Desk) -> None:
    schema = TableSchema.from_toml(SCHEMA, source="test")
    options = RunOptions(epsilon=3.0, rounds=2, epochs=2, batch_size=50, pretraining_steps=20, seed=1, min_nodes=2)
    tables = {name: desk.table(name) for name in ("one", "two")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run_federation(
            schema,
            schema_text=SCHEMA,
            plan=plan_study(schema, sorted(tables), options),
            nodes=[NodeSource(name, path, policy=NodePolicy()) for name, path in tables.items()],
            workspace=Workspace(desk.folder / "alone"),
            secrets=Secrets.in_files(desk.folder / "checkpoint.key"),
            options=options,
            open_session=open_seeded,
        )
    finally:
        torch.set_num_threads(threads)
    nodes = [desk.start(str(SEEDED), name, str(desk.folder), str(desk.port)) for name in tables]
    server = desk.server("--rounds", "2", "--epochs", "2", "--batch-size", "50")
    status, answer = server.end()
    assert status == 0, server.text
    assert [node.wait() for node in nodes] == [0, 0]

    one, many = Workspace(desk.folder / "alone"), Workspace(desk.workspace)
    assert one.statistics.read_text() == many.statistics.read_text()
    assert one.associations.read_text() == many.associations.read_text()
    told = {node["name"]: node for node in answer["data"]["nodes"]}
    for node in alone.record.nodes:
        assert (node.count, node.spent) == (told[node.name]["count"], told[node.name]["spent"])
    losses = [[json.loads(line)["loss"] for line in w.round_metrics.read_text().splitlines()] for w in (one, many)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    for workspace in (one, many):
        assert not load_study(workspace)[0].is_noise_secret
        assert "NOT PRIVATE" in workspace.privacy_statement.read_text(encoding="utf-8")


def test_two_interrupts_stop_a_long_round_at_once(desk: Desk) -> None:
    nodes = [desk.node(name, rows=400) for name in ("one", "two")]
    server = desk.server("--epochs", "10000", "--rounds", "1")
    for node in nodes:
        node.wait_for("node_asked", where=lambda event: event["phase"] == "train")
    server.interrupt()
    server.wait_for_text("Press Ctrl-C again")
    began = time.monotonic()
    server.interrupt()
    status, answer = server.end()
    assert (status, answer["error"]["code"]) == (1, "RUN_INTERRUPTED"), server.text
    # The nodes would train for many minutes; a farewell of seconds is all that is waited for.
    assert time.monotonic() - began < 60
    record, _ = load_study(Workspace(desk.workspace))
    assert record.status == "failed"
    # Nodes that were at work could not say what they had spent: nothing less than all is assumed.
    assert [node.spent for node in record.nodes] == [3.0, 3.0]
