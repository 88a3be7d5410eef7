"""Starts Streamlit with the dashboard's script."""

from __future__ import annotations

import os
from pathlib import Path

from aevorium.settings import environment_names

__all__ = ["SCRIPT", "launch"]

SCRIPT = Path(__file__).parent / "script" / "app.py"
"""What Streamlit runs; `.streamlit/config.toml` beside it says that nothing is told to anyone."""


def launch(*, api_url: str, host: str, port: int) -> None:
    """Serves the dashboard until the process is stopped.

    Args:
        api_url: Where the API is.
        host: Address to listen on.
        port: Its port.
    """
    from streamlit.web import cli

    # The pages read their settings themselves: they are run anew for every person, by Streamlit.
    os.environ[environment_names("api_url")[0]] = api_url
    arguments = ["run", str(SCRIPT), f"--server.address={host}", f"--server.port={port}"]
    cli.main(arguments, prog_name="streamlit", standalone_mode=False)
