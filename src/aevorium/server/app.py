"""The server's Flower app."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

__all__ = ["create_server_app"]


def create_server_app(conduct: Callable[[Grid], None]) -> ServerApp:
    """An app whose run conducts one study.

    Args:
        conduct: Runs the study over the grid that Flower hands to the app.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        conduct(grid)

    return app
