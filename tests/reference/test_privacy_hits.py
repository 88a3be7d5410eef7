"""What hits say of a guarantee, against scipy's intervals and dp-accounting's Gaussian mechanism."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aevorium.privacy.accountant import epsilon as spent
from aevorium.privacy.attack import claimed_curve, exact_curve
from aevorium.privacy.events import DiscreteGaussian
from aevorium.privacy.hits import Hits, exceeds, gaussian_epsilon, least_epsilon, tries_to_refute

MANY = 10**9


@given(found=st.integers(0, 50), present=st.integers(50, 90), alarms=st.integers(0, 50), absent=st.integers(50, 90))
def test_bounds_are_those_of_scipy(found, present, alarms, absent):
    least, most = Hits(found, present, alarms, absent).bounds(confidence=0.9)
    tries = (stats.binomtest(found, present), stats.binomtest(alarms, absent))
    low, high = (each.proportion_ci(confidence_level=0.9, method="exact") for each in tries)
    assert least == pytest.approx(low.low, abs=1e-12)
    assert most == pytest.approx(high.high, abs=1e-12)


@pytest.mark.parametrize("noise", [0.4, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-2])
def test_the_best_attack_on_gaussian_noise_shows_its_whole_epsilon(noise, delta):
    found = round(stats.norm.cdf(0.5 / noise) * MANY)
    shown = gaussian_epsilon(Hits(found, MANY, MANY - found, MANY), delta=delta, confidence=0.95)
    truth = pld.from_gaussian_mechanism(noise, value_discretization_interval=1e-4).get_epsilon_for_delta(delta)
    assert shown <= truth + 1e-4
    assert shown == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_the_best_attack_on_randomised_response_shows_its_whole_epsilon(epsilon):
    rate = 1 / (1 + math.exp(-epsilon))
    hits = Hits(round(rate * MANY), MANY, round((1 - rate) * MANY), MANY)
    shown = least_epsilon(hits, delta=0.0, confidence=0.95)
    assert shown <= epsilon
    assert shown == pytest.approx(epsilon, rel=0.01)


def test_what_is_shown_whatever_the_mechanism_is_true_of_whole_numbers_too():
    """One number with little discrete noise: the Gaussian figure is above the truth there, the other is not."""
    event = DiscreteGaussian(purpose="test", sigma=0.319)
    numbers = np.arange(-30, 31)
    weights = np.exp(-(numbers**2) / (2 * event.sigma**2))
    weights /= weights.sum()
    found, alarms = float(weights[numbers >= 0].sum()), float(weights[numbers >= 1].sum())
    hits = Hits(round(found * MANY), MANY, round(alarms * MANY), MANY)
    truth = spent([event], delta=1e-5)
    assert gaussian_epsilon(hits, delta=1e-5, confidence=0.95) > truth
    assert 0 < least_epsilon(hits, delta=1e-5, confidence=0.95) <= truth


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 6.0])
def test_with_fewer_tries_not_even_a_perfect_attack_refutes(epsilon):
    claim = claimed_curve(epsilon=epsilon, delta=1e-5)
    enough = tries_to_refute(claim, confidence=0.999)
    assert enough is not None
    few = int(enough / 1.5)
    assert exceeds(Hits(enough, enough, 0, enough), claim, confidence=0.999)
    assert not exceeds(Hits(few, few, 0, few), claim, confidence=0.999)
    assert tries_to_refute(claimed_curve(epsilon=60.0, delta=1e-5), confidence=0.999) is None


def test_an_attack_that_guesses_shows_nothing():
    guess = Hits(50, 100, 50, 100)
    assert least_epsilon(guess, delta=1e-5, confidence=0.95) == 0.0
    assert gaussian_epsilon(guess, delta=1e-5, confidence=0.95) == 0.0
    assert not exceeds(Hits(50, 100, 50, 100), claimed_curve(epsilon=1e-6, delta=1e-9), confidence=0.95)


def test_a_perfect_attack_refutes_any_guarantee_if_it_is_tried_often_enough():
    claim = claimed_curve(epsilon=2.0, delta=1e-5)
    assert not exceeds(Hits(10, 10, 0, 10), claim, confidence=0.999)
    assert exceeds(Hits(100, 100, 0, 100), claim, confidence=0.999)


def test_what_keeps_its_promise_is_seldom_accused():
    """Of 20,000 audits of the best attack on a tight guarantee, at a confidence of .8, a fifth may accuse it."""
    sigma, tries, confidence = 2.0, 200, 0.8
    curve = exact_curve([DiscreteGaussian(purpose="test", sigma=sigma * 1000, sensitivity=1000)])
    generator = np.random.default_rng(5)
    rate = stats.norm.cdf(0.5 / sigma)
    outcomes = zip(generator.binomial(tries, rate, 20_000), generator.binomial(tries, 1 - rate, 20_000), strict=True)
    cache: dict[tuple[int, int], bool] = {}

    def accuses(found: int, alarms: int) -> bool:
        if (found, alarms) not in cache:
            cache[found, alarms] = exceeds(Hits(found, tries, alarms, tries), curve, confidence=confidence)
        return cache[found, alarms]

    accused = np.mean([accuses(int(found), int(alarms)) for found, alarms in outcomes])
    # Both bounds must fail together in the same direction, so it is far less than a fifth, but not never.
    assert 0 < accused < 0.2 + 5 * math.sqrt(0.16 / 20_000)
