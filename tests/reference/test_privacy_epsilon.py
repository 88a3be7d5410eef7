"""ε against computations that share no code with it. Direction first: it must never be below the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import (
    GaussianDpEvent,
    LaplaceDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from aevorium.privacy.accountant import _refine, calibrate, epsilon, spent, zcdp_budget
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, SampledGaussian
from aevorium.privacy.renyi import RenyiOdometer, renyi_cost, renyi_epsilon

DELTA = 1e-5
ROUNDING = 1e-4


def training(rate: float, noise: float, steps: int) -> SampledGaussian:
    return SampledGaussian(purpose="training", sampling_rate=rate, noise_multiplier=noise, steps=steps)


def epsilon_where(delta_of, delta: float) -> float:
    """The ε at which a decreasing δ(ε) reaches δ."""
    return float(brentq(lambda value: delta_of(value) - delta, 0, 500, xtol=1e-10))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The Gaussian mechanism of sensitivity over noise μ, in closed form (Balle & Wang 2018, Theorem 8)."""
    return epsilon_where(lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e + log_ndtr(-mu / 2 - e / mu)), delta)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(("noise", "steps"), [(0.8, 1), (2.0, 10), (60.0, 500), (30.0, 5000)])
def test_gaussian_without_sampling_meets_the_closed_form(noise, steps, delta):
    truth = gaussian_epsilon(math.sqrt(steps) / noise, delta)
    found = epsilon([training(1.0, noise, steps)], delta)
    assert truth <= found <= truth * 1.002 + ROUNDING


def sampled_gaussian_epsilon(rate: float, noise: float, delta: float) -> float:
    """One Poisson-sampled Gaussian step, both directions, by where the likelihood ratio crosses exp(±ε)."""

    def crossing(ratio: float) -> float:
        # (1 - q) + q exp((2x - 1) / 2σ²) = ratio
        return 0.5 + noise**2 * math.log((ratio - 1 + rate) / rate) if ratio > 1 - rate else -math.inf

    def removed(e: float) -> float:
        x = crossing(math.exp(e))
        mixture = (1 - rate) * norm.sf(x / noise) + rate * norm.sf((x - 1) / noise)
        return mixture - math.exp(e) * norm.sf(x / noise)

    def added(e: float) -> float:
        x = crossing(math.exp(-e))
        mixture = (1 - rate) * norm.cdf(x / noise) + rate * norm.cdf((x - 1) / noise)
        return norm.cdf(x / noise) - math.exp(e) * mixture

    return epsilon_where(lambda e: max(removed(e), added(e)), delta)


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 0.6), (0.1, 1.0), (0.6, 2.0)])
def test_one_sampled_step_meets_the_closed_form(rate, noise):
    truth = sampled_gaussian_epsilon(rate, noise, DELTA)
    found = epsilon([training(rate, noise, 1)], DELTA)
    assert truth <= found <= truth + 3e-4


def discrete_gaussian_epsilon(sigma: float, sensitivity: int, count: int, delta: float) -> float:
    """`count` scalar discrete Gaussians by summing over the whole numbers.

    The joint privacy loss depends on the noises through their sum alone, so its distribution is that of the sum.
    """
    reach = math.ceil(14 * sigma)
    support = np.arange(-reach, reach + 1)
    single = np.exp(-(support**2) / (2 * sigma**2))
    single /= single.sum()
    total = np.ones(1)
    for _ in range(count):
        total = np.convolve(total, single)
    sums = np.arange(-reach * count, reach * count + 1)
    losses = (2 * sums * sensitivity + count * sensitivity**2) / (2 * sigma**2)

    def delta_of(e: float) -> float:
        above = losses > e
        return float(np.dot(total[above], -np.expm1(e - losses[above])))

    return epsilon_where(delta_of, delta)


@pytest.mark.parametrize(
    ("sigma", "sensitivity", "count"),
    [(0.5, 1, 1), (0.7, 1, 3), (1.0, 1, 14), (5.0, 1, 14), (20.0, 1, 14), (3.3, 2, 4), (9.0, 10, 2), (120.0, 7, 2)],
)
def test_discrete_gaussian_meets_a_sum_over_the_whole_numbers(sigma, sensitivity, count):
    truth = discrete_gaussian_epsilon(sigma, sensitivity, count, DELTA)
    found = epsilon([DiscreteGaussian(purpose="x", sigma=sigma, sensitivity=sensitivity, count=count)], DELTA)
    assert truth <= found <= truth * 1.002 + 2 * ROUNDING


@pytest.mark.parametrize(("sigma", "sensitivity"), [(400.0, 7), (2500.0, 100), (12000.0, 100)])
def test_wide_discrete_gaussian_agrees_with_the_library_and_the_continuous_one(sigma, sensitivity):
    event = DiscreteGaussian(purpose="x", sigma=sigma, sensitivity=sensitivity, count=5)
    library = pld.from_discrete_gaussian_mechanism(sigma, sensitivity, use_connect_dots=True).self_compose(5)
    found = epsilon([event], DELTA)
    assert 0 <= found - library.get_epsilon_for_delta(DELTA) <= ROUNDING
    assert found == pytest.approx(gaussian_epsilon(math.sqrt(5) * sensitivity / sigma, DELTA), abs=2 * ROUNDING)


@pytest.mark.parametrize("cell", [0, 1])
def test_a_whole_histogram_costs_what_its_event_says(cell):
    """Brute force over the joint output of two cells, a record falling into either."""
    sigma, delta = 1.5, 1e-3
    support = np.arange(-25, 26)
    one = np.exp(-(support**2) / (2 * sigma**2))
    one /= one.sum()
    shifted = np.concatenate([[0.0], one[:-1]])
    without = np.outer(one, one)
    present = np.outer(shifted, one) if cell == 0 else np.outer(one, shifted)
    truth = epsilon_where(lambda e: np.maximum(present - math.exp(e) * without, 0).sum(), delta)
    found = epsilon([DiscreteGaussian(purpose="histogram", sigma=sigma)], delta)
    assert truth <= found <= truth + 2 * ROUNDING


def test_a_smaller_change_costs_no_more_than_the_sensitivity_says():
    costs = [epsilon([DiscreteGaussian(purpose="x", sigma=8.0, sensitivity=s)], DELTA) for s in range(1, 8)]
    assert costs == sorted(costs)


@pytest.mark.parametrize("value", [0.05, 0.5, 2.0])
def test_geometric_noise_has_exactly_the_epsilon_of_its_event(value):
    k = np.arange(-200, 201)
    log_pmf = -value * np.abs(k)
    worst = np.abs(log_pmf[1:] - log_pmf[:-1]).max()
    assert worst == pytest.approx(value, rel=1e-12)
    assert worst <= epsilon([DiscreteLaplace(purpose="count", epsilon=value)], 0) + 1e-12


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "value"),
    [
        # The first specification's noise of 0.3 at batch 32, 20 epochs, 5 rounds; 500 and 2,000 patients.
        (0.064, 0.3, 1563, 461.0),
        (0.016, 0.3, 6250, 335.0),
    ],
)
def test_published_costs(rate, noise, steps, value):
    assert epsilon([training(rate, noise, steps)], DELTA) == pytest.approx(value, rel=0.003)


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.1, 2.0, 100)])
def test_opacus_accountants_bracket_ours(rate, noise, steps):
    from opacus.accountants import PRVAccountant, RDPAccountant

    found = epsilon([training(rate, noise, steps)], DELTA)
    numerical, renyi = PRVAccountant(), RDPAccountant()
    numerical.history = [(noise, rate, steps)]
    renyi.history = [(noise, rate, steps)]
    # The numerical one returns an upper bound with error 0.01; Rényi accounting is looser than both.
    assert numerical.get_epsilon(DELTA, eps_error=0.01, delta_error=DELTA / 1e4) == pytest.approx(found, abs=0.02)
    assert found <= renyi.get_epsilon(DELTA)


ORDERS = [2, 3, 5, 8, 16, 32, 64]


def library_epsilon(events, delta: float) -> float:
    accountant = RdpAccountant(ORDERS, NeighboringRelation.ADD_OR_REMOVE_ONE)
    for event in events:
        accountant.compose(event)
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(
    ("rate", "noise", "steps"), [(0.001, 0.6, 50), (0.05, 1.0, 300), (0.5, 3.0, 20), (1.0, 5.0, 30)]
)
def test_renyi_costs_of_training_are_the_library_s(rate, noise, steps):
    sampled = PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
    for order in ORDERS:
        accountant = RdpAccountant([order], NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(SelfComposedDpEvent(sampled, steps))
        ours = renyi_cost([training(rate, noise, steps)], order=order)
        conversion = math.log1p(-1 / order) - math.log(1e-9 * order) / (order - 1)
        assert ours + conversion == pytest.approx(accountant.get_epsilon(1e-9), rel=1e-9)


def test_renyi_cost_of_a_pure_event_is_no_less_than_its_mechanism_s():
    """Against the divergence of the geometric mechanism by summation, and the library's of the Laplace mechanism."""
    for value in (0.05, 0.3, 1.0, 4.0):
        k = np.arange(-4000, 4001)
        log_pmf = -value * np.abs(k) + math.log(np.tanh(value / 2))
        for order in ORDERS:
            ours = renyi_cost([DiscreteLaplace(purpose="x", epsilon=value)], order=order)
            log_terms = order * log_pmf[1:] + (1 - order) * log_pmf[:-1]
            truth = np.logaddexp.reduce(log_terms) / (order - 1)
            accountant = RdpAccountant([order])
            accountant.compose(LaplaceDpEvent(1 / value))
            library = accountant.get_epsilon(1e-9) - math.log1p(-1 / order) + math.log(1e-9 * order) / (order - 1)
            assert max(truth, library) - 1e-9 <= ours <= min(value, order * value**2 / 2) * (1 + 1e-9)


def test_renyi_cost_of_the_discrete_gaussian_is_no_less_than_the_truth():
    for sigma, sensitivity in [(0.4, 1), (1.0, 1), (2.5, 3), (30.0, 10)]:
        reach = math.ceil(40 * sigma) + 5 * sensitivity
        k = np.arange(-reach, reach + 1)
        log_pmf = -(k**2) / (2 * sigma**2)
        log_pmf -= np.logaddexp.reduce(log_pmf)
        for order in (2, 3, 5):
            log_terms = order * log_pmf[sensitivity:] + (1 - order) * log_pmf[:-sensitivity]
            truth = np.logaddexp.reduce(log_terms) / (order - 1)
            event = DiscreteGaussian(purpose="x", sigma=sigma, sensitivity=sensitivity)
            assert truth - 1e-9 <= renyi_cost([event], order=order)


MIXED = [
    DiscreteGaussian(purpose="histograms", sigma=12.0, count=14),
    DiscreteGaussian(purpose="loss", sigma=2500.0, sensitivity=100, count=5),
    training(0.1, 3.0, 400),
]


def test_exact_composition_is_below_renyi_and_above_each_part():
    found = epsilon(MIXED, DELTA)
    assert found <= renyi_epsilon(MIXED, delta=DELTA) + ROUNDING
    assert found > max(epsilon([event], DELTA) for event in MIXED)
    assert found < sum(epsilon([event], DELTA / 3) for event in MIXED)


def test_the_odometer_over_runs_is_above_the_exact_cost_of_all_runs_together():
    """Runs planned without regard to each other's output compose exactly; the odometer has to cover those, too."""
    together = [*MIXED, training(0.02, 1.2, 500), DiscreteGaussian(purpose="h", sigma=6.0, count=14)]
    odometers = [RenyiOdometer.for_limit(limit, delta=DELTA) for limit in (0.5, 3.0, 10.0, math.inf)]
    for odometer in (RenyiOdometer(delta=DELTA), *odometers):
        assert spent(together, odometer=odometer) >= epsilon(together, DELTA)


@pytest.mark.parametrize("mu", [0.05, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("limit", [0.5, 3.0, 10.0, None])
def test_the_odometer_is_between_the_exact_gaussian_curve_and_a_third_more(mu, limit):
    """k Gaussian releases of total μ are one of μ, whose ε is known in closed form (Balle & Wang 2018)."""
    releases = [training(1.0, math.sqrt(5) / mu, 1)] * 5
    found = (RenyiOdometer(delta=DELTA) if limit is None else RenyiOdometer.for_limit(limit, delta=DELTA)).read(
        releases
    )
    assert gaussian_epsilon(mu, DELTA) <= found <= 1.36 * gaussian_epsilon(mu, DELTA) + 0.05


@pytest.mark.parametrize("value", [0.1, 1.0, 3.0, 10.0])
def test_zcdp_budget_lies_between_the_simple_conversion_and_the_exact_one(value):
    """ρ + 2√(ρ log 1/δ) = ε (Bun & Steinke 2016) gives less; the exact Gaussian curve allows more."""
    log_term = math.log(1 / DELTA)
    simple = (math.sqrt(log_term + value) - math.sqrt(log_term)) ** 2
    exact = brentq(lambda mu: gaussian_epsilon(mu, DELTA) - value, 1e-3, 20) ** 2 / 2
    assert simple < zcdp_budget(value, DELTA) < exact
    assert zcdp_budget(value, DELTA) >= 0.8 * exact


@pytest.mark.parametrize(
    ("rate", "steps", "target"),
    # The third has so many steps that the grid of the search overstates their cost by a fifth.
    [(0.1, 800, 3.0), (0.05, 20_000, 3.0), (0.0032, 125_000, 1.0), (0.3, 50, 0.5), (1.0, 20, 8.0)],
)
def test_calibration_meets_the_target_from_the_safe_side_and_closely(rate, steps, target):
    def events(noise: float):
        return [
            DiscreteLaplace(purpose="count", epsilon=target / 20),
            DiscreteGaussian(purpose="histograms", sigma=40.0 / target, count=3),
            training(rate, noise, steps),
        ]

    noise = calibrate(events, epsilon=target, delta=DELTA)
    assert epsilon(events(noise), DELTA) <= target
    assert epsilon(events(0.99 * noise), DELTA) > target


@pytest.mark.parametrize("part", [0.5, 0.9, 0.998, 1.1])
@pytest.mark.parametrize("slope", [0.3, 1.0, 5.0])
def test_noise_is_refined_to_the_safe_side_wherever_the_search_ended(part, slope):
    def events(noise: float):
        return [training(0.1, noise, 200)]

    needed = calibrate(events, epsilon=2.0, delta=DELTA)
    noise = _refine(events, part * needed, slope=slope, epsilon=2.0, delta=DELTA)
    assert 0.995 * 2.0 < epsilon(events(noise), DELTA) <= 2.0


def test_calibration_of_the_plain_gaussian_is_within_one_percent_of_the_closed_form():
    noise = calibrate(lambda s: [training(1.0, s, 1)], epsilon=2.0, delta=DELTA)
    tight = 1 / brentq(lambda mu: gaussian_epsilon(mu, DELTA) - 2.0, 1e-3, 20)
    assert tight <= noise <= 1.01 * tight
