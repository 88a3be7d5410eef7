"""One round of private training at a node, with its charged loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from aevorium.diffusion.denoiser import TabularDiffusion, to_vector
from aevorium.diffusion.layout import EncodedTable
from aevorium.errors import FederationError
from aevorium.federation.protocol import TrainingSettings
from aevorium.privacy.mechanisms import NoiseSource, noisy_histogram
from aevorium.privacy.numbers import Numbers
from aevorium.privacy.plan import LOSS_BOUND, LOSS_LEVELS, TrainingSchedule
from aevorium.privacy.training import TrainingPlan, record_losses, train_privately

__all__ = ["loss_noise", "train_round"]

_LOSS_DRAWS = 8


def train_round(
    model: TabularDiffusion,
    encoded: EncodedTable,
    *,
    schedule: TrainingSchedule,
    settings: TrainingSettings,
    noise: NoiseSource,
    generator: Callable[[], torch.Generator],
    size: float,
) -> Numbers:
    """Trains the model in place. Reads patient records; what it returns is safe to release at the schedule's cost.

    Args:
        model: The global model.
        encoded: The node's encoded records.
        schedule: Sampling rate, steps and noise.
        settings: What does not touch the accounting.
        noise: Source of the loss's noise.
        generator: Makes generators for noise and batches.
        size: The node's declared or noisy number of records.

    Returns:
        The node's model, float32 [parameters], and the noisy mean loss per record, float64 [1].
    """
    if settings.learning_rate is None:
        raise FederationError("MESSAGE_INVALID", "A round came without the step size that belongs to it.")
    plan = TrainingPlan(
        sampling_rate=schedule.sampling_rate,
        steps=schedule.steps,
        noise_multiplier=schedule.noise_multiplier,
        expected_batch=schedule.expected_batch,
        clip_norm=settings.clip_norm,
        draws=settings.draws,
        learning_rate=settings.learning_rate,
        ema_decay=settings.ema_decay,
    )
    train_privately(model, encoded, plan=plan, generator=generator)
    losses = record_losses(model, encoded, generator=generator(), draws=_LOSS_DRAWS)
    bounded = np.clip(np.nan_to_num(losses, nan=LOSS_BOUND), 0.0, LOSS_BOUND)
    total = np.round(bounded * (LOSS_LEVELS / LOSS_BOUND)).astype(np.int64).sum(keepdims=True)
    if schedule.loss_sigma > 0:
        total = noisy_histogram(total, sigma=schedule.loss_sigma, noise=noise)
    return to_vector(model), np.array([float(total[0]) * _loss_unit(size)])


def loss_noise(schedule: TrainingSchedule, *, size: float) -> float:
    """Standard deviation of the noise in a round's loss. Public."""
    return schedule.loss_sigma * _loss_unit(size)


def _loss_unit(size: float) -> float:
    """By how much one level of one record's loss moves the mean."""
    return LOSS_BOUND / LOSS_LEVELS / size
