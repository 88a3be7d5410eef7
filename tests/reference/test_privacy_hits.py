"""What hits say of a guarantee, against scipy's intervals and dp-accounting's Gaussian mechanism."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aevorium.privacy.attack import claimed_curve, exact_curve
from aevorium.privacy.events import DiscreteGaussian
from aevorium.privacy.hits import Hits, exceeds, least_epsilon

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
    shown = least_epsilon(Hits(found, MANY, MANY - found, MANY), delta=delta, confidence=0.95)
    truth = pld.from_gaussian_mechanism(noise, value_discretization_interval=1e-4).get_epsilon_for_delta(delta)
    assert shown <= truth + 1e-4
    assert shown == pytest.approx(truth, rel=1e-3)


def test_an_attack_that_guesses_shows_nothing():
    assert least_epsilon(Hits(50, 100, 50, 100), delta=1e-5, confidence=0.95) == 0.0
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
