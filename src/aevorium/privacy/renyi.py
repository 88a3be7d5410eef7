"""Rényi privacy of the events, and the odometer that says what a node has spent over runs.

Rényi differential privacy (Mironov 2017) is looser than the privacy loss distribution of `accountant` but has what
that lacks: its costs add up even when each mechanism is chosen after seeing the output of the earlier ones (Feldman &
Zrnic 2021; Lécuyer 2021). `RenyiOdometer` says why, and what follows.
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
    cost_groups,
)
from aevorium.privacy.sums import noise_multiplier_of, sum_distance

__all__ = ["RenyiOdometer", "renyi_cost", "renyi_epsilon", "renyi_to_epsilon", "zcdp_budget"]

_ORDERS = (*range(2, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)
"""Orders tried by `renyi_epsilon`."""

_WIDEST_LIMIT = 1e3
"""The leading order is chosen as if the limit were this, when it is larger or infinite."""

_ODOMETER_ORDERS = tuple(2**power + 1 for power in range(9))
"""2 to 257: neighbours differ by a factor of two in α - 1, so the best of them is at most 6 % from the best of all."""

_LEADING_SHARE = 0.75
"""The part of δ that the leading order takes."""

_SAFETY = 1e-12
"""Relative head room for the rounding of floating-point sums."""


def renyi_cost(events: Iterable[PrivacyEvent], *, order: int) -> float:
    """An upper bound on the Rényi divergence between neighbouring outputs of one run's events together.

    Args:
        events: The events; their costs add up, within each group of patients if the run has a holdout.
        order: The order α, a whole number of at least 2.

    Returns:
        The RDP ε at that order, in nats, for both directions of add/remove. Infinite for a `NonPrivate` event.
    """
    return _dearest(cost_groups(events), order)


def _dearest(groups: Iterable[Iterable[PrivacyEvent]], order: int) -> float:
    return max(math.fsum(_event_cost(event, order) for event in group) for group in groups) * (1 + _SAFETY)


@lru_cache(maxsize=65_536)
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
    """An upper bound on ε at δ for one run's events, their parameters all fixed: the best of many orders."""
    listed = tuple(events)
    if not listed:
        return 0.0
    groups = cost_groups(listed)
    return min(renyi_to_epsilon(_dearest(groups, order), order=order, delta=delta) for order in _ORDERS)


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
class RenyiOdometer:
    """What everything released so far has spent, however each part was chosen after seeing the parts before it.

    Let L be the privacy loss of all releases so far, and c(α) the sum of their Rényi costs at one order α. Each cost
    bounds its release whatever was seen before, so exp((α - 1)(L - c(α))) is a non-negative supermartingale with mean
    at most 1, at every moment and at every moment chosen by looking at the output. As 1 - exp(-x) is at most
    exp((α - 1)x) · (1 - 1/α)^(α - 1) / α, it follows that what was spent, ε = c(α) + log(1 - 1/α) - log(αδ)/(α - 1)
    (the conversion of Canonne, Kamath & Steinke 2020, for costs that depend on the output), has
    E[(1 - exp(ε - L))₊] ≤ δ: the releases are (ε, δ)-DP with ε as it turned out, and (limit, δ)-DP if ε was kept
    within a limit.

    One order would be good for one size of ε only, and far too high below it. So δ is divided over several orders,
    once and for all, and the smallest ε counts: the failures of all orders together stay within δ.

    Of a run with a holdout the larger cost of its two groups counts. A patient may be in the holdout of one run and not
    of another; along every such path the patient's own c(α) is at most the sum of the runs' larger costs.

    Orders and shares must not depend on anything released. The leading order follows from a limit that was set
    before the first release; without one, all orders have the same share, for sums over everything there is.

    Attributes:
        delta: The δ of the figure.
        leading: An order that has most of δ; None if there is none.
    """

    delta: float
    leading: int | None = None

    @classmethod
    def for_limit(cls, epsilon: float, *, delta: float) -> RenyiOdometer:
        """The odometer under which most fits a limit: hardly less than under its best order alone."""
        target, share = min(epsilon, _WIDEST_LIMIT), delta * _LEADING_SHARE
        best = _best_order(target, share)
        candidates = {max(2, math.floor(best)), max(2, math.ceil(best))}
        leading = max(candidates, key=lambda order: (target - _conversion(order, share)) / order)
        return cls(delta=delta, leading=leading)

    def read(self, *runs: Iterable[PrivacyEvent]) -> float:
        """ε of the events of all these runs together; never less for more of them. 0 for none."""
        listed = [cost_groups(events) for events in runs]
        if not any(group for groups in listed for group in groups):
            return 0.0

        def cost(order: int) -> float:
            return math.fsum(_dearest(groups, order) for groups in listed) * (1 + _SAFETY)

        return min(renyi_to_epsilon(cost(order), order=order, delta=self.delta * share) for order, share in self.shares)

    @property
    def shares(self) -> tuple[tuple[int, float], ...]:
        """The orders, each with its part of δ."""
        left = 1.0 if self.leading is None else 1.0 - _LEADING_SHARE
        spread = tuple((order, left / len(_ODOMETER_ORDERS)) for order in _ODOMETER_ORDERS)
        return spread if self.leading is None else ((self.leading, _LEADING_SHARE), *spread)
