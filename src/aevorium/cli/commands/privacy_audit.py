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
    from aevorium.auditing.releases import ReleaseAudit

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
        Path | None, typer.Option("--output", help="A file for the result, JSON, also if it fails.", show_default=False)
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
    _require_writable(output)
    table, text = read_schema(schema)
    from dataclasses import replace

    import numpy as np

    from aevorium.auditing.audit import audit_privacy
    from aevorium.auditing.tables import make_tables
    from aevorium.cli.progress_view import ProgressView
    from aevorium.cli.study_options import run_options
    from aevorium.errors import AevoriumError, ConfigError
    from aevorium.planning import node_names, plan_study
    from aevorium.privacy.plan import MIN_AGGREGATED
    from aevorium.workspace import write_atomically

    console = console_of(context)
    # The model is not what is audited: what nodes release of records is, and pre-training reads none.
    options = replace(run_options(settings, records=records), pretraining_steps=0, device="cpu")
    names = node_names(nodes or (MIN_AGGREGATED if settings.trust == "secure-aggregation" else 1))
    if records < len(names):
        raise ConfigError("CONFIG_INVALID", f"--records {records} is too few. Each of {len(names)} nodes needs one.")
    plan = plan_study(table, names, options)
    with (
        tempfile.TemporaryDirectory(prefix="aevorium-audit-", ignore_cleanup_errors=True) as scratch,
        ProgressView(console) as view,
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
    headings = ("release", "times", "moved by one record", "charged for", "noise found", "planned", "verdict")
    rows = [
        (
            item.release,
            f"{item.times:,}",
            *("–" if value is None else f"{value:.4g}" for value in _measured(item)),
            "; ".join(item.problems) or ("only attacked" if item.planned is None else "ok"),
        )
        for item in audit.releases
    ]
    console.table(headings, rows, numbers=headings[1:-1])
    console.say(
        f"The attack knows all but whether the canary was there. It finds {100 * audit.true_positive_rate:.1f} % of "
        f"the canaries at {100 * audit.false_positive_rate:.1f} % false alarms; the plan allows "
        f"{100 * audit.allowed_true_positive_rate:.1f} %."
    )
    sure = f"confidence {100 * audit.confidence:g} %"
    normal = "" if audit.gaussian_epsilon is None else f", and {audit.gaussian_epsilon:.2f} if the noise is normal"
    console.say(
        f"That shows an ε of {audit.least_epsilon:.2f} whatever the mechanism{normal} ({sure}); "
        f"promised is at most {audit.epsilon:g}."
    )
    if not audit.could_be_refuted:
        enough = audit.refuting_repeats
        more = "no number of repeats would do" if enough is None else f"--repeats {enough} would do"
        console.warn(
            f"In {audit.repeats:,} repeats not even a perfect attack could have contradicted the plan; {more}."
        )
    if audit.passed:
        console.say("Passed: nothing contradicts the plan. That is no proof of it; the proof is in the accounting.")


def _measured(item: ReleaseAudit) -> tuple[float | None, ...]:
    return (item.moved, item.allowed, item.noise, item.planned)


def _require_writable(output: Path | None) -> None:
    """Before minutes are spent."""
    if output is None:
        return
    from aevorium.errors import ConfigError

    try:
        if output.is_dir():
            raise IsADirectoryError(f"{str(output)!r} is a folder")
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise ConfigError(
            "CONFIG_INVALID",
            f"--output {str(output)!r} cannot be written. {error.strerror or error}.",
            hint="Name another file.",
        ) from error
