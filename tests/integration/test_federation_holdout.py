"""Runs with `--evaluation-share`: who is read by which phase, what it costs, and what comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aevorium.cli.app import main
from aevorium.conducting import RunResult
from aevorium.data.table import read_table
from aevorium.encoding.evaluation import EvaluationTables, count_evaluation
from aevorium.encoding.rounding import count_roundings
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.governance.secrets import Secrets
from aevorium.node import phases, summing
from aevorium.node.holdout import HoldoutKey
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.ledger import LedgerRun, SqliteLedger
from aevorium.schema.table import TableSchema
from aevorium.server.record import StudyRecord
from aevorium.verification import verify_workspace
from aevorium.workspace import Workspace

pytestmark = pytest.mark.long

COLUMNS = """
[columns.value]
kind = "continuous"
min = 0
max = 10
missing = true
[columns.kind]
kind = "categorical"
categories = ["a", "b", "c"]
[columns.other]
kind = "continuous"
min = 0
max = 10
"""
WITH_IDS = 'name = "clinic"\nunit_id = "id"\n' + COLUMNS
WITHOUT = 'name = "clinic"\n' + COLUMNS
OPTIONS = RunOptions(
    epsilon=4.0, rounds=2, pretraining_steps=20, epochs=1, batch_size=20, evaluation_share=0.3, recipe="warm-start"
)
NODES = ("n0", "n1", "n2")
TRUSTS = pytest.mark.parametrize("trust", ["local", "secure-aggregation"])


def _table(path: Path, *, rows: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    state = rng.integers(0, 3, rows)
    value = np.round(np.clip(3 * state + rng.random(rows) * 4, 0, 10), 2).astype(object)
    value[rng.random(rows) < 0.1] = ""
    frame = {
        "id": [f"zq-{seed}-{number}" for number in range(rows)],
        "value": value,
        "kind": np.array(["a", "b", "c"])[np.where(rng.random(rows) < 0.9, state, 0)],
        "other": np.round(np.clip(3 * state + rng.random(rows) * 4, 0, 10), 2),
    }
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def _run(folder: Path, *, schema: str = WITH_IDS, rows: int = 200, **options: object) -> RunResult:
    chosen, parsed = replace(OPTIONS, **options), TableSchema.from_toml(schema, source="test")  # type: ignore[arg-type]
    return run_federation(
        parsed,
        schema_text=schema,
        plan=plan_study(parsed, NODES, chosen),
        nodes=[
            NodeSource(name, _table(folder / f"{name}.csv", rows=rows + 10 * place, seed=place))
            for place, name in enumerate(NODES)
        ],
        workspace=Workspace(folder / "workspace"),
        secrets=Secrets.in_files(folder / "key"),
        options=chosen,
    )


def _ledger(folder: Path, node: str) -> LedgerRun:
    (run,) = SqliteLedger(Workspace(folder / "workspace").node_home(node) / "ledger.db").runs("simulated").values()
    return run


def _groups(folder: Path, *, share: float) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """The exact records of the two groups at each node."""
    trained, held = [], []
    for name in NODES:
        table = read_table(folder / f"{name}.csv", TableSchema.from_toml(WITH_IDS, source="test"))
        key = HoldoutKey.load_or_create(Workspace(folder / "workspace").node_home(name))
        assert table.unit_ids is not None
        mask = key.holds_out(table.unit_ids, share=share)
        trained.append(table.frame[~mask])
        held.append(table.frame[mask])
    return trained, held


@TRUSTS
def test_no_phase_but_the_evaluation_reads_a_patient_who_is_held_out(
    tmp_path: Path, trust: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise every count is exact, so it says whom it counted."""
    encoded: dict[str, set[int]] = {}
    for module, name in ((phases, "train_round"), (summing, "noisy_gradient"), (summing, "noisy_loss")):
        original, seen = getattr(module, name), encoded.setdefault(name, set())

        def spy(model, table, original=original, seen=seen, **rest):
            seen.add(len(table.values))
            return original(model, table, **rest)

        monkeypatch.setattr(module, name, spy)
    result = _run(tmp_path, trust=trust, epsilon=math.inf)
    trained, held = _groups(tmp_path, share=0.3)
    assert all(20 < len(part) < 120 for part in held)
    assert [node.count for node in result.nodes] == [len(part) for part in trained]
    schema, workspace = result.schema, Workspace(tmp_path / "workspace")
    statistics = TableStatistics.from_json(workspace.statistics.read_text())
    exact = sum(count_cells(part, schema, bins=statistics.bins) for part in trained)
    assert np.concatenate(list(statistics.counts.values())).tolist() == exact.tolist()
    exact = sum(count_roundings(part, schema) for part in trained)
    assert np.concatenate(list(statistics.roundings.values())).tolist() == exact.tolist()
    for table in json.loads(workspace.associations.read_text())["tables"]:
        assert {int(np.sum(counts)) for counts in table["counts"]} == {sum(map(len, trained))}
    tables = EvaluationTables.from_json(workspace.evaluation.read_text())
    design = tables.pairs.design
    counted = sum(count_evaluation(part, schema, bins=tables.bins, design=design) for part in held)
    released = [*tables.columns.values(), *(table.ravel() for table in tables.pairs.counts)]
    assert np.concatenate(released).tolist() == counted.tolist()
    assert tables.total == pytest.approx(sum(map(len, held)))
    sizes = {len(part) for part in trained}
    used = ("train_round",) if trust == "local" else ("noisy_gradient", "noisy_loss")
    assert {name for name, seen in encoded.items() if seen} == set(used)
    assert all(encoded[name] == sizes for name in used)


@TRUSTS
def test_the_epsilon_of_a_run_with_a_holdout_is_the_larger_of_its_groups(tmp_path: Path, trust: str) -> None:
    result = _run(tmp_path, trust=trust)
    plan = result.record.plan
    assert plan.has_holdout
    for node in result.nodes:
        events = _ledger(tmp_path, node.name).events
        groups = {units: [event for event in events if event.units == units] for units in ("training", "holdout")}
        assert len(groups["training"]) + len(groups["holdout"]) == len(events)
        assert [event.purpose for event in groups["holdout"]] == ["evaluation tables"]
        each = {units: epsilon(group, plan.delta) for units, group in groups.items()}
        assert node.spent == max(each.values()) <= plan.epsilon
        assert min(each.values()) > 0.95 * plan.epsilon
        together = [event.model_copy(update={"units": "all"}) for event in events]
        assert epsilon(together, plan.delta) > 1.2 * plan.epsilon
    workspace = Workspace(tmp_path / "workspace")
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    _check_outputs(workspace, result)


def _check_outputs(workspace: Workspace, result: RunResult) -> None:
    statement = workspace.privacy_statement.read_text(encoding="utf-8")
    assert "| evaluation, patients held out |" in statement
    assert "HMAC-SHA256" in statement
    assert "larger of the two groups" in statement
    report = json.loads(workspace.report_json.read_text(encoding="utf-8"))
    assert report["comparison"]["is_holdout"] is True
    scores = {score["name"]: score for score in report["card"]["scores"]}
    assert {"evaluation_1way", "evaluation_2way"} <= set(scores)
    assert result.comparison is not None
    assert [distance.columns for distance in result.comparison.columns] == [("value",), ("kind",), ("other",)]
    assert len(result.comparison.pairs) == 3
    assert scores["evaluation_1way"]["value"] == pytest.approx(
        max(0.0, np.mean([distance.corrected for distance in result.comparison.columns]))
    )
    page = workspace.report_html.read_text(encoding="utf-8")
    assert "Evaluation: patients held out" in page
    assert workspace.evaluation in result.outputs
    # Nobody's id is anywhere in what the run leaves for people; checkpoints are encrypted.
    for path in result.outputs:
        assert path.suffix == ".npz" or b"zq-" not in path.read_bytes()


@TRUSTS
def test_without_a_unit_id_the_evaluation_is_part_of_the_sum(tmp_path: Path, trust: str) -> None:
    result = _run(tmp_path, schema=WITHOUT, trust=trust, evaluation_share=0.2)
    plan = result.record.plan
    assert not plan.has_holdout
    for node in result.nodes:
        events = _ledger(tmp_path, node.name).events
        assert {event.units for event in events} == {"all"}
        before = [event for event in events if event.purpose != "evaluation tables"]
        assert len(before) + 1 == len(events)
        assert epsilon(before, plan.delta) < 0.97 * node.spent
        assert 0.95 * plan.epsilon < node.spent <= plan.epsilon
        assert not (Workspace(tmp_path / "workspace").node_home(node.name) / "holdout.key").exists()
    workspace = Workspace(tmp_path / "workspace")
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    statement = workspace.privacy_statement.read_text(encoding="utf-8")
    assert "| evaluation, all patients |" in statement
    assert "HMAC" not in statement
    assert json.loads(workspace.report_json.read_text(encoding="utf-8"))["comparison"]["is_holdout"] is False


def test_recipe_dp_sgd_evaluates_too_and_a_run_without_a_share_does_not(tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    result = _run(tmp_path / "with", recipe="dp-sgd")
    assert result.comparison is not None
    assert len(result.comparison.pairs) == 3
    result = _run(tmp_path / "without", recipe="dp-sgd", evaluation_share=0.0)
    assert result.comparison is None
    assert not Workspace(tmp_path / "without" / "workspace").evaluation.exists()
    assert all("units" not in event.model_dump() for event in _ledger(tmp_path / "without", "n0").events)


def test_a_broken_statement_of_a_run_with_a_holdout_is_found(tmp_path: Path) -> None:
    _run(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    record = StudyRecord.model_validate_json(workspace.study.read_text())
    record.model_copy(update={"plan": record.plan.model_copy(update={"evaluation_share": 0.1})}).write(workspace)
    assert not verify_workspace(workspace).is_sound


def test_the_command_line_says_how_the_rows_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text(WITH_IDS, encoding="utf-8")
    arguments = ["run", "--schema", str(tmp_path / "s.toml"), "--workspace", str(tmp_path / "w"), "--recipe", "dp-sgd"]
    arguments += ["--rounds", "1", "--epochs", "1", "--evaluation-share", "0.3"]
    for seed in range(2):
        arguments += ["--node", f"n{seed}={_table(tmp_path / f'{seed}.csv', rows=200, seed=seed)}"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "Patients held out: about" in told.out + told.err
    assert main(["plan", "--schema", str(tmp_path / "s.toml"), "--records", "900", "--nodes", "3", "--json",
                 "--evaluation-share", "0.2"]) == 0  # fmt: skip
    answer = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert any(phase["phase"] == "evaluation, 6 tables, patients held out" for phase in answer["data"]["phases"])
    assert main(["plan", "--records", "900", "--nodes", "3", "--evaluation-share", "0.6"]) == 2
