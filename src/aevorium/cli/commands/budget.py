"""`aevorium budget`: what nodes have spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import WorkspaceFolder

__all__ = ["app"]

app = typer.Typer(help="The privacy budget of the nodes.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group, although it holds one command."""


@app.command("show")
def show(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    node: Annotated[
        str | None, typer.Option("--node", help="The ledger of this node, release by release.", show_default=False)
    ] = None,
) -> dict[str, object]:
    """Shows what each node of a workspace spent in its run, and what is left of its limit."""
    from aevorium.cli.workspaces import existing_workspace, node_folder
    from aevorium.settings import load_settings

    console = console_of(context)
    settings = load_settings({"workspace": workspace}).values
    folder = existing_workspace(settings.workspace, console=console)
    if node is not None:
        return _show_node(node_folder(folder, node, home=settings.node_home), node, console=console)
    from aevorium.cli.summaries import (
        spend_data,
        tell_privacy,
        tell_simulated,
        tell_spend,
        tell_unfinished,
        with_ledgers,
    )
    from aevorium.server.record import load_study

    record = with_ledgers(load_study(folder)[0], folder)
    tell_unfinished(record, console=console)
    tell_simulated(is_simulated=record.is_simulated_data, console=console)
    tell_spend(record, console=console)
    tell_privacy(record.plan, console=console)
    return {
        "status": record.status,
        "epsilon": record.plan.epsilon,
        "delta": record.plan.delta,
        "nodes": spend_data(record),
    }


def _show_node(home: Path, node: str, *, console: Console) -> dict[str, object]:
    from aevorium.cli.progress_view import number
    from aevorium.cli.summaries import node_budget
    from aevorium.server.statement import describe_event

    view = node_budget(home, node)
    rows = [
        (run.run_id[:8], release.phase, str(release.round), release.time[:19], release.state, *describe_event(event))
        for run in view.runs
        for release in run.releases
        for event in release.events
    ]
    console.table(("run", "phase", "round", "time (UTC)", "state", "mechanism", "parameters"), rows, numbers=("round",))
    console.say(
        f"Period {view.period!r}: ε = {number(view.spent)} spent at δ = {view.max_delta:g}, "
        f"limit {number(view.max_epsilon)}, left {number(view.left)}."
    )
    return view.model_dump(mode="json")
