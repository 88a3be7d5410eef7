"""How close a sum of shares of discrete noise is to one well-known mechanism, so that this one may be accounted.

Whoever sees only the sum of n integer vectors, each with its own discrete Gaussian noise of parameter s, sees one
vector with the sum of the noises. That sum is not a discrete Gaussian, but it is close to one, point by point; and a
wide discrete Gaussian is as close to a rounded normal deviate, which is a post-processing of the Gaussian mechanism.

**What follows for ε.** Let the probabilities of a mechanism and of its ideal differ by factors of at most exp(η₁) above
and exp(-η₂) below, outside a set of probability τ. If the ideal is (ε, δ)-DP, then the mechanism is
(ε + η₁ + η₂, exp(η₁)·δ + τ)-DP: P(S) ≤ e^η₁·P'(S) + τ ≤ e^η₁·(e^ε·Q'(S) + δ) + τ ≤ e^(ε+η₁+η₂)·Q(S) + e^η₁·δ + τ. Over
independent noises, and over releases, the η add up. Here η₁ + η₂ is called the *distance*; as η₁ ≤ η₁ + η₂, δ is
divided by exp(distance). τ is below 1e-300 and goes into the accountant's allowance for floating-point numbers.
"""

from __future__ import annotations

import math

from aevorium.privacy.events import DiscreteGaussianSum, PrivacyEvent, SampledDiscreteGaussianSum

__all__ = ["distance_of", "noise_multiplier_of", "sum_distance"]

_REACH = 40.0
"""Beyond so many standard deviations a normal deviate has a probability below 1e-340."""


def sum_distance(sigma: float, shares: int) -> float:
    """How far a sum of discrete Gaussians is from the discrete Gaussian of the same total variance, point by point.

    Args:
        sigma: Parameter of one share, at least 1/2.
        shares: Number of shares.

    Returns:
        A bound on |log(P(sum = k) / P(Z = k))| for every k, where Z has parameter sigma·√shares (Kairouz, Liu & Steinke
        2021, "The distributed discrete Gaussian mechanism", Corollary 12 applied share by share).
    """
    return 5 * math.fsum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, shares))


def noise_multiplier_of(event: SampledDiscreteGaussianSum) -> float:
    """Noise over sensitivity of a step, as one Gaussian mechanism: what rounding adds to the sensitivity is in it."""
    return event.share_sigma * math.sqrt(event.shares) / event.sensitivity


def distance_of(event: PrivacyEvent) -> float:
    """The distance η₁ + η₂ between an event's mechanism and the ideal one that is accounted in its place.

    For tables the ideal is the discrete Gaussian with the total variance; each number or histogram differs in one cell.

    For steps of training it is the Gaussian mechanism with the total variance σ², rounded. In one coordinate let p be
    the discrete Gaussian of parameter σ and r the rounded normal deviate. With Poisson's summation formula,
    log(r(k)/p(k)) = log ∫ exp(-u²/2σ²)·cosh(k·u/σ²) du + ζ over u in [-1/2, 1/2], where 0 ≤ ζ ≤ 3·exp(-2π²σ²). As
    1 ≤ cosh(x) ≤ exp(x²/2), it lies between -1/(8σ²) and k²/(8σ⁴) + ζ. Both neighbours lie within the reach, t standard
    deviations and the sensitivity, with all but negligible probability: so one coordinate differs by (1 + t²)/(8σ²) + ζ
    and twice the distance of its sum of shares.
    """
    if isinstance(event, DiscreteGaussianSum):
        return 2 * event.count * sum_distance(event.sigma, event.shares)
    if not isinstance(event, SampledDiscreteGaussianSum):
        return 0.0
    variance = event.share_sigma**2 * event.shares
    reach = _REACH + 1 / noise_multiplier_of(event)
    tail = 3 * math.exp(-2 * math.pi**2 * variance)
    coordinate = (1 + reach**2) / (8 * variance) + tail + 2 * sum_distance(event.share_sigma, event.shares)
    return event.steps * event.parameters * coordinate
