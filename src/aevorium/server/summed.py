"""Training under secure aggregation: every step is one exchange, of which the server sees the sum alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import Tensor

from aevorium.diffusion.average import RunningAverage
from aevorium.diffusion.denoiser import TabularDiffusion, to_vector
from aevorium.encoding.encoder import TableEncoder
from aevorium.federation.protocol import (
    GRADIENT,
    LOSS,
    GradientReply,
    GradientRequest,
    LossReply,
    LossRequest,
    TrainingSettings,
    pack,
    read_array,
    read_body,
)
from aevorium.privacy.aggregation import add_parts, decode_vector
from aevorium.privacy.phases import LOSS_BOUND, LOSS_LEVELS
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.schedule import CLIP_LEVELS, TrainingSchedule
from aevorium.progress import Report, RoundFinished, StepProgress
from aevorium.server.exchange import Replies, ask, require_going_on
from aevorium.server.forms import ReplyForm
from aevorium.server.journal import Journal

__all__ = ["SummedTraining"]

_FINAL_RATE = 0.1
"""The step size falls linearly to this share of itself over all steps."""

_ANCHOR = 0.7
"""Share of the anchor in a step."""


class SummedTraining:
    """DP-SGD of one model by the sums of the nodes' clipped gradients.

    Args:
        grid: The transport.
        model: The model; it is trained in place.
        encoder: The shared encoder.
        schedule: Steps and noise, the same at every node.
        settings: How the model is trained.
        names: Names of the nodes by id.
        journal: Where rounds and checkpoints are written; its record holds the plan.
        report: Takes the progress.
        timeout: Seconds after which a missing reply counts as none.
        should_stop: Asked before each exchange whether the run is to end.
        anchor: A loss that the model should not lose on the way, in which no record has a part; None for none.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        model: TabularDiffusion,
        encoder: TableEncoder,
        schedule: TrainingSchedule,
        settings: TrainingSettings,
        names: Mapping[int, str],
        journal: Journal,
        report: Report,
        timeout: float,
        should_stop: Callable[[], bool],
        anchor: Callable[[TabularDiffusion], Tensor] | None,
    ) -> None:
        self._grid = grid
        self._model = model
        self._encoder = encoder
        self._schedule = schedule
        self._settings = settings
        self._names = dict(names)
        self._journal = journal
        self._report = report
        self._timeout = timeout
        self._should_stop = should_stop
        self._anchor = anchor
        self._rate = settings.learning_rate or 1e-3
        self._optimizer = torch.optim.Adam(model.parameters(), lr=self._rate, foreach=True)
        self._average = RunningAverage(model, decay=settings.ema_decay)

    def conduct(self) -> None:
        """Trains for all rounds; the model ends as the running average of its weights.

        Raises:
            AevoriumError: RUN_INTERRUPTED, or fewer nodes than a sum may be opened for.
        """
        steps = self._schedule.steps
        for number in range(1, self._schedule.rounds + 1):
            started = time.monotonic()
            for step in range(1, steps + 1):
                self._step(number, step)
                # A step of a million records takes minutes.
                self._report(StepProgress("training", (number - 1) * steps + step, self._schedule.rounds * steps))
            self._finish_round(number, started=started)
        self._average.store()

    def _step(self, number: int, step: int) -> None:
        """One noisy gradient, one step of Adam."""
        request = GradientRequest(
            **self._run,
            round=number,
            step=step,
            # A node keeps the encoder of a round: to send and read it at each step would take longer than the step.
            encoder=self._encoder if step == 1 else None,
            model=self._journal.model,
            settings=self._settings,
        )
        vector = to_vector(self._model)
        # Whole numbers modulo 2^64: under masks each is as likely as any other, so a part's values cannot be judged.
        form = ReplyForm(GradientReply, np.int64, size=len(vector), largest=None)
        replies = self._ask(request, vector, message_type=GRADIENT, phase=f"training, round {number}", form=form)
        parts = [np.asarray(read_array(message, np.int64), dtype=np.int64) for message in replies.valid.values()]
        total = decode_vector(add_parts(parts), unit=self._settings.clip_norm, levels=CLIP_LEVELS)
        done = (number - 1) * self._schedule.steps + step - 1
        share = 1 - (1 - _FINAL_RATE) * done / (self._schedule.rounds * self._schedule.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * share
        gradient = total / (self._schedule.expected_batch * len(parts))
        if self._anchor is None:
            self._set_gradient(gradient)
        else:
            self._set_gradient((1 - _ANCHOR) * gradient)
            (_ANCHOR * self._anchor(self._model)).backward()
        self._optimizer.step()
        self._average.update(done)

    def _set_gradient(self, gradient: NDArray[np.float64]) -> None:
        flat = torch.from_numpy(gradient.astype(np.float32))
        start = 0
        for parameter in self._model.parameters():
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def _finish_round(self, number: int, *, started: float) -> None:
        """Asks for the charged loss of the averaged model, and writes the round down."""
        vector = self._average.vector()
        request = LossRequest(**self._run, round=number, encoder=self._encoder, model=self._journal.model)
        form = ReplyForm(LossReply, np.int64, size=1)
        replies = self._ask(request, vector, message_type=LOSS, phase=f"training, round {number}", form=form)
        parts = [np.asarray(read_array(message, np.int64), dtype=np.int64) for message in replies.valid.values()]
        bodies = [read_body(message, LossReply) for message in replies.valid.values()]
        # Levels of the mean record, of all records of the nodes that answered.
        unit = LOSS_BOUND / LOSS_LEVELS / (self._size * len(parts))
        spent = max(body.spent for body in bodies)
        seconds = time.monotonic() - started
        loss = self._schedule.loss
        finished = RoundFinished(
            round=number,
            rounds=self._schedule.rounds,
            nodes_ok=len(parts),
            nodes_asked=len(self._names),
            loss=float(loss.open(parts)[0]) * unit,
            loss_noise=loss.noise_of(nodes=len(parts)) * unit,
            spent=spent,
            left=max(0.0, self._plan.epsilon - spent),
            seconds=seconds,
            remaining=seconds * (self._schedule.rounds - number),
        )
        self._journal.write_round(finished, vector=vector, codes=replies.codes, names=self._names)
        self._report(finished)

    def _ask(
        self,
        request: GradientRequest | LossRequest,
        vector: NDArray[np.float32],
        *,
        message_type: str,
        phase: str,
        form: ReplyForm,
    ) -> Replies:
        require_going_on(self._should_stop)
        contents = {node_id: pack(request, vector) for node_id in self._names}
        replies = ask(self._grid, contents, message_type=message_type, timeout=self._timeout, form=form)
        replies.require(self._plan.min_nodes, phase=phase, names=self._names)
        return replies

    @property
    def _size(self) -> float:
        """The mean number of records of a node, by which the schedule was made."""
        return self._schedule.expected_batch / self._schedule.sampling_rate

    @property
    def _plan(self) -> StudyPlan:
        return self._journal.record.plan

    @property
    def _run(self) -> dict[str, str]:
        return {"run_id": self._journal.record.run_id, "plan_hash": self._plan.content_hash}
