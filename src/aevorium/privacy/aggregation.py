"""Vectors of real numbers as whole numbers modulo 2^64, with shares of noise: what secure aggregation adds up.

What a node sends is `encode_vector` plus `share_noise`; the server adds the parts and reads the sum with
`decode_vector`. Both wrap around at 2^64, as masks that cancel in the sum will need; noise and sums stay far below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from aevorium.errors import InternalError

__all__ = ["add_parts", "decode_vector", "encode_vector", "share_noise"]

_NARROWEST = 2.0**20
"""Below it, a standard deviation is no longer wide against the whole numbers, and `share_noise` would reject often."""

_REACH = 40.0
"""Standard deviations beyond which a deviate is drawn anew; one has a probability below 1e-340."""


def encode_vector(
    vector: NDArray[np.float64], *, unit: float, levels: int, generator: torch.Generator
) -> NDArray[np.int64]:
    """Rounds a vector to whole numbers of which `levels` make one `unit`, up or down at random and right on average.

    The same dither u is thought to be used with and without a record: then floor(x + u) changes in each coordinate by
    less than 1 more than x does, which is what `SampledDiscreteGaussianSum.sensitivity` charges.

    Args:
        vector: float64 [n].
        unit: What `levels` stands for, such as the clipping norm.
        levels: Whole numbers of one unit.
        generator: Source of the dither.

    Returns:
        int64 [n].
    """
    dither = torch.rand(len(vector), generator=generator, dtype=torch.float64).numpy()
    return np.asarray(np.floor(vector * (levels / unit) + dither).astype(np.int64))


def decode_vector(total: NDArray[np.int64], *, unit: float, levels: int) -> NDArray[np.float64]:
    """The real numbers that a sum of encoded vectors stands for. Safe to release if the sum is."""
    return np.asarray(total.astype(np.float64) * (unit / levels))


def add_parts(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum modulo 2^64 of what nodes sent, as signed numbers."""
    total = np.zeros(len(parts[0]), dtype=np.uint64)
    for part in parts:
        total += part.view(np.uint64)
    return total.view(np.int64)


def share_noise(size: int, *, sigma: float, generator: torch.Generator) -> NDArray[np.int64]:
    """Discrete Gaussian noise of a large parameter, drawn in vectors.

    In exact arithmetic the probability of k is proportional to exp(-k²/2σ²): a normal deviate k + u, with k the nearest
    whole number, is accepted with a probability proportional to exp((2ku + u²)/2σ²), so that what remains has the
    density exp(-k²/2σ²), the same for every u. Wide as the noise is, few deviates are rejected. Floating-point normal
    deviates are no real numbers; the privacy statement says so.

    Args:
        size: How many numbers.
        sigma: The parameter.
        generator: Source of randomness.

    Returns:
        int64 [size].

    Raises:
        InternalError: The noise is too narrow for this sampler.
    """
    if sigma < _NARROWEST:
        raise InternalError(f"Noise of parameter {sigma:g} is too narrow to be drawn as a rounded normal deviate.")
    made = np.empty(size, dtype=np.int64)
    missing = np.arange(size)
    # With |k| ≤ reach·σ and |u| ≤ 1/2 the exponent is at most this.
    highest = (_REACH * sigma + 0.25) / (2 * sigma**2)
    while len(missing):
        deviate = torch.randn(len(missing), generator=generator, dtype=torch.float64).numpy() * sigma
        whole = np.rint(deviate)
        rest = deviate - whole
        chance = torch.rand(len(missing), generator=generator, dtype=torch.float64).numpy()
        exponent = (2 * whole * rest + rest**2) / (2 * sigma**2) - highest
        accepted = (np.log1p(-chance) <= exponent) & (np.abs(whole) <= _REACH * sigma)
        made[missing[accepted]] = whole[accepted].astype(np.int64)
        missing = missing[~accepted]
    return made
