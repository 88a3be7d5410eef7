"""What a finished run leaves for people: the privacy statement, the budget view and the run's own report.

All of it is computed from released numbers and from generated rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aevorium.encoding.associations import Associations
from aevorium.encoding.evaluation import EvaluationTables
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import TableStatistics
from aevorium.evaluation.comparison import Comparison, TableDistance, compare_evaluation, compare_pairs
from aevorium.evaluation.released import ReleasedTable, card_of_released, compare_released
from aevorium.evaluation.report.model import LocalReport, NodeSpend, PhaseSpend, RoundFacts, RunReport, StudyFacts
from aevorium.evaluation.report.render import (
    local_report_html,
    local_report_json,
    run_report_html,
    run_report_json,
)
from aevorium.evaluation.scorecard import Evaluation
from aevorium.governance.secrets import Keys
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.phases import plan_budget
from aevorium.progress import Report, RoundFinished, StepProgress
from aevorium.schema.table import TableSchema
from aevorium.server.journal import Journal
from aevorium.server.record import NodeRecord, StudyRecord
from aevorium.server.statement import assumptions, cautions, node_size, privacy_statement
from aevorium.server.statement_files import write_statement
from aevorium.server.synthesis import open_synthesis
from aevorium.workspace import Workspace, write_atomically

__all__ = ["Results", "write_local_report", "write_results"]

_REPORT_ROWS = 5000
"""Rows that the run's own report is made from, at most."""


@dataclass(frozen=True)
class Results:
    """What a run left.

    Attributes:
        outputs: Every file that it left in its workspace.
        comparison: How the generated rows compare with the evaluation tables; None if it paid for none.
    """

    outputs: tuple[Path, ...]
    comparison: Comparison | None


def write_results(
    journal: Journal, *, schema: TableSchema, keys: Keys, rounds: Sequence[RoundFinished], report: Report
) -> Results:
    """Writes statement, budget and report of a finished run.

    Args:
        journal: The run.
        schema: Its schema.
        keys: The keys of its checkpoints.
        rounds: Its rounds.
        report: Takes the progress.
    """
    workspace = journal.workspace
    _write(workspace.privacy_budget, json.dumps(_budget_view(journal.record, workspace), indent=2) + "\n")
    issued = write_statement(workspace, privacy_statement(journal.record, schema))
    comparison = _write_run_report(journal.record, schema, workspace=workspace, keys=keys, rounds=rounds, report=report)
    journal.note("results_written", {"files": [path.name for path in _outputs(workspace)], **issued})
    return Results(_outputs(workspace), comparison)


def write_local_report(
    workspace: Workspace,
    *,
    record: StudyRecord,
    schema: TableSchema,
    evaluation: Evaluation,
    rows: int,
) -> tuple[Path, ...]:
    """Writes what a comparison with real rows found. Exact statistics of real records: not to be shared.

    Args:
        workspace: The workspace of the run.
        record: The run.
        schema: Its schema.
        evaluation: The scores, and what their charts are drawn from.
        rows: Rows of the synthetic table.
    """
    content = LocalReport(
        study=_facts(record, schema, rows=rows),
        card=evaluation.card,
        overlays=evaluation.overlays,
        pairs=evaluation.pairs,
        tstr=evaluation.tstr,
        trtr=evaluation.trtr,
        closest=evaluation.closest,
    )
    _write(workspace.local_report_json, local_report_json(content))
    _write(workspace.local_report_html, local_report_html(content))
    return (workspace.local_report_html, workspace.local_report_json)


def _write_run_report(
    record: StudyRecord,
    schema: TableSchema,
    *,
    workspace: Workspace,
    keys: Keys,
    rounds: Sequence[RoundFinished],
    report: Report,
) -> Comparison | None:
    synthesis = open_synthesis(workspace, schema=schema, run_id=record.run_id, cipher=keys.load(), seed=record.seed)
    rows = min(_REPORT_ROWS, max(200, round(record.total or 0)))
    frames = synthesis.frames(rows, advance=lambda done: report(StepProgress("rows for the report", done, rows)))
    synthetic = pd.concat(list(frames), ignore_index=True)
    released = _released(TableStatistics.from_json(workspace.statistics.read_text(encoding="utf-8")), schema)
    compared = compare_released(synthetic=synthetic, released=released, seed=record.seed)
    comparison = _compare(synthetic, record, schema, workspace=workspace)
    content = RunReport(
        study=_facts(record, schema, rows=rows),
        nodes=tuple(
            NodeSpend(
                node=node.name,
                epsilon=node.spent,
                limit=node.limit,
                phases=_phases(record, node),
                records=node.count,
            )
            for node in record.nodes
        ),
        rounds=tuple(
            RoundFacts(
                number=entry.round,
                nodes_replied=entry.nodes_ok,
                nodes_asked=entry.nodes_asked,
                epsilon=entry.spent,
                seconds=entry.seconds,
                loss=entry.loss,
            )
            for entry in rounds
        ),
        card=card_of_released(compared, simulated=record.is_simulated_data, comparison=comparison),
        overlays=tuple(column.overlay for column in compared),
        comparison=comparison,
        pairs=_compare_pairs(synthetic, record, schema, workspace=workspace),
    )
    _write(workspace.report_json, run_report_json(content))
    _write(workspace.report_html, run_report_html(content))
    return comparison


def _compare(
    synthetic: pd.DataFrame, record: StudyRecord, schema: TableSchema, *, workspace: Workspace
) -> Comparison | None:
    if record.plan.evaluation_share == 0:
        return None
    tables = EvaluationTables.from_json(workspace.evaluation.read_text(encoding="utf-8"))
    return compare_evaluation(synthetic=synthetic, tables=tables, schema=schema, is_holdout=record.plan.has_holdout)


def _compare_pairs(
    synthetic: pd.DataFrame, record: StudyRecord, schema: TableSchema, *, workspace: Workspace
) -> tuple[TableDistance, ...]:
    if not workspace.associations.is_file():
        return ()
    tables = json.loads(workspace.associations.read_text(encoding="utf-8"))["tables"]
    if not tables:
        return ()
    bins = TableStatistics.from_json(workspace.statistics.read_text(encoding="utf-8")).bins
    fine = Associations.from_dict(tables[-1])
    return compare_pairs(synthetic=synthetic, released=fine, schema=schema, bins=bins, total=record.total or 0.0)


def _phases(record: StudyRecord, node: NodeRecord) -> tuple[PhaseSpend, ...]:
    """What each phase of the plan costs a node by itself: it follows from the plan and the node's size, both public."""
    size = node_size(record, node)
    if size is None or not record.plan.is_private:
        return ()
    phases: dict[str, list[PrivacyEvent]] = {}
    for event in plan_budget(record.plan, records=record.records).events(size):
        phases.setdefault(event.purpose, []).append(event)
    return tuple(
        PhaseSpend(phase=purpose, epsilon=epsilon(events, delta=record.plan.delta), releases=len(events))
        for purpose, events in phases.items()
    )


def _released(statistics: TableStatistics, schema: TableSchema) -> list[ReleasedTable]:
    """The released histograms as the evaluation takes them."""
    return [
        ReleasedTable.from_cells(
            name,
            counts=statistics.counts[name],
            noise_sd=statistics.noise,
            low=grid.low,
            high=grid.high,
            categories=grid.categories,
            missing=grid.missing,
        )
        for name, grid in table_grids(schema, bins=statistics.bins).items()
        if grid.categories or grid.high[-1] > grid.low[0]
    ]


def _facts(record: StudyRecord, schema: TableSchema, *, rows: int) -> StudyFacts:
    plan = record.plan
    derived = tuple(name for name, column in schema.columns.items() if column.derived is not None)
    limits = (f"{', '.join(derived)}: computed by the schema's rule, not learnt.",) if derived else ()
    return StudyFacts(
        name=schema.name,
        schema_name=schema.name,
        schema_hash=plan.schema_hash,
        unit=schema.unit,
        recipe=plan.recipe,
        trust=plan.trust,
        epsilon=plan.epsilon if plan.is_private else math.inf,
        delta=plan.delta,
        created=record.finished_at or record.started_at,
        version=record.versions.get("aevorium", "unknown"),
        synthetic_rows=rows,
        target=schema.target,
        derived=derived,
        simulated=record.is_simulated_data,
        warnings=cautions(record),
        limits=limits,
        assumptions=assumptions(record, schema),
    )


def _outputs(workspace: Workspace) -> tuple[Path, ...]:
    candidates = (
        *workspace.checkpoints().values(),
        workspace.encoder,
        workspace.statistics,
        workspace.associations,
        workspace.evaluation,
        workspace.preprocessor,
        workspace.round_metrics,
        workspace.privacy_statement,
        workspace.privacy_statement_json,
        workspace.privacy_budget,
        workspace.audit_log,
        workspace.report_html,
        workspace.report_json,
        workspace.study,
        workspace.schema,
    )
    return tuple(path for path in candidates if path.is_file())


def _budget_view(record: StudyRecord, workspace: Workspace) -> dict[str, object]:
    """The study's view of its nodes' budgets; each node's own file is the authority."""
    plan = record.plan
    nodes = {}
    for node in record.nodes:
        home = workspace.node_home(node.name) / "privacy_budget.json"
        own = json.loads(home.read_text(encoding="utf-8")) if home.is_file() else None
        nodes[node.name] = {
            "epsilon": _finite(plan.epsilon),
            "delta": plan.delta,
            "spent": _finite(node.spent),
            "limit": None if node.limit is None else _finite(node.limit),
            "left": None if node.left is None else _finite(node.left),
            "ledger": own,
        }
    return {
        "schema_version": 1,
        "run_id": record.run_id,
        "epsilon": _finite(plan.epsilon),
        "delta": plan.delta,
        "composition": "largest of the nodes: their patients are different people",
        "nodes": nodes,
    }


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "Infinity"


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
