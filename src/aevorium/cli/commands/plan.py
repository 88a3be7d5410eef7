"""`aevorium plan`: what a study costs, before any record is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import (
    BatchSize,
    Colluding,
    Delta,
    Dropouts,
    Epochs,
    Epsilon,
    EvaluationShare,
    NodesPerPatient,
    NoiseMultiplier,
    Recipe,
    Rounds,
    SchemaSource,
    Trust,
)
from aevorium.cli.progress_view import number

if TYPE_CHECKING:
    from aevorium.planning import Variation

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
    evaluation_share: EvaluationShare = 0.0,
    rounds: Rounds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    noise_multiplier: NoiseMultiplier = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            help="Also show plans that differ in one thing: epsilon=1,3,10, nodes=1,5, records=500,5000 or trust=local."
            " Repeatable.",
            show_default=False,
        ),
    ] = None,
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
    from aevorium.planning import node_names, plan_cost, plan_study, plan_views, vary

    console = console_of(context)
    options = run_options(
        settings,
        records=records,
        dropouts=dropouts,
        colluding=colluding,
        max_nodes_per_patient=max_nodes_per_patient,
        evaluation_share=evaluation_share,
    )
    study = plan_study(table, node_names(nodes), options)
    costs = plan_cost(study, size=study.declared_size or records / nodes)
    tell_privacy(study, console=console)
    rows = [(cost.phase, cost.mechanism, cost.parameters, number(cost.epsilon)) for cost in costs]
    console.table(("phase", "mechanism", "parameters", "ε alone"), rows, numbers=("ε alone",))
    console.say(
        f"Together: ε = {number(study.epsilon)} at δ = {study.delta:g} for every node, {records:,} records in {nodes} "
        f"node{'' if nodes == 1 else 's'}. Phases compose to less than the sum of their lines."
    )
    if not any(cost.phase.startswith("training") for cost in costs):
        console.say(
            "There is no private training: at this size and ε its budget buys more as tables. --epochs asks for it."
        )
    views = plan_views(study, size=study.declared_size or records / nodes)
    if study.noise_shares is not None:
        seen = [(view.viewer, number(view.epsilon), view.reason) for view in views]
        console.table(("who looks", "ε", "why"), seen, numbers=("ε",))
    changes = _changes(what_if or [])
    variations = vary(table, options, records=records, nodes=nodes, changes=changes)
    bins = variations[0].bins
    console.say(
        f"Numbers are counted in about {bins} bins between their bounds. A column whose values all lie in one of them "
        "comes out constant: declare bounds no wider than what can occur."
    )
    if variations[0].cell_noise > 1:
        console.say(
            f"The noise in a typical cell would be {variations[0].cell_noise:.1f} times the records in it. A table "
            "made so says little of the patients. Take a larger ε, more patients or fewer columns."
        )
    variations = variations if changes else []
    _show(variations, console=console)
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
        "views": [{"viewer": view.viewer, "epsilon": view.epsilon, "reason": view.reason} for view in views],
        "what_if": [
            {
                "change": row.change or None,
                "epsilon": row.plan.epsilon,
                "delta": row.plan.delta,
                "trust": row.plan.trust,
                "nodes": len(row.plan.nodes),
                "records": row.records,
                "bins": row.bins,
                "cell_noise": row.cell_noise,
                "tables": row.tables,
                "noise_multiplier": row.noise_multiplier,
                "sampling_rate": row.sampling_rate,
                "steps": row.steps,
            }
            for row in variations
        ],
    }


def _changes(texts: list[str]) -> list[tuple[str, str]]:
    """What `--what-if` names: one change for each value."""
    changes = []
    for text in texts:
        name, _, values = text.partition("=")
        changes += [(name.strip(), value.strip()) for value in values.split(",")]
    return changes


def _show(variations: Sequence[Variation], *, console: Console) -> None:
    if not variations:
        return
    headings = ("what if", "ε", "nodes", "records", "cell noise*", "tables", "DP-SGD noise", "q", "steps")
    rows = [
        (
            row.change or "as asked",
            number(row.plan.epsilon),
            str(len(row.plan.nodes)),
            f"{row.records:,}",
            f"{100 * row.cell_noise:.1f} %",
            str(row.tables),
            *(
                (f"{row.noise_multiplier:.3g}", f"{row.sampling_rate:.3g}", f"{row.steps:,}")
                if row.steps
                else ("–", "–", "–")
            ),
        )
        for row in variations
    ]
    console.table(headings, rows, numbers=headings[1:])
    console.say(
        "* standard deviation of the noise in a cell of all nodes' histograms, over the records in a typical one"
    )
