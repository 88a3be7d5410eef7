"""`ServerLink`: the server's end of a federation of processes.

It starts a SuperLink, lets in the nodes whose keys it was given, and conducts a run in this very process: Flower's
SuperExec, which would start another one for it, is not needed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Self

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from aevorium.errors import AevoriumError, ConfigError, FederationError, InternalError
from aevorium.federation.child import ChildProcess
from aevorium.federation.flower_internals.clients import Executor, ServerTask, SuperlinkControl
from aevorium.federation.flower_internals.messages import Run, lost_reply
from aevorium.federation.identity import Authority, read_public_key
from aevorium.federation.superlink import SuperlinkConfig
from aevorium.workspace import write_atomically

__all__ = ["PollingGrid", "ServerLink"]

_START = 60.0
_POLL = 0.05
_LOOK = 1.0
"""Seconds between two looks at whether a node has a new connection."""


class PollingGrid(Grid):
    """Flower's grid, asking for replies as soon as there may be some, and only for the nodes of a study.

    Flower hands a message out once. A node that was killed after it had taken one, and is connected again before Flower
    has missed it, will never answer: such a message counts as lost as soon as the node's connection is a new one.

    Args:
        grid: Flower's.
        node_ids: The nodes of the study; others that are connected are left alone.
        connections: When each node's connection began, by node id.
    """

    def __init__(self, grid: Grid, *, node_ids: Iterable[int], connections: Callable[[], Mapping[int, str]]) -> None:
        self._grid = grid
        self._node_ids = tuple(node_ids)
        self._connections = connections
        self._sent: dict[str, tuple[Message, str | None]] = {}
        self._looked = time.monotonic()

    def set_run(self, run: Run) -> None:
        """See `flwr.serverapp.Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `flwr.serverapp.Grid`."""
        return self._grid.run

    def create_message(  # the base class's own signature
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `flwr.serverapp.Grid`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of the study."""
        return list(self._node_ids)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `flwr.serverapp.Grid`."""
        # Before they leave: a connection that begins later is another than the one that takes them.
        messages, connections = list(messages), self._connections()
        keys = list(self._grid.push_messages(messages))
        for key, message in zip(keys, messages, strict=False):
            self._sent[key] = message, connections.get(message.metadata.dst_node_id)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`."""
        waiting = set(message_ids)
        replies = list(self._grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
        if waiting and time.monotonic() - self._looked > _LOOK:
            replies += self._lost(waiting)
            self._looked = time.monotonic()
        for reply in replies:
            self._sent.pop(reply.metadata.reply_to_message_id, None)
        return replies

    def _lost(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies for messages whose node has another connection now than when they were sent."""
        connections = self._connections()
        sent = [self._sent[key] for key in message_ids if key in self._sent]
        return [
            lost_reply(message) for message, before in sent if connections.get(message.metadata.dst_node_id) != before
        ]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Sends messages and waits for the replies; after `timeout` seconds returns those that have come."""
        waiting = {key for key in self.push_messages(list(messages)) if key}
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            arrived = list(self.pull_messages(waiting))
            waiting -= {message.metadata.reply_to_message_id for message in arrived}
            replies += arrived
            if waiting and not arrived:
                time.sleep(_POLL)
        return replies


class ServerLink:
    """A SuperLink of this process.

    Args:
        folder: Where authority, keys of nodes and log lie.
        host: Address on which nodes reach it.
        port: Its port; 0 takes a free one.
        names: Further names and addresses under which nodes reach it, for its certificate.

    Raises:
        ConfigError: PORT_UNAVAILABLE; WORKSPACE_UNWRITABLE.
        ArtefactError: KEY_INVALID.
        InternalError: The SuperLink does not start.
    """

    def __init__(self, folder: Path, *, host: str, port: int, names: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.nodes_folder = folder / "nodes"
        self.nodes_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hosts = names if host in ("0.0.0.0", "::") else (*names, host)  # noqa: S104 - compared, not bound
        certificate, key = self.authority.issue(hosts)
        for name, content in (("server.crt", certificate), ("server.key", key)):
            with write_atomically(folder / name, mode=0o600) as temporary:
                temporary.write_bytes(content)
        self.run_id = 0
        self._enrolled: dict[str, str] = {}
        token, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        config = SuperlinkConfig(host=host, port=port, folder=folder.resolve(), token=token, secret=secret)
        self._child = ChildProcess("aevorium.federation.superlink", config, log=folder / "superlink.log")
        try:
            ready = self._await_ready(host, port)
            self.address = f"{host}:{ready['public_port']}"
            root = self.authority.certificate_file.read_bytes()
            self.private_address = private = f"127.0.0.1:{ready['private_port']}"
            self._control = SuperlinkControl(private, root_certificates=root, token=token)
            self._executor = Executor(private, secret=secret.encode(), root_certificates=root)
        except BaseException:
            self._child.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()
        self._control.close()
        self._child.stop()

    @property
    def process_id(self) -> int:
        """Number of the SuperLink's process."""
        return self._child.process_id

    def enrol(self) -> dict[str, str]:
        """Lets in every node whose public key lies in `nodes_folder` as NAME.pub and is new.

        Returns:
            Fingerprints of the keys that were new, by name.
        """
        new = {}
        for path in sorted(self.nodes_folder.glob("*.pub")):
            if path.stem not in self._enrolled:
                key, fingerprint = read_public_key(path)
                self._control.enrol(path.stem, public_key=key)
                self._enrolled[path.stem] = new[path.stem] = fingerprint
        return new

    def online(self) -> dict[int, str]:
        """Names of the nodes that are connected, by Flower's number.

        Raises:
            FederationError: SERVER_UNREACHABLE, if the SuperLink has ended.
        """
        try:
            return {node.node_id: node.name for node in self._control.nodes() if node.is_online}
        except httpx.HTTPError as error:
            raise FederationError(
                "SERVER_UNREACHABLE",
                f"The SuperLink of this server does not answer ({type(error).__name__}).",
                hint=f"See {str(self._child.log)!r}.",
            ) from error

    def _connections(self) -> dict[int, str]:
        return {node.node_id: node.connected_at for node in self._control.nodes()}

    def conduct(self, app: ServerApp, *, node_ids: Iterable[int], after: Callable[[Grid], None]) -> None:
        """Runs a ServerApp to its end over the nodes of a study.

        Args:
            app: The app.
            node_ids: Flower's numbers of the nodes.
            after: Called with the grid when the app has ended, well or not, and messages can still be sent.

        Raises:
            AevoriumError: Whatever the app raises.
        """
        self.run_id = self._control.start_run(_bundle())
        task = self._acquire()
        code: str | None = "INTERNAL"
        try:
            context = task.begin()
            grid = PollingGrid(task.grid, node_ids=node_ids, connections=self._connections)
            try:
                app(grid=grid, context=context)
            finally:
                after(grid)
            code = None
        except AevoriumError as error:
            code = error.code
            raise
        except httpx.HTTPError as error:
            code = "SERVER_UNREACHABLE"
            raise FederationError(
                code,
                f"The SuperLink of this server does not answer ({type(error).__name__}).",
                hint=f"See {str(self._child.log)!r}.",
            ) from error
        except KeyboardInterrupt:
            code = "RUN_INTERRUPTED"
            raise
        finally:
            task.finish(code=code)

    def traffic(self) -> tuple[int, int]:
        """Bytes sent to and received from all nodes in the run, as the SuperLink counts them."""
        return self._control.traffic(self.run_id)

    def _acquire(self) -> ServerTask:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            token = self._executor.acquire("flwr-serverapp")
            if token is not None:
                return self._executor.server_task(token)
            time.sleep(_POLL)
        raise InternalError("The SuperLink hands out no run.", hint=f"See {str(self._child.log)!r}.")

    def _await_ready(self, host: str, port: int) -> Mapping[str, object]:
        event = self._child.next_event(timeout=_START)
        if event is not None and event.get("event") == "ready":
            return event
        if event is not None and event.get("code") == "PORT_UNAVAILABLE":
            raise ConfigError("PORT_UNAVAILABLE", f"Cannot listen on {host}:{port}. {event.get('reason')}.")
        raise InternalError("The SuperLink does not start.", hint=f"Report it with {str(self._child.log)!r}.")


def _bundle() -> bytes:
    from flwr.cli.build import build_fab_from_files

    folder = resources.files("aevorium.federation").joinpath("flower_app")
    files = {name: folder.joinpath(name).read_bytes() for name in ("pyproject.toml", "LICENSE")}
    return build_fab_from_files(files)[0]
