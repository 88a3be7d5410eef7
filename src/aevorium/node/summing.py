"""Training under secure aggregation at a node: one step an exchange, each with a share of the noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aevorium.federation.protocol import (
    GradientRequest,
    LossReply,
    LossRequest,
)
from aevorium.node.checks import (
    known,
    model_of,
    require_trust,
)
from aevorium.node.phases import ReleasingPhases
from aevorium.node.run import fingerprint_of
from aevorium.node.steps import OpenSteps, require_encoder, require_open
from aevorium.node.training import noisy_gradient, noisy_loss, try_device
from aevorium.privacy.numbers import Numbers

__all__ = ["SummedPhases"]


class SummedPhases(ReleasingPhases):
    """Answers the requests of trust secure-aggregation too. What it sends is protected as a sum over nodes."""

    _steps: OpenSteps | None = None

    def gradient(self, request: GradientRequest, vector: NDArray[np.float32]) -> NDArray[np.int64]:
        """Phase "training" under secure aggregation, one step. Reads patient records.

        The sum over the nodes is safe to release; what this returns is protected by one share of the noise alone.

        Args:
            request: The step.
            vector: float32 [parameters], the global model.

        Returns:
            int64 [parameters], modulo 2^64.
        """
        if request.step == 1:
            self._steps = self._open_steps(request, vector)
        with self._refusing("training", run_id=request.run_id):
            steps = require_open(self._steps, request)
            model = model_of(request.model, vector, encoder=steps.encoder, schema=self._schema, bins=steps.bins)
        records = self._records.training(steps.plan)

        def produce() -> Numbers:
            encoded = self._records.encode(records, steps.encoder)
            return noisy_gradient(
                model,
                encoded,
                schedule=steps.schedule,
                settings=request.settings,
                generator=self._generator,
                device=self._device,
            )

        with self._refusing("training", run_id=request.run_id):
            (values,) = steps.released.release(request.step, produce=produce)
        return values.astype(np.int64, copy=False)

    def loss(self, request: LossRequest, vector: NDArray[np.float32]) -> tuple[LossReply, NDArray[np.int64]]:
        """The charged loss of a round under secure aggregation. Reads patient records; their sum is safe to release.

        Args:
            request: The round.
            vector: float32 [parameters], the model.
        """
        run = self._run(request, phase="loss", round=request.round)
        with self._refusing("loss", run_id=request.run_id):
            schedule = require_trust(run, is_summed=True)
            model = model_of(
                request.model, vector, encoder=request.encoder, schema=self._schema, bins=known(run, run.bins)
            )
        try_device(model, schedule=schedule, device=self._device)
        records = self._records.training(run.plan)

        def produce() -> Numbers:
            encoded = self._records.encode(records, request.encoder)
            return noisy_loss(
                model,
                encoded,
                schedule=schedule,
                noise=self._noise,
                generator=self._generator,
                device=self._device,
            )

        (values,) = self._gate.release(
            request.run_id,
            phase="loss",
            round=request.round,
            events=(schedule.loss.event("training loss"),),
            fingerprint=fingerprint_of(request, vector),
            produce=produce,
        )
        return LossReply(spent=self._spent(request.run_id, run.plan)), values.astype(np.int64, copy=False)

    def _open_steps(self, request: GradientRequest, vector: NDArray[np.float32]) -> OpenSteps:
        """Pays for a round under secure aggregation, by its first step, if that can be taken."""
        run = self._run(request, phase="training", round=request.round)
        with self._refusing("training", run_id=request.run_id):
            schedule, bins = require_trust(run, is_summed=True), known(run, run.bins)
            encoder = require_encoder(request, schema=self._schema, bins=bins)
            model = model_of(request.model, vector, encoder=encoder, schema=self._schema, bins=bins)
        try_device(model, schedule=schedule, device=self._device, settings=request.settings)
        released = self._gate.open_steps(
            request.run_id,
            phase="training",
            round=request.round,
            events=(schedule.step_event(steps=schedule.steps),),
        )
        return OpenSteps(
            request.run_id,
            request.round,
            plan=run.plan,
            bins=bins,
            schedule=schedule,
            encoder=encoder,
            released=released,
        )
