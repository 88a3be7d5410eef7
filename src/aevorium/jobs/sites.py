"""Where ordered runs are conducted: on nodes that join over the network, or within the worker (`local_site`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from aevorium.conducting import RunResult
from aevorium.governance.secrets import Secrets
from aevorium.planning import RunOptions
from aevorium.progress import Report, ignore
from aevorium.schema.table import TableSchema
from aevorium.serving import ServerOptions, serve_study
from aevorium.workspace import Workspace

__all__ = ["OrderedRun", "ServerSite", "Site"]


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
