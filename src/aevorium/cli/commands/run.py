"""`aevorium run`: a whole federation on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import (
    BatchSize,
    Colluding,
    Delta,
    Device,
    Dropouts,
    Epochs,
    Epsilon,
    EvaluationShare,
    NodesPerPatient,
    NoiseMultiplier,
    Purpose,
    Recipe,
    Records,
    Rounds,
    SchemaSource,
    Seed,
    Timeout,
    Trust,
    WorkspaceFolder,
)
from aevorium.errors import BudgetExceeded

__all__ = ["run"]


def run(
    context: typer.Context,
    node: Annotated[list[str], typer.Option("--node", help="NAME=FILE, one for each node; repeat it.")],
    schema: SchemaSource = "synthea",
    epsilon: Epsilon = None,
    delta: Delta = None,
    workspace: WorkspaceFolder = None,
    recipe: Recipe = None,
    trust: Trust = None,
    dropouts: Dropouts = 0,
    colluding: Colluding = 0,
    max_nodes_per_patient: NodesPerPatient = 1,
    evaluation_share: EvaluationShare = 0.0,
    device: Device = None,
    seed: Seed = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    noise_multiplier: NoiseMultiplier = None,
    records: Records = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="FILE for every node, or NAME=FILE for one; repeat it.")
    ] = None,
    min_nodes: Annotated[
        int | None,
        typer.Option(
            "--min-nodes", min=1, help="Nodes without which a round fails; all if absent.", show_default=False
        ),
    ] = None,
    timeout: Timeout = None,
    purpose: Purpose = "synthetic data",
) -> dict[str, object]:
    """Runs a federation of simulated nodes on this machine and leaves its results in the workspace."""
    from aevorium.inputs import parse_nodes, parse_policies, read_schema, write_node_files
    from aevorium.settings import load_settings

    flags = {
        "epsilon": epsilon,
        "delta": delta,
        "recipe": recipe,
        "trust": trust,
        "workspace": workspace,
        "device": device,
        "seed": seed,
        "num_rounds": rounds,
        "training_epochs": epochs,
        "batch_size": batch_size,
        "dp_noise_multiplier": noise_multiplier,
        "timeout": timeout,
    }
    settings = load_settings(flags).values
    files = parse_nodes(node)
    policies = parse_policies(policy or [], nodes=list(files))
    table, text = read_schema(schema)
    from aevorium.cli.interrupt import Interrupt
    from aevorium.cli.progress_view import ProgressView
    from aevorium.cli.study_options import run_options
    from aevorium.cli.summaries import run_data, tell_privacy, tell_result
    from aevorium.governance.secrets import Secrets
    from aevorium.pipeline import NodeSource, run_federation
    from aevorium.planning import plan_study
    from aevorium.workspace import Workspace

    console = console_of(context)
    options = run_options(
        settings,
        records=records,
        min_nodes=min_nodes,
        purpose=purpose,
        dropouts=dropouts,
        colluding=colluding,
        max_nodes_per_patient=max_nodes_per_patient,
        evaluation_share=evaluation_share,
    )
    plan = plan_study(table, list(files), options)
    tell_privacy(plan, console=console)
    target = Workspace(settings.workspace)
    secrets = Secrets.of(settings)
    if any(secrets.lies_beside(path) for path in files.values()):
        console.warn(
            "A key lies in the folder of a table: whoever copies the folder has both. AEVORIUM_KEY_FILE moves it."
        )
    with (
        ProgressView(console) as view,
        Interrupt(console, leaves=True) as interrupt,
        _explained(has_policies=bool(policies)),
    ):
        result = run_federation(
            table,
            schema_text=text,
            plan=plan,
            nodes=[NodeSource(name, path, policy=policies.get(name)) for name, path in files.items()],
            workspace=target,
            secrets=secrets,
            options=options,
            report=view,
            should_stop=interrupt.is_requested,
        )
    write_node_files(target, nodes=files)
    tell_result(result, folder=target, console=console)
    return run_data(result, folder=target)


@contextmanager
def _explained(*, has_policies: bool) -> Iterator[None]:
    """Says what to do where a simulated node's limit is the ε of the workspace's first run."""
    try:
        yield
    except BudgetExceeded as error:
        if has_policies:
            raise
        raise BudgetExceeded(
            error.code,
            error.message,
            hint="A workspace of simulated nodes pays for one run. Give a new --workspace (what both runs release from "
            "the same records then adds up, and no ledger says so), or a larger limit of the period 'simulated' with "
            "--policy.",
        ) from error
