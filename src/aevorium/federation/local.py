"""A federation in one process: Flower's apps, joined by a Grid that calls instead of sending.

Server and nodes are the same apps that run in processes of their own; every message is taken apart to bytes and put
together again on its way, so what could not travel fails here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp

from aevorium.federation.flower_internals.messages import (
    Run,
    assume_identity,
    new_run,
    set_message_id,
    through_the_wire,
)

__all__ = ["InProcessGrid", "run_in_process"]

_FIRST_NODE_ID = 1001


class InProcessGrid(Grid):
    """Carries messages to ClientApps in this process.

    Args:
        client_app: The app of every node.
        contexts: The context of each node, by node id.
        run: The run.
        workers: How many nodes work at the same time.
    """

    def __init__(self, client_app: ClientApp, *, contexts: Mapping[int, Context], run: Run, workers: int) -> None:
        self._app = client_app
        self._contexts = contexts
        self._run = run
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="node")
        self._replies: dict[str, Future[Message]] = {}

    def close(self) -> None:
        """Drops what has not started and waits for what has: its privacy is spent already."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """See `flwr.serverapp.Grid`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `flwr.serverapp.Grid`."""
        return self._run

    def create_message(  # the base class's own signature
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `flwr.serverapp.Grid`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """See `flwr.serverapp.Grid`."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `flwr.serverapp.Grid`."""
        ids = []
        for message in messages:
            message_id = str(uuid4())
            set_message_id(message, message_id)
            self._replies[message_id] = self._pool.submit(self._answer, message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`."""
        done = [key for key in message_ids if key in self._replies and self._replies[key].done()]
        return [self._replies.pop(key).result() for key in done]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`."""
        ids = list(self.push_messages(messages))
        wait([self._replies[key] for key in ids], timeout=timeout)
        return self.pull_messages(ids)

    def _answer(self, message: Message) -> Message:
        try:
            reply = self._app(through_the_wire(message), self._contexts[message.metadata.dst_node_id])
            return through_the_wire(reply)
        except Exception:  # the edge of a node's process: in deployment Flower turns this into the same error
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    nodes: Iterable[str],
    workers: int,
    run_config: Mapping[str, str | int | float | bool],
) -> None:
    """Runs a ServerApp to its end against nodes in this process.

    Args:
        server_app: The server.
        client_app: The app of every node; it reads its name from the node's configuration.
        nodes: Names of the nodes.
        workers: How many nodes work at the same time.
        run_config: What Flower would pass to the apps of a run.
    """
    run_id = uuid4().int >> 66
    assume_identity(run_id)
    contexts = {
        node_id: Context(
            run_id=run_id,
            node_id=node_id,
            node_config={"name": name},
            state=RecordDict(),
            run_config=dict(run_config),
        )
        for node_id, name in enumerate(nodes, start=_FIRST_NODE_ID)
    }
    context = Context(run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config=dict(run_config))
    grid = InProcessGrid(client_app, contexts=contexts, run=new_run(run_id), workers=workers)
    try:
        server_app(grid=grid, context=context)
    finally:
        grid.close()
