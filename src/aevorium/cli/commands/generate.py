"""`aevorium generate`: a table from the newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import Device, Seed, WorkspaceFolder

if TYPE_CHECKING:
    from aevorium.generation import GenerationResult

__all__ = ["generate"]


def generate(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, help="How many rows; as many as the noisy total if absent.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="A .csv or .parquet file; synthetic_data.csv if absent.", show_default=False),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help='Only rows that meet this condition, e.g. "Age > 65".', show_default=False),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option("--balance", help="Equal numbers of rows for each category of this column.", show_default=False),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    sampler: Annotated[str, typer.Option("--sampler", help="ddim (deterministic) or ddpm (ancestral).")] = "ddim",
    steps: Annotated[int, typer.Option("--steps", min=2, max=1000, help="Noise levels of the sampler.")] = 30,
) -> dict[str, object]:
    """Generates synthetic rows from the newest checkpoint of a workspace."""
    from aevorium.cli.workspaces import existing_workspace
    from aevorium.errors import ConfigError
    from aevorium.settings import load_settings

    if sampler not in ("ddim", "ddpm"):
        raise ConfigError("CONFIG_INVALID", f"--sampler = {sampler!r} is not possible. It should be ddim or ddpm.")
    chosen: Literal["ddim", "ddpm"] = "ddpm" if sampler == "ddpm" else "ddim"
    settings = load_settings({"workspace": workspace, "seed": seed, "device": device}).values
    console = console_of(context)
    folder = existing_workspace(settings.workspace, console=console)
    from aevorium.cli.progress_view import ProgressView, duration
    from aevorium.cli.summaries import tell_simulated
    from aevorium.generation import generate_table
    from aevorium.governance.secrets import Secrets

    with ProgressView(console) as view:
        result = generate_table(
            workspace=folder,
            secrets=Secrets.of(settings),
            output=output or folder.synthetic,
            rows=rows,
            where=where,
            balance=balance,
            seed=settings.seed,
            sampler=chosen,
            steps=steps,
            device=settings.device,
            report=view,
        )
    if not result.is_finished:
        console.warn("The run did not finish: these rows come from the model of its last round.")
    if not result.is_private:
        console.warn("NO PRIVACY: the model of these rows was trained with ε = ∞.")
    tell_simulated(is_simulated=result.is_simulated, console=console)
    if where is not None or balance is not None:
        console.note("These rows were chosen: they are no sample of the population, and shares in them are not its.")
    console.say(f"{result.rows:,} rows in {result.path}{_origin(result)}, in {duration(result.seconds)}.")
    return {
        "path": str(result.path),
        "rows": result.rows,
        "drawn": result.drawn,
        "rejected": result.rejected,
        "where": result.where,
        "balance": result.balance,
        "seconds": result.seconds,
        "is_simulated": result.is_simulated,
        "is_private": result.is_private,
        "is_finished": result.is_finished,
    }


def _origin(result: GenerationResult) -> str:
    """What else was drawn, if that says anything."""
    if result.where is not None or result.balance is not None:
        return f", chosen from {result.drawn:,} drawn"
    return f", {result.rejected:,} more turned away by constraints" if result.rejected else ""
