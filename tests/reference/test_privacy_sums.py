"""What sums of shares of noise cost, against sums over the whole numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    NonPrivate,
    SampledDiscreteGaussianSum,
    SampledGaussian,
    with_shares,
)
from aevorium.privacy.renyi import renyi_cost, renyi_epsilon
from aevorium.privacy.sums import distance_of, noise_multiplier_of, sum_distance

DELTA = 1e-5
ROUNDING = 1e-4


def discrete_gaussian(sigma: float, reach: int) -> np.ndarray:
    support = np.arange(-reach, reach + 1)
    weights = np.exp(-(support**2) / (2 * sigma**2))
    return weights / weights.sum()


def sum_of_shares(sigma: float, shares: int) -> np.ndarray:
    """Exact probabilities of the sum, symmetric about the middle."""
    single = discrete_gaussian(sigma, math.ceil(30 * sigma))
    total = single
    for _ in range(shares - 1):
        total = np.convolve(total, single)
    return total


@pytest.mark.parametrize(("sigma", "shares"), [(0.5, 2), (0.5, 6), (0.6, 3), (0.8, 10), (1.0, 2), (1.0, 5), (1.3, 20)])
def test_a_sum_of_shares_is_no_farther_from_the_discrete_gaussian_than_is_charged(sigma, shares):
    exact = sum_of_shares(sigma, shares)
    ideal = discrete_gaussian(sigma * math.sqrt(shares), len(exact) // 2)
    # Beyond some standard deviations both are smaller than what doubles can tell apart.
    middle, width = len(exact) // 2, math.ceil(6 * sigma * math.sqrt(shares))
    inside = slice(middle - width, middle + width + 1)
    found = np.abs(np.log(exact[inside] / ideal[inside])).max()
    assert found <= sum_distance(sigma, shares) + 1e-9
    if sigma <= 0.8:
        assert found > 1e-4  # narrow shares do add up to something else: the term is not for nothing


def exact_epsilon(pmf: np.ndarray, *, shift: int, delta: float) -> float:
    """ε of one number of a given noise and sensitivity, by a sum over the whole numbers."""
    moved = np.concatenate([np.zeros(shift), pmf])
    padded = np.concatenate([pmf, np.zeros(shift)])

    def excess(e: float) -> float:
        one = np.maximum(padded - math.exp(e) * moved, 0).sum()
        other = np.maximum(moved - math.exp(e) * padded, 0).sum()
        return max(one, other) - delta

    return float(brentq(excess, 0.0, 60.0, xtol=1e-12))


@pytest.mark.parametrize(
    ("sigma", "shares", "sensitivity"), [(0.5, 3, 1), (0.7, 6, 1), (1.0, 4, 2), (3.0, 6, 5), (4.0, 2, 1)]
)
def test_the_cost_of_a_sum_is_no_less_than_the_truth(sigma, shares, sensitivity):
    truth = exact_epsilon(sum_of_shares(sigma, shares), shift=sensitivity, delta=DELTA)
    event = DiscreteGaussianSum(purpose="x", sigma=sigma, shares=shares, sensitivity=sensitivity)
    # The distance adds to ε twice over, and by the δ that it takes.
    allowed = 2 * sum_distance(sigma, shares) * 2
    assert truth <= epsilon([event], DELTA) <= truth * 1.002 + allowed + 2 * ROUNDING
    assert truth <= renyi_epsilon([event], delta=DELTA)


def test_wide_shares_cost_what_one_noise_of_the_same_variance_costs():
    event = DiscreteGaussianSum(purpose="x", sigma=12 / math.sqrt(6), shares=6, count=100)
    whole = DiscreteGaussian(purpose="x", sigma=12, count=100)
    assert epsilon([event], DELTA) == epsilon([whole], DELTA)


def make_step(**changes) -> SampledDiscreteGaussianSum:
    facts = {"sampling_rate": 0.1, "noise_multiplier": 0.7, "shares": 5, "steps": 200, "levels": 2**36}
    return SampledDiscreteGaussianSum(purpose="x", **{**facts, "parameters": 2**24, **changes})


def exact_lattice_epsilon(*, rate: float, sigma: float, change: list[int], delta: float) -> float:
    """ε of one step on a plane lattice, by a sum over all its points: a record changes the sum by `change`."""
    reach = math.ceil(9 * sigma) + max(change)
    axis = np.arange(-reach, reach + 1)
    without = np.ones((1, 1))
    moved = np.ones((1, 1))
    for shift in change:
        one, other = (np.exp(-((axis - place) ** 2) / (2 * sigma**2)) for place in (0, shift))
        without = np.kron(without, one[None, :] / np.exp(-(axis**2) / (2 * sigma**2)).sum())
        moved = np.kron(moved, other[None, :] / np.exp(-(axis**2) / (2 * sigma**2)).sum())
    mixed = (1 - rate) * without + rate * moved

    def excess(e: float) -> float:
        pairs = ((mixed, without), (without, mixed))
        return max(np.maximum(p - math.exp(e) * q, 0).sum() for p, q in pairs) - delta

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, 60.0, xtol=1e-12))


@pytest.mark.parametrize("change", [[30, 0], [18, 24], [30], [21, 21]])
@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_a_sampled_step_on_a_lattice_costs_what_the_continuous_mechanism_costs(change, rate):
    """The direction of the change makes no difference once the noise is wide against the whole numbers."""
    sigma = 40.0
    truth = exact_lattice_epsilon(rate=rate, sigma=sigma, change=change, delta=1e-3)
    noise = sigma / math.hypot(*change)
    ideal = epsilon([SampledGaussian(purpose="x", sampling_rate=rate, noise_multiplier=noise, steps=1)], 1e-3)
    assert truth <= ideal + 1e-6
    assert ideal == pytest.approx(truth, rel=5e-3, abs=2e-3)


def test_the_gap_between_integer_sums_and_the_continuous_mechanism_is_negligible():
    """What whole numbers cost beyond real ones: below 1e-3 of ε over all schedules that a plan makes."""
    for multiplier in (0.3, 10.0):
        for shares in (2, 100):
            for steps in (1, 1000):
                event = make_step(noise_multiplier=multiplier, shares=shares, steps=steps)
                total = multiplier * math.sqrt(shares)
                whole = SampledGaussian(purpose="x", sampling_rate=0.1, noise_multiplier=total, steps=steps)
                assert noise_multiplier_of(event) == pytest.approx(total, rel=1e-6)
                assert 0 < distance_of(event) < 1e-4
                assert 0 <= epsilon([event], DELTA) - epsilon([whole], DELTA) <= 1e-3 * epsilon([whole], DELTA)


def test_renyi_costs_of_sampled_sums_are_those_of_the_same_noise():
    for order in (2, 5, 20):
        whole = SampledGaussian(purpose="x", sampling_rate=0.1, noise_multiplier=0.7 * math.sqrt(5), steps=200)
        assert renyi_cost([make_step()], order=order) == pytest.approx(renyi_cost([whole], order=order), rel=1e-6)


def test_renyi_costs_bound_the_exact_divergence_of_a_narrow_sum():
    sigma, shares = 0.6, 4
    pmf = sum_of_shares(sigma, shares)
    moved, padded = np.concatenate([[0.0], pmf]), np.concatenate([pmf, [0.0]])
    # Where doubles are exact enough; the sums peak at a shift of `order`, with a probability of 1e-10 at the highest.
    inside = (moved > 1e-15) & (padded > 1e-15)
    for order in (2, 4, 8):
        exact = math.log(np.sum(moved[inside] ** order * padded[inside] ** (1 - order))) / (order - 1)
        event = DiscreteGaussianSum(purpose="x", sigma=sigma, shares=shares)
        assert exact <= renyi_cost([event], order=order) <= exact + 10 * sum_distance(sigma, shares)


def test_who_knows_shares_is_protected_from_by_the_others_alone():
    events = (DiscreteGaussianSum(purpose="x", sigma=10, shares=6, count=14), make_step(shares=6))
    costs = [epsilon(with_shares(events, unknown=unknown), DELTA) for unknown in (6, 5, 3, 1)]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    assert with_shares(events, unknown=0) == (NonPrivate(purpose="x"), NonPrivate(purpose="x"))
    alone = DiscreteGaussian(purpose="x", sigma=10, count=14)
    assert epsilon(with_shares(events[:1], unknown=1), DELTA) == epsilon([alone], DELTA)


def test_more_levels_or_fewer_parameters_never_cost_more():
    base = epsilon([make_step(levels=2**22, parameters=2**20)], DELTA)
    assert epsilon([make_step(levels=2**24, parameters=2**20)], DELTA) <= base
    assert epsilon([make_step(levels=2**22, parameters=2**10)], DELTA) <= base
