"""`aevorium keys`: the key of the checkpoints; never the key itself."""

from __future__ import annotations

import typer

from aevorium.cli.console import console_of

__all__ = ["app"]

app = typer.Typer(help="The key that checkpoints are encrypted with.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group, although it holds one command."""


@app.command("show")
def show(context: typer.Context) -> dict[str, object]:
    """Shows where the key lies and its id, not the key."""
    from aevorium.governance.keys import load_key
    from aevorium.settings import load_settings

    console = console_of(context)
    path = load_settings().values.key_file
    if not path.exists():
        console.say(f"No key yet. The first run makes it: {path}")
        return {"path": str(path), "exists": False, "key_id": None}
    key_id = load_key(path).key_id
    console.say(f"Key file: {path}")
    console.say(f"Key id:   {key_id}")
    return {"path": str(path), "exists": True, "key_id": key_id}
