"""Nodes within the worker's process: the only place where a server's worker loads what trains on records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aevorium.conducting import RunResult
from aevorium.demo import make_tables
from aevorium.governance.policy import Budget, NodePolicy, load_policy
from aevorium.jobs.sites import OrderedRun
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import plan_study
from aevorium.progress import Report
from aevorium.workspace import Workspace

__all__ = ["LocalSite"]

_SIMULATED_ADULTS = (420, 360)


@dataclass(frozen=True)
class LocalSite:
    """Nodes within this process. Their homes outlive the runs, so every run counts against the same limits.

    Attributes:
        root: The server's workspace, which holds the homes.
        tables: The nodes' tables by name; none takes simulated patients, and the results say so.
        policy: The policy file of every node; None allows ε = 10 in all.
    """

    root: Workspace
    tables: Mapping[str, Path]
    policy: Path | None = None

    def conduct(self, run: OrderedRun) -> RunResult:
        """Conducts a run to its end; raises AevoriumError if it fails, without the nodes' own reasons."""
        tables = self.tables or _simulated(self.root, report=run.report)
        policy = NodePolicy(budget=Budget(period="simulated")) if self.policy is None else load_policy(self.policy)
        return run_federation(
            run.schema,
            schema_text=run.schema_text,
            plan=plan_study(run.schema, list(tables), run.options),
            nodes=[NodeSource(name, path, policy=policy) for name, path in tables.items()],
            workspace=run.workspace,
            secrets=run.secrets,
            options=run.options,
            report=run.report,
            should_stop=run.should_stop,
            homes=self.root.nodes,
            run_id=run.id,
            explains=False,
        )


def _simulated(root: Workspace, *, report: Report) -> dict[str, Path]:
    """Tables of simulated patients, made at the first run and kept."""
    folder = root.root / "data"
    done = folder / "holdout.csv"
    if not done.is_file():
        make_tables(folder, seed=0, report=report, adults=_SIMULATED_ADULTS)
    return {path.stem: path for path in sorted(folder.glob("*.csv")) if path != done}
