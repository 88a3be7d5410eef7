"""`aevorium run`: a whole federation on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import (
    BatchSize,
    Delta,
    Epochs,
    Epsilon,
    NoiseMultiplier,
    Recipe,
    Records,
    Rounds,
    SchemaSource,
    Seed,
    Trust,
    WorkspaceFolder,
)
from aevorium.errors import ConfigError

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
    device: Annotated[str, typer.Option("--device", help="Where models are trained: auto or cpu.")] = "auto",
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
    purpose: Annotated[
        str, typer.Option("--purpose", help="What the result is for; a node's policy may ask.")
    ] = "synthetic data",
) -> dict[str, object]:
    """Runs a federation of simulated nodes on this machine and leaves its results in the workspace."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError("CONFIG_INVALID", f"--device = {device!r} is not possible. It should be auto or cpu.")
    from aevorium.inputs import parse_nodes, parse_policies, read_schema, write_node_files
    from aevorium.settings import load_settings

    flags = {
        "epsilon": epsilon,
        "delta": delta,
        "recipe": recipe,
        "trust": trust,
        "workspace": workspace,
        "seed": seed,
        "num_rounds": rounds,
        "training_epochs": epochs,
        "batch_size": batch_size,
        "dp_noise_multiplier": noise_multiplier,
    }
    settings = load_settings(flags).values
    files = parse_nodes(node)
    policies = parse_policies(policy or [], nodes=list(files))
    table, text = read_schema(schema)
    from aevorium.cli.progress_view import ProgressView, duration
    from aevorium.cli.study_options import run_options
    from aevorium.cli.summaries import spend_data, tell_files, tell_privacy, tell_simulated, tell_spend
    from aevorium.pipeline import NodeSource, plan_study, run_federation
    from aevorium.workspace import Workspace

    console = console_of(context)
    options = run_options(
        settings,
        records=records,
        device="cuda" if device == "cuda" else "auto",
        min_nodes=min_nodes,
        purpose=purpose,
    )
    plan = plan_study(table, list(files), options)
    tell_privacy(plan, console=console)
    target = Workspace(settings.workspace)
    with ProgressView(console) as view:
        result = run_federation(
            table,
            schema_text=text,
            plan=plan,
            nodes=[NodeSource(name, path, policy=policies.get(name)) for name, path in files.items()],
            workspace=target,
            key_file=settings.key_file,
            options=options,
            report=view,
        )
    write_node_files(target, nodes=files)
    tell_simulated(is_simulated=result.record.is_simulated_data, console=console)
    tell_spend(result.record, console=console)
    tell_files(result.outputs, folder=target.root, console=console)
    console.say(f"Done in {duration(result.seconds)}. What to type next:")
    console.say(f"  aevorium generate --workspace {target.root}")
    console.say(f"  aevorium validate --workspace {target.root}")
    console.say(f"  aevorium audit verify --workspace {target.root}")
    tell_privacy(plan, console=console)
    return {
        "run_id": result.record.run_id,
        "workspace": str(target.root),
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "is_private": plan.is_private,
        "is_simulated": result.record.is_simulated_data,
        "total": result.record.total,
        "nodes": spend_data(result.record),
        "rounds": [asdict(finished) for finished in result.rounds],
        "seconds": result.seconds,
        "outputs": [str(path) for path in result.outputs],
    }
