"""Trust secure-aggregation in one process: what the sum costs, who sees what, and what a node refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from aevorium.cli.app import main
from aevorium.conducting import RunResult
from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, to_vector
from aevorium.errors import AevoriumError, PolicyRefused
from aevorium.federation.protocol import (
    CountRequest,
    GradientRequest,
    LossRequest,
    PlanRequest,
    StatisticsRequest,
    TrainingSettings,
    TrainRequest,
)
from aevorium.generation import generate_table
from aevorium.governance.chain import AuditChain
from aevorium.governance.policy import NodePolicy
from aevorium.governance.secrets import Secrets
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteGaussianSum, SampledDiscreteGaussianSum, merge_events
from aevorium.privacy.ledger import LedgerRun, SqliteLedger
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.phases import plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import ProgressEvent, Report, StepProgress, ignore
from aevorium.schema.table import TableSchema
from aevorium.server import study, summed
from aevorium.server.warm_start import WarmStart
from aevorium.verification import verify_workspace
from aevorium.workspace import Workspace

pytestmark = pytest.mark.long

SCHEMA_TEXT = """
name = "clinic"
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
SCHEMA = TableSchema.from_toml(SCHEMA_TEXT, source="test")
OPTIONS = RunOptions(epsilon=4.0, trust="secure-aggregation", rounds=2, pretraining_steps=20, epochs=1, batch_size=20)


def _table(path: Path, *, rows: int = 150, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    state = rng.integers(0, 3, rows)
    pd.DataFrame(
        {
            "value": np.round(np.clip(3 * state + rng.random(rows) * 4, 0, 10), 2),
            "kind": np.array(["a", "b", "c"])[np.where(rng.random(rows) < 0.9, state, 0)],
            "other": np.round(np.clip(3 * state + rng.random(rows) * 4, 0, 10), 2),
        }
    ).to_csv(path, index=False)
    return path


def _run(
    folder: Path, *, nodes: int = 3, rows: int = 150, options: RunOptions = OPTIONS, report: Report = ignore
) -> RunResult:
    sources = [
        NodeSource(f"n{place}", _table(folder / f"{place}.csv", rows=rows + 10 * place, seed=place))
        for place in range(nodes)
    ]
    return run_federation(
        SCHEMA,
        schema_text=SCHEMA_TEXT,
        plan=plan_study(SCHEMA, [source.name for source in sources], options),
        nodes=sources,
        workspace=Workspace(folder / "workspace"),
        secrets=Secrets.in_files(folder / "key"),
        options=options,
        report=report,
    )


def _ledger(folder: Path, node: str) -> LedgerRun:
    (run,) = SqliteLedger(Workspace(folder / "workspace").node_home(node) / "ledger.db").runs("simulated").values()
    return run


@pytest.mark.parametrize("recipe", ["warm-start", "dp-sgd"])
def test_every_node_spends_the_plan_of_the_sum_and_no_more(tmp_path: Path, recipe: str) -> None:
    told: list[ProgressEvent] = []
    result = _run(tmp_path, options=replace(OPTIONS, recipe=recipe), report=told.append)
    record = result.record
    size = record.plan.node_size(count=None, records=record.records)
    planned = plan_budget(record.plan, records=record.records).events(size)
    assert record.plan.epsilon * 0.99 < epsilon(planned, delta=record.plan.delta) <= record.plan.epsilon
    for node in result.nodes:
        run = _ledger(tmp_path, node.name)
        assert merge_events(run.events) == merge_events(planned)
        assert node.spent == epsilon(run.events, delta=record.plan.delta)
        kinds = {type(event) for event in run.events if event.purpose != "count"}
        assert kinds == {DiscreteGaussianSum, SampledDiscreteGaussianSum}
        assert all(event.shares == 3 for event in run.events if event.purpose != "count")
    assert len(result.rounds) == 2
    steps = [event for event in told if isinstance(event, StepProgress) and event.label == "training"]
    assert [event.done for event in steps] == list(range(1, steps[0].total + 1))
    assert all(0 < finished.loss < 4 for finished in result.rounds)
    workspace = Workspace(tmp_path / "workspace")
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    statement = workspace.privacy_statement.read_text(encoding="utf-8")
    assert "imulated aggregation" in statement
    secrets = Secrets.in_files(tmp_path / "key")
    assert generate_table(workspace=workspace, secrets=secrets, output=tmp_path / "x.csv", rows=20).rows == 20


@pytest.mark.parametrize("is_private", [True, False])
def test_steps_are_held_to_the_surrogate_while_there_is_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_private: bool
) -> None:
    """With the whole weight on it and a slope of one in every parameter, Adam takes all of them down by its step size.

    Two passes in batches of 20 of 160 records are 16 steps of 0.001, which shrink to a tenth.
    """
    monkeypatch.setattr(summed, "_ANCHOR", 1.0)
    monkeypatch.setattr(
        WarmStart, "anchor", lambda _, model: torch.stack([part.sum() for part in model.parameters()]).sum()
    )
    before: list[np.ndarray] = []
    conduct = summed.SummedTraining.conduct

    def noted(training: summed.SummedTraining) -> None:
        before.append(to_vector(training._model).copy())
        conduct(training)
        before.append(to_vector(training._model).copy())

    monkeypatch.setattr(summed.SummedTraining, "conduct", noted)
    _run(tmp_path, options=OPTIONS if is_private else replace(OPTIONS, epsilon=math.inf))
    moved = before[1] - before[0]
    if is_private:
        assert np.ptp(moved) < 1e-5
        assert -0.016 < moved.mean() < -0.001
    else:
        assert np.ptp(moved) > 1e-3


def test_the_noise_of_a_sum_is_smaller_by_the_root_of_the_nodes() -> None:
    names = [f"n{place}" for place in range(9)]
    local = plan_study(SCHEMA, names, replace(OPTIONS, trust="local", recipe="dp-sgd", records=3000))
    summed = plan_study(SCHEMA, names, replace(OPTIONS, recipe="dp-sgd", records=3000))
    one, other = plan_budget(local).histograms, plan_budget(summed).histograms
    assert one.noise_of(nodes=9) == pytest.approx(3 * other.noise_of(nodes=9), rel=1e-2)
    ratio = plan_budget(local).training(333).noise_multiplier / plan_budget(summed).training(333).noise_multiplier
    assert ratio == pytest.approx(3, rel=1e-2)


def test_without_privacy_the_sum_of_gradients_learns(tmp_path: Path) -> None:
    """Plain training by sums: what the nodes' rows have in common ends up in the generated ones."""
    options = replace(OPTIONS, epsilon=math.inf, recipe="dp-sgd", rounds=1, epochs=20, batch_size=50)
    result = _run(tmp_path, rows=200, options=options)
    assert result.nodes[0].spent == math.inf
    workspace = Workspace(tmp_path / "workspace")
    generate_table(
        workspace=workspace, secrets=Secrets.in_files(tmp_path / "key"), output=tmp_path / "rows.csv", rows=2_000
    )
    means = pd.read_csv(tmp_path / "rows.csv").groupby("kind")["value"].mean()
    assert means["c"] - means["a"] > 2.5


def test_fewer_than_three_nodes_are_refused_before_anything_is_read(tmp_path: Path, capsys) -> None:
    arguments = ["run", "--schema", str(tmp_path / "s.toml"), "--workspace", str(tmp_path / "w"), "--json"]
    (tmp_path / "s.toml").write_text(SCHEMA_TEXT, encoding="utf-8")
    for place in range(2):
        arguments += ["--node", f"n{place}={_table(tmp_path / f'{place}.csv')}"]
    assert main([*arguments, "--trust", "secure-aggregation"]) == 3
    answer = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert answer["error"]["code"] == "AGGREGATION_TOO_FEW_NODES"
    assert not (tmp_path / "w" / "nodes").exists()
    assert main(["plan", "--records", "900", "--nodes", "2", "--trust", "secure-aggregation"]) == 3


def test_a_server_of_other_processes_does_not_offer_it_without_masks(tmp_path: Path, capsys) -> None:
    assert main(["server", "--trust", "secure-aggregation", "--workspace", str(tmp_path), "--json"]) == 2
    assert "masks" in capsys.readouterr().out


def test_a_sum_is_not_opened_when_more_nodes_fail_than_were_declared(tmp_path: Path, monkeypatch) -> None:
    answer = NodeSession.gradient

    def fail(self: NodeSession, request: GradientRequest, vector: np.ndarray) -> np.ndarray:
        if self.config.name in broken and request.step == 2:
            raise RuntimeError("lost")
        return answer(self, request, vector)

    monkeypatch.setattr(NodeSession, "gradient", fail)
    opened = []
    monkeypatch.setattr("aevorium.server.summed.add_parts", lambda parts: opened.append(len(parts)) or parts[0])
    options = replace(OPTIONS, dropouts=1, recipe="dp-sgd", rounds=1)
    broken = {"n0", "n1"}
    (tmp_path / "two").mkdir()
    with pytest.raises(AevoriumError):
        _run(tmp_path / "two", nodes=4, options=options)
    assert opened == [4]
    opened.clear()
    broken = {"n0"}
    (tmp_path / "one").mkdir()
    result = _run(tmp_path / "one", nodes=4, options=options)
    # The node that lost a step cannot go on with its round; three shares of noise, as declared, are in every sum.
    assert opened[0] == 4
    assert set(opened[1:]) == {3}
    assert result.record.plan.noise_shares == 3


class Node:
    """One node of three, driven by hand."""

    def __init__(self, folder: Path, *, trust: str = "secure-aggregation", is_simulated: bool = True) -> None:
        self.home = folder / "home"
        self.session = NodeSession(
            NodeConfig(
                name="n0",
                data=_table(folder / "n0.csv"),
                schema=SCHEMA,
                home=self.home,
                policy=NodePolicy(),
                is_simulated=is_simulated,
            ),
            noise=OsNoise(),
            report=ignore,
        )
        options = replace(OPTIONS, trust=trust, records=450)
        self.plan: StudyPlan = plan_study(SCHEMA, ["n0", "n1", "n2"], options)
        self.run = {"run_id": "r", "plan_hash": self.plan.content_hash}

    def agree(self) -> None:
        self.session.agree(PlanRequest(run_id="r", server="local", plan=self.plan))

    def measure(self) -> None:
        self.session.count(CountRequest(**self.run))
        self.session.statistics(StatisticsRequest(**self.run, bins=20, records=450))

    def gradient(self, step: int, *, number: int = 1, has_encoder: bool | None = None) -> np.ndarray:
        encoder, config, vector = _model()
        given = encoder if (step == 1 if has_encoder is None else has_encoder) else None
        request = GradientRequest(
            **self.run, round=number, step=step, encoder=given, model=config, settings=TrainingSettings()
        )
        return self.session.gradient(request, vector)

    @property
    def releases(self) -> list[tuple[str, int]]:
        run = SqliteLedger(self.home / "ledger.db").run("r")
        return [(release.phase, release.round) for release in run.releases]


def _model() -> tuple[object, DenoiserConfig, np.ndarray]:
    import torch

    from aevorium.diffusion.layout import Layout
    from aevorium.encoding.encoder import TableEncoder
    from aevorium.encoding.statistics import TableStatistics, cells_in_total

    counts = np.full(cells_in_total(SCHEMA, bins=20), 20, dtype=np.int64)
    statistics = TableStatistics.from_sum(counts, SCHEMA, bins=20, noise=1.0)
    encoder = TableEncoder.fit(statistics, SCHEMA, total=400.0)
    config = DenoiserConfig.for_layout(Layout.for_table(encoder, SCHEMA))
    model = TabularDiffusion(config, priors=encoder.priors(SCHEMA), generator=torch.Generator().manual_seed(0))
    return encoder, config, to_vector(model)


def _refused(attempt) -> PolicyRefused:
    with pytest.raises(PolicyRefused) as caught:
        attempt()
    return caught.value


def test_steps_come_in_order_each_once_and_no_more_than_agreed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.agree()
    assert _refused(lambda: node.gradient(1)).code == "RELEASE_OUTSIDE_PLAN"
    node.measure()
    before = node.releases
    steps = plan_budget(node.plan).training(150.0).steps
    assert _refused(lambda: node.gradient(2, has_encoder=True)).code == "RELEASE_OUTSIDE_PLAN"
    assert node.releases == before
    first = node.gradient(1)
    for step in (1, 3):
        assert _refused(lambda step=step: node.gradient(step)).code == "RELEASE_OUTSIDE_PLAN"
    second = node.gradient(2)
    assert not np.array_equal(first, second)
    assert _refused(lambda: node.gradient(2)).code == "RELEASE_OUTSIDE_PLAN"
    assert _refused(lambda: node.gradient(steps + 1)).code == "RELEASE_OUTSIDE_PLAN"
    assert _refused(lambda: node.gradient(3, number=2)).code == "RELEASE_OUTSIDE_PLAN"
    assert node.releases == [*before, ("training", 1)]
    # One round more than the plan has: its second is the last.
    node.gradient(1, number=2)
    assert _refused(lambda: node.gradient(1, number=3)).code == "RELEASE_OUTSIDE_PLAN"


def test_a_plan_of_one_trust_is_not_served_in_the_way_of_the_other(tmp_path: Path) -> None:
    """A whole model from a node, with the noise of a share, would be far less private than agreed."""
    encoder, config, vector = _model()
    (tmp_path / "summed").mkdir()
    (tmp_path / "local").mkdir()
    summed, local = Node(tmp_path / "summed"), Node(tmp_path / "local", trust="local")
    for node in (summed, local):
        node.agree()
        node.measure()
    request = TrainRequest(
        **summed.run, round=1, encoder=encoder, model=config, settings=TrainingSettings(learning_rate=1e-3)
    )
    assert _refused(lambda: summed.session.train(request, vector)).code == "RELEASE_OUTSIDE_PLAN"
    assert _refused(lambda: local.gradient(1)).code == "RELEASE_OUTSIDE_PLAN"
    loss = LossRequest(**local.run, round=1, encoder=encoder, model=config)
    assert _refused(lambda: local.session.loss(loss, vector)).code == "RELEASE_OUTSIDE_PLAN"


def test_a_node_of_another_process_refuses_a_sum_that_nothing_hides(tmp_path: Path) -> None:
    node = Node(tmp_path, is_simulated=False)
    assert _refused(node.agree).code == "FEATURE_UNAVAILABLE"
    assert SqliteLedger(node.home / "ledger.db").run("r") is None


def test_the_study_is_planned_by_released_counts(tmp_path: Path, monkeypatch) -> None:
    """Nodes of different sizes train alike: nothing in their requests depends on one node's size."""
    seen = []
    ask = study.ask
    monkeypatch.setattr(study, "ask", lambda grid, contents, **kw: seen.append(contents) or ask(grid, contents, **kw))
    _run(tmp_path)
    for contents in seen:
        bodies = {str(content["body"]["json"]) for content in contents.values()}
        assert len(bodies) == 1
    assert AuditChain(Workspace(tmp_path / "workspace").node_home("n0") / "audit.db").verify().is_sound
