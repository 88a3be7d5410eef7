"""`aevorium dashboard`: pages for people, over the API."""

from __future__ import annotations

from typing import Annotated

import typer

from aevorium.cli.console import console_of

__all__ = ["dashboard"]


def dashboard(
    context: typer.Context,
    api: Annotated[
        str | None,
        typer.Option("--api", help="Address of the API. [default: http://localhost:8000]", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "localhost",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Its port.")] = 8501,
) -> None:
    """Serves the dashboard: runs, tables, quality, budget, audit log and statement, over the API alone."""
    from aevorium.dashboard.launch import launch
    from aevorium.settings import load_settings

    settings = load_settings({"api_url": api}).values
    console = console_of(context)
    console.say(f"The dashboard listens on http://{host}:{port}, and asks the API at {settings.api_url}")
    launch(settings, host=host, port=port)
