"""The clients with which our processes speak to Flower's: to start runs, to conduct them, to answer messages."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.supercore.task_identity import TaskIdentity

from aevorium.federation.flower_internals.pulls import answer_pulls_sooner

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.superlink.grid.http_grid import HttpGrid

__all__ = ["ClientTask", "Executor", "KnownNode", "ServerTask", "SuperlinkControl"]

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT = 10.0


@dataclass(frozen=True)
class KnownNode:
    """A node that a SuperLink knows.

    Attributes:
        node_id: Flower's number for it.
        name: The name it was enrolled under.
        is_online: Whether it is connected.
        connected_at: When its present connection, or its last one, began; empty before the first.
    """

    node_id: int
    name: str
    is_online: bool
    connected_at: str


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
        return [
            KnownNode(int(node.node_id), str(node.name), node.status == "online", str(node.last_activated_at))
            for node in listed
        ]

    def start_run(self, fab: bytes) -> int:
        """Starts a run of an app bundle and returns its number."""
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
        answer_pulls_sooner()

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
