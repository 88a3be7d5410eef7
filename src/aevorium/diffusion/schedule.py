"""Noise levels σ: which ones training sees, and the path that sampling takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["LOG_SIGMA_MEAN", "LOG_SIGMA_SPREAD", "SIGMA_MAX", "SIGMA_MIN", "karras_levels", "stratified_levels"]

SIGMA_MIN = 0.02
"""Below this a value is known to a fiftieth of its spread, finer than the cells of any encoder."""
SIGMA_MAX = 15.0
"""Above this what columns tell of each other (about 1/σ²) is below half a percent."""
LOG_SIGMA_MEAN = -0.3
LOG_SIGMA_SPREAD = 1.4
"""ln σ ~ N(-0.3, 1.4²) in training: most weight where one column starts to tell about another."""


def stratified_levels(records: int, *, draws: int, generator: torch.Generator) -> Tensor:
    """Draws noise levels for training.

    The draws of one record fall into `draws` equally likely strata, one each, so that their mean varies less than
    that of independent draws while each single one keeps the same lognormal distribution.

    Args:
        records: Number of records, B.
        draws: Levels for each, K.
        generator: Source of randomness; its device is the result's.

    Returns:
        float32 [B, K].
    """
    within = torch.rand(records, draws, generator=generator, device=generator.device)
    stratum = torch.arange(draws, device=generator.device)
    quantile = ((stratum + within) / draws).clamp(1e-6, 1 - 1e-6)
    standard = math.sqrt(2) * torch.erfinv(2 * quantile - 1)
    return torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_SPREAD * standard).clamp(SIGMA_MIN, SIGMA_MAX)


def karras_levels(steps: int, *, rho: float = 7.0) -> Tensor:
    """The descending noise levels of sampling (Karras et al. 2022, equation 5).

    Args:
        steps: Number of levels, at least 2.
        rho: How strongly the levels crowd at the low end.

    Returns:
        float32 [steps], from `SIGMA_MAX` to `SIGMA_MIN`.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = SIGMA_MAX ** (1 / rho), SIGMA_MIN ** (1 / rho)
    return torch.pow(high + ramp * (low - high), rho).float()
