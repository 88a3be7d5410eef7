"""The one module that touches Flower's private parts. `tests/contract` fails when a new Flower version moves them.

Three groups: messages within one process; the clients with which our processes speak to Flower's; and the insides of
Flower's own two processes, which `superlink` and `supernode` run.
"""

from __future__ import annotations

import hmac
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message
from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.superlink.grid.http_grid import HttpGrid
    from starlette.applications import Starlette

__all__ = [
    "SUPERLINK_NODE_ID",
    "ClientTask",
    "Executor",
    "KnownNode",
    "Run",
    "ServerTask",
    "SuperlinkControl",
    "assume_identity",
    "new_run",
    "run_supernode",
    "set_message_id",
    "superlink_app",
    "supernode_app",
    "through_the_wire",
]

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 1.0
_POLL = 0.05


# Messages within one process.


def new_run(run_id: int) -> Run:
    """A run with nothing but its number."""
    return Run.create_empty(run_id)


def assume_identity(run_id: int) -> None:
    """Lets this process create messages, as the process that Flower starts for a ServerApp may."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, SUPERLINK_NODE_ID


def set_message_id(message: Message, message_id: str) -> None:
    """Gives a message the number that the server would give it."""
    message.metadata.__dict__["_message_id"] = message_id


def through_the_wire(message: Message) -> Message:
    """The message as the other side would receive it: taken apart to bytes and put together again."""
    parts = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    received = inflate_object_from_contents(message.object_id, parts)
    if not isinstance(received, Message):
        raise TypeError("a message came back as something else")
    set_message_id(received, message.metadata.message_id)
    return received


# Clients.


@dataclass(frozen=True)
class KnownNode:
    """A node that a SuperLink knows.

    Attributes:
        node_id: Flower's number for it.
        name: The name it was enrolled under.
        is_online: Whether it is connected.
    """

    node_id: int
    name: str
    is_online: bool


class SuperlinkControl:
    """Flower's Control API: enrols nodes, starts runs.

    Args:
        address: Host and port of the private side of a SuperLink.
        root_certificates: The authority that signed its certificate, PEM.
        token: What the SuperLink was told to ask for.
    """

    def __init__(self, address: str, *, root_certificates: bytes, token: str) -> None:
        from flwr.supercore.control import ControlHttpClient

        self._client: ControlHttpClient = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=root_certificates,
            interceptors=[_Bearer(token)],
        )

    def enrol(self, name: str, *, public_key: bytes) -> int:
        """Lets a node in, by its public key (PEM). Returns Flower's number for it."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)).node_id)

    def nodes(self) -> list[KnownNode]:
        """Every node that was enrolled."""
        from flwr.proto.control_pb2 import ListNodesRequest

        listed = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [KnownNode(int(node.node_id), str(node.name), node.status == "online") for node in listed]

    def start_run(self, fab: bytes) -> int:
        """Starts a run of an app bundle and returns its number."""
        import hashlib

        from flwr.common.serde import fab_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        bundle = Fab(hashlib.sha256(fab).hexdigest(), fab, {})
        return int(self._client.StartRun(StartRunRequest(fab=fab_to_proto(bundle))).run_id)

    def traffic(self, run_id: int) -> tuple[int, int]:
        """Bytes that the SuperLink sent to and received from nodes in a run."""
        from flwr.proto.control_pb2 import ListRunsRequest

        run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        return int(run.bytes_sent), int(run.bytes_recv)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class Executor:
    """Asks Flower's Runtime API for work, in place of Flower's own SuperExec: it starts no process for it.

    Args:
        address: Host and port of the API.
        secret: What its server was told to ask for.
        root_certificates: The authority of its certificate, PEM; None for plain HTTP, on loopback only.
    """

    def __init__(self, address: str, *, secret: bytes, root_certificates: bytes | None) -> None:
        self._address, self._secret, self._root_certificates = address, secret, root_certificates
        self._client = self._connect("SuperExec", secret=secret)
        _answer_pulls_sooner()

    def acquire(self, kind: str) -> str | None:
        """The token of the next task of a kind ("flwr-serverapp", "flwr-clientapp"); None if there is none.

        Raises:
            httpx.HTTPError: The API cannot be reached, or refuses.
        """
        from flwr.proto.runtime_pb2 import AcquireTaskRequest

        answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        return str(answer.token) if answer.HasField("task") and answer.token else None

    def client_task(self, token: str) -> ClientTask:
        """Opens a ClientApp's task: one message to answer."""
        return ClientTask(self._connect("flwr-clientapp", token=token))

    def server_task(self, token: str) -> ServerTask:
        """Opens a ServerApp's task: one run to conduct."""
        from flwr.superlink.grid.http_grid import HttpGrid

        grid = HttpGrid(self._address, self._root_certificates is None, self._root_certificates, token=token)
        return ServerTask(grid)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _connect(self, component: str, *, token: str | None = None, secret: bytes | None = None) -> RuntimeHttpClient:
        from flwr.supercore.interceptors import (
            RuntimeTokenHttpInterceptor,
            RuntimeVersionHttpInterceptor,
            SuperExecAuthHttpInterceptor,
        )
        from flwr.supercore.runtime import RuntimeHttpClient

        interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name=component)]
        if secret is not None:
            interceptors.append(SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}))
        if token is not None:
            interceptors.append(RuntimeTokenHttpInterceptor(token))
        client: RuntimeHttpClient = RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=self._root_certificates is None,
            root_certificates=self._root_certificates,
            interceptors=interceptors,
        )
        return client


class ClientTask:
    """One message to a node, and the reply to it. The bundle that came with it is never opened.

    Args:
        client: The connection that belongs to the task.
    """

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._stop_heartbeat = _keep_alive(client)

    def receive(self) -> tuple[Message, Context]:
        """The message, and the context that Flower keeps for the run."""
        from flwr.supernode.runtime.run_clientapp import pull_task_input

        message, context, _, _ = pull_task_input(self._client)
        return message, context

    def answer(self, reply: Message, context: Context) -> None:
        """Hands the reply over."""
        from flwr.supernode.runtime.run_clientapp import push_message

        push_message(self._client, reply, context)

    def finish(self, context: Context | None, *, is_answered: bool) -> None:
        """Ends the task, whether or not it was answered; says nothing of why."""
        from flwr.supernode.runtime.run_clientapp import push_task_output

        self._stop_heartbeat()
        push_task_output(self._client, context, SubStatus.COMPLETED if is_answered else SubStatus.FAILED, "")
        self._client.close()


class ServerTask:
    """One run to conduct.

    Args:
        grid: Flower's grid with the task's token.
    """

    def __init__(self, grid: HttpGrid) -> None:
        self.grid = grid
        self._context: Context | None = None
        self._stop_heartbeat: Callable[[], None] | None = None

    def begin(self) -> Context:
        """Takes on the identity and the context of the run."""
        from flwr.common.serde import context_from_proto, run_from_proto
        from flwr.proto.runtime_pb2 import PullTaskInputRequest

        client = self.grid._runtime_client
        self._stop_heartbeat = _keep_alive(client)
        task = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        self._context = context_from_proto(task.context)
        self.grid.set_run(run_from_proto(task.run))
        return self._context

    def finish(self, *, code: str | None) -> None:
        """Ends the run: completed if there is no error code."""
        from flwr.common.serde import context_to_proto
        from flwr.proto.runtime_pb2 import PushTaskOutputRequest

        if self._stop_heartbeat is not None:
            self._stop_heartbeat()
        self.grid._runtime_client.PushTaskOutput(
            PushTaskOutputRequest(
                context=None if self._context is None else context_to_proto(self._context),
                sub_status=SubStatus.COMPLETED if code is None else SubStatus.FAILED,
                details=code or "",
            )
        )
        self.grid.close()


class _Bearer:
    """Adds the token of the Control API to requests."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - Flower's own types
        context.request.headers["Authorization"] = f"Bearer {self._token}"
        return call_next(context)


def _keep_alive(client: RuntimeHttpClient) -> Callable[[], None]:
    """Sends heartbeats of a task until the function that it returns is called."""
    import httpx
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(_HEARTBEAT):
            try:
                client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except httpx.HTTPError:
                continue  # the next may get through; if none does, Flower fails the task

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join()

    return stop


def _answer_pulls_sooner() -> None:
    """Makes the first retry for a part of a message that is still on its way come at once instead of after 1 s."""
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        defaults = function.__kwdefaults__ or {}
        function.__kwdefaults__ = {**defaults, "initial_backoff": _FIRST_WAIT, "backoff_cap": _LONGEST_WAIT}


# The insides of Flower's own processes.


def superlink_app(*, certificates: tuple[Path, Path, Path], token: str, secret: bytes) -> Starlette:
    """Flower's SuperLink as an ASGI app, with node authentication, that starts no process and installs nothing.

    Its state is in memory: it ends with the server, whose run could not go on without it either, and half the time of
    an exchange would be spent on writing messages to a disk.

    Args:
        certificates: Files of the authority's certificate, the server's certificate and its key.
        token: What the Control API asks for.
        secret: What the Runtime API asks for before it hands out a task.
    """
    from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    authority, certificate, key = certificates
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=False,
        certificates=(authority.read_bytes(), certificate.read_bytes(), key.read_bytes()),
        superexec_auth_secret=secret,
        authn_plugin=_token_plugin(token),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(authority),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def _token_plugin(token: str) -> Any:  # noqa: ANN401 - Flower's own type
    from flwr.common.constant import ACCESS_TOKEN_KEY, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
    from flwr.supercore.auth.typing import AccountInfo
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

    class TokenPlugin(NoOpControlAuthnPlugin):
        """Lets in who knows the token."""

        def validate_tokens_in_metadata(self, metadata: Any) -> tuple[bool, AccountInfo | None]:  # noqa: ANN401
            given = str(dict(metadata).get(ACCESS_TOKEN_KEY, ""))
            if not hmac.compare_digest(given.encode(), token.encode()):
                return False, None
            return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)

    return TokenPlugin()


@dataclass(frozen=True)
class SupernodeState:
    """The state that a SuperNode's two halves share."""

    factory: Any


def supernode_app(secret: bytes) -> tuple[Starlette, SupernodeState]:
    """The half of a SuperNode that hands messages to the resident node, as an ASGI app.

    Args:
        secret: What it asks for before it hands out a message.
    """
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.main import create_app
    from flwr.supernode.nodestate import NodeStateFactory

    factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    return create_app(state_factory=factory, superexec_auth_secret=secret), SupernodeState(factory)


def run_supernode(
    state: SupernodeState,
    *,
    server: str,
    root_certificates: bytes,
    private_key: bytes,
    node_config: Mapping[str, str],
    connected: Callable[[], None],
    sent: Callable[[], None],
) -> None:
    """The half of a SuperNode that speaks with the server. Ends with the process.

    Args:
        state: What `supernode_app` made.
        server: Host and port of the server.
        root_certificates: The authority that signed its certificate, PEM.
        private_key: The node's key, PEM.
        node_config: What the ClientApp finds in its context.
        connected: Called when the server has let the node in.
        sent: Called when a reply has left for the server.
    """
    # The package exports a function under the name of this module.
    import flwr.supernode.start_client_internal  # noqa: F401
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loop: Any = sys.modules["flwr.supernode.start_client_internal"]
    key = load_pem_private_key(private_key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a node's key is on an elliptic curve")
    # Flower looks for messages every 3 s and for replies every 0.5 s; neither can be set.
    loop.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, _POLL)), time=time.time)
    push = loop._push_messages

    def push_and_tell(**arguments: object) -> None:
        push(**arguments)
        sent()

    pull = loop._pull_and_store_message

    def pull_and_tell(**arguments: object) -> object:
        # The loop begins when the connection stands: tell of it once.
        loop._pull_and_store_message = pull
        connected()
        return pull(**arguments)

    loop._push_messages, loop._pull_and_store_message = push_and_tell, pull_and_tell
    _answer_pulls_sooner()
    loop.start_client_internal(
        state_factory=state.factory,
        server_address=server,
        node_config=dict(node_config),
        root_certificates=root_certificates,
        insecure=False,
        authentication_keys=(key, key.public_key()),
        isolation="process",
    )
