"""`aevorium plan`: what a study costs, before any record is read."""

from __future__ import annotations

from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import (
    BatchSize,
    Colluding,
    Delta,
    Dropouts,
    Epochs,
    Epsilon,
    NodesPerPatient,
    NoiseMultiplier,
    Recipe,
    Rounds,
    SchemaSource,
    Trust,
)
from aevorium.cli.progress_view import number

__all__ = ["plan"]


def plan(
    context: typer.Context,
    records: Annotated[int, typer.Option("--records", min=1, help="Number of records of all nodes together.")],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=1000, help="Number of nodes, of like size.")],
    schema: SchemaSource = "synthea",
    epsilon: Epsilon = None,
    delta: Delta = None,
    recipe: Recipe = None,
    trust: Trust = None,
    dropouts: Dropouts = 0,
    colluding: Colluding = 0,
    max_nodes_per_patient: NodesPerPatient = 1,
    rounds: Rounds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    noise_multiplier: NoiseMultiplier = None,
) -> dict[str, object]:
    """Shows what a study costs, phase by phase, before any record is read."""
    from aevorium.inputs import read_schema
    from aevorium.settings import load_settings

    flags = {
        "epsilon": epsilon,
        "delta": delta,
        "recipe": recipe,
        "trust": trust,
        "num_rounds": rounds,
        "training_epochs": epochs,
        "batch_size": batch_size,
        "dp_noise_multiplier": noise_multiplier,
    }
    settings = load_settings(flags).values
    table, _ = read_schema(schema)
    from aevorium.cli.study_options import run_options
    from aevorium.cli.summaries import tell_privacy
    from aevorium.planning import plan_cost, plan_study

    console = console_of(context)
    names = [f"node-{place}" for place in range(1, nodes + 1)]
    options = run_options(
        settings,
        records=records,
        dropouts=dropouts,
        colluding=colluding,
        max_nodes_per_patient=max_nodes_per_patient,
    )
    study = plan_study(table, names, options)
    costs = plan_cost(study, size=records / nodes)
    tell_privacy(study, console=console)
    rows = [(cost.phase, cost.mechanism, cost.parameters, number(cost.epsilon)) for cost in costs]
    console.table(("phase", "mechanism", "parameters", "ε alone"), rows, numbers=("ε alone",))
    console.say(
        f"Together: ε = {number(study.epsilon)} at δ = {study.delta:g} for every node, {records:,} records in {nodes} "
        f"node{'' if nodes == 1 else 's'}. Phases compose to less than the sum of their lines."
    )
    return {
        "epsilon": study.epsilon,
        "delta": study.delta,
        "is_private": study.is_private,
        "nodes": nodes,
        "records": records,
        "rounds": study.rounds,
        "plan": study.model_dump(mode="json"),
        "phases": [
            {
                "phase": cost.phase,
                "mechanism": cost.mechanism,
                "parameters": cost.parameters,
                "epsilon": cost.epsilon,
            }
            for cost in costs
        ],
    }
