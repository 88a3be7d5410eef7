"""What a finished run leaves for people: the privacy statement, the budget view and the run's own report.

All of it is computed from released numbers and from generated rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from aevorium.evaluation.score import Scorecard
from aevorium.governance.keys import Key
from aevorium.progress import Report, RoundFinished
from aevorium.schema.table import TableSchema
from aevorium.server.journal import Journal
from aevorium.server.record import StudyRecord
from aevorium.server.statement import privacy_statement
from aevorium.workspace import Workspace, write_atomically

__all__ = ["write_local_report", "write_results"]


def write_results(
    journal: Journal, *, schema: TableSchema, key: Key, rounds: Sequence[RoundFinished], report: Report
) -> tuple[Path, ...]:
    """Writes statement, budget and report of a finished run.

    Args:
        journal: The run.
        schema: Its schema.
        key: The key of its checkpoints.
        rounds: Its rounds.
        report: Takes the progress.

    Returns:
        Every file that the run left in its workspace.
    """
    workspace = journal.workspace
    _write(workspace.privacy_budget, json.dumps(_budget_view(journal.record, workspace), indent=2) + "\n")
    _write(workspace.privacy_statement, privacy_statement(journal.record, schema))
    journal.note("results_written", {"files": [path.name for path in _outputs(workspace)]})
    return _outputs(workspace)


def write_local_report(workspace: Workspace, *, record: StudyRecord, card: Scorecard) -> tuple[Path, ...]:
    """Writes what a comparison with real rows found. Exact statistics of real records: not to be shared.

    Args:
        workspace: The workspace of the run.
        record: The run.
        card: The scores.
    """
    content = {"run_id": record.run_id, "epsilon": _finite(record.plan.epsilon), **card.to_json()}
    _write(workspace.local_report_json, json.dumps(content, indent=2) + "\n")
    return (workspace.local_report_json,)


def _outputs(workspace: Workspace) -> tuple[Path, ...]:
    candidates = (
        *workspace.checkpoints().values(),
        workspace.encoder,
        workspace.statistics,
        workspace.preprocessor,
        workspace.round_metrics,
        workspace.privacy_statement,
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
