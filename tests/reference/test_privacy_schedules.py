"""ε of 500 random schedules, between bounds that were computed without the accountant's library.

The bounds are read from `test_privacy_schedules.json`; `privacy_schedules.py` says how they come about and what is
proven of them. Sixty schedules are checked by default, all of them with --run-slow.
"""

from __future__ import annotations

import math

import numpy as np
import privacy_schedules
import pytest
from privacy_schedules import Schedule, Tables, Training, bracket, draw_schedules, read_schedules
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, PrivacyEvent, SampledGaussian

KNOWN = read_schedules()
SAMPLE = [int(place) for place in np.random.default_rng(7).choice(len(KNOWN), 60, replace=False)]


def events_of(schedule: Schedule) -> list[PrivacyEvent]:
    training = [
        SampledGaussian(purpose="training", sampling_rate=part.rate, noise_multiplier=part.noise, steps=part.steps)
        for part in schedule.training
    ]
    tables = [
        DiscreteGaussian(purpose="tables", sigma=part.sigma, sensitivity=part.sensitivity, count=part.count)
        for part in schedule.tables
    ]
    pure = [DiscreteLaplace(purpose="count", epsilon=schedule.pure)] if schedule.pure else []
    return [*pure, *tables, *training]


def check(place: int) -> None:
    schedule, low, high = KNOWN[place]
    found = epsilon(events_of(schedule), schedule.delta)
    assert low <= found <= max(high * 1.02, high + 0.01), f"schedule {place}: {schedule}"


def test_the_bounds_are_close_to_each_other_and_cover_what_runs_cost():
    assert len(KNOWN) == 500
    assert all(0 <= high - low <= max(0.002 * low, 1e-3) for _, low, high in KNOWN)
    assert min(low for _, low, _ in KNOWN) < 0.1
    assert max(high for _, _, high in KNOWN) > 30
    assert {len(schedule.training) for schedule, _, _ in KNOWN} == {0, 1, 2}
    assert sum(schedule.pure > 0 for schedule, _, _ in KNOWN) > 100


@pytest.mark.long
def test_no_epsilon_of_a_sample_is_below_the_truth_or_two_percent_above():
    for place in SAMPLE:
        check(place)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_epsilon_of_all_schedules_is_below_the_truth_or_two_percent_above():
    for place in range(len(KNOWN)):
        check(place)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_schedules_are_drawn_and_bounded_as_written():
    drawn = draw_schedules()
    assert drawn == [schedule for schedule, _, _ in KNOWN]
    for place in SAMPLE[:10]:
        assert bracket(drawn[place]) == pytest.approx(KNOWN[place][1:], rel=1e-6, abs=2e-7)


@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("mu", [0.02, 0.5, 4.0])
def test_the_bounds_hold_the_closed_form_of_the_gaussian_mechanism(mu, delta):
    """Balle & Wang 2018, Theorem 8; the discrete Gaussian with a large σ is the same to seven places."""

    def excess(value: float) -> float:
        return norm.cdf(mu / 2 - value / mu) - math.exp(value + log_ndtr(-mu / 2 - value / mu)) - delta

    truth = brentq(excess, 0, 80, xtol=1e-12)
    for schedule in (
        Schedule((Training(1.0, 2 / mu, 3), Training(1.0, 4 / mu, 4)), (), 0.0, delta),
        Schedule((), (Tables(400 * 3 / mu, 400, 9),), 0.0, delta),
    ):
        low, high = bracket(schedule)
        assert low <= truth <= high
        assert high - low <= max(0.002 * truth, 1e-3)


def test_the_bounds_hold_what_another_accountant_says():
    """Opacus composes numerically as well and states its own error: an upper bound within 0.01."""
    from opacus.accountants import PRVAccountant

    parts = (Training(0.02, 0.9, 800), Training(0.3, 4.0, 100))
    accountant = PRVAccountant()
    accountant.history = [(part.noise, part.rate, part.steps) for part in parts]
    low, high = bracket(Schedule(parts, (), 0.0, 1e-6))
    found = accountant.get_epsilon(1e-6, eps_error=0.01, delta_error=1e-10)
    assert low <= found <= high + 0.025


def test_a_schedule_whose_epsilon_is_understated_is_noticed():
    """A step too few in a hundred, or noise a hundredth too large, shows."""
    schedule = Schedule((Training(0.05, 1.2, 100),), (), 0.0, 1e-5)
    low, _ = bracket(schedule)
    for wrong in (Training(0.05, 1.2, 99), Training(0.05, 1.212, 100)):
        assert epsilon(events_of(Schedule((wrong,), (), 0.0, 1e-5)), 1e-5) < low
    assert privacy_schedules.FILE.is_file()
