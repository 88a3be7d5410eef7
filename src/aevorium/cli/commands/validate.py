"""`aevorium validate`: a synthetic table against real rows, on the machine that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import Seed, WorkspaceFolder

if TYPE_CHECKING:
    import pandas as pd

    from aevorium.inputs import NodeFiles
    from aevorium.schema.table import TableSchema
    from aevorium.server.record import StudyRecord
    from aevorium.workspace import Workspace

__all__ = ["compare", "validate"]


def validate(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    synthetic: Annotated[
        Path | None,
        typer.Option("--synthetic", help="The workspace's synthetic_data.csv if absent.", show_default=False),
    ] = None,
    real: Annotated[
        list[Path] | None,
        typer.Option("--real", help="Rows that the run trained on; repeat it for more files.", show_default=False),
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option("--holdout", help="Rows that the run did not train on.", show_default=False)
    ] = None,
    seed: Seed = None,
) -> dict[str, object]:
    """Compares a synthetic table with real rows and prints the scores. The report holds exact statistics."""
    from aevorium.cli.workspaces import existing_workspace
    from aevorium.settings import load_settings

    settings = load_settings({"workspace": workspace, "seed": seed}).values
    console = console_of(context)
    folder = existing_workspace(settings.workspace, console=console)
    from aevorium.errors import ConfigError
    from aevorium.inputs import read_node_files
    from aevorium.server.record import load_study

    record, _ = load_study(folder)
    known = read_node_files(folder)
    known = known or _tables_of_nodes(record, home=settings.node_home)
    sources = list(real or (known.nodes.values() if known else ()))
    if not sources:
        raise ConfigError(
            "CONFIG_INVALID",
            "No real rows to compare with. The workspace does not say which tables its nodes held.",
            hint="Give --real FILE.",
        )
    held = holdout or (known.holdout if known and not real else None)
    return compare(
        folder,
        synthetic=synthetic or folder.synthetic,
        real=sources,
        holdout=held,
        seed=settings.seed,
        console=console,
    )


def _tables_of_nodes(record: StudyRecord, *, home: Path) -> NodeFiles | None:
    """The tables that the run's nodes note in their own homes, if all of them live on this machine."""
    from aevorium.inputs import NodeFiles
    from aevorium.node.home import NodeHome

    tables = {name: NodeHome(home / name).tables() for name in record.plan.nodes}
    held = {name: noted for name, noted in tables.items() if noted is not None and noted.table.is_file()}
    if record.is_simulated_federation or len(held) < len(tables):
        return None
    holdout = next((noted.holdout for noted in held.values() if noted.holdout is not None), None)
    return NodeFiles(nodes={name: noted.table for name, noted in held.items()}, holdout=holdout)


def compare(
    folder: Workspace, *, synthetic: Path, real: Sequence[Path], holdout: Path | None, seed: int, console: Console
) -> dict[str, object]:
    """Scores a table, prints the scores and writes the local report. Reads patient records."""
    import pandas as pd

    from aevorium.evaluation.score import CARD_COLUMNS
    from aevorium.evaluation.scorecard import evaluate_tables
    from aevorium.generation import choice_of
    from aevorium.results import write_local_report
    from aevorium.server.record import load_study

    record, schema = load_study(folder)
    rows = _read(synthetic, schema, console=console)
    trained = pd.concat([_read(path, schema, console=console) for path in real], ignore_index=True)
    held = None if holdout is None else _read(holdout, schema, console=console)
    choice = choice_of(synthetic, workspace=folder)
    if choice is not None:
        console.warn(
            f"These rows were chosen by {choice}: they are no sample of the population. Compare them with real rows "
            "that were chosen alike."
        )
    found = evaluate_tables(
        synthetic=rows,
        real=trained,
        holdout=held,
        schema=schema,
        seed=seed,
        simulated=record.is_simulated_data,
        progress=lambda step: console.note(f"Comparing: {step}"),
    )
    card = found.card
    for note in card.notes:
        console.note(note)
    console.say(f"Synthetic rows compared with {card.compared_with}:")
    # The last column, a sentence for each score, is in the report.
    console.table(CARD_COLUMNS[:-1], [row[:-1] for row in card.rows()], numbers=CARD_COLUMNS[1:2])
    paths = write_local_report(folder, record=record, schema=schema, evaluation=found, rows=len(rows))
    console.say("Report: " + ", ".join(str(path) for path in paths))
    if card.marking:
        console.warn(f"That report holds {card.marking}.")
    return {
        "scores": {score.name: score.value for score in card.scores},
        "card": card.to_json(),
        "report": [str(path) for path in paths],
    }


def _read(path: Path, schema: TableSchema, *, console: Console) -> pd.DataFrame:
    """A table with all columns of the schema; derived ones are computed where a file lacks them."""
    from aevorium.data.table import read_table
    from aevorium.schema.rules import derive

    # Rows are compared, not released: nobody's id is asked for, and synthetic rows have none.
    table = read_table(path, schema.model_copy(update={"unit_id": None}))
    for line in table.findings.lines() if console.is_verbose else ():
        console.note(f"{path.name}: {line}")
    return derive(table.frame, schema)
