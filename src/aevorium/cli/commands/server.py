"""`aevorium server`: waits for nodes on other machines, or in other terminals, and conducts a study."""

from __future__ import annotations

from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import (
    BatchSize,
    Delta,
    Epochs,
    Epsilon,
    EvaluationShare,
    NoiseMultiplier,
    Purpose,
    Recipe,
    Records,
    Rounds,
    SchemaSource,
    Seed,
    Timeout,
    Trust,
    WorkspaceFolder,
)

__all__ = ["server"]


def server(
    context: typer.Context,
    schema: SchemaSource = "synthea",
    epsilon: Epsilon = None,
    delta: Delta = None,
    workspace: WorkspaceFolder = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", help="Its port (env SERVER_PORT, default 8091).", show_default=False)
    ] = None,
    known_as: Annotated[
        list[str] | None,
        typer.Option("--known-as", help="A name or address under which nodes reach the server; repeat it."),
    ] = None,
    enrol: Annotated[
        list[str] | None,
        typer.Option("--enrol", help="NAME=KEY.pub: lets in a node of another machine; repeat it."),
    ] = None,
    min_nodes: Annotated[
        int | None,
        typer.Option(
            "--min-nodes",
            help="Nodes to wait for, and without which a phase fails (env AEVORIUM_MIN_NODES, default 2).",
            show_default=False,
        ),
    ] = None,
    timeout: Timeout = None,
    recipe: Recipe = None,
    trust: Trust = None,
    seed: Seed = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    noise_multiplier: NoiseMultiplier = None,
    records: Records = None,
    evaluation_share: EvaluationShare = 0.0,
    purpose: Purpose = "synthetic data",
    queue: Annotated[
        bool, typer.Option("--queue", help="Stay, and conduct the runs that are ordered over the API, one by one.")
    ] = False,
) -> dict[str, object]:
    """Starts the federation server, waits for nodes, conducts a study and leaves its results in the workspace.

    With --json, every event is one line on the standard output, and the result is the last one.
    """
    from aevorium.inputs import parse_keys, read_schema
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
        "server_port": port,
        "min_nodes": min_nodes,
        "timeout": timeout,
    }
    settings = load_settings(flags).values
    keys = parse_keys(enrol or [])
    table, text = read_schema(schema)
    from aevorium.cli.event_stream import EventStream
    from aevorium.cli.interrupt import Interrupt
    from aevorium.cli.progress_view import ProgressView
    from aevorium.cli.study_options import run_options
    from aevorium.cli.summaries import run_data, tell_privacy, tell_result
    from aevorium.governance.secrets import Secrets
    from aevorium.serving import ServerOptions, serve_study
    from aevorium.workspace import Workspace

    console = console_of(context)
    target = Workspace(settings.workspace)
    place = ServerOptions(
        host=host,
        port=settings.server_port,
        names=tuple(known_as or ()),
        enrol=keys,
        min_nodes=settings.min_nodes,
    )
    if queue:
        from aevorium.cli.working import work_through
        from aevorium.jobs.sites import ServerSite

        work_through(settings, site=ServerSite(target, place), console=console)
        return {"workspace": str(target.root)}
    options = run_options(
        settings,
        records=records,
        min_nodes=settings.min_nodes,
        purpose=purpose,
        evaluation_share=evaluation_share,
    )
    with ProgressView(console) as view, Interrupt(console) as interrupt:
        result = serve_study(
            table,
            schema_text=text,
            server=place,
            options=options,
            workspace=target,
            secrets=Secrets.of(settings),
            report=EventStream(view, console=console),
            announce=lambda plan: tell_privacy(plan, console=console),
            should_stop=interrupt.is_requested,
        )
    tell_result(result, folder=target, console=console)
    return run_data(result, folder=target)
