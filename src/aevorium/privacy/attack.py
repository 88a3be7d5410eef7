"""What a guarantee means for an attacker who wants to know whether a patient took part.

An (ε, δ) guarantee limits every test, whatever the attacker knows beside the released numbers: all other records, the
patient's own record, the code. Two readings are given:

- a test that wrongly flags a share of those who did not take part (its false-positive rate) finds at most so many of
  those who did (`PrivacyCurve.true_positive_rate`), and its flags are right at most so often (`precision`);
- after seeing everything that was released, the odds that a patient took part are at most a factor above what they
  were before, but for outputs that come up with a small, stated probability (`posterior`).

With δ > 0 there is no bound on the odds without such an exception: a mechanism may give somebody away with
probability δ. Nor is there one on the precision of a test that flags almost nobody.

Every figure is an upper bound and rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aevorium.privacy.accountant import privacy_curve, round_up
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate, PrivacyEvent, SampledGaussian
from aevorium.privacy.renyi import renyi_epsilon

__all__ = ["PrivacyCurve", "claimed_curve", "exact_curve", "renyi_curve"]

_EXACT = (DiscreteGaussian, DiscreteLaplace, NonPrivate, SampledGaussian)
"""Events with a privacy loss distribution; others have a Rényi cost alone."""

_RENYI_DELTAS = tuple(float(delta) for delta in np.logspace(-9, -0.05, 60))


@dataclass(frozen=True)
class PrivacyCurve:
    """Pairs (ε, δ) that all hold for the same releases, under add/remove adjacency in both directions.

    Attributes:
        points: The pairs. Each by itself is a guarantee; together they are the trade-off curve of Dong, Roth & Su
            (2022), Proposition 2.12, as closely as there are points.
    """

    points: tuple[tuple[float, float], ...]

    def true_positive_rate(self, *, false_positive_rate: float) -> float:
        """The largest share of participants that any test finds. Safe to release.

        Of a rejection region with probability α without the record and β with it, (ε, δ)-DP says β ≤ e^ε·α + δ, and
        of its complement 1 - α ≤ e^ε·(1 - β) + δ (Wasserman & Zhou 2010, Theorem 2.4; Kairouz, Oh & Viswanath 2015,
        Theorem 2.1). Both hold for every pair, so the smallest bound does.

        Args:
            false_positive_rate: The share of patients outside the study that the test flags, between 0 and 1.
        """
        return round_up(self._rate(false_positive_rate))

    def _rate(self, alpha: float) -> float:
        bounds = [1.0]
        for epsilon, delta in self.points:
            if epsilon + math.log(max(alpha, 1e-300)) < 0:
                bounds.append(math.exp(epsilon) * alpha + delta)
            bounds.append(1 - math.exp(-epsilon) * max(0.0, 1 - delta - alpha))
        return min(bounds)

    def precision(self, *, prior: float, false_positive_rate: float) -> float:
        """The largest share of a test's flags that are right: its positive predictive value. Safe to release.

        By Bayes' rule π·β / (π·β + (1 - π)·α). The bound on β/α falls as α grows, so what is returned holds for every
        test that wrongly flags *at least* this share.

        Args:
            prior: How likely participation was beforehand, π, between 0 and 1.
            false_positive_rate: The least share α of patients outside the study that the test flags, above 0.
        """
        found = prior * self._rate(false_positive_rate)
        return round_up(found / (found + (1 - prior) * false_positive_rate))

    def posterior(self, *, prior: float, exception: float) -> float:
        """The highest probability of participation that an attacker arrives at, with an exception. Safe to release.

        With the privacy loss L of an output, the posterior odds are e^L times the prior odds. For every e < ε′,
        δ(e) ≥ E[(1 - e^(e - L))⁺] ≥ P(L > ε′)·(1 - e^(e - ε′)), so L exceeds ε′ with a probability of at most
        δ(e) / (1 - e^(e - ε′)). What is returned is the posterior at the smallest ε′ for which this is within
        `exception`. It is averaged over outputs of a study with the record; without it they are rarer still.

        Args:
            prior: How likely participation was beforehand, between 0 and 1.
            exception: Probability of an output for which the bound need not hold.
        """
        factors = [epsilon - math.log1p(-delta / exception) for epsilon, delta in self.points if delta < exception]
        factor = min(factors, default=math.inf)
        if factor == math.inf:
            return 1.0
        return round_up(1 / (1 + math.exp(-factor) * (1 - prior) / prior))


def claimed_curve(*, epsilon: float, delta: float) -> PrivacyCurve:
    """The curve of a claim: the one pair that holds whatever a noisy count said.

    Where parameters depended on a noisy count, only the target (ε, δ) of the plan is guaranteed (see `accountant`);
    the curve of the events that happened would describe one outcome.

    Args:
        epsilon: The plan's ε.
        delta: The plan's δ.
    """
    return PrivacyCurve(((epsilon, delta),))


def exact_curve(events: Sequence[PrivacyEvent]) -> PrivacyCurve:
    """The curve of events whose parameters were all fixed beforehand.

    It comes from their composed privacy loss distribution. If one of them has a Rényi cost alone, all are taken by
    theirs (`renyi_curve`).

    Args:
        events: Everything that a run may release; stopping earlier costs no more.
    """
    if all(isinstance(event, _EXACT) for event in events):
        return PrivacyCurve(privacy_curve(events))
    return renyi_curve(events)


def renyi_curve(events: Sequence[PrivacyEvent]) -> PrivacyCurve:
    """The curve that the Rényi costs of events imply: for each δ the ε of the best order.

    Args:
        events: Everything that a run may release.
    """
    return PrivacyCurve(tuple((renyi_epsilon(events, delta=delta), delta) for delta in _RENYI_DELTAS))
