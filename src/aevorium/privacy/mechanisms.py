"""The mechanisms of counts and histograms: the only module that imports OpenDP and draws noise for tables."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoiseSource", "OsNoise", "noisy_count", "noisy_histogram"]


class NoiseSource(Protocol):
    """Where whole-number noise comes from. A run with any other source than `OsNoise` is not private.

    Attributes:
        is_secret: Whether nobody can repeat the noise; a seeded source, which only tests have, says no.
    """

    is_secret: bool

    def laplace(self, value: int, *, scale: float) -> int:
        """The value plus noise z of probability proportional to exp(-|z| / scale)."""
        ...

    def gaussian(self, values: NDArray[np.int64], *, sigma: float) -> NDArray[np.int64]:
        """The values plus independent noise z of probability proportional to exp(-z² / 2σ²)."""
        ...


class OsNoise:
    """Exact samplers of OpenDP, fed with the operating system's entropy (Canonne, Kamath & Steinke 2020)."""

    is_secret = True

    def laplace(self, value: int, *, scale: float) -> int:
        """See `NoiseSource`."""
        import opendp.prelude as dp

        dp.enable_features("contrib")
        space = dp.atom_domain(T="i64"), dp.absolute_distance(T="i64")
        return int(dp.m.make_laplace(*space, scale)(value))

    def gaussian(self, values: NDArray[np.int64], *, sigma: float) -> NDArray[np.int64]:
        """See `NoiseSource`."""
        import opendp.prelude as dp

        dp.enable_features("contrib")
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
        return np.array(dp.m.make_gaussian(*space, sigma)([int(value) for value in values]), dtype=np.int64)


def noisy_count(count: int, *, epsilon: float, noise: NoiseSource) -> int:
    """A count of sensitivity 1 at the cost of `DiscreteLaplace(epsilon)`. Reads patient records. Safe to release.

    Args:
        count: The exact count.
        epsilon: The ε of the mechanism.
        noise: Source of noise.
    """
    return noise.laplace(count, scale=_scale(epsilon))


def _scale(epsilon: float) -> float:
    """1/ε, rounded up: so that the noise is never below what the event says, be it by one bit."""
    scale = 1 / epsilon
    while Fraction(scale) * Fraction(repr(epsilon)) < 1:
        scale = math.nextafter(scale, math.inf)
    return scale


def noisy_histogram(counts: NDArray[np.int64], *, sigma: float, noise: NoiseSource) -> NDArray[np.int64]:
    """Whole numbers plus discrete Gaussian noise in every cell, at the cost of `DiscreteGaussian`.

    Reads patient records. Safe to release.

    Args:
        counts: int64 [cells], exact: histograms, or sums of which one record changes none by more than the event's
            sensitivity.
        sigma: Parameter of the noise, in the unit of the numbers.
        noise: Source of noise.

    Returns:
        int64 [cells]; cells may be negative.
    """
    return noise.gaussian(np.asarray(counts, dtype=np.int64), sigma=sigma)
