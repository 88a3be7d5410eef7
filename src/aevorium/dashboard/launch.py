"""Starts Streamlit with the dashboard's script."""

from __future__ import annotations

import os
from pathlib import Path

from aevorium.settings import Settings, environment_names

__all__ = ["SCRIPT", "launch"]

SCRIPT = Path(__file__).parent / "script" / "app.py"
"""What Streamlit runs; `.streamlit/config.toml` beside it says that nothing is told to anyone."""


def launch(settings: Settings, *, host: str, port: int) -> None:
    """Serves the dashboard until the process is stopped.

    Args:
        settings: Where the API is, and where people sign in.
        host: Address to listen on.
        port: Its port.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    from streamlit.web import cli

    from aevorium.dashboard import provider

    provider.introduce(settings, port=port)
    # The pages read their settings themselves: they are run anew for every person, by Streamlit.
    os.environ[environment_names("api_url")[0]] = settings.api_url
    arguments = ["run", str(SCRIPT), f"--server.address={host}", f"--server.port={port}"]
    cli.main(arguments, prog_name="streamlit", standalone_mode=False)
