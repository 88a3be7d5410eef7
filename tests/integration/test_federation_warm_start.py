"""Recipe warm-start in one process: what it releases, what a node refuses, and studies of every shape."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aevorium.conducting import RunResult
from aevorium.encoding.associations import TableDesign
from aevorium.encoding.grid import table_grids
from aevorium.encoding.rounding import split_roundings
from aevorium.encoding.statistics import cells_in_total
from aevorium.encoding.steps import rounding_steps
from aevorium.errors import AevoriumError, FederationError, PolicyRefused
from aevorium.federation.protocol import AssociationsRequest, CountRequest, PlanRequest, StatisticsRequest
from aevorium.generation import generate_table
from aevorium.governance.policy import Allowance, NodePolicy
from aevorium.governance.secrets import Secrets
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import merge_events
from aevorium.privacy.ledger import LedgerRun, SqliteLedger
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.phases import plan_budget
from aevorium.progress import ProgressEvent, StepProgress, ignore
from aevorium.schema.table import TableSchema
from aevorium.verification import verify_workspace
from aevorium.workspace import Workspace

pytestmark = pytest.mark.long

OPTIONS = RunOptions(epsilon=4.0, rounds=2, pretraining_steps=20)


def _schema(columns: int, *, target: str | None = None) -> str:
    """A number, a category, a number, and so on; the numbers may be missing."""
    parts = ['name = "clinic"\n', f'target = "{target}"\n' if target else ""]
    for place in range(columns):
        kind = 'kind = "continuous"\nmin = 0\nmax = 10\nmissing = true' if place % 2 == 0 else (
            'kind = "categorical"\ncategories = ["a", "b", "c"]'
        )  # fmt: skip
        parts.append(f"[columns.c{place}]\n{kind}\n")
    return "".join(parts)


def _table(path: Path, columns: int, *, rows: int = 200, seed: int = 0) -> Path:
    """Every column follows one hidden state of the row."""
    rng = np.random.default_rng(seed)
    state = rng.integers(0, 3, rows)
    frame = pd.DataFrame(
        {
            f"c{place}": np.round(np.clip(3 * state + rng.random(rows) * 4, 0, 10), 2)
            if place % 2 == 0
            else np.array(["a", "b", "c"])[np.where(rng.random(rows) < 0.9, state, 0)]
            for place in range(columns)
        }
    )
    frame.to_csv(path, index=False)
    return path


def _run(
    folder: Path,
    *,
    columns: int,
    nodes: int = 2,
    rows: int = 200,
    options: RunOptions = OPTIONS,
    target: str | None = None,
    **more: Any,
) -> RunResult:
    text = _schema(columns, target=target)
    schema = TableSchema.from_toml(text, source="test")
    sources = [
        NodeSource(f"n{place}", _table(folder / f"{place}.csv", columns, rows=rows, seed=place))
        for place in range(nodes)
    ]
    return run_federation(
        schema,
        schema_text=text,
        plan=plan_study(schema, [source.name for source in sources], options),
        nodes=sources,
        workspace=Workspace(folder / "workspace"),
        secrets=Secrets.in_files(folder / "key"),
        options=options,
        **more,
    )


def _ledger(folder: Path, node: str) -> LedgerRun:
    (run,) = SqliteLedger(Workspace(folder / "workspace").node_home(node) / "ledger.db").runs("simulated").values()
    return run


@pytest.mark.parametrize("epochs", [None, 1])
def test_what_is_charged_is_what_the_public_rules_say_and_no_node_spends_more(
    tmp_path: Path, epochs: int | None
) -> None:
    """So few records are not worth training on, unless passes are asked for."""
    result = _run(tmp_path, columns=8, options=replace(OPTIONS, epochs=epochs), target="c1", rows=1_000)
    record = result.record
    trained = [] if epochs is None else [("training", 1), ("training", 2)]
    assert len(result.rounds) == len(trained)
    for node in result.nodes:
        run = _ledger(tmp_path, node.name)
        assert [(release.phase, release.round) for release in run.releases] == [
            ("count", 0), ("statistics", 0), ("associations", 1), ("associations", 2), *trained,
        ]  # fmt: skip
        planned = plan_budget(record.plan, records=record.records).events(max(node.count or 1, 1))
        assert merge_events(run.events) == merge_events(planned)
        assert node.spent == epsilon(run.events, delta=record.plan.delta) <= record.plan.epsilon
    workspace = Workspace(tmp_path / "workspace")
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    report = json.loads(workspace.report_json.read_text(encoding="utf-8"))
    for told in report["nodes"]:
        events = _ledger(tmp_path, told["node"]).events
        for phase in told["phases"]:
            charged = [event for event in events if event.purpose == phase["phase"]]
            assert phase["epsilon"] == epsilon(charged, delta=record.plan.delta), phase["phase"]
    statement = workspace.privacy_statement.read_text(encoding="utf-8")
    tables = plan_budget(record.plan, records=record.records).associations
    assert f"σ = {tables.coarse.sigma:.4g}, sensitivity 1, 28 ×" in statement
    fine_tables = tables.pairs + tables.triples
    assert tables.triples > 0
    assert f"σ = {tables.fine.sigma:.4g}, sensitivity 1, {fine_tables} ×" in statement
    coarse, fine = json.loads(workspace.associations.read_text(encoding="utf-8"))["tables"]
    assert (len(coarse["counts"]), len(fine["counts"])) == (28, fine_tables)
    assert {third for *_, third in fine["design"]["triples"]} == {"c1"}
    assert fine["noise"] == pytest.approx(tables.fine.sigma * 2**0.5)


@pytest.mark.parametrize(("columns", "nodes", "tables"), [(1, 1, 0), (2, 1, 1), (5, 2, 1)])
def test_small_studies_work(tmp_path: Path, columns: int, nodes: int, tables: int) -> None:
    """One column has no pair, two have one, and five get a table for each: no selection then."""
    _run(tmp_path, columns=columns, nodes=nodes, options=replace(OPTIONS, rounds=1))
    workspace = Workspace(tmp_path / "workspace")
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    assert len(json.loads(workspace.associations.read_text(encoding="utf-8"))["tables"]) == tables
    made = generate_table(
        workspace=workspace, secrets=Secrets.in_files(tmp_path / "key"), output=tmp_path / "rows.csv", rows=50
    )
    assert made.rows == 50


@pytest.mark.parametrize("work", ["fitting the surrogate", "pre-training"])
def test_a_run_that_is_stopped_gives_up_the_server_s_own_work_too(tmp_path: Path, work: str) -> None:
    """Both take minutes on a large table, and no exchange comes after them where there is no private training."""
    made = []

    def report(event: ProgressEvent) -> None:
        if isinstance(event, StepProgress) and event.label == work:
            made.append(event.done)

    options = replace(OPTIONS, pretraining_steps=5_000)
    with pytest.raises(AevoriumError) as caught:
        _run(tmp_path, columns=4, options=options, report=report, should_stop=lambda: len(made) >= 3)
    assert caught.value.code == "RUN_INTERRUPTED"
    assert len(made) == 3
    assert _ledger(tmp_path, "n0").closed_at
    assert not list((tmp_path / "workspace").glob("global_model_round_*"))


def test_without_privacy_the_model_learns_the_association_from_the_surrogate(tmp_path: Path) -> None:
    options = RunOptions(epsilon=float("inf"), rounds=1, pretraining_steps=300, epochs=1, batch_size=64)
    result = _run(tmp_path, columns=4, rows=400, options=options)
    assert result.nodes[0].spent == float("inf")
    workspace = Workspace(tmp_path / "workspace")
    assert "NO PRIVACY" in workspace.privacy_statement.read_text(encoding="utf-8")
    (tables,) = json.loads(workspace.associations.read_text(encoding="utf-8"))["tables"]
    assert tables["noise"] == 0
    assert {sum(map(sum, counts)) for counts in tables["counts"]} == {800}
    generate_table(
        workspace=workspace, secrets=Secrets.in_files(tmp_path / "key"), output=tmp_path / "rows.csv", rows=2_000
    )
    rows, real = pd.read_csv(tmp_path / "rows.csv"), pd.read_csv(tmp_path / "0.csv")
    # The means of the first column by category are about 1.9, 5 and 8; of independent columns, all alike.
    means, expected = (frame.groupby("c1")["c0"].mean() for frame in (rows, real))
    assert (means - expected).abs().max() < 1.5
    assert means["c"] - means["a"] > 2


def test_recipe_dp_sgd_releases_no_table_and_leaves_none_behind(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    workspace.associations.write_text("of an earlier run", encoding="utf-8")
    options = RunOptions(epsilon=4.0, rounds=1, recipe="dp-sgd", epochs=1, batch_size=64)
    _run(tmp_path, columns=4, options=options)
    assert [release.phase for release in _ledger(tmp_path, "n0").releases] == ["count", "statistics", "training"]
    assert not workspace.associations.exists()
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings


ANY_NUMBER = NodePolicy(allow=Allowance(min_patients=0))
"""At ε = 0.5 the noisy count of 200 patients is below the default's 20 in one run of 180."""


def _agreed(tmp_path: Path, *, epsilon: float = 0.5) -> tuple[NodeSession, dict[str, str]]:
    schema = TableSchema.from_toml(_schema(8), source="test")
    config = NodeConfig(
        name="a", data=_table(tmp_path / "a.csv", 8), schema=schema, home=tmp_path / "home", policy=ANY_NUMBER
    )
    session = NodeSession(config, noise=OsNoise(), report=ignore)
    plan = plan_study(schema, ["a"], replace(OPTIONS, epsilon=epsilon, records=200))
    session.agree(PlanRequest(run_id="r", server="s", plan=plan))
    run = {"run_id": "r", "plan_hash": plan.content_hash}
    session.count(CountRequest(**run))
    return session, run


def _design(pairs: int) -> TableDesign:
    schema = TableSchema.from_toml(_schema(8), source="test")
    cells = {name: tuple(range(grid.cells)) for name, grid in table_grids(schema, bins=24).items()}
    names = list(cells)
    everything = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    return TableDesign(cells=cells, pairs=tuple(everything[:pairs]))


def test_a_server_gets_no_table_beyond_the_plan(tmp_path: Path) -> None:
    session, run = _agreed(tmp_path)
    with pytest.raises(PolicyRefused):
        session.associations(AssociationsRequest(**run, stage="fine", design=_design(8)))
    # Whatever number of records the server claims, the plan's declared one fixes the tables: 8 of 28 pairs.
    session.statistics(StatisticsRequest(**run, bins=24, records=1e12))
    # A second request is refused, and changes nothing of what the first one fixed: tables are still of 24 bins.
    with pytest.raises(PolicyRefused):
        session.statistics(StatisticsRequest(**run, bins=30, records=1.0))
    for stage, pairs in (("coarse", 27), ("coarse", 8), ("fine", 9), ("fine", 28), ("fine", 0)):
        with pytest.raises(PolicyRefused) as caught:
            session.associations(AssociationsRequest.model_validate({**run, "stage": stage, "design": _design(pairs)}))
        assert caught.value.code == "RELEASE_OUTSIDE_PLAN"
    broken = _design(8).model_copy(update={"cells": {**_design(8).cells, "c0": (0, 1)}})
    with pytest.raises(FederationError):
        session.associations(AssociationsRequest(**run, stage="fine", design=broken))
    before = SqliteLedger(tmp_path / "home" / "ledger.db").run("r")
    assert before is not None
    assert [release.phase for release in before.releases] == ["count", "statistics"]

    for stage, pairs in (("coarse", 28), ("fine", 8)):
        request = AssociationsRequest.model_validate({**run, "stage": stage, "design": _design(pairs)})
        _, values = session.associations(request)
        assert values.dtype == np.int64
        assert len(values) == request.design.size
        # The same tables with the same noise once more, but no others instead.
        assert session.associations(request)[1].tobytes() == values.tobytes()
        other = request.design.model_copy(update={"pairs": request.design.pairs[::-1]})
        with pytest.raises(PolicyRefused):
            session.associations(request.model_copy(update={"design": other}))
    after = SqliteLedger(tmp_path / "home" / "ledger.db").run("r")
    assert after is not None
    assert [release.phase for release in after.releases] == ["count", "statistics", "associations", "associations"]


def test_the_noise_of_tables_is_that_of_the_plan(tmp_path: Path) -> None:
    """Cells that no record can be in show the noise alone: its spread is σ within 15%, else 1 in 10⁶ runs."""
    session, run = _agreed(tmp_path)
    session.statistics(StatisticsRequest(**run, bins=24, records=200))
    plan = plan_study(
        TableSchema.from_toml(_schema(8), source="test"), ["a"], replace(OPTIONS, epsilon=0.5, records=200)
    )
    design = _design(28)
    _, values = session.associations(AssociationsRequest(**run, stage="coarse", design=design))
    sigma = plan_budget(plan).associations.coarse.sigma
    # 200 records leave nearly every of the 8,000 cells empty; beside the noise even their counts are nothing.
    assert len(values) > 3_000
    assert values.std() == pytest.approx(sigma, rel=0.15)


def test_the_noise_of_roundings_is_that_of_the_plan(tmp_path: Path) -> None:
    """Two decimals are in no cell of a finer step: noise alone, whose spread is off by 45% in 1 of 10⁶ runs."""
    session, run = _agreed(tmp_path, epsilon=8.0)
    schema = TableSchema.from_toml(_schema(8), source="test")
    _, values = session.statistics(StatisticsRequest(**run, bins=24, records=200))
    budget = plan_budget(plan_study(schema, ["a"], replace(OPTIONS, epsilon=8.0, records=200)))
    assert budget.roundings is not None
    counts = split_roundings(values[cells_in_total(schema, bins=24) :], schema)
    finer = np.array([step.size < 0.0025 for step in rounding_steps(schema.numbers["c0"])])
    alone = np.concatenate([cells[1:-1][finer] for cells in counts.values()])
    assert len(alone) > 60
    assert alone.std() == pytest.approx(budget.roundings.sigma, rel=0.45)
    # What is counted is counted once for each column.
    assert all(
        cells.sum() == pytest.approx(200, abs=6 * budget.roundings.sigma * len(cells) ** 0.5)
        for cells in counts.values()
    )


def test_an_amount_that_many_share_is_generated_and_costs_no_table_more(tmp_path: Path) -> None:
    """Not a round one: it is found by counting a bin number by number, in the place of a triple."""
    fees = '[columns.fee]\nkind = "continuous"\nmin = 0\nmax = 99999\ninteger = true\n'
    text = _schema(8, target="c1") + fees
    schema = TableSchema.from_toml(text, source="test")
    sources = []
    names = ["n0", "n1", "n2"]
    for place, name in enumerate(names):
        path = _table(tmp_path / f"{name}.csv", 8, rows=2_000, seed=place)
        rng = np.random.default_rng(place)
        shared, spread = rng.random(2_000) < 0.3, np.exp(rng.normal(8.0, 1.0, 2_000)).astype(int).clip(0, 99_999)
        pd.read_csv(path).assign(fee=np.where(shared, 15_024, spread)).to_csv(path, index=False)
        sources.append(NodeSource(name, path))
    options = replace(OPTIONS, epsilon=20.0, records=6_000, pretraining_steps=200, trust="secure-aggregation")
    workspace, secrets = Workspace(tmp_path / "workspace"), Secrets.in_files(tmp_path / "key")
    plan = plan_study(schema, names, options)
    run_federation(
        schema, schema_text=text, plan=plan, nodes=sources, workspace=workspace, secrets=secrets, options=options
    )
    assert verify_workspace(workspace).is_sound, verify_workspace(workspace).findings
    fine = json.loads(workspace.associations.read_text(encoding="utf-8"))["tables"][-1]
    assert list(fine["values"]) == ["fee"]
    schedule = plan_budget(plan).associations
    assert len(fine["counts"]) + len(fine["values"]) == schedule.count
    for name in names:
        (charged,) = [
            event for event in _ledger(tmp_path, name).events if event.purpose == "tables of selected columns"
        ]
        assert charged == schedule.fine_events()[0]
    report = json.loads(workspace.report_json.read_text(encoding="utf-8"))
    assert [one["columns"] for one in report["pairs"]] == fine["design"]["pairs"]
    assert "Pairs of columns" in workspace.report_html.read_text(encoding="utf-8")
    rows = tmp_path / "rows.csv"
    generate_table(workspace=workspace, secrets=secrets, output=rows, rows=2_000, seed=0)
    made = pd.read_csv(rows)["fee"]
    # Rows are chosen to have the released shares of cells; within .05 of .3 even so little trained.
    assert (made == 15_024).mean() == pytest.approx(0.3, abs=0.05)
    assert made.between(14_900, 15_100).mean() - (made == 15_024).mean() < 0.02
