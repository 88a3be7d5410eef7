"""The strategy of the rounds: federated averaging of privately trained models (McMahan et al. 2017)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from aevorium.federation.protocol import TRAIN, TrainReply, TrainRequest, pack, read_body, read_weight
from aevorium.progress import Report, RoundFinished
from aevorium.server.exchange import read_replies, require_going_on
from aevorium.server.forms import ReplyForm
from aevorium.server.journal import Journal

__all__ = ["PrivateAveraging"]


class PrivateAveraging(FedAvg):
    """Averages the nodes' models by their released noisy counts, and never goes on with too few of them.

    Args:
        request: The request of a round, by its number.
        names: Names of the nodes by id.
        min_nodes: Valid replies without which a round fails the run.
        rounds: How many rounds there will be.
        epsilon: The plan's ε, from which what is left is counted.
        journal: Where rounds and checkpoints are written.
        report: Takes the progress.
        timeout: Seconds after which a missing reply counts as none.
        should_stop: Asked before each round whether the run is to end.
    """

    def __init__(
        self,
        *,
        request: Callable[[int], TrainRequest],
        names: Mapping[int, str],
        min_nodes: int,
        rounds: int,
        epsilon: float,
        journal: Journal,
        report: Report,
        timeout: float,
        should_stop: Callable[[], bool],
    ) -> None:
        super().__init__(
            fraction_evaluate=0.0,
            min_train_nodes=min_nodes,
            min_available_nodes=min_nodes,
            weighted_by_key="weight",
        )
        self._request = request
        self._names = names
        self._min_nodes = min_nodes
        self._rounds = rounds
        self._epsilon = epsilon
        self._journal = journal
        self._report = report
        self._timeout = timeout
        self._should_stop = should_stop
        self._messages: list[Message] = []
        self._form = ReplyForm(TrainReply, np.float32, is_weighted=True)
        self._started = time.monotonic()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sends the global model, one flat array, to every node of the study.

        Raises:
            AevoriumError: RUN_INTERRUPTED.
        """
        require_going_on(self._should_stop)
        vector = arrays.to_numpy_ndarrays()[0]
        request = self._request(server_round)
        self._form = replace(self._form, size=len(vector))
        self._started = time.monotonic()
        self._messages = [
            Message(pack(request, vector), dst_node_id=node_id, message_type=TRAIN, ttl=self._timeout)
            for node_id in self._names
        ]
        return self._messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Averages the models, writes the checkpoint and reports the round.

        Raises:
            AevoriumError: Too few valid replies.
        """
        receivers = {message.metadata.message_id: message.metadata.dst_node_id for message in self._messages}
        received = read_replies(replies, receivers=receivers, form=self._form)
        received.require(self._min_nodes, phase=f"training, round {server_round}", names=self._names)
        # In the order of names: sums of floats depend on theirs, and a run should not on who answers first.
        ordered = {node_id: received.valid[node_id] for node_id in sorted(received.valid, key=self._names.__getitem__)}
        arrays, metrics = super().aggregate_train(server_round, ordered.values())
        if arrays is None:
            return arrays, metrics
        bodies = {node_id: read_body(message, TrainReply) for node_id, message in ordered.items()}
        weights = {node_id: read_weight(message) for node_id, message in ordered.items()}
        finished = self._finished(server_round, bodies, weights, asked=len(receivers))
        vector: NDArray[np.float32] = np.asarray(arrays.to_numpy_ndarrays()[0], dtype=np.float32)
        self._journal.write_round(finished, vector=vector, codes=received.codes, names=self._names)
        self._report(finished)
        return ArrayRecord([vector]), metrics

    def _finished(
        self, server_round: int, bodies: Mapping[int, TrainReply], weights: Mapping[int, float], *, asked: int
    ) -> RoundFinished:
        total = sum(weights.values())
        seconds = time.monotonic() - self._started
        spent = max(body.spent for body in bodies.values())
        return RoundFinished(
            round=server_round,
            rounds=self._rounds,
            nodes_ok=len(bodies),
            nodes_asked=asked,
            loss=sum(body.loss * weights[node_id] for node_id, body in bodies.items()) / total,
            loss_noise=float(
                np.sqrt(sum((body.loss_noise * weights[node_id]) ** 2 for node_id, body in bodies.items()))
            )
            / total,
            spent=spent,
            left=max(0.0, self._epsilon - spent),
            seconds=seconds,
            remaining=seconds * (self._rounds - server_round),
        )
