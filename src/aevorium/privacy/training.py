"""DP-SGD at a node (Abadi et al. 2016): what is accounted is exactly what runs. Opacus adds the noise.

Each record enters a step independently with probability q (Poisson sampling). Its gradient is that of its loss averaged
over K draws of noise level and noise (noise multiplicity, Dockhorn et al. 2023), so the draws share one clip. The sum
of clipped gradients gets Gaussian noise once and is divided by the *expected* batch, which comes from released or
declared numbers; the number of records that happened to be drawn appears nowhere. A step without records steps too.

Batches are taken in parts of one size, which cost no memory and keep records apart (`separation`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizerFastGradientClipping
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aevorium.diffusion.average import RunningAverage
from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.diffusion.device import CPU
from aevorium.diffusion.layout import EncodedTable
from aevorium.diffusion.process import MixedProcess
from aevorium.diffusion.schedule import stratified_levels
from aevorium.privacy.clipping import add_clipped_sum
from aevorium.privacy.separation import part_size
from aevorium.threads import one_thread

__all__ = ["TrainingPlan", "clipped_gradient_sum", "record_losses", "train_privately"]

_FINAL_RATE = 0.1
"""The step size falls linearly to this share of itself over a round."""


class TrainingPlan(BaseModel):
    """What `train_privately` does, fixed before it sees a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: float = Field(gt=0, le=1, description="Probability q with which a record enters a step.")
    steps: int = Field(ge=1, description="Number of steps.")
    noise_multiplier: float = Field(ge=0, description="Noise over the clipping norm; 0 trains without privacy.")
    expected_batch: float = Field(gt=0, description="q times the declared or noisy number of records.")
    clip_norm: float = Field(gt=0, description="Largest norm of a record's gradient; unused without privacy.")
    draws: int = Field(ge=1, description="Draws of noise per record, averaged before the clip.")
    learning_rate: float = Field(gt=0, description="Step size of Adam at the start.")
    ema_decay: float = Field(ge=0, lt=1, description="Decay of the running average of the weights.")


def train_privately(
    model: TabularDiffusion,
    data: EncodedTable,
    *,
    plan: TrainingPlan,
    generator: Callable[[], torch.Generator],
    device: torch.device = CPU,
) -> None:
    """Trains a model in place. Reads patient records; with noise, the model is safe to release at the plan's cost.

    Args:
        model: The model; ends as the running average of its weights (post-processing).
        data: The node's records.
        plan: Rate, steps and noise.
        generator: Makes the generators of batches, of privacy noise and of the diffusion's own draws, on the CPU.
        device: Where gradients are computed. All that is drawn at random, the privacy noise first, is drawn on the CPU.
    """
    losses = _Losses(model, device=device)
    batches, noise, draws = generator(), generator(), generator()
    average = RunningAverage(model, decay=plan.ema_decay)
    model.train()
    if plan.noise_multiplier == 0:
        _train_plainly(model, data, losses=losses, plan=plan, average=average, batches=batches, draws=draws)
        return
    part = part_size(model.config, draws=plan.draws, device=device)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.Adam(model.parameters(), lr=plan.learning_rate, foreach=True),
        noise_multiplier=plan.noise_multiplier,
        max_grad_norm=plan.clip_norm,
        expected_batch_size=plan.expected_batch,
        loss_reduction="mean",
        generator=noise,
        # One float32 deviate ends at 5.8 deviations, beyond which a value would give a record away, and its low bits
        # depend on what it is added to. Half the sum of four does neither (Holohan and Braghin 2021).
        secure_mode=True,
    )
    try:
        with one_thread():
            for step in range(plan.steps):
                _set_rate(optimizer, plan, step)
                index = _draw_batch(len(data), rate=plan.sampling_rate, generator=batches)
                batch = data.select(index)
                _clipped_sum(losses, batch, part=part, clip_norm=plan.clip_norm, draws=plan.draws, generator=draws)
                optimizer.step()
                optimizer.zero_grad()
                average.update(step)
    finally:
        _forget_gradients(model)
    average.store()


def clipped_gradient_sum(
    model: TabularDiffusion,
    data: EncodedTable,
    *,
    sampling_rate: float,
    clip_norm: float,
    draws: int,
    part: int,
    generator: Callable[[], torch.Generator],
    device: torch.device = CPU,
) -> NDArray[np.float64]:
    """The exact sum of the clipped gradients of a Poisson sample. Reads patient records; it must get noise.

    Args:
        model: The model; it stays as it is.
        data: The node's records.
        sampling_rate: Probability q with which a record is drawn.
        clip_norm: Largest norm of a record's gradient.
        draws: Draws of noise per record, averaged before the clip.
        part: Records of one pass; `part_size` says how many keep apart.
        generator: Makes the generators of the batch and of the diffusion's own draws, on the CPU.
        device: Where gradients are computed.

    Returns:
        float64 [parameters]; zeros if no record is drawn.
    """
    losses = _Losses(model, device=device)
    batches, noise = generator(), generator()
    model.train()
    try:
        with one_thread():
            index = _draw_batch(len(data), rate=sampling_rate, generator=batches)
            batch = data.select(index)
            _clipped_sum(losses, batch, part=part, clip_norm=clip_norm, draws=draws, generator=noise)
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return np.asarray(torch.cat([grad.reshape(-1) for grad in grads]).double().numpy())
    finally:
        _forget_gradients(model)


class _Losses:
    """Losses of records by a model, computed on a device: elsewhere than on the CPU, by a copy of the model.

    What is drawn at random comes from CPU generators, and the weights and their steps stay on the CPU too, so that the
    device changes nothing of what is accounted.

    Args:
        model: The model, on the CPU.
        device: Where to compute.
    """

    def __init__(self, model: TabularDiffusion, *, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._process = MixedProcess(model.layout)
        self.computing = model if device == CPU else copy.deepcopy(model).to(device)

    def load(self) -> None:
        """Gives the copy, if there is one, the model's weights as they are now."""
        if self.computing is not self._model:
            self.computing.train(self._model.training).load_state_dict(self._model.state_dict())

    def of(self, batch: EncodedTable, *, draws: int, generator: torch.Generator) -> Tensor:
        """Each record's loss, averaged over draws, [B], on the device. Reads patient records."""
        sigma = stratified_levels(len(batch), draws=draws, generator=generator)
        noise = self._process.noise(sigma, generator=generator)
        losses = self._process.loss_at(
            self.computing, batch.to(self._device), sigma=sigma.to(self._device), noise=noise.to(self._device)
        )
        return losses.mean(dim=1)

    def hand_over_gradients(self) -> None:
        """Moves the gradients of the copy, if there is one, to the model."""
        if self.computing is not self._model:
            for own, copied in zip(self._model.parameters(), self.computing.parameters(), strict=True):
                own.grad = None if copied.grad is None else copied.grad.to(own.device)
                copied.grad = None


def _clipped_sum(
    losses: _Losses, batch: EncodedTable, *, part: int, clip_norm: float, draws: int, generator: torch.Generator
) -> None:
    """Leaves the sum of a batch's clipped gradients in `grad` of the model. Reads patient records."""
    losses.load()
    for index in torch.arange(len(batch)).split(part):
        rows = batch.select(index).filled_to(part)
        add_clipped_sum(
            losses.computing,
            partial(losses.of, rows, draws=draws, generator=generator),
            clip_norm=clip_norm,
            records=len(index),
        )
    losses.hand_over_gradients()


def _train_plainly(
    model: TabularDiffusion,
    data: EncodedTable,
    *,
    losses: _Losses,
    plan: TrainingPlan,
    average: RunningAverage,
    batches: torch.Generator,
    draws: torch.Generator,
) -> None:
    """The same steps without clip and noise: ε is infinite."""
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.learning_rate, foreach=True)
    for step in range(plan.steps):
        _set_rate(optimizer, plan, step)
        index = _draw_batch(len(data), rate=plan.sampling_rate, generator=batches)
        optimizer.zero_grad()
        if len(index):
            losses.load()
            each = losses.of(data.select(index), draws=plan.draws, generator=draws)
            (each.sum() / plan.expected_batch).backward()
            losses.hand_over_gradients()
            optimizer.step()
        average.update(step)
    _forget_gradients(model)
    average.store()


@torch.no_grad()
def record_losses(
    model: TabularDiffusion,
    data: EncodedTable,
    *,
    part: int,
    generator: torch.Generator,
    draws: int,
    device: torch.device = CPU,
) -> NDArray[np.float32]:
    """Each record's loss, averaged over draws. Reads patient records; the losses are exact, bound and noise them.

    Args:
        model: The model.
        data: The records.
        part: Records of one pass; `part_size` says how many keep apart.
        generator: Source of noise levels and noise, on the CPU.
        draws: Draws per record, spread evenly over the noise levels.
        device: Where losses are computed.

    Returns:
        float32 [n].
    """
    model.eval()
    losses = _Losses(model, device=device)
    losses.load()
    with one_thread():
        parts = [
            losses.of(data.select(index).filled_to(part), draws=draws, generator=generator)[: len(index)]
            for index in torch.arange(len(data)).split(part)
        ]
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)


def _draw_batch(records: int, *, rate: float, generator: torch.Generator) -> Tensor:
    """The indices of a Poisson sample. float64: a float32 below 2⁻²⁴ apart from the rate would bias it."""
    return torch.nonzero(torch.rand(records, generator=generator, dtype=torch.float64) < rate).flatten()


def _set_rate(optimizer: torch.optim.Optimizer, plan: TrainingPlan, step: int) -> None:
    share = 1 - (1 - _FINAL_RATE) * step / plan.steps
    for group in optimizer.param_groups:
        group["lr"] = plan.learning_rate * share


def _forget_gradients(model: TabularDiffusion) -> None:
    """Removes gradients, and the sums that Opacus left on the parameters: nothing of records outlives the training."""
    for parameter in model.parameters():
        parameter.grad = None
        if hasattr(parameter, "summed_grad"):
            del parameter.summed_grad
