"""`aevorium demo`: the whole way, from simulated hospitals to a scored synthetic table."""

from __future__ import annotations

from datetime import datetime

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import Seed, WorkspaceFolder

__all__ = ["demo"]


def demo(context: typer.Context, workspace: WorkspaceFolder = None, seed: Seed = None) -> dict[str, object]:
    """Trains across three simulated hospitals at ε = 3, generates a table and scores it on patients kept aside."""
    from aevorium.cli.workspaces import new_demo_folder
    from aevorium.errors import ConfigError
    from aevorium.settings import load_settings
    from aevorium.workspace import Workspace

    settings = load_settings({"workspace": workspace, "seed": seed}).values
    console = console_of(context)
    root = settings.workspace if workspace else new_demo_folder(settings.workspace, now=datetime.now().astimezone())
    if Workspace(root).database.exists():
        raise ConfigError(
            "CONFIG_INVALID",
            f"--workspace {str(root)!r} is not possible. It holds a run, and every demo needs a new workspace.",
            hint="Give another folder, or leave --workspace out.",
        )
    folder = Workspace(root).create()
    from aevorium.cli.commands.validate import compare
    from aevorium.cli.interrupt import Interrupt
    from aevorium.cli.progress_view import ProgressView
    from aevorium.cli.study_options import run_options
    from aevorium.cli.summaries import spend_data, tell_files, tell_simulated, tell_spend
    from aevorium.demo import make_tables
    from aevorium.generation import generate_table
    from aevorium.governance.secrets import Secrets
    from aevorium.inputs import read_schema, write_node_files
    from aevorium.pipeline import NodeSource, run_federation
    from aevorium.planning import plan_study

    tell_simulated(is_simulated=True, console=console)
    schema, text = read_schema("synthea")
    with ProgressView(console) as view, Interrupt(console, leaves=True) as interrupt:
        tables = make_tables(folder.root / "data", seed=settings.seed, report=view)
        options = run_options(settings, records=None)
        result = run_federation(
            schema,
            schema_text=text,
            plan=plan_study(schema, list(tables.nodes), options),
            nodes=[NodeSource(name, path) for name, path in tables.nodes.items()],
            workspace=folder,
            secrets=Secrets.of(settings),
            options=options,
            report=view,
            should_stop=interrupt.is_requested,
        )
        write_node_files(folder, nodes=tables.nodes, holdout=tables.holdout)
        made = generate_table(
            workspace=folder,
            secrets=Secrets.of(settings),
            output=folder.synthetic,
            seed=settings.seed,
            device=settings.device,
            report=view,
        )
    scores = compare(
        folder,
        synthetic=folder.synthetic,
        real=list(tables.nodes.values()),
        holdout=tables.holdout,
        seed=settings.seed,
        console=console,
    )
    tell_spend(result.record, console=console)
    tell_files((made.path, *result.outputs, folder.local_report_html), folder=folder.root, console=console)
    tell_simulated(is_simulated=True, console=console)
    console.say(f"Look at {folder.report_html} and {folder.privacy_statement}. Then try your own tables:")
    console.say("  aevorium run --schema synthea --node NAME=FILE.csv --node NAME=FILE.csv --workspace study")
    return {
        "workspace": str(folder.root),
        "is_simulated": True,
        "epsilon": result.record.plan.epsilon,
        "nodes": spend_data(result.record),
        "rows": made.rows,
        **scores,
    }
