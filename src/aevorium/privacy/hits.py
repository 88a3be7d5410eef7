"""What the hits of a membership attack say about a guarantee.

An attack is tried many times on releases with a certain record, the canary, and as often on releases without it. A
guarantee bounds how much more often it may call out in the first case (`PrivacyCurve`), so that an attack that does
better than that refutes the guarantee, whatever it is built on. One that does worse proves nothing.

Rates are bounded by Clopper and Pearson's exact intervals; no distribution is assumed of the attack's scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import beta

from aevorium.privacy.accountant import gaussian_budget
from aevorium.privacy.attack import PrivacyCurve

__all__ = ["Hits", "exceeds", "gaussian_epsilon", "least_epsilon", "tries_to_refute"]

_LEAST, _MOST = 1e-6, 500.0
"""Values of ε that are looked for; what shows more shows the last."""

_MOST_TRIES = 2**17
"""No attack is tried more often."""


@dataclass(frozen=True)
class Hits:
    """How often an attack said that the canary was there.

    Attributes:
        found: Times when it was.
        present: How often it was.
        false_alarms: Times when it was not.
        absent: How often it was not.
    """

    found: int
    present: int
    false_alarms: int
    absent: int

    @property
    def true_positive_rate(self) -> float:
        """The share of canaries found."""
        return self.found / self.present

    @property
    def false_positive_rate(self) -> float:
        """The share of false alarms."""
        return self.false_alarms / self.absent

    def bounds(self, *, confidence: float) -> tuple[float, float]:
        """The least true-positive and the highest false-positive rate that both hold with the confidence given.

        Args:
            confidence: Between 0 and 1; each of the two may fail with half of what it lacks.
        """
        tail = (1 - confidence) / 2
        least = float(beta.ppf(tail, self.found, self.present - self.found + 1)) if self.found else 0.0
        alarms, others = self.false_alarms, self.absent - self.false_alarms
        most = float(beta.ppf(1 - tail, alarms + 1, others)) if others else 1.0
        return least, most


def exceeds(hits: Hits, curve: PrivacyCurve, *, confidence: float) -> bool:
    """Whether an attack did better than a guarantee allows.

    Args:
        hits: How it did.
        curve: The guarantee.
        confidence: With a guarantee that holds, this says yes at most so seldom as the confidence falls short of 1.
    """
    least, most = hits.bounds(confidence=confidence)
    return least > curve.true_positive_rate(false_positive_rate=most)


def tries_to_refute(curve: PrivacyCurve, *, confidence: float) -> int | None:
    """How often a perfect attack must be tried, with the canary and without, to refute a guarantee.

    Args:
        curve: The guarantee.
        confidence: Of the refutation.

    Returns:
        A number that is enough, at most a fifth too large; None if more tries would be needed than anybody makes.
    """
    tries = 2
    while tries < _MOST_TRIES:
        if exceeds(Hits(tries, tries, 0, tries), curve, confidence=confidence):
            return tries
        tries = math.ceil(1.2 * tries)
    return None


def least_epsilon(hits: Hits, *, delta: float, confidence: float) -> float:
    """The ε that an attack shows at δ, whatever mechanism it attacks; 0 if it shows nothing.

    From the two inequalities of Kairouz, Oh & Viswanath (2015), Theorem 2.1: with a share α of false alarms and β of
    canaries found, ε ≥ log((β - δ)/α) and ε ≥ log((1 - α - δ)/(1 - β)).

    Args:
        hits: How the attack did.
        delta: The δ of the guarantee.
        confidence: How sure the bound is.
    """
    least, most = hits.bounds(confidence=confidence)
    pairs = ((least - delta, most), (1 - most - delta, 1 - least))
    return max([0.0, *(math.log(above / below) for above, below in pairs if above > 0)])


def gaussian_epsilon(hits: Hits, *, delta: float, confidence: float) -> float:
    """The ε that an attack shows at δ, if what it attacks is a Gaussian mechanism; 0 if it shows nothing.

    A test that finds β at α false alarms shows a shift of at least Φ⁻¹(β) - Φ⁻¹(α) standard deviations (Dong, Roth & Su
    2022, "Gaussian differential privacy", Definition 2.6), and with it the ε of Balle & Wang (2018), Theorem 8. Tables
    with whole-number noise of a deviation of 1 or more, taken together, are nearly such a mechanism. With less noise,
    or after private training, the figure may lie above the truth.

    Args:
        hits: How the attack did.
        delta: The δ of the guarantee.
        confidence: How sure the bound is.
    """
    least, most = hits.bounds(confidence=confidence)
    if not least > most:
        return 0.0
    budget = float(ndtri(least) - ndtri(most)) ** 2 / 2

    def excess(log_epsilon: float) -> float:
        return math.log(gaussian_budget(math.exp(log_epsilon), delta)) - math.log(budget)

    low, high = math.log(_LEAST), math.log(_MOST)
    if excess(low) >= 0:
        return 0.0
    return math.exp(float(brentq(excess, low, high)) if excess(high) > 0 else high)
