"""`aevorium audit`: the audit log of a workspace, and whether everything in it agrees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import Home, WorkspaceFolder

if TYPE_CHECKING:
    from aevorium.governance.chain import AuditChain

__all__ = ["app"]

app = typer.Typer(help="The audit log: who did what, and whether it can be believed.", no_args_is_help=True)

NodeName = Annotated[
    str | None, typer.Option("--node", help="The chain of this node instead of the server's.", show_default=False)
]


def _chain(context: typer.Context, workspace: Path | None, node: str | None) -> AuditChain:
    """The chain, with the key that signs it where this machine has it."""
    from aevorium.cli.workspaces import existing_workspace, node_folder
    from aevorium.errors import ArtefactError
    from aevorium.settings import load_settings

    settings = load_settings({"workspace": workspace}).values
    folder = existing_workspace(settings.workspace, console=console_of(context))
    path = folder.database if node is None else node_folder(folder, node, home=settings.node_home) / "audit.db"
    if not path.is_file():
        raise ArtefactError(
            "ARTEFACT_NOT_FOUND",
            f"No audit chain {str(path)!r}. No run was started there.",
            hint="Run 'aevorium run' or 'aevorium demo' first, or give --workspace.",
        )
    from aevorium.governance.chain import AuditChain
    from aevorium.governance.secrets import Secrets
    from aevorium.governance.steward import steward_key

    key = Secrets.of(settings).log if node is None else steward_key(path.parent)
    return AuditChain(path, key=key if key.exists() else None)


@app.command("show")
def show(context: typer.Context, workspace: WorkspaceFolder = None, node: NodeName = None) -> dict[str, object]:
    """Shows the entries, oldest first."""
    chain = _chain(context, workspace, node)
    entries, checkpoints = chain.entries(), chain.checkpoints()
    rows = [(str(entry.seq), entry.time[:19], entry.actor, entry.action, entry.hash[:12]) for entry in entries]
    console_of(context).table(("entry", "time (UTC)", "actor", "action", "hash"), rows, numbers=("entry",))
    console_of(context).say(f"{len(checkpoints)} signed checkpoints.")
    return {"entries": [entry.model_dump() for entry in entries], "checkpoints": checkpoints}


@app.command("export")
def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", help="The file to write.")],
    workspace: WorkspaceFolder = None,
    node: NodeName = None,
) -> dict[str, object]:
    """Writes the chain, signed to its end, to a file that `audit verify FILE` checks anywhere."""
    chain = _chain(context, workspace, node)
    from aevorium.governance.log_file import judge_log, read_log

    chain.sign()
    chain.write_view(output)
    judgement = judge_log(read_log(output))
    console = console_of(context)
    console.say(f"Written: {output}")
    if judgement.signed is not None:
        console.say(f"{judgement.signed}.")
    for problem in filter(None, (judgement.problem, judgement.signing_problem)):
        console.warn(f"It will not verify. {problem}")
    return {"path": str(output), "public_key": judgement.public_key}


@app.command("verify")
def verify(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="An exported audit log; the workspace if absent.")] = None,
    workspace: WorkspaceFolder = None,
    home: Home = None,
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", help="The key of the log, as a file (steward.pub, audit.pub) or in hex."),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option("--earlier", help="An earlier export that FILE must continue: shows what was cut off since."),
    ] = None,
) -> dict[str, object]:
    """Checks chains, signatures, ledgers, budget and statement against each other, or an exported log by itself."""
    from aevorium.errors import ArtefactError, ConfigError
    from aevorium.governance.signing import read_public_key
    from aevorium.verification import verify_export, verify_workspace

    console = console_of(context)
    key = None if public_key is None else read_public_key(public_key)
    if file is not None:
        result = verify_export(file, public_key=key, earlier=earlier)
    elif earlier is not None:
        raise ConfigError("CONFIG_INVALID", "--earlier is given without FILE. Only an exported log continues another.")
    else:
        from aevorium.cli.workspaces import existing_workspace, node_homes
        from aevorium.governance.secrets import Secrets
        from aevorium.settings import load_settings

        settings = load_settings({"workspace": workspace, "node_home": home}).values
        folder = existing_workspace(settings.workspace, console=console)
        log = Secrets.of(settings).log
        homes, own_key = node_homes(folder, home=settings.node_home), log.public_key if log.exists() else None
        if folder.runs.is_dir():
            from aevorium.jobs.checks import verify_server
            from aevorium.jobs.folders import RunFolders

            result = verify_server(RunFolders(folder), homes=homes, public_key=key, own_key=own_key)
        else:
            result = verify_workspace(folder, homes=homes, public_key=key, own_key=own_key)
    for line in result.findings:
        console.say(line)
    if not result.is_sound:
        broken = next(check for check in result.checks if check.is_sound is False)
        raise ArtefactError("AUDIT_BROKEN", f"{broken.subject} does not verify. {broken.text}")
    is_whole = all(check.is_sound for check in result.checks)
    console.say("Everything agrees." if is_whole else "What could be checked here agrees.")
    return {"is_sound": True, "checks": [vars(check) for check in result.checks]}
