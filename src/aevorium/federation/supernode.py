"""Flower's SuperNode: carries messages between the server and the resident node. Run as a process of its own.

It runs no ClientApp: the resident node (`aevorium.node`) fetches each message from it over loopback and hands the
reply back. Its connections to the server are outbound only.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from aevorium.federation.child import be_a_child, tell_parent

__all__ = ["SupernodeConfig", "main"]

_WAIT = 0.02


class SupernodeConfig(BaseModel):
    """What a SuperNode is started with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str = Field(description="Host and port of the server.")
    root_certificates: str = Field(description="The authority that signed the server's certificate, PEM.")
    private_key: str = Field(description="The node's key, PEM.")
    name: str = Field(description="The node's name.")
    secret: str = Field(description="What it asks for before it hands out a message.")
    folder: Path = Field(description="Where Flower may keep files.")


def main() -> None:
    """Carries messages until the parent says so, or is gone."""
    config = be_a_child(SupernodeConfig)
    os.environ["FLWR_HOME"] = str(config.folder)
    import uvicorn

    from aevorium.federation.flower_internals.processes import run_supernode, supernode_app

    app, state = supernode_app(config.secret.encode())
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True).start()
    while not server.started:
        time.sleep(_WAIT)
    tell_parent(event="ready", port=door.getsockname()[1])
    run_supernode(
        state,
        server=config.server,
        root_certificates=config.root_certificates.encode(),
        private_key=config.private_key.encode(),
        node_config={"name": config.name},
        connected=lambda: tell_parent(event="connected"),
        sent=lambda: tell_parent(event="sent"),
    )


if __name__ == "__main__":
    main()
