"""Where ordered runs are conducted: on nodes within the worker's process, or on nodes that join over the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aevorium.demo import make_tables
from aevorium.governance.policy import Budget, NodePolicy, load_policy
from aevorium.governance.secrets import Secrets
from aevorium.pipeline import NodeSource, RunResult, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.progress import Report, ignore
from aevorium.schema.table import TableSchema
from aevorium.serving import ServerOptions, serve_study
from aevorium.workspace import Workspace

__all__ = ["LocalSite", "OrderedRun", "ServerSite", "Site"]

_SIMULATED_ADULTS = (420, 360)


@dataclass(frozen=True)
class OrderedRun:
    """A run that is to be conducted.

    Attributes:
        id: Its id.
        schema: Its schema.
        schema_text: The same as TOML.
        options: What was chosen.
        workspace: Where its results go.
        secrets: Encrypt its checkpoints, and sign its audit log.
        report: Takes the progress.
        should_stop: Whether it is to end.
    """

    id: str
    schema: TableSchema
    schema_text: str
    options: RunOptions
    workspace: Workspace
    secrets: Secrets
    report: Report = field(default=ignore)
    should_stop: Callable[[], bool] = field(default=lambda: False)


class Site(Protocol):
    """A place where runs are conducted."""

    def conduct(self, run: OrderedRun) -> RunResult:
        """Conducts a run to its end; raises AevoriumError if it fails."""
        ...


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


@dataclass(frozen=True)
class ServerSite:
    """Nodes that join over the network. Certificates and the keys of nodes outlive the runs.

    Attributes:
        root: The server's workspace, which holds them.
        server: How nodes reach it, and for how many each run waits.
    """

    root: Workspace
    server: ServerOptions

    def conduct(self, run: OrderedRun) -> RunResult:
        """Waits for nodes and conducts a run to its end; raises AevoriumError if it fails."""
        return serve_study(
            run.schema,
            schema_text=run.schema_text,
            server=self.server,
            options=run.options,
            workspace=run.workspace,
            secrets=run.secrets,
            report=run.report,
            should_stop=run.should_stop,
            federation=self.root.federation,
            run_id=run.id,
        )


def _simulated(root: Workspace, *, report: Report) -> dict[str, Path]:
    """Tables of simulated patients, made at the first run and kept."""
    folder = root.root / "data"
    done = folder / "holdout.csv"
    if not done.is_file():
        make_tables(folder, seed=0, report=report, adults=_SIMULATED_ADULTS)
    return {path.stem: path for path in sorted(folder.glob("*.csv")) if path != done}
