"""What an attacker can do, against closed forms and against attacks that are carried out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from aevorium.privacy.attack import PrivacyCurve, claimed_curve, exact_curve, renyi_curve
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate, SampledGaussian

RATES = [1e-3, 0.01, 0.05, 0.3, 0.9]


def gaussian(mu: float, count: int = 4) -> list[DiscreteGaussian]:
    """Tables whose joint cost is that of one Gaussian release with mean μ over its standard deviation."""
    sigma = 300 * math.sqrt(count) / mu
    return [DiscreteGaussian(purpose="tables", sigma=sigma, sensitivity=300, count=count)]


@pytest.mark.parametrize("mu", [0.1, 0.7, 2.5])
@pytest.mark.parametrize("rate", RATES)
def test_the_gaussian_mechanism_has_its_known_trade_off(mu, rate):
    """Φ(Φ⁻¹(FPR) + μ): Dong, Roth & Su 2022, Equation 6. Never below it, and within 0.1 %."""
    truth = norm.cdf(norm.ppf(rate) + mu)
    found = exact_curve(gaussian(mu)).true_positive_rate(false_positive_rate=rate)
    assert truth <= found <= truth * 1.001 + 2e-4
    assert found <= renyi_curve(gaussian(mu)).true_positive_rate(false_positive_rate=rate)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_pure_events_multiply_the_rate_by_their_epsilon(epsilon):
    curve = exact_curve([DiscreteLaplace(purpose="count", epsilon=epsilon)])
    for rate in (1e-3, 0.01, 0.04):
        assert curve.true_positive_rate(false_positive_rate=rate) == pytest.approx(math.exp(epsilon) * rate, abs=1e-4)
    assert curve.true_positive_rate(false_positive_rate=0.9) == pytest.approx(1 - math.exp(-epsilon) * 0.1, abs=1e-4)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.0), (2.0, 0.0), (1.0, 1e-3), (3.0, 0.02)])
def test_randomised_response_attains_the_bounds(epsilon, delta):
    """The mechanism of which every (ε, δ)-DP one is a post-processing (Kairouz, Oh & Viswanath 2015, Theorem 3.1).

    With probability δ it tells the truth openly, else it lies with probability 1/(1 + e^ε).
    """
    curve = claimed_curve(epsilon=epsilon, delta=delta)
    lie = (1 - delta) / (1 + math.exp(epsilon))
    told = delta + (1 - delta) - lie
    assert told <= curve.true_positive_rate(false_positive_rate=lie) <= told + 1e-4
    for prior in (0.5, 0.1):
        right = prior * told / (prior * told + (1 - prior) * lie)
        assert right <= curve.precision(prior=prior, false_positive_rate=lie) <= right + 1e-4
        # An output that is not the open truth moves the odds by exactly e^ε; the open truth has probability δ.
        closed = 1 / (1 + math.exp(-epsilon) * (1 - prior) / prior)
        exception = 0.05
        margin = -math.log1p(-delta / exception)
        assert closed <= curve.posterior(prior=prior, exception=exception)
        assert curve.posterior(prior=prior, exception=exception) <= closed + margin / 4 + 1e-4
        assert curve.posterior(prior=prior, exception=delta / 2) == 1.0


def test_the_best_attack_on_the_gaussian_mechanism_stays_below_the_bound_and_comes_close():
    """Neyman and Pearson's test, 400,000 times with and without the record.

    Each share is off by more than five of its standard deviations in one of 10⁶ runs; the seed is fixed besides.
    """
    mu, rate, draws = 1.5, 0.01, 400_000
    rng = np.random.default_rng(20_261)
    absent, present = rng.normal(0, 1, draws), rng.normal(mu, 1, draws)
    threshold = norm.isf(rate)
    flagged, found = (absent > threshold).mean(), (present > threshold).mean()
    assert abs(flagged - rate) < 5 * math.sqrt(rate / draws)
    bound = exact_curve(gaussian(mu)).true_positive_rate(false_positive_rate=rate)
    margin = 5 * math.sqrt(bound * (1 - bound) / draws)
    assert bound - margin - 1e-3 < found < bound + margin
    curve = exact_curve(gaussian(mu))
    # Of the posterior: how often an output moves the odds from 1:1 beyond the bound.
    exception = 0.01
    bound = curve.posterior(prior=0.5, exception=exception)
    posterior = 1 / (1 + np.exp(-(mu * present - mu**2 / 2)))
    assert (posterior > bound).mean() <= exception
    assert (posterior > 0.9 * bound).mean() > 1e-3


def test_the_attack_on_a_sampled_step_stays_below_the_bound():
    """The likelihood ratio of one step of DP-SGD, by its densities on a fine grid, in both directions."""
    rate, noise = 0.2, 0.8
    x = np.linspace(-12, 13, 200_001)
    without = norm.pdf(x, 0, noise)
    present = (1 - rate) * without + rate * norm.pdf(x, 1, noise)
    curve = exact_curve([SampledGaussian(purpose="training", sampling_rate=rate, noise_multiplier=noise, steps=1)])
    best = 0.0
    for first, second in ((without, present), (present, without)):
        order = np.argsort(-second / first)
        alpha, beta = (np.cumsum(density[order]) * (x[1] - x[0]) for density in (first, second))
        for wanted in RATES:
            reached = float(np.interp(wanted, alpha, beta))
            assert reached <= curve.true_positive_rate(false_positive_rate=wanted) + 1e-6
            best = max(best, reached / curve.true_positive_rate(false_positive_rate=wanted))
    assert best > 0.99


def test_pure_and_gaussian_events_together_are_above_each_of_them():
    pure = [DiscreteLaplace(purpose="count", epsilon=0.3)]
    both = exact_curve([*pure, *gaussian(1.0)])
    for rate in RATES:
        together = both.true_positive_rate(false_positive_rate=rate)
        assert together >= exact_curve(pure).true_positive_rate(false_positive_rate=rate)
        assert together >= exact_curve(gaussian(1.0)).true_positive_rate(false_positive_rate=rate)


def test_more_pairs_never_raise_a_bound():
    one, two = PrivacyCurve(((3.0, 1e-5),)), PrivacyCurve(((3.0, 1e-5), (2.0, 1e-3)))
    for rate in RATES:
        assert two.true_positive_rate(false_positive_rate=rate) <= one.true_positive_rate(false_positive_rate=rate)
    assert two.posterior(prior=0.1, exception=0.01) < one.posterior(prior=0.1, exception=0.01)


def test_precision_falls_with_the_rate_of_false_flags():
    curve = claimed_curve(epsilon=2.0, delta=1e-4)
    values = [curve.precision(prior=0.1, false_positive_rate=rate) for rate in RATES]
    assert values == sorted(values, reverse=True)
    assert curve.precision(prior=0.1, false_positive_rate=1e-9) > 0.999


@pytest.mark.parametrize("curve", [claimed_curve(epsilon=math.inf, delta=1e-5), exact_curve([NonPrivate(purpose="x")])])
def test_without_privacy_nothing_is_promised(curve):
    assert curve.true_positive_rate(false_positive_rate=0.01) == 1.0
    assert curve.precision(prior=0.1, false_positive_rate=0.01) == pytest.approx(0.1 / (0.1 + 0.9 * 0.01), abs=1e-4)
    assert curve.posterior(prior=0.1, exception=0.5) == 1.0
