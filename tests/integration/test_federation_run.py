"""Whole federations in one process: what they leave, what they cost, what they refuse."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aevorium.conducting import RunResult
from aevorium.errors import AevoriumError, ArtefactError, BudgetExceeded, DataError, FederationError, PolicyRefused
from aevorium.federation.protocol import TrainReply, TrainRequest
from aevorium.generation import generate_table
from aevorium.governance.chain import AuditChain
from aevorium.governance.policy import Allowance, Budget, NodePolicy
from aevorium.governance.secrets import Secrets
from aevorium.node.session import NodeSession
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_cost, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.ledger import SqliteLedger
from aevorium.progress import ProgressEvent, RoundFinished, ignore
from aevorium.schema.frame import typed_frame, violations
from aevorium.schema.table import TableSchema
from aevorium.server.record import load_study
from aevorium.verification import verify_workspace
from aevorium.workspace import Workspace

SCHEMA = """
name = "clinic"
unit_id = "id"
target = "ill"
[columns.age]
kind = "continuous"
min = 18
max = 90
integer = true
[columns.cost]
kind = "continuous"
min = 0
max = 1000
[columns.glucose]
kind = "continuous"
min = 50
max = 400
missing = true
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
[columns.risk]
kind = "categorical"
categories = ["low", "high"]
derived = "risk"
[rules.risk]
kind = "score"
levels = { high = 1, low = 0 }
[rules.risk.points]
cost = [[500, 1]]
[[constraints]]
check = "age > 20 or cost < 900"
"""

OPTIONS = RunOptions(epsilon=4.0, rounds=2, epochs=1, batch_size=64, pretraining_steps=20)


def _table(path: Path, rows: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 91, rows)
    ill = rng.random(rows) < (age / 120)
    glucose = np.round(np.clip(rng.normal(90 + 60 * ill, 15), 50, 400), 1).astype(object)
    glucose[rng.random(rows) < 0.4] = ""
    frame = pd.DataFrame(
        {
            "id": [f"zq-patient-{seed}-{number}" for number in range(rows)],
            "age": age,
            "cost": np.round(np.clip(rng.exponential(200, rows) * (1 + ill), 0, 1000), 2),
            "glucose": glucose,
            "ill": np.where(ill, "yes", "no"),
        }
    )
    frame.to_csv(path, index=False)
    return path


def _run(
    folder: Path,
    *,
    options: RunOptions = OPTIONS,
    nodes: list[NodeSource] | None = None,
    report: Callable[[ProgressEvent], None] = ignore,
) -> RunResult:
    schema = TableSchema.from_toml(SCHEMA, source="test")
    if nodes is None:
        nodes = [NodeSource(name, _table(folder / f"{name}.csv", 300, seed)) for seed, name in enumerate("abc")]
    return run_federation(
        schema,
        schema_text=SCHEMA,
        plan=plan_study(schema, [node.name for node in nodes], options),
        nodes=nodes,
        workspace=Workspace(folder / "workspace"),
        secrets=Secrets.in_files(folder / "key"),
        options=options,
        report=report,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult, list[ProgressEvent]]:
    folder = tmp_path_factory.mktemp("finished")
    events: list[ProgressEvent] = []
    return folder, _run(folder, report=events.append), events


def test_a_run_leaves_every_output(finished: tuple[Path, RunResult, list[ProgressEvent]]) -> None:
    folder, result, events = finished
    workspace = Workspace(folder / "workspace")
    for path in (
        workspace.checkpoint(1), workspace.checkpoint(2), workspace.encoder, workspace.preprocessor,
        workspace.audit_log, workspace.privacy_budget, workspace.round_metrics, workspace.privacy_statement,
        workspace.privacy_statement_json, workspace.study, workspace.schema, workspace.statistics,
        workspace.associations,
    ):  # fmt: skip
        assert path.is_file(), path.name
        assert path in result.outputs
    assert not list((folder / "workspace").rglob("*.part"))
    rounds = [json.loads(line) for line in workspace.round_metrics.read_text().splitlines()]
    assert [entry["round"] for entry in rounds] == [1, 2]
    assert all(set(entry) >= {"round", "nodes", "loss", "loss_noise", "epsilon", "seconds"} for entry in rounds)
    assert [event.round for event in events if isinstance(event, RoundFinished)] == [1, 2]


def test_every_node_spends_at_most_epsilon(finished: tuple[Path, RunResult, list[ProgressEvent]]) -> None:
    _, result, _ = finished
    assert [node.name for node in result.nodes] == ["a", "b", "c"]
    for node in result.nodes:
        assert 0.97 * 4.0 < node.spent <= 4.0
        # Noise of the count has a standard deviation below 8: sixteen of them, false alarm below 1e-6.
        assert node.count is not None
        assert abs(node.count - 300) < 130
    assert result.record.total == pytest.approx(900, abs=250)


def test_the_report_tells_what_each_phase_costs_and_what_the_claim_rests_on(
    finished: tuple[Path, RunResult, list[ProgressEvent]],
) -> None:
    folder, result, _ = finished
    workspace = Workspace(folder / "workspace")
    report = json.loads(workspace.report_json.read_text(encoding="utf-8"))
    for node in report["nodes"]:
        phases = {phase["phase"]: phase for phase in node["phases"]}
        assert [(name, phase["releases"]) for name, phase in phases.items()] == [
            ("count", 1),
            ("one-way histograms", 1),
            ("roundings of numbers", 1),
            ("tables of selected columns", 1),
            ("training", 2),
            ("training loss", 2),
        ]
        alone = [phase["epsilon"] for phase in phases.values()]
        assert min(alone) > 0
        assert max(alone) < node["epsilon"] < sum(alone)
    statement = workspace.privacy_statement.read_text(encoding="utf-8")
    told = report["study"]["assumptions"]
    assert any("'id' was checked for duplicates" in line for line in told)
    assert any("lie at one node" in line for line in told)
    assert [line for line in told if f"- {line}\n" not in statement] == []
    assert [line for line in report["study"]["warnings"] if f"> {line}\n" not in statement] == []
    assert any("ledgers began with this workspace" in line for line in report["study"]["warnings"])
    assert result.record.plan.delta < 1 / 10_000
    assert not any("δ" in line for line in report["study"]["warnings"])


def test_no_file_of_the_run_holds_an_identifier_or_the_exact_counts(
    finished: tuple[Path, RunResult, list[ProgressEvent]],
) -> None:
    _, result, _ = finished
    for path in result.outputs:
        if path.suffix != ".npz":
            content = path.read_text(encoding="utf-8", errors="replace")
            assert "zq-patient" not in content, path.name
            assert "a.csv" not in content, path.name


@pytest.mark.long
def test_the_workspace_verifies_and_any_change_shows(tmp_path: Path) -> None:
    _run(tmp_path, options=RunOptions(epsilon=1.9, rounds=1, epochs=1, batch_size=64, pretraining_steps=20))
    workspace = Workspace(tmp_path / "workspace")
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    for path, old, new in (
        (workspace.privacy_statement, "ε = 1.9,", "ε = 1.8,"),
        (workspace.privacy_budget, '"spent": 1.', '"spent": 0.'),
        (workspace.audit_log, '"study_planned"', '"study_planted"'),
        (workspace.study, '"spent": 1.', '"spent": 0.'),
        (workspace.study, '"epsilon": 1.9', '"epsilon": 1.0'),
    ):
        text = path.read_text(encoding="utf-8")
        assert old in text, path.name
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert not verify_workspace(workspace).is_sound, path.name
        path.write_text(text, encoding="utf-8")
    assert verify_workspace(workspace).is_sound
    with sqlite3.connect(workspace.node_home("b") / "audit.db") as connection:
        connection.execute("UPDATE entries SET entry = replace(entry, '\"round\":1', '\"round\":3')")
    connection.close()
    assert not verify_workspace(workspace).is_sound


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_generated_tables_have_the_rows_asked_for_and_obey_the_schema(
    finished: tuple[Path, RunResult, list[ProgressEvent]], tmp_path: Path, suffix: str
) -> None:
    folder, result, _ = finished
    output = tmp_path / f"rows{suffix}"

    def generate(seed: int) -> pd.DataFrame:
        made = generate_table(
            workspace=Workspace(folder / "workspace"),
            secrets=Secrets.in_files(folder / "key"),
            output=output,
            rows=1234,
            seed=seed,
        )
        assert made.rows == 1234
        if suffix == ".csv":
            return pd.read_csv(output, dtype=str, keep_default_na=False)
        return pd.read_parquet(output).astype(object).fillna("").astype(str)

    rows = generate(5)
    assert len(rows) == 1234
    assert list(rows.columns) == list(result.schema.columns)
    if suffix == ".csv":
        frame, _ = typed_frame(rows, result.schema, source="generated", columns="all")
        assert violations(frame, result.schema).total == 0
    assert generate(5).equals(rows)
    assert not generate(6).equals(rows)
    assert not list(tmp_path.glob(".*"))


def test_a_plan_beyond_the_limit_is_refused_before_a_record_is_read(tmp_path: Path) -> None:
    policy = NodePolicy(budget=Budget(max_epsilon=1.0, max_delta=1e-5, period="2026"))
    nodes = [
        NodeSource("a", tmp_path / "there-is-no-such-file.csv", policy=policy),
        NodeSource("b", _table(tmp_path / "b.csv", 300, 1)),
    ]
    with pytest.raises(BudgetExceeded) as caught:
        _run(tmp_path, nodes=nodes)
    assert caught.value.exit_status == 3
    workspace = Workspace(tmp_path / "workspace")
    assert SqliteLedger(workspace.node_home("a") / "ledger.db").runs("2026") == {}
    actions = [entry.action for entry in AuditChain(workspace.node_home("a") / "audit.db").entries()]
    assert actions == ["policy_in_force", "period_opened", "plan_refused"]
    (other,) = SqliteLedger(workspace.node_home("b") / "ledger.db").runs("simulated").values()
    assert other.releases == ()
    assert other.closed_at is not None
    assert not workspace.study.exists()
    assert not workspace.checkpoints()


def test_a_node_below_its_minimum_of_patients_refuses_by_the_noisy_count(tmp_path: Path) -> None:
    policy = NodePolicy(budget=Budget(max_epsilon=4.0), allow=Allowance(min_patients=2000))
    with pytest.raises(PolicyRefused) as caught:
        _run(tmp_path, nodes=[NodeSource("a", _table(tmp_path / "a.csv", 300, 0), policy=policy)])
    assert caught.value.code == "POLICY_MIN_PATIENTS"
    assert "300" not in caught.value.message


def test_bad_data_at_one_node_is_named_and_charges_nobody(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("id,age,cost,glucose,ill\n1,40,twelve,,yes\n")
    nodes = [NodeSource("a", _table(tmp_path / "a.csv", 300, 0)), NodeSource("bad", bad)]
    with pytest.raises(DataError) as caught:
        _run(tmp_path, nodes=nodes)
    assert "twelve" not in caught.value.message
    assert "'cost'" in caught.value.message
    ledger = SqliteLedger(Workspace(tmp_path / "workspace").node_home("bad") / "ledger.db")
    (run,) = ledger.runs("simulated").values()
    assert run.releases == ()


def test_a_second_run_in_the_same_workspace_exceeds_the_simulated_limit(tmp_path: Path) -> None:
    options = RunOptions(epsilon=1.0, rounds=1, epochs=1, batch_size=64, pretraining_steps=20)
    nodes = [NodeSource("a", _table(tmp_path / "a.csv", 300, 0))]
    _run(tmp_path, options=options, nodes=nodes)
    before = (tmp_path / "workspace" / "study.json").read_text()
    with pytest.raises(BudgetExceeded):
        _run(tmp_path, options=options, nodes=nodes)
    assert (tmp_path / "workspace" / "study.json").read_text() == before
    assert verify_workspace(Workspace(tmp_path / "workspace")).is_sound


def test_without_privacy_everything_says_so(tmp_path: Path) -> None:
    options = RunOptions(epsilon=float("inf"), rounds=1, epochs=1, batch_size=64, pretraining_steps=20)
    result = _run(tmp_path, options=options, nodes=[NodeSource("a", _table(tmp_path / "a.csv", 300, 0))])
    assert result.nodes[0].spent == float("inf")
    assert result.nodes[0].count == 300
    statement = (tmp_path / "workspace" / "privacy_statement.md").read_text(encoding="utf-8")
    assert "NO PRIVACY" in statement
    report = json.loads((tmp_path / "workspace" / "report.json").read_text(encoding="utf-8"))
    assert report["nodes"][0]["phases"] == []
    assert verify_workspace(Workspace(tmp_path / "workspace")).is_sound


@pytest.mark.long
def test_an_interrupted_run_keeps_its_charges(tmp_path: Path) -> None:
    def stop(event: ProgressEvent) -> None:
        if isinstance(event, RoundFinished):
            raise KeyboardInterrupt

    with pytest.raises(AevoriumError) as caught:
        _run(tmp_path, report=stop)
    assert caught.value.code == "RUN_INTERRUPTED"
    (run,) = SqliteLedger(Workspace(tmp_path / "workspace").node_home("a") / "ledger.db").runs("simulated").values()
    phases = [release.phase for release in run.releases]
    assert phases == ["count", "statistics", "associations", "training"]
    assert run.closed_at is not None
    workspace = Workspace(tmp_path / "workspace")
    record, _ = load_study(workspace)
    assert record.status == "failed"
    spent = epsilon(run.events, delta=OPTIONS.delta)
    assert 0 < spent < OPTIONS.epsilon
    assert record.nodes[0].spent == spent
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    made = generate_table(
        workspace=workspace, secrets=Secrets.in_files(tmp_path / "key"), output=tmp_path / "rows.csv", rows=5
    )
    assert not made.is_finished
    text = workspace.study.read_text(encoding="utf-8")
    workspace.study.write_text(text.replace(f'"spent": {spent}', '"spent": 0.0'), encoding="utf-8")
    assert not verify_workspace(workspace).is_sound
    workspace.study.write_text(text, encoding="utf-8")
    workspace.privacy_statement.write_text("A claim that nobody made.", encoding="utf-8")
    assert not verify_workspace(workspace).is_sound
    with pytest.raises(ArtefactError):
        verify_workspace(Workspace(tmp_path / "nothing-here"))


@pytest.mark.long
def test_a_node_lost_on_the_way_is_told_to_finish_and_its_spend_is_recorded(tmp_path: Path) -> None:
    small = NodePolicy(budget=Budget(max_epsilon=4.0), allow=Allowance(min_patients=2000))
    nodes = [
        NodeSource("a", _table(tmp_path / "a.csv", 300, 0)),
        NodeSource("b", _table(tmp_path / "b.csv", 300, 1)),
        NodeSource("small", _table(tmp_path / "small.csv", 300, 2), policy=small),
    ]
    options = RunOptions(epsilon=4.0, rounds=1, epochs=1, batch_size=64, pretraining_steps=20, min_nodes=2)
    result = _run(tmp_path, options=options, nodes=nodes)
    lost = result.nodes[2]
    # It paid for its noisy count and for nothing else.
    assert lost.spent == pytest.approx(0.2, abs=1e-3)
    assert result.nodes[0].spent > 3.5
    workspace = Workspace(tmp_path / "workspace")
    (run,) = SqliteLedger(workspace.node_home("small") / "ledger.db").runs(small.budget.period).values()
    assert run.closed_at is not None
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings


@pytest.mark.long
def test_a_model_that_is_not_finite_touches_no_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = NodeSession.train

    def spoil(self: NodeSession, request: TrainRequest, vector: np.ndarray) -> tuple[TrainReply, np.ndarray, float]:
        reply, trained, weight = answer(self, request, vector)
        return reply, np.full_like(trained, np.nan) if self.config.name == "c" else trained, weight

    monkeypatch.setattr(NodeSession, "train", spoil)
    options = RunOptions(epsilon=4.0, rounds=1, epochs=1, batch_size=64, pretraining_steps=20, min_nodes=2)
    (tmp_path / "two").mkdir()
    result = _run(tmp_path / "two", options=options)
    assert [one.nodes_ok for one in result.rounds] == [2]
    workspace = Workspace(tmp_path / "two" / "workspace")
    made = generate_table(
        workspace=workspace, secrets=Secrets.in_files(tmp_path / "two" / "key"), output=tmp_path / "rows.csv", rows=5
    )
    assert made.rows == 5
    # The node was in the run: what it trained on is charged, though nobody used it.
    assert result.nodes[2].spent > 3.5
    (tmp_path / "three").mkdir()
    with pytest.raises(FederationError) as caught:
        _run(tmp_path / "three", options=replace(options, min_nodes=3))
    assert caught.value.code == "REPLY_UNUSABLE"
    assert "'training, round 1'" in caught.value.message
    assert "c: REPLY_UNUSABLE" in caught.value.message


def test_a_fixed_noise_says_what_it_costs_or_asks_for_the_size() -> None:
    schema = TableSchema.from_toml(SCHEMA, source="test")
    with pytest.raises(AevoriumError) as caught:
        plan_study(schema, ["a", "b"], RunOptions(noise_multiplier=1.0))
    assert caught.value.code == "CONFIG_CONFLICT"
    plan = plan_study(schema, ["a", "b"], RunOptions(noise_multiplier=1.0, records=4000))
    assert 5 < plan.epsilon < 30
    phases = plan_cost(plan, size=2000)
    assert [phase.phase.split(",")[0] for phase in phases] == [
        "count", "statistics", "statistics", "associations", "training", "training",
    ]  # fmt: skip
    assert max(phase.epsilon for phase in phases) < plan.epsilon < sum(phase.epsilon for phase in phases) + 1e-9
