"""A run that is held once, and whose requests nodes then answer as often as an attacker wants.

What is played again are the messages themselves: whatever a node would let out answers them, through its gate and with
a ledger of its own. Without the conductor nothing is fitted or trained at a server, so an answer takes a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from pydantic import BaseModel

from aevorium.errors import FederationError
from aevorium.federation.flower_internals.messages import set_message_id
from aevorium.federation.protocol import (
    ASSOCIATIONS,
    COUNT,
    FINISH,
    GRADIENT,
    LOSS,
    PLAN,
    STATISTICS,
    TRAIN,
    AssociationsReply,
    CountReply,
    FinishReply,
    GradientReply,
    LossReply,
    PlanReply,
    StatisticsReply,
    TrainReply,
    error_code,
    read_array,
    read_body,
)
from aevorium.node.app import create_client_app
from aevorium.node.session import NodeSession

__all__ = ["TABLES", "Exchange", "NoNoise", "Observation", "Recorder", "replay"]

TABLES = (STATISTICS, ASSOCIATIONS)
"""Requests that are answered with noisy counts."""

_REPLIES: dict[str, type[BaseModel]] = {
    PLAN: PlanReply,
    COUNT: CountReply,
    STATISTICS: StatisticsReply,
    ASSOCIATIONS: AssociationsReply,
    TRAIN: TrainReply,
    GRADIENT: GradientReply,
    LOSS: LossReply,
    FINISH: FinishReply,
}

_CHARGED = {COUNT: "count", TRAIN: "loss"}
"""The one number in a body that is computed from records, and charged."""


_LONG = 30 * 86400.0
"""Seconds for which a request may be played again: nodes do not answer what nobody waits for."""


class NoNoise:
    """Adds nothing: for a look at what noise would have to hide."""

    is_secret = False

    def laplace(self, value: int, *, scale: float) -> int:
        """See `NoiseSource`."""
        return value

    def gaussian(self, values: NDArray[np.int64], *, sigma: float) -> NDArray[np.int64]:
        """See `NoiseSource`."""
        return values


@dataclass(frozen=True)
class Exchange:
    """One request to every node.

    Attributes:
        kind: Flower's type of the messages.
        messages: One for each node, with Flower's context of it; the node with the canary comes first.
    """

    kind: str
    messages: tuple[tuple[Message, Context], ...]

    @property
    def request(self) -> Message:
        """The message to the node with the canary."""
        return self.messages[0][0]


class Recorder(ClientApp):
    """The nodes' app, which keeps what it is asked.

    Args:
        app: The app.
    """

    def __init__(self, app: ClientApp) -> None:
        super().__init__()
        self._app = app
        self._asked: list[tuple[Message, Context]] = []

    def __call__(self, message: Message, context: Context) -> Message:
        """Answers a message."""
        data = message.metadata
        again = Message(message.content, data.dst_node_id, data.message_type, ttl=_LONG, group_id=data.group_id)
        set_message_id(again, data.message_id)
        self._asked.append((again, context))
        return self._app(message, context)

    def exchanges(self, nodes: Sequence[str]) -> tuple[Exchange, ...]:
        """What was asked, in order.

        Args:
            nodes: The nodes, the one with the canary first. Each was asked each time.
        """
        each = [self._asked[begin : begin + len(nodes)] for begin in range(0, len(self._asked), len(nodes))]
        return tuple(
            Exchange(
                kind=asked[0][0].metadata.message_type,
                messages=tuple(sorted(asked, key=lambda item: nodes.index(str(item[1].node_config["name"])))),
            )
            for asked in each
        )


@dataclass(frozen=True)
class Observation:
    """What the answers to one request show to whoever is meant to see them.

    Attributes:
        public: All that is said to hold nothing of records, of all nodes.
        charged: The charged number in the body of the node with the canary; none or one.
        array: What the array holds, float64; under secure aggregation the sum over nodes; empty if there is none.
    """

    public: str
    charged: NDArray[np.float64]
    array: NDArray[np.float64]


def replay(exchanges: Sequence[Exchange], sessions: dict[str, NodeSession]) -> list[Observation]:
    """Asks nodes again what the rehearsal asked.

    Args:
        exchanges: The rehearsal.
        sessions: New nodes.

    Raises:
        FederationError: Whatever a node refuses with.
    """
    app = create_client_app(sessions)
    return [_observe(exchange, [_answer(app, *asked) for asked in exchange.messages]) for exchange in exchanges]


def _answer(app: Callable[[Message, Context], Message], message: Message, context: Context) -> Message:
    reply = app(message, context)
    code = error_code(reply)
    if code is not None:
        raise FederationError(code, f"A node of the audit refused a request of type {message.metadata.message_type!r}.")
    return reply


def _observe(exchange: Exchange, replies: list[Message]) -> Observation:
    name = _CHARGED.get(exchange.kind)
    bodies = [read_body(reply, _REPLIES[exchange.kind]) for reply in replies]
    array = _array(exchange.kind, replies)
    public = [body.model_dump_json(exclude={name} if name else None) for body in bodies]
    public += [f"{sorted(reply.content)} {reply.content.metric_records}" for reply in replies]
    return Observation(
        public=f"{public} {len(array)}",
        charged=np.array([getattr(bodies[0], name)] if name else [], dtype=np.float64),
        array=array,
    )


def _array(kind: str, replies: list[Message]) -> NDArray[np.float64]:
    if kind == TRAIN:
        return read_array(replies[0], np.float32).astype(np.float64)
    if kind in (*TABLES, GRADIENT, LOSS):
        # Whole numbers modulo 2^64, of which all nodes' shares of noise are a part.
        total = np.sum([read_array(reply, np.int64) for reply in replies], axis=0, dtype=np.int64)
        return np.asarray(total, dtype=np.float64)
    return np.empty(0)
