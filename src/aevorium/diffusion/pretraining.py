"""Training on rows that hold no record: no clip, no noise, no charge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict, Field

from aevorium.diffusion.average import RunningAverage
from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.diffusion.layout import EncodedTable
from aevorium.diffusion.process import MixedProcess

__all__ = ["Pretraining", "train_freely"]


class Pretraining(BaseModel):
    """How a model is trained on rows that hold no record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=0, description="Number of steps.")
    batch: int = Field(default=256, ge=1, description="Rows in a step.")
    draws: int = Field(default=1, ge=1, description="Draws of noise a row.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Step size of Adam at the start; it falls to 0.")
    ema_decay: float = Field(default=0.995, ge=0, lt=1, description="Decay of the running average of the weights.")


def train_freely(
    model: TabularDiffusion,
    rows: EncodedTable,
    *,
    plan: Pretraining,
    generator: torch.Generator,
    advance: Callable[[int], None],
) -> None:
    """Trains a model in place; it ends as the running average of its weights.

    Args:
        model: The model.
        rows: Rows to train on, drawn from with replacement.
        plan: How long and how.
        generator: Draws batches, noise levels and noise.
        advance: Called with the number of steps made.
    """
    process = MixedProcess(model.layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.learning_rate, foreach=True)
    average = RunningAverage(model, decay=plan.ema_decay)
    model.train()
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * (1 - step / plan.steps)
        index = torch.randint(len(rows), (plan.batch,), generator=generator)
        optimizer.zero_grad()
        process.loss(model, rows.select(index), draws=plan.draws, generator=generator).mean().backward()
        optimizer.step()
        average.update(step)
        advance(step + 1)
    optimizer.zero_grad()
    average.store()
