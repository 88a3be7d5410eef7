"""Private training at a node: a whole round, or one step of a sum over nodes; and the charged loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from aevorium.diffusion.denoiser import TabularDiffusion, to_vector
from aevorium.diffusion.layout import EncodedTable
from aevorium.federation.protocol import TrainingSettings
from aevorium.privacy.aggregation import encode_vector, share_noise
from aevorium.privacy.mechanisms import NoiseSource
from aevorium.privacy.numbers import Numbers
from aevorium.privacy.phases import LOSS_BOUND, LOSS_LEVELS
from aevorium.privacy.schedule import CLIP_LEVELS, TrainingSchedule
from aevorium.privacy.separation import PART, part_size
from aevorium.privacy.training import TrainingPlan, clipped_gradient_sum, record_losses, train_privately

__all__ = ["loss_noise", "noisy_gradient", "noisy_loss", "train_round", "try_device"]

_LOSS_DRAWS = 8


def try_device(
    model: TabularDiffusion,
    *,
    schedule: TrainingSchedule,
    device: torch.device,
    settings: TrainingSettings | None = None,
) -> None:
    """Tries, before a round is paid for, whether the device keeps records apart: should it fail, that costs nothing.

    Reads no record.

    Args:
        model: A model of the shape that will be computed.
        schedule: How much noise.
        device: Where gradients and losses are computed.
        settings: How the model is trained; None where the loss alone is computed.
    """
    for draws in {_LOSS_DRAWS, settings.draws if settings else _LOSS_DRAWS}:
        _part_size(model, schedule=schedule, draws=draws, device=device)


def train_round(
    model: TabularDiffusion,
    encoded: EncodedTable,
    *,
    schedule: TrainingSchedule,
    settings: TrainingSettings,
    learning_rate: float,
    noise: NoiseSource,
    generator: Callable[[], torch.Generator],
    device: torch.device,
    size: float,
) -> Numbers:
    """Trains the model in place. Reads patient records; what it returns is safe to release at the schedule's cost.

    Args:
        model: The global model.
        encoded: The node's encoded records.
        schedule: Sampling rate, steps and noise.
        settings: What does not touch the accounting.
        learning_rate: Step size of Adam at the start.
        noise: Source of the loss's noise.
        generator: Makes generators for noise and batches.
        device: Where gradients and losses are computed.
        size: The node's declared or noisy number of records.

    Returns:
        The node's model, float32 [parameters], and the noisy mean loss per record, float64 [1].
    """
    plan = TrainingPlan(
        sampling_rate=schedule.sampling_rate,
        steps=schedule.steps,
        noise_multiplier=schedule.noise_multiplier,
        expected_batch=schedule.expected_batch,
        clip_norm=settings.clip_norm,
        draws=settings.draws,
        learning_rate=learning_rate,
        ema_decay=settings.ema_decay,
    )
    train_privately(model, encoded, plan=plan, generator=generator, device=device)
    (total,) = noisy_loss(model, encoded, schedule=schedule, noise=noise, generator=generator, device=device)
    return to_vector(model), np.array([float(total[0]) * _loss_unit(size)])


def noisy_gradient(
    model: TabularDiffusion,
    encoded: EncodedTable,
    *,
    schedule: TrainingSchedule,
    settings: TrainingSettings,
    generator: Callable[[], torch.Generator],
    device: torch.device,
) -> Numbers:
    """One step under secure aggregation: the node's part of the sum, with its share of the noise.

    Reads patient records. The sum over all nodes is safe to release at the schedule's cost; a single part is protected
    by one share alone.

    Args:
        model: The global model; it stays as it is.
        encoded: The node's encoded records.
        schedule: Sampling rate and noise.
        settings: What does not touch the accounting.
        generator: Makes generators for batches and noise.
        device: Where gradients are computed.

    Returns:
        int64 [parameters], modulo 2^64.
    """
    exact = clipped_gradient_sum(
        model,
        encoded,
        sampling_rate=schedule.sampling_rate,
        clip_norm=settings.clip_norm,
        draws=settings.draws,
        part=_part_size(model, schedule=schedule, draws=settings.draws, device=device),
        generator=generator,
        device=device,
    )
    levels = encode_vector(exact, unit=settings.clip_norm, levels=CLIP_LEVELS, generator=generator())
    if schedule.noise_multiplier > 0:
        levels += share_noise(len(levels), sigma=schedule.noise_multiplier * CLIP_LEVELS, generator=generator())
    return (levels,)


def noisy_loss(
    model: TabularDiffusion,
    encoded: EncodedTable,
    *,
    schedule: TrainingSchedule,
    noise: NoiseSource,
    generator: Callable[[], torch.Generator],
    device: torch.device,
) -> Numbers:
    """The sum of the records' bounded losses in levels, with noise: int64 [1]. Reads patient records.

    Args:
        model: The model.
        encoded: The node's encoded records.
        schedule: How much noise.
        noise: Source of noise.
        generator: Makes the generator of the diffusion's own draws.
        device: Where losses are computed.
    """
    part = _part_size(model, schedule=schedule, draws=_LOSS_DRAWS, device=device)
    losses = record_losses(model, encoded, part=part, generator=generator(), draws=_LOSS_DRAWS, device=device)
    bounded = np.clip(np.nan_to_num(losses, nan=LOSS_BOUND), 0.0, LOSS_BOUND)
    levels = np.round(bounded * (LOSS_LEVELS / LOSS_BOUND)).astype(np.int64)
    return (schedule.loss.protect(levels.sum(keepdims=True), noise=noise),)


def loss_noise(schedule: TrainingSchedule, *, size: float) -> float:
    """Standard deviation of the noise in a round's loss. Public."""
    return schedule.loss.sigma * _loss_unit(size)


def _loss_unit(size: float) -> float:
    """By how much one level of one record's loss moves the mean."""
    return LOSS_BOUND / LOSS_LEVELS / size


def _part_size(model: TabularDiffusion, *, schedule: TrainingSchedule, draws: int, device: torch.device) -> int:
    """Records of one pass. Where there is no noise, there is nothing to protect."""
    return part_size(model.config, draws=draws, device=device) if schedule.noise_multiplier > 0 else PART
