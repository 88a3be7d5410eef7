from __future__ import annotations

import math
from decimal import Decimal

import pytest

from aevorium.errors import ConfigError
from aevorium.privacy.accountant import calibrate, epsilon, round_up, spent
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate, SampledGaussian
from aevorium.privacy.renyi import RenyiOdometer, renyi_epsilon, zcdp_budget

DELTA = 1e-5


def laplace(value: float) -> DiscreteLaplace:
    return DiscreteLaplace(purpose="count", epsilon=value)


def gaussian(sigma: float, count: int = 1) -> DiscreteGaussian:
    return DiscreteGaussian(purpose="histograms", sigma=sigma, count=count)


def training(rate: float, noise: float, steps: int) -> SampledGaussian:
    return SampledGaussian(purpose="training", sampling_rate=rate, noise_multiplier=noise, steps=steps)


def test_no_events_cost_nothing():
    assert epsilon([], DELTA) == 0
    assert epsilon([], 0) == 0


def test_an_unprotected_release_costs_everything():
    assert epsilon([laplace(0.1), NonPrivate(purpose="x")], DELTA) == math.inf


def test_pure_events_add_up_exactly_as_the_decimals_they_are():
    assert epsilon([laplace(0.1), laplace(0.2)], 0) == 0.3
    assert epsilon([laplace(0.1)] * 3, DELTA) == 0.3
    assert epsilon([laplace(0.00001)], 0) == 0.0001


def test_pure_events_are_added_to_the_composed_rest():
    rest = [gaussian(9.0, 14), training(0.1, 3.0, 100)]
    assert epsilon([laplace(0.25), *rest], DELTA) == pytest.approx(0.25 + epsilon(rest, DELTA), abs=1e-9)


def test_gaussian_noise_has_no_epsilon_at_delta_zero():
    assert epsilon([gaussian(5.0)], 0) == math.inf


def test_rounding_goes_up_and_keeps_what_has_four_places():
    assert round_up(1.00001) == 1.0001
    assert round_up(1.0) == 1.0
    assert round_up(0.3) == 0.3
    assert round_up(Decimal("2.99990000000000000001")) == 3.0
    assert round_up(math.inf) == math.inf


def test_statements_have_four_places():
    found = epsilon([gaussian(7.0, 14)], DELTA)
    assert Decimal(repr(found)) == Decimal(repr(found)).quantize(Decimal("0.0001"))


@pytest.mark.parametrize("delta", [-1e-5, 1.0, math.nan])
def test_impossible_delta(delta):
    with pytest.raises(ConfigError) as caught:
        epsilon([gaussian(5.0)], delta)
    assert caught.value.code == "CONFIG_INVALID"


@pytest.mark.parametrize(("delta", "steps"), [(1e-13, 1), (1e-10, 100_000)])
def test_a_delta_too_small_for_floating_point_is_refused_not_understated(delta, steps):
    with pytest.raises(ConfigError) as caught:
        epsilon([training(0.1, 20.0, steps)], delta)
    assert caught.value.code == "CONFIG_INVALID"


def test_the_order_and_grouping_of_events_do_not_matter():
    split = [training(0.1, 2.0, 30), gaussian(8.0, 4), training(0.1, 2.0, 70), gaussian(8.0, 10)]
    whole = [gaussian(8.0, 14), training(0.1, 2.0, 100)]
    assert epsilon(split, DELTA) == epsilon(whole, DELTA)


def test_no_releases_have_spent_nothing():
    assert spent([], odometer=RenyiOdometer(delta=DELTA)) == 0
    assert RenyiOdometer(delta=DELTA).read([]) == 0


def test_one_run_shows_somewhat_more_than_its_exact_cost_and_a_second_one_adds_its_own():
    odometer = RenyiOdometer.for_limit(10.0, delta=DELTA)
    run = [gaussian(20.0, 14), training(0.1, 9.0, 200)]
    alone = spent(run, odometer=odometer)
    assert epsilon(run, DELTA) < alone < 1.35 * epsilon(run, DELTA)
    assert alone < spent([*run, laplace(0.15)], odometer=odometer) <= alone + 0.15


def test_pure_events_alone_add_up_as_they_are():
    odometer = RenyiOdometer.for_limit(10.0, delta=DELTA)
    assert spent([laplace(0.1), laplace(0.05)], odometer=odometer) == 0.15


def test_an_unprotected_run_spends_everything_and_an_infinite_limit_still_has_a_figure():
    private = [gaussian(5.0, 14)] * 2
    without = RenyiOdometer.for_limit(math.inf, delta=DELTA)
    assert spent([*private, NonPrivate(purpose="x")], odometer=without) == math.inf
    assert epsilon(private, DELTA) <= spent(private, odometer=without) < math.inf


@pytest.mark.parametrize("limit", [0.05, 0.5, 3.0, 10.0, 60.0])
def test_a_limit_holds_almost_as_much_noise_as_under_the_best_single_order(limit):
    """δ is shared with orders for smaller figures; the steward must not pay for that with runs."""
    odometer = RenyiOdometer.for_limit(limit, delta=DELTA)
    best = zcdp_budget(limit, DELTA)
    assert odometer.read([gaussian(1 / math.sqrt(2 * 0.92 * best))]) <= limit
    assert odometer.read([gaussian(1 / math.sqrt(2 * best))]) > limit * 0.999


@pytest.mark.parametrize("leading", [None, 4])
def test_the_shares_of_the_orders_are_one_delta_together(leading):
    assert sum(share for _, share in RenyiOdometer(delta=DELTA, leading=leading).shares) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("target", [0.05, 1.0, 3.0, 10.0])
def test_a_zcdp_budget_is_used_up_by_the_noise_it_pays_for(target):
    rho = zcdp_budget(target, DELTA)
    noise = [gaussian(math.sqrt(14 / (2 * rho)), 14)]
    assert renyi_epsilon(noise, delta=DELTA) >= epsilon(noise, DELTA) - 1e-4
    assert 0.85 * target <= epsilon(noise, DELTA) <= target + 1e-4


def test_calibration_knows_what_cannot_be_reached():
    with pytest.raises(ConfigError) as caught:
        calibrate(lambda s: [laplace(1.0), training(0.1, s, 100)], epsilon=0.9, delta=DELTA)
    assert caught.value.code == "CONFIG_INVALID"
    with pytest.raises(ConfigError):
        calibrate(lambda s: [NonPrivate(purpose="x"), training(0.1, s, 100)], epsilon=5.0, delta=DELTA)


@pytest.mark.parametrize(("target", "delta"), [(0.0, DELTA), (-1.0, DELTA), (math.inf, DELTA), (1.0, 0.0), (1.0, 1.0)])
def test_calibration_refuses_impossible_targets(target, delta):
    with pytest.raises(ConfigError):
        calibrate(lambda s: [training(0.1, s, 10)], epsilon=target, delta=delta)


def test_calibration_stops_at_the_smallest_noise_when_almost_none_is_needed():
    found = calibrate(lambda s: [training(1.0, s, 1)], epsilon=1e6, delta=0.5)
    assert found == pytest.approx(0.1)


@pytest.mark.parametrize("delta", [0.4, 0.688073450397936, 0.99])
def test_a_large_delta_leaves_little_epsilon_and_is_no_failure(delta):
    events = [DiscreteGaussian(purpose="t", sigma=22.0, sensitivity=1, count=13)]
    # The Gaussian's own curve (Balle and Wang 2018): delta at epsilon 0 is 2Φ(μ/2) - 1 for μ = sqrt(13) / 22.
    at_zero = math.erf(math.sqrt(13) / 22 / 2 / math.sqrt(2))
    assert at_zero < delta
    assert 0 <= epsilon(events, delta=delta) <= 0.001
