"""`aevorium runs`: orders runs, and tells what became of them. A worker conducts them: the API's, or the server's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import Console, console_of
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
    Trust,
    WorkspaceFolder,
)

if TYPE_CHECKING:
    from aevorium.settings import Settings
    from aevorium.state.jobs import Job, JobStore

__all__ = ["app"]

app = typer.Typer(help="Runs that are ordered now and conducted when their turn comes.", no_args_is_help=True)

_LOOK = 0.5

RunId = Annotated[str, typer.Argument(help="The run's id, as 'aevorium runs list' shows it.")]


@app.command("submit")
def submit(
    context: typer.Context,
    schema: SchemaSource = "synthea",
    epsilon: Epsilon = None,
    delta: Delta = None,
    workspace: WorkspaceFolder = None,
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
) -> dict[str, object]:
    """Orders a run. It waits until a worker takes it."""
    from pydantic import ValidationError

    from aevorium.errors import ConfigError
    from aevorium.governance.chain import AuditChain
    from aevorium.governance.secrets import Secrets
    from aevorium.inputs import read_schema
    from aevorium.jobs.ordering import prepare_run, submit_run
    from aevorium.jobs.orders import Choices
    from aevorium.workspace import Workspace

    jobs, settings = _jobs(workspace)
    _, text = read_schema(schema)
    try:
        choices = Choices.model_validate(
            {
                "epsilon": epsilon,
                "delta": delta,
                "recipe": recipe,
                "trust": trust,
                "rounds": rounds,
                "epochs": epochs,
                "batch_size": batch_size,
                "noise_multiplier": noise_multiplier,
                "records": records,
                "evaluation_share": evaluation_share,
                "seed": seed,
                "purpose": purpose,
            }
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        raise ConfigError(
            "CONFIG_INVALID", f"{name} = {problem['input']!r} is not possible. {problem['msg']}."
        ) from error
    order = prepare_run(text, choices, settings=settings, nodes=tuple(settings.nodes))
    target = Workspace(settings.workspace).create()
    chain = AuditChain(target.database, key=Secrets.of(settings).log)
    job = submit_run(order, jobs=jobs, chain=chain, actor="command line")
    chain.write_view(target.audit_log)
    console = console_of(context)
    console.say(f"Run {job.id} waits for its turn. Watch it with: aevorium runs watch {job.id}")
    return _data(job)


@app.command("list")
def listed(context: typer.Context, workspace: WorkspaceFolder = None) -> dict[str, object]:
    """Lists every run that was ordered, newest first."""
    jobs, _ = _jobs(workspace)
    found = jobs.since("", kind="train")[::-1]
    rows = [
        (job.id, job.state, _target(job), job.created_at[:19], (job.ended_at or "–")[:19], _code(job)) for job in found
    ]
    console_of(context).table(("run", "state", "ε", "ordered", "ended", "error"), rows, numbers=("ε",))
    return {"runs": [_data(job) for job in found]}


@app.command("show")
def show(context: typer.Context, run: RunId, workspace: WorkspaceFolder = None) -> dict[str, object]:
    """Shows one run."""
    jobs, settings = _jobs(workspace)
    job = jobs.find(run, kind="train")
    _tell_end(job, settings=settings, console=console_of(context))
    return _data(job)


@app.command("watch")
def watch(context: typer.Context, run: RunId, workspace: WorkspaceFolder = None) -> dict[str, object]:
    """Shows what a run does until it ends. Ctrl-C ends the watching, not the run."""
    jobs, settings = _jobs(workspace)
    console = console_of(context)
    job, last = jobs.find(run, kind="train"), 0
    while True:
        job = jobs.find(run, kind="train")
        while story := jobs.story(job, after=last):
            for told in story:
                last = told.number
                _tell_event(told.event, console=console)
        if job.has_ended:
            break
        time.sleep(_LOOK)
    _tell_end(job, settings=settings, console=console)
    return _data(job)


@app.command("stop")
def stop(context: typer.Context, run: RunId, workspace: WorkspaceFolder = None) -> dict[str, object]:
    """Asks a run to stop. What nodes have released stays charged."""
    from aevorium.governance.chain import AuditChain
    from aevorium.governance.secrets import Secrets
    from aevorium.workspace import Workspace

    jobs, settings = _jobs(workspace)
    jobs.find(run, kind="train")
    job = jobs.request_stop(run)
    target = Workspace(settings.workspace)
    chain = AuditChain(target.database, key=Secrets.of(settings).log)
    chain.append(actor="command line", action="run_stop_asked", detail={"job": job.id, "state": job.state})
    chain.write_view(target.audit_log)
    said = (
        "has stopped" if job.state == "stopped" else f"is {job.state}" if job.has_ended else "stops when it next looks"
    )
    console_of(context).say(f"Run {job.id} {said}.")
    return _data(job)


def _jobs(workspace: Path | None) -> tuple[JobStore, Settings]:
    from aevorium.api.configuration import database_of
    from aevorium.settings import load_settings
    from aevorium.state.jobs import JobStore
    from aevorium.state.store import Store

    settings = load_settings({"workspace": workspace}).values
    return JobStore(Store(database_of(settings))), settings


def _data(job: Job) -> dict[str, object]:
    shown = {name: value for name, value in vars(job).items() if name not in ("number", "request", "kind")}
    return {**shown, "epsilon": job.request["epsilon"], "study": job.request["study"]}


def _target(job: Job) -> str:
    epsilon = job.request["epsilon"]
    return "∞" if epsilon is None else f"{epsilon:g}"


def _code(job: Job) -> str:
    return "–" if job.error is None else str(job.error["code"])


def _tell_event(event: Mapping[str, object], *, console: Console) -> None:
    kind = event["event"]
    if kind == "phase_started":
        console.note(f"{event['phase']}")
    elif kind == "server_listening":
        console.note(f"Waiting for {event['needed']} nodes at {event['address']}")
    elif kind == "nodes_online":
        names = event["names"]
        shown = ", ".join(map(str, names)) if isinstance(names, list) and names else "none"
        console.note(f"Nodes online: {shown}; {event['needed']} are needed")
    elif kind == "round_finished":
        place = f"Round {event['round']} of {event['rounds']}"
        console.note(f"{place}: loss {event['loss']:.4g} (noisy), ε {event['spent']:.3g} spent")
    elif kind == "step_progress":
        console.note(f"  {event['label']}: {event['done']} of {event['total']}")


def _tell_end(job: Job, *, settings: Settings, console: Console) -> None:
    from aevorium.workspace import Workspace

    console.say(f"Run {job.id}: {job.state}, ε = {_target(job)}, ordered by {job.actor} at {job.created_at[:19]}")
    if job.error is not None:
        console.say(f"{job.error['code']}: {job.error['message']} {job.error['hint']}")
    if job.state == "succeeded":
        folder = Workspace(settings.workspace).runs / job.id
        console.say(f"Its results are in {folder}. Next: aevorium generate --workspace {folder}")
