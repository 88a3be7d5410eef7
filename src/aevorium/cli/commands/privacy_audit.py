"""`aevorium privacy-audit`: attacks this installation's own nodes, on records that nobody has."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import (
    BatchSize,
    Delta,
    Epochs,
    Epsilon,
    Recipe,
    Rounds,
    SchemaSource,
    Seed,
    Trust,
)

if TYPE_CHECKING:
    from aevorium.auditing.audit import PrivacyAudit

__all__ = ["privacy_audit"]


def privacy_audit(
    context: typer.Context,
    schema: SchemaSource = "synthea",
    epsilon: Epsilon = None,
    delta: Delta = None,
    recipe: Recipe = None,
    trust: Trust = None,
    records: Annotated[int, typer.Option("--records", min=2, help="Made-up records of all nodes together.")] = 500,
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes", min=1, max=100, help="Nodes; one, or three under secure aggregation.", show_default=False
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=20, help="How often a run is released with the canary, and how often without."),
    ] = 300,
    rounds: Rounds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="A file for the result, JSON.", show_default=False)
    ] = None,
) -> dict[str, object]:
    """Attacks this installation's own nodes on made-up records: is there as much privacy as a plan says?"""
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
        "seed": seed,
    }
    settings = load_settings(flags).values
    table, text = read_schema(schema)
    from dataclasses import replace

    import numpy as np

    from aevorium.auditing.audit import audit_privacy
    from aevorium.auditing.tables import make_tables
    from aevorium.cli.interrupt import Interrupt
    from aevorium.cli.progress_view import ProgressView
    from aevorium.cli.study_options import run_options
    from aevorium.errors import AevoriumError
    from aevorium.planning import node_names, plan_study
    from aevorium.privacy.plan import MIN_AGGREGATED
    from aevorium.workspace import write_atomically

    console = console_of(context)
    # The model is not what is audited: what nodes release of records is, and pre-training reads none.
    options = replace(run_options(settings, records=records), pretraining_steps=0, device="cpu")
    names = node_names(nodes or (MIN_AGGREGATED if settings.trust == "secure-aggregation" else 1))
    plan = plan_study(table, names, options)
    with (
        tempfile.TemporaryDirectory(prefix="aevorium-audit-", ignore_cleanup_errors=True) as scratch,
        ProgressView(console) as view,
        Interrupt(console) as interrupt,
    ):
        tables = make_tables(
            table,
            Path(scratch) / "tables",
            nodes=names,
            records=records,
            generator=np.random.default_rng(settings.seed),
        )
        audit = audit_privacy(
            table,
            schema_text=text,
            plan=plan,
            tables=tables,
            options=options,
            folder=Path(scratch) / "nodes",
            repeats=repeats,
            report=view,
            should_stop=interrupt.is_requested,
        )
    _tell(audit, console=console)
    if output is not None:
        with write_atomically(output) as temporary:
            temporary.write_text(audit.model_dump_json(indent=2) + "\n", encoding="utf-8")
        console.say(f"Written: {output}")
    if not audit.passed:
        raise AevoriumError("PRIVACY_AUDIT_FAILED", f"The nodes break their promise: {'; '.join(audit.problems)}.")
    return audit.model_dump(mode="json")


def _tell(audit: PrivacyAudit, *, console: Console) -> None:
    console.say(
        f"Privacy audit of {audit.study!r}: ε = {audit.epsilon:g}, δ = {audit.delta:g}, recipe {audit.recipe}, trust "
        f"{audit.trust}, {audit.records:,} made-up records in {audit.nodes} node{'' if audit.nodes == 1 else 's'}, "
        f"{audit.repeats:,} repeats with a canary and as many without."
    )
    rows = [
        (
            release.release,
            f"{release.tables:,}",
            f"{release.moved:.3f}",
            f"{release.allowed:.3f}",
            f"{release.noise:.3f}",
            f"{release.planned:.3f}",
        )
        for release in audit.releases
    ]
    headings = ("release", "tables", "moved by one record", "charged for", "noise found", "planned")
    console.table(headings, rows, numbers=headings[1:])
    console.say(
        f"The attack knows all but whether the canary was there. It finds {100 * audit.true_positive_rate:.1f} % of "
        f"the canaries at {100 * audit.false_positive_rate:.1f} % false alarms; the plan allows "
        f"{100 * audit.allowed_true_positive_rate:.1f} %."
    )
    console.say(
        f"ε is at least {audit.least_epsilon:.2f} (confidence {100 * audit.confidence:g} %), promised at most "
        f"{audit.epsilon:g}; a perfect attack would have shown {audit.most_measurable_epsilon:.1f} in so many repeats."
    )
    if audit.passed:
        console.say("Passed: nothing contradicts the plan. That is no proof of it; the proof is in the accounting.")
