"""`aevorium keys`: the keys of the checkpoints, and the public half of the audit log's; never a key itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import WorkspaceFolder

if TYPE_CHECKING:
    from aevorium.cli.console import Console
    from aevorium.governance.secrets import Secrets
    from aevorium.workspace import Workspace

__all__ = ["app"]

app = typer.Typer(help="The keys that checkpoints are encrypted with.", no_args_is_help=True)


@app.command("show")
def show(context: typer.Context) -> dict[str, object]:
    """Shows where the keys are and their ids, not the keys; and the public key of the server's audit log."""
    from aevorium.governance.secrets import Secrets
    from aevorium.settings import load_settings

    console = console_of(context)
    secrets = Secrets.of(load_settings().values)
    keys = secrets.keys
    ids = keys.load().key_ids if keys.exists() else ()
    public = secrets.log.public_key if secrets.log.exists() else None
    console.say(f"Keys in:   {keys.place}" if ids else f"No key yet. The first run makes it in {keys.place}")
    for number, key_id in enumerate(ids):
        console.say(f"Key id:    {key_id}{' (encrypts)' if number == 0 else ' (older, only decrypts)'}")
    console.say(f"Audit key: {public or 'none yet'} (public half)")
    return {
        "source": keys.source,
        "place": keys.place,
        "exists": bool(ids),
        "key_id": ids[0] if ids else None,
        "older": list(ids[1:]),
        "audit_public_key": public,
    }


@app.command("rotate")
def rotate(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Afterwards drop all older keys: other workspaces may need them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before keys are dropped.")] = False,
) -> dict[str, object]:
    """Makes a new key and encrypts every checkpoint of the workspace with it, or finishes what was cut off."""
    from aevorium.cli.workspaces import workspaces_under
    from aevorium.errors import ConfigError
    from aevorium.governance.secrets import Secrets
    from aevorium.settings import load_settings

    console = console_of(context)
    if drop_old and not yes and console.is_json:
        raise ConfigError("CONFIG_INVALID", "--yes is missing. With --json, nobody can be asked.")
    settings = load_settings({"workspace": workspace}).values
    folders = workspaces_under(settings.workspace)
    from aevorium.rotation import rotate_keys

    secrets = Secrets.of(settings)
    result = rotate_keys(folders, secrets=secrets, done=lambda path: console.note(f"Encrypted anew: {path}"))
    console.say(f"{'New key' if result.is_new else 'Finished with key'}: {result.key_id}, in {secrets.keys.place}")
    console.say(f"{len(result.files)} checkpoints encrypted anew in {len(folders)} workspaces.")
    dropped: tuple[str, ...] = ()
    if drop_old:
        dropped = _drop(folders, older=result.older, secrets=secrets, console=console, yes=yes)
    elif result.older:
        console.say(f"Older keys still decrypt: {', '.join(result.older)}. Drop them with --drop-old.")
    return {
        "key_id": result.key_id,
        "older": [key_id for key_id in result.older if key_id not in dropped],
        "is_new": result.is_new,
        "files": [str(path) for path in result.files],
        "dropped": list(dropped),
    }


def _drop(
    folders: tuple[Workspace, ...], *, older: tuple[str, ...], secrets: Secrets, console: Console, yes: bool
) -> tuple[str, ...]:
    from aevorium.errors import AevoriumError
    from aevorium.rotation import drop_old_keys

    if older and not yes:
        names = ", ".join(str(folder.root) for folder in folders)
        console.warn(f"Checkpoints that lie elsewhere than in {names} may need the keys {', '.join(older)}.")
        if not typer.confirm("Drop them for good?", err=True):
            raise AevoriumError("RUN_INTERRUPTED", "No key was dropped. You said no.", hint="Type the command again.")
    dropped = drop_old_keys(folders, secrets=secrets)
    console.say(f"Dropped: {', '.join(dropped)}" if dropped else "There was no older key to drop.")
    return dropped
