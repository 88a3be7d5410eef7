"""`aevorium config`: the settings in force."""

from __future__ import annotations

import typer

from aevorium.cli.console import console_of, plain

__all__ = ["app"]

app = typer.Typer(help="The settings in force, and where each came from.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group, although it holds one command."""


@app.command("show")
def show(context: typer.Context) -> dict[str, object]:
    """Shows each setting with its value and origin: flag, environment, aevorium.toml or default."""
    from pydantic import SecretStr

    from aevorium.settings import Settings, environment_names, load_settings

    console = console_of(context)
    found = load_settings()
    # A secret is never shown, only whether there is one.
    values = {
        name: "set, not shown" if isinstance(value, SecretStr) else value
        for name, value in found.values.model_dump().items()
    }
    rows = [
        (
            name,
            "unset" if value in (None, (), {}) else str(value),
            found.origins[name].text,
            ", ".join(environment_names(name)),
        )
        for name, value in values.items()
    ]
    console.table(("setting", "value", "origin", "environment variables"), rows)
    console.say("A flag wins over the environment, the environment over aevorium.toml, that over the default.")
    return {
        name: {
            "value": plain(value),
            "origin": found.origins[name].kind,
            "origin_name": found.origins[name].text,
            "environment": list(environment_names(name)),
            "description": Settings.model_fields[name].description,
        }
        for name, value in values.items()
    }
