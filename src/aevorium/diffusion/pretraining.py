"""Training on a density that holds no record: no clip, no noise, no charge.

The density's own posterior says what is to be expected of a clean row, given the noisy one: the network learns that
expectation, and not the row that happened to be drawn. Both have the same best network, but the chance in the row is
averaged out before a gradient is taken (Rao-Blackwell), which is worth several times as many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aevorium.diffusion.average import RunningAverage
from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.diffusion.layout import EncodedTable
from aevorium.diffusion.process import MixedProcess
from aevorium.diffusion.schedule import stratified_levels

__all__ = ["Density", "Posterior", "Pretraining", "expectation_loss", "pretrain"]

Posterior = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""What is to be expected of clean rows, given noisy ones [B, D] and their levels [B]: the value of each continuous
column, given that it is observed, [B, C]; the probability that it is, [B, C]; and that of each state, [B, D - C]."""


class Density(NamedTuple):
    """A density that holds no record.

    Attributes:
        rows: Rows of it, drawn from with replacement.
        posterior: What it expects of clean rows.
    """

    rows: EncodedTable
    posterior: Posterior


_WARM_UP = 100
"""Steps over which the step size grows from 0."""

_FINAL_RATE = 0.005


class Pretraining(BaseModel):
    """How a model is trained on a density that holds no record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=0, description="Number of steps.")
    batch: int = Field(default=512, ge=1, description="Rows in a step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Largest step size of Adam; it falls to about 0.")
    ema_decay: float = Field(default=0.995, ge=0, lt=1, description="Decay of the running average of the weights.")


def pretrain(
    model: TabularDiffusion,
    densities: Sequence[Density],
    *,
    plan: Pretraining,
    generator: torch.Generator,
    advance: Callable[[int], None],
) -> None:
    """Trains a model in place on the mean of densities; it ends as the running average of its weights.

    Each step takes the next density: a model that learns what each expects of its own rows learns what their mean does.

    Args:
        model: The model.
        densities: The densities, each of the same weight.
        plan: How long and how.
        generator: Draws batches, noise levels and noise.
        advance: Called with the number of steps made.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.99), foreach=True)
    average = RunningAverage(model, decay=plan.ema_decay)
    model.train()
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _share(step, steps=plan.steps)
        optimizer.zero_grad()
        density = densities[step % len(densities)]
        expectation_loss(model, density, batch=plan.batch, generator=generator).backward()
        optimizer.step()
        average.update(step)
        advance(step + 1)
    optimizer.zero_grad()
    average.store()


def expectation_loss(model: TabularDiffusion, density: Density, *, batch: int, generator: torch.Generator) -> Tensor:
    """The mean loss of a model on rows of the density, against what the density expects of them.

    Args:
        model: The model.
        density: The density.
        batch: How many rows.
        generator: Draws rows, noise levels and noise.
    """
    process = MixedProcess(model.layout)
    index = torch.randint(len(density.rows), (batch,), generator=generator, device=generator.device)
    drawn = density.rows.select(index)
    # One level a row, spread evenly over the batch: the rows come in no order.
    sigma = stratified_levels(1, draws=batch, generator=generator)[0]
    noisy = process.corrupt(process.clean(drawn), sigma=sigma, noise=process.noise(sigma, generator=generator))
    values, observed, states = density.posterior(noisy, sigma)
    losses = process.expected_loss(model(noisy, sigma), sigma=sigma, values=values, observed=observed, states=states)
    return losses.mean()


def _share(step: int, *, steps: int) -> float:
    """The step size as a share of the largest: up in a straight line, down along half a cosine."""
    return min(1.0, (step + 1) / _WARM_UP) * (0.5 * (1 + math.cos(math.pi * step / steps)) + _FINAL_RATE)
