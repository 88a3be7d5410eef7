from __future__ import annotations

import math
from decimal import Decimal

import pytest

from aevorium.errors import ConfigError
from aevorium.privacy.accountant import calibrate, epsilon, round_up, spent
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate, SampledGaussian
from aevorium.privacy.renyi import RenyiFilter, renyi_epsilon, zcdp_budget

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


def test_a_period_without_releases_has_spent_nothing():
    assert spent({}, limit_epsilon=10, limit_delta=DELTA) == 0
    assert spent({"a": [], "b": []}, limit_epsilon=10, limit_delta=DELTA) == 0


def test_one_run_is_charged_by_the_smaller_of_two_bounds():
    cheap = [gaussian(20.0, 14)]
    assert spent({"a": cheap, "b": []}, limit_epsilon=10, limit_delta=DELTA) == epsilon(cheap, DELTA)
    bound = RenyiFilter(epsilon=10, delta=DELTA)
    assert epsilon(cheap, DELTA) < bound.to_epsilon(bound.cost(cheap))


def test_several_runs_are_charged_by_the_filter_alone():
    runs = {"a": [gaussian(5.0, 14)], "b": [training(0.05, 2.0, 300), laplace(0.1)]}
    bound = RenyiFilter(epsilon=10, delta=DELTA)
    cost = bound.cost(runs["a"]) + bound.cost(runs["b"])
    assert spent(runs, limit_epsilon=10, limit_delta=DELTA) == round_up(bound.to_epsilon(cost))


def test_an_unprotected_run_spends_everything_and_an_infinite_limit_still_has_a_figure():
    private = [gaussian(5.0, 14)]
    assert spent({"a": [NonPrivate(purpose="x")]}, limit_epsilon=math.inf, limit_delta=DELTA) == math.inf
    assert spent({"a": [NonPrivate(purpose="x")], "b": private}, limit_epsilon=10, limit_delta=DELTA) == math.inf
    found = spent({"a": private, "b": private}, limit_epsilon=math.inf, limit_delta=DELTA)
    assert epsilon(private * 2, DELTA) <= found < math.inf


@pytest.mark.parametrize("limit", [0.01, 0.5, 3.0, 10.0, 60.0])
def test_a_full_filter_is_exactly_at_its_limit(limit):
    bound = RenyiFilter(epsilon=limit, delta=DELTA)
    assert bound.order >= 2
    assert bound.capacity > 0
    assert bound.to_epsilon(bound.capacity) == pytest.approx(limit, rel=1e-9)
    assert bound.to_epsilon(bound.capacity) <= limit


@pytest.mark.parametrize("limit", [0.01, 0.5, 3.0, 10.0])
def test_no_other_order_holds_much_more_gaussian_noise(limit):
    bound = RenyiFilter(epsilon=limit, delta=DELTA)
    assert bound.capacity / bound.order >= 0.95 * zcdp_budget(limit, DELTA)


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
