"""The REST API of ./workspace: `uvicorn api.main:app`, for this machine alone unless keys exist."""

from aevorium.api.launch import app

__all__ = ["app"]
