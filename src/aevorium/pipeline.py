"""The use case of a whole federation in this process.

Nothing here reads a record: nodes do, behind their gates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.serverapp import ServerApp

from aevorium.conducting import SIMULATED, RunResult, conduct_run
from aevorium.diffusion.device import find_device
from aevorium.errors import AevoriumError, InternalError
from aevorium.federation.local import run_in_process
from aevorium.governance.policy import NodePolicy, simulated_policy
from aevorium.governance.secrets import Secrets
from aevorium.node.app import create_client_app
from aevorium.node.session import NodeConfig, NodeSession, OpenSession, open_session
from aevorium.planning import RunOptions
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import Report, ignore
from aevorium.schema.table import TableSchema
from aevorium.workspace import Workspace

__all__ = ["NodeSource", "run_federation"]


@dataclass(frozen=True)
class NodeSource:
    """A simulated node.

    Attributes:
        name: Its name.
        data: Its table.
        policy: What it allows; None limits it to the run's own ε and δ.
    """

    name: str
    data: Path
    policy: NodePolicy | None = None


def run_federation(
    schema: TableSchema,
    *,
    schema_text: str,
    plan: StudyPlan,
    nodes: Sequence[NodeSource],
    workspace: Workspace,
    secrets: Secrets,
    options: RunOptions,
    report: Report = ignore,
    should_stop: Callable[[], bool] = lambda: False,
    open_session: OpenSession = open_session,
    homes: Path | None = None,
    run_id: str | None = None,
    explains: bool = True,
) -> RunResult:
    """Runs a whole federation in this process.

    Args:
        schema: The study's schema.
        schema_text: The same as TOML, kept in the workspace.
        plan: The plan.
        nodes: The simulated nodes; their state is kept under the workspace.
        workspace: Where the results go.
        secrets: Encrypt the checkpoints, and sign the audit log; made if absent.
        options: Seed, device and time-out; the rest is in the plan.
        report: Takes the progress.
        should_stop: Asked between exchanges whether the run is to end.
        open_session: Opens a node.
        homes: Folder of the nodes' homes, by name, where they outlive the workspace; within it if None.
        run_id: The run's name; a new one if None.
        explains: Whether a failure tells the nodes' own reasons: where their stewards and who runs it are one person.

    Raises:
        UserError: What the person can change: data, policy, budget, workspace.
        AevoriumError: RUN_INTERRUPTED after Ctrl-C; what was released stays charged.
    """
    options.require_available()
    workspace.create()
    secrets.open(workspace.root)
    device = find_device(options.device)
    sessions = {
        node.name: open_session(
            _config(node, schema=schema, plan=plan, homes=homes or workspace.nodes, device=device), report
        )
        for node in nodes
    }
    workers = min(len(nodes), os.cpu_count() or 1)

    def carry(app: ServerApp) -> None:
        with _threads(max(1, (os.cpu_count() or 1) // workers)):
            run_in_process(
                app,
                create_client_app(sessions),
                nodes=[node.name for node in nodes],
                workers=workers,
                run_config={},
            )

    try:
        return conduct_run(
            carry,
            schema=schema,
            schema_text=schema_text,
            plan=plan,
            workspace=workspace,
            secrets=secrets,
            options=options,
            server=SIMULATED,
            report=report,
            should_stop=should_stop,
            run_id=run_id,
        )
    except AevoriumError as error:
        if not explains:
            raise
        raise _reason(error, sessions) from error


def _config(node: NodeSource, *, schema: TableSchema, plan: StudyPlan, homes: Path, device: torch.device) -> NodeConfig:
    policy = node.policy or simulated_policy(epsilon=plan.epsilon, delta=plan.delta)
    return NodeConfig(
        name=node.name,
        data=node.data,
        schema=schema,
        home=homes / node.name,
        policy=policy,
        is_simulated=True,
        device=device,
    )


def _reason(error: AevoriumError, sessions: Mapping[str, NodeSession]) -> AevoriumError:
    """The reason why a run failed: the nodes' own, since here their stewards and the server are one person."""
    problems = [(name, session.problem) for name, session in sessions.items() if session.problem is not None]
    if not problems:
        return error
    _, first = max(problems, key=lambda item: item[1].exit_status)
    same = [(name, problem) for name, problem in problems if problem.code == first.code]
    message = " ".join(f"Node {name!r}: {problem.message}" for name, problem in same)
    if isinstance(first, InternalError):
        return first
    return type(first)(first.code, message, hint=first.hint)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Lets each node compute with so many threads: together they should not want more than there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
