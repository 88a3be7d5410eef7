"""A patient may have a record at several nodes: their events are composed, and the claim holds for all together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aevorium.errors import ConfigError
from aevorium.governance.secrets import Secrets
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import merge_events
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.phases import plan_budget
from aevorium.schema.table import TableSchema
from aevorium.verification import verify_workspace
from aevorium.workspace import Workspace

pytestmark = pytest.mark.long

SCHEMA_TEXT = """
name = "clinic"
[columns.value]
kind = "continuous"
min = 0
max = 10
[columns.kind]
kind = "categorical"
categories = ["a", "b"]
"""
SCHEMA = TableSchema.from_toml(SCHEMA_TEXT, source="test")
OPTIONS = RunOptions(epsilon=3.0, recipe="dp-sgd", rounds=2, epochs=1, batch_size=20, max_nodes_per_patient=2)


def _table(path: Path, *, rows: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"value": rng.uniform(0, 10, rows).round(1), "kind": rng.choice(["a", "b"], rows)})
    frame.to_csv(path, index=False)
    return path


def test_any_two_nodes_together_stay_within_the_claim(tmp_path: Path) -> None:
    sources = [
        NodeSource(f"n{place}", _table(tmp_path / f"{place}.csv", rows=rows, seed=place))
        for place, rows in enumerate((300, 400, 500))
    ]
    workspace = Workspace(tmp_path / "workspace")
    result = run_federation(
        SCHEMA,
        schema_text=SCHEMA_TEXT,
        plan=plan_study(SCHEMA, [source.name for source in sources], OPTIONS),
        nodes=sources,
        workspace=workspace,
        secrets=Secrets.in_files(tmp_path / "key"),
        options=OPTIONS,
    )
    plan = result.record.plan
    ledgers = [
        SqliteLedger(workspace.node_home(node.name) / "ledger.db").run(result.record.run_id).events
        for node in result.nodes
    ]
    for first in range(3):
        for second in range(first):
            together = epsilon((*ledgers[first], *ledgers[second]), plan.delta)
            assert 0.99 * plan.epsilon < together <= plan.epsilon
            # Well below what the sum of two claims would be, and above one node alone.
            assert epsilon(ledgers[first], plan.delta) < together < 2 * epsilon(ledgers[first], plan.delta)
    assert len({merge_events(events) for events in ledgers}) == 1
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    statement = json.loads(workspace.privacy_statement_json.read_text(encoding="utf-8"))
    assert statement["epsilon"] == plan.epsilon
    assert statement["federation"]["released"] == together
    assert max(node["released"] for node in statement["nodes"]) < together
    assert "no more than 2 nodes" in workspace.privacy_statement.read_text(encoding="utf-8")


@pytest.mark.parametrize("several", [1, 2, 3])
@pytest.mark.parametrize("recipe", ["dp-sgd", "warm-start"])
def test_a_plan_meets_its_target_for_all_nodes_of_a_patient(several: int, recipe: str) -> None:
    options = RunOptions(epsilon=2.0, recipe=recipe, records=900, max_nodes_per_patient=several)
    plan = plan_study(SCHEMA, ["a", "b", "c"], options)
    cost = epsilon(plan_budget(plan).events(300.0) * several, plan.delta)
    assert 0.99 * 2.0 < cost <= 2.0


def test_more_nodes_than_there_are_and_sums_of_shared_patients_are_refused() -> None:
    for options in (
        RunOptions(max_nodes_per_patient=4),
        RunOptions(max_nodes_per_patient=2, trust="secure-aggregation"),
    ):
        with pytest.raises(ConfigError):
            plan_study(SCHEMA, ["a", "b", "c"], options)
