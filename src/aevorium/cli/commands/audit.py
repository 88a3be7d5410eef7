"""`aevorium audit`: the audit log of a workspace, and whether everything in it agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import Home, WorkspaceFolder

__all__ = ["app"]

app = typer.Typer(help="The audit log: who did what, and whether it can be believed.", no_args_is_help=True)

NodeName = Annotated[
    str | None, typer.Option("--node", help="The chain of this node instead of the server's.", show_default=False)
]


def _chain_file(context: typer.Context, workspace: Path | None, node: str | None) -> Path:
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
    return path


@app.command("show")
def show(context: typer.Context, workspace: WorkspaceFolder = None, node: NodeName = None) -> dict[str, object]:
    """Shows the entries, oldest first."""
    path = _chain_file(context, workspace, node)
    from aevorium.governance.chain import AuditChain

    entries = AuditChain(path).entries()
    rows = [(str(entry.seq), entry.time[:19], entry.actor, entry.action, entry.hash[:12]) for entry in entries]
    console_of(context).table(("entry", "time (UTC)", "actor", "action", "hash"), rows, numbers=("entry",))
    return {"entries": [entry.model_dump() for entry in entries]}


@app.command("export")
def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", help="The file to write.")],
    workspace: WorkspaceFolder = None,
    node: NodeName = None,
) -> dict[str, object]:
    """Writes the chain to a file that `audit verify FILE` checks anywhere."""
    path = _chain_file(context, workspace, node)
    from aevorium.governance.chain import AuditChain

    AuditChain(path).write_view(output)
    console_of(context).say(f"Written: {output}")
    return {"path": str(output)}


@app.command("verify")
def verify(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="An exported audit log; the workspace if absent.")] = None,
    workspace: WorkspaceFolder = None,
    home: Home = None,
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", help="The steward's public key, as a file (steward.pub) or in hex; with FILE."),
    ] = None,
) -> dict[str, object]:
    """Checks chains, signatures, ledgers, budget and statement against each other, or an exported log by itself."""
    from aevorium.errors import ArtefactError, ConfigError
    from aevorium.verification import verify_export, verify_workspace

    console = console_of(context)
    if file is None and public_key is not None:
        raise ConfigError(
            "CONFIG_INVALID", "--public-key is given without FILE. In a workspace, each node has a key of its own."
        )
    if file is not None:
        from aevorium.governance.steward import read_public_key

        result = verify_export(file, public_key=None if public_key is None else read_public_key(public_key))
    else:
        from aevorium.cli.workspaces import existing_workspace, node_homes
        from aevorium.settings import load_settings

        settings = load_settings({"workspace": workspace, "node_home": home}).values
        folder = existing_workspace(settings.workspace, console=console)
        result = verify_workspace(folder, homes=node_homes(folder, home=settings.node_home))
    for line in result.findings:
        console.say(line)
    if not result.is_sound:
        broken = next(check for check in result.checks if check.is_sound is False)
        raise ArtefactError("AUDIT_BROKEN", f"{broken.subject} does not verify. {broken.text}")
    is_whole = all(check.is_sound for check in result.checks)
    console.say("Everything agrees." if is_whole else "What could be checked here agrees.")
    return {"is_sound": True, "checks": [vars(check) for check in result.checks]}
