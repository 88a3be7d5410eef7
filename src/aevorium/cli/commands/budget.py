"""`aevorium budget`: what nodes have spent."""

from __future__ import annotations

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import WorkspaceFolder

__all__ = ["app"]

app = typer.Typer(help="The privacy budget of the nodes.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group, although it holds one command."""


@app.command("show")
def show(context: typer.Context, workspace: WorkspaceFolder = None) -> dict[str, object]:
    """Shows what each node of a workspace spent in its run, and what is left of its limit."""
    from aevorium.cli.workspaces import existing_workspace
    from aevorium.settings import load_settings

    console = console_of(context)
    folder = existing_workspace(load_settings({"workspace": workspace}).values.workspace, console=console)
    from aevorium.cli.summaries import spend_data, tell_privacy, tell_simulated, tell_spend
    from aevorium.pipeline import load_study

    record, _ = load_study(folder)
    tell_simulated(is_simulated=record.is_simulated_data, console=console)
    tell_spend(record, console=console)
    tell_privacy(record.plan, console=console)
    return {"epsilon": record.plan.epsilon, "delta": record.plan.delta, "nodes": spend_data(record)}
