"""Rényi privacy of the events, and the filter that bounds a node's spend over runs.

Rényi differential privacy (Mironov 2017) is looser than the privacy loss distribution of `accountant` but has what
that lacks: at one fixed order the costs of mechanisms add up even when each is chosen after seeing the output of the
earlier ones, as long as a bound fixed beforehand is never passed (Feldman & Zrnic 2021, Theorem 4.3; Lécuyer 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, logsumexp

from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    DiscreteLaplace,
    PrivacyEvent,
    SampledDiscreteGaussianSum,
    SampledGaussian,
)
from aevorium.privacy.sums import noise_multiplier_of, sum_distance

__all__ = ["RenyiFilter", "renyi_cost", "renyi_epsilon", "renyi_to_epsilon", "zcdp_budget"]

_ORDERS = (*range(2, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)
"""Orders tried by `renyi_epsilon`."""

_WIDEST_LIMIT = 1e3
"""The filter's order is chosen as if the limit were this, when it is larger or infinite."""

_SAFETY = 1e-12
"""Relative head room for the rounding of floating-point sums."""


def renyi_cost(events: Iterable[PrivacyEvent], *, order: int) -> float:
    """An upper bound on the Rényi divergence between neighbouring outputs of all events together.

    Args:
        events: The events; their costs add up.
        order: The order α, a whole number of at least 2.

    Returns:
        The RDP ε at that order, in nats, for both directions of add/remove. Infinite for a `NonPrivate` event.
    """
    return math.fsum(_event_cost(event, order) for event in events) * (1 + _SAFETY)


@lru_cache(maxsize=4096)
def _event_cost(event: PrivacyEvent, order: int) -> float:
    match event:
        case DiscreteLaplace(epsilon=epsilon):
            return _pure_cost(epsilon, order)
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity, count=count):
            # Canonne, Kamath & Steinke 2020, Proposition 5: no more than the continuous Gaussian's.
            return count * order * (sensitivity / sigma) ** 2 / 2
        case SampledGaussian(sampling_rate=rate, noise_multiplier=noise, steps=steps):
            return steps * _sampled_gaussian_cost(rate, noise, order)
        case DiscreteGaussianSum(sigma=sigma, shares=shares, sensitivity=sensitivity, count=count):
            single = order * (sensitivity / sigma) ** 2 / (2 * shares)
            return count * (single + _sum_cost(sum_distance(sigma, shares), order))
        case SampledDiscreteGaussianSum():
            noise, distance = noise_multiplier_of(event), sum_distance(event.share_sigma, event.shares)
            # Over all terms of the sum below the factor of the distance is largest at the highest power.
            widening = event.parameters * _sum_cost(distance, order)
            return event.steps * (_sampled_gaussian_cost(event.sampling_rate, noise, order) + widening)
        case _:
            return math.inf


def _pure_cost(epsilon: float, order: int) -> float:
    """The divergence of randomised response, of which every ε-DP mechanism is a post-processing (Kairouz 2015)."""
    log_moment = np.logaddexp(order * epsilon, (1 - order) * epsilon) - np.logaddexp(0, epsilon)
    return min(epsilon, float(log_moment) / (order - 1))


def _sum_cost(distance: float, order: int) -> float:
    """What the distance d of a sum from its ideal adds: P^α·Q^(1-α) grows by at most exp((2α - 1)·d)."""
    return (2 * order - 1) * distance / (order - 1)


def _sampled_gaussian_cost(rate: float, noise: float, order: int) -> float:
    """One step's cost (Mironov, Talwar & Zhang 2019, Section 3.3, whole orders).

    Also for discrete noise: each moment E[(Q₁/Q₀)^k] of the discrete Gaussian is at most the continuous one's (Canonne,
    Kamath & Steinke 2020, Proposition 5), and that the other direction costs no more needs only that a reflection
    swaps Q₀ and Q₁ (Mironov et al., Theorem 5), which the symmetry of the noise provides.
    """
    if rate == 1:
        return order / (2 * noise**2)
    k = np.arange(order + 1)
    log_binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    log_terms = log_binomial + k * math.log(rate) + (order - k) * math.log1p(-rate) + k * (k - 1) / (2 * noise**2)
    return max(0.0, float(logsumexp(log_terms)) / (order - 1))


def renyi_to_epsilon(cost: float, *, order: float, delta: float) -> float:
    """The ε at δ that an RDP cost implies (Canonne, Kamath & Steinke 2020, Proposition 12)."""
    return max(0.0, cost + _conversion(order, delta))


def _conversion(order: float, delta: float) -> float:
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def renyi_epsilon(events: Iterable[PrivacyEvent], *, delta: float) -> float:
    """An upper bound on ε at δ for events whose parameters are all fixed: the best of many orders."""
    listed = tuple(events)
    if not listed:
        return 0.0
    return min(renyi_to_epsilon(renyi_cost(listed, order=a), order=a, delta=delta) for a in _ORDERS)


def zcdp_budget(epsilon: float, delta: float) -> float:
    """The largest ρ such that every ρ-zCDP mechanism is (ε, δ)-DP by the best order of `renyi_to_epsilon`.

    ρ-zCDP means an RDP cost of α·ρ at every order α, and ρ adds up (Bun & Steinke 2016).

    Args:
        epsilon: Target ε, above 0.
        delta: Target δ, between 0 and 1.
    """
    order = _best_order(epsilon, delta)
    return (epsilon - _conversion(order, delta)) / order * (1 - _SAFETY)


def _best_order(epsilon: float, delta: float) -> float:
    """The order at which an (ε, δ) budget holds the most Gaussian noise, as a real number above 1."""

    def negative_capacity(log_excess: float) -> float:
        order = 1 + math.exp(log_excess)
        return -(epsilon - _conversion(order, delta)) / order

    found = minimize_scalar(negative_capacity, bounds=(-8.0, 16.0), method="bounded", options={"xatol": 1e-6})
    return 1 + math.exp(float(found.x))


@dataclass(frozen=True)
class RenyiFilter:
    """A limit on everything that a node releases in a period, however its runs are chosen.

    The order α and the capacity depend on the limit alone, which is public and set before a record is read. As long
    as the summed cost stays within the capacity, the whole period is (`epsilon`, `delta`)-DP, although later runs
    and their parameters depend on what earlier ones released.

    Attributes:
        epsilon: The limit ε of the period.
        delta: The δ at which it holds.
    """

    epsilon: float
    delta: float

    @property
    def order(self) -> int:
        """The one order at which costs are added."""
        target = min(self.epsilon, _WIDEST_LIMIT)
        best = _best_order(target, self.delta)
        candidates = {max(2, math.floor(best)), max(2, math.ceil(best))}
        return max(candidates, key=lambda order: (target - _conversion(order, self.delta)) / order)

    @property
    def capacity(self) -> float:
        """The largest summed cost that is within the limit; 0 when the limit is too small for any."""
        return max(0.0, self.epsilon - _conversion(self.order, self.delta)) * (1 - _SAFETY)

    def cost(self, events: Iterable[PrivacyEvent]) -> float:
        """What some events take of the capacity."""
        return renyi_cost(events, order=self.order)

    def to_epsilon(self, cost: float) -> float:
        """The ε, at the period's δ, of a summed cost; 0 for no cost at all."""
        return renyi_to_epsilon(cost, order=self.order, delta=self.delta) if cost > 0 else 0.0
