"""The odometer against somebody who decides after each release whether there is a next one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from aevorium.privacy.events import SampledGaussian
from aevorium.privacy.renyi import RenyiOdometer

DELTA = 0.01
STEPS, PEOPLE = 120, 100_000
MU = 0.3
"""Sensitivity over noise of each release."""


def exact_epsilon(mu: float) -> float:
    """ε of one Gaussian release (Balle & Wang 2018, Theorem 8): right only if the number of releases was fixed."""

    def excess(value: float) -> float:
        return norm.cdf(mu / 2 - value / mu) - math.exp(value + log_ndtr(-mu / 2 - value / mu)) - DELTA

    return float(brentq(excess, 0, 200)) if excess(0) > 0 else 0.0


def failure(figures: np.ndarray) -> tuple[float, float]:
    """E[(1 - exp(ε - L))₊] and its standard error, if releases end as soon as the loss L is half above the figure ε.

    (ε, δ)-DP with the ε shown at the end says that it is at most δ.
    """
    rng = np.random.default_rng(1)
    losses = np.cumsum(MU**2 / 2 + MU * rng.standard_normal((PEOPLE, STEPS)), axis=1)
    is_lucky = losses > figures + 0.5
    end = np.where(is_lucky.any(axis=1), is_lucky.argmax(axis=1), STEPS - 1)
    excess = losses[np.arange(PEOPLE), end] - figures[end]
    missed = np.where(excess > 0, -np.expm1(-np.maximum(excess, 0)), 0)
    return float(missed.mean()), float(missed.std() / math.sqrt(PEOPLE))


@pytest.mark.parametrize("odometer", [RenyiOdometer(delta=DELTA), RenyiOdometer.for_limit(10.0, delta=DELTA)])
def test_whoever_stops_when_it_suits_gains_nothing(odometer):
    releases = [SampledGaussian(purpose="x", sampling_rate=1.0, noise_multiplier=1 / MU, steps=1)]
    figures = np.array([odometer.read(releases * number) for number in range(1, STEPS + 1)])
    found, error = failure(figures)
    assert found <= DELTA + 3 * error


def test_exact_figures_of_what_happened_would_not_bear_it():
    """So the test above can fail: composing exactly, as if nobody had looked, understates ε here."""
    found, error = failure(np.array([exact_epsilon(MU * math.sqrt(number)) for number in range(1, STEPS + 1)]))
    assert found > DELTA + 10 * error
