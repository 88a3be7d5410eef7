"""Flower's SuperLink, behind two doors. Run as a process of its own by `ServerLink`.

The public door serves nodes: Flower's Fleet API and `GET /health`, nothing else. Everything by which runs are started,
stopped and conducted, and nodes enrolled, is behind the private door: on loopback, and for who knows the secrets.
(Flower's own `flower-superlink` serves all of it on one port, to anyone.)
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from aevorium.federation.child import be_a_child, tell_parent

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["SuperlinkConfig", "is_for_nodes", "main", "only"]

_LARGEST_BODY = 16 * 1024 * 1024
"""Flower cuts arrays into parts of 5 MiB."""

_WAIT = 0.02

_ENROLMENT = frozenset({"/v1/fleet/register-node", "/v1/fleet/unregister-node"})
"""What nodes need only where anyone may enrol."""


class SuperlinkConfig(BaseModel):
    """What a SuperLink is started with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(description="Address of the public door.")
    port: int = Field(ge=0, le=65535, description="Port of the public door; 0 takes a free one.")
    folder: Path = Field(description="Where certificates lie.")
    token: str = Field(description="What the Control API asks for.")
    secret: str = Field(description="What the Runtime API asks for before it hands out a task.")


def main() -> None:
    """Serves until the parent says so, or is gone."""
    config = be_a_child(SuperlinkConfig)
    os.environ["FLWR_HOME"] = str(config.folder / "flower")
    try:
        public = _listen(config.host, config.port)
    except OSError as error:
        tell_parent(event="failed", code="PORT_UNAVAILABLE", reason=error.strerror or type(error).__name__)
        sys.exit(1)
    private = _listen("127.0.0.1", 0)
    from aevorium.federation.flower_internals.processes import superlink_app

    folder = config.folder
    app = superlink_app(
        certificates=(folder / "ca.crt", folder / "server.crt", folder / "server.key"),
        token=config.token,
        secret=config.secret.encode(),
    )
    ports = {"public_port": public.getsockname()[1], "private_port": private.getsockname()[1]}
    asyncio.run(_serve(app, public=public, private=private, folder=folder, ports=ports))


def is_for_nodes(method: str, path: str) -> bool:
    """What the public door lets through."""
    if method == "GET":
        return path == "/health"
    return method == "POST" and path.startswith("/v1/fleet/") and path not in _ENROLMENT


def _is_for_the_server(method: str, path: str) -> bool:
    """What the private door lets through."""
    return method == "POST" and path.startswith(("/v1/control/", "/v1/runtime/"))


def only(allows: Callable[[str, str], bool], app: ASGIApp) -> ASGIApp:
    """Answers 404 to what is not allowed, before any of it is read, and 413 to what is too large.

    Args:
        allows: Whether a method and path may pass.
        app: What serves them.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not allows(scope["method"], scope["path"]):
            await _refuse(send, status=404)
        elif scope["method"] == "POST" and not 0 <= _length(scope) <= _LARGEST_BODY:
            await _refuse(send, status=413)
        else:
            await app(scope, receive, send)

    return guarded


def _length(scope: Scope) -> int:
    """The length that a request announces; -1 if it announces none."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return -1


async def _refuse(send: Send, *, status: int) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _serve(
    app: Starlette, *, public: socket.socket, private: socket.socket, folder: Path, ports: dict[str, int]
) -> None:
    import uvicorn

    options: dict[str, Any] = {
        "ssl_certfile": folder / "server.crt",
        "ssl_keyfile": folder / "server.key",
        "access_log": False,
        "server_header": False,
        "lifespan": "off",
        "timeout_graceful_shutdown": 3,
    }
    servers = [
        uvicorn.Server(uvicorn.Config(only(allows, app), **options)) for allows in (is_for_nodes, _is_for_the_server)
    ]

    def stop(*_: object) -> None:
        for server in servers:
            server.should_exit = True

    async with app.router.lifespan_context(app):
        doors = zip(servers, (public, private), strict=True)
        serving = [asyncio.create_task(server.serve(sockets=[door])) for server, door in doors]
        while not all(server.started for server in servers):
            await asyncio.sleep(_WAIT)
        # After the servers are up: each had set a handler of its own, which would stop only one of them.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        tell_parent(event="ready", **ports)
        await asyncio.gather(*serving)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        # Lets a server start again at once; on Windows the same option would let two share a port.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
        door.listen(128)
    except OSError:
        door.close()
        raise
    return door


if __name__ == "__main__":
    main()
