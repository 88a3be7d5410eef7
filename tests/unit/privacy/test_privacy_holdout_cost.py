"""What a run costs whose patients are divided into those that it trains on and a holdout."""

from __future__ import annotations

import math
from itertools import product

import pytest

from aevorium.privacy.accountant import calibrate, epsilon, privacy_curve, spent
from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    DiscreteLaplace,
    NonPrivate,
    PrivacyEvent,
    SampledGaussian,
    cost_groups,
    events_from_json,
    events_to_json,
    is_within,
    merge_events,
    with_shares,
)
from aevorium.privacy.renyi import RenyiOdometer, renyi_cost, renyi_epsilon

DELTA = 1e-5


def laplace(value: float, units: str = "all") -> DiscreteLaplace:
    return DiscreteLaplace.model_validate({"purpose": "count", "epsilon": value, "units": units})


def tables(sigma: float, units: str = "all", count: int = 14) -> DiscreteGaussian:
    return DiscreteGaussian.model_validate({"purpose": "tables", "sigma": sigma, "count": count, "units": units})


def steps(noise: float, units: str = "all") -> SampledGaussian:
    return SampledGaussian.model_validate(
        {"purpose": "training", "sampling_rate": 0.1, "noise_multiplier": noise, "steps": 50, "units": units}
    )


def plainly(events: list[PrivacyEvent]) -> list[PrivacyEvent]:
    return [event.model_copy(update={"units": "all"}) for event in events]


TRAINING = [laplace(0.1, "training"), tables(9.0, "training"), steps(3.0, "training")]
HOLDOUT = [tables(7.0, "holdout")]


def test_a_run_with_a_holdout_costs_the_larger_of_its_groups_and_not_their_sum() -> None:
    of_training, of_holdout = epsilon(plainly(TRAINING), DELTA), epsilon(plainly(HOLDOUT), DELTA)
    assert of_training != of_holdout
    assert epsilon([*TRAINING, *HOLDOUT], DELTA) == max(of_training, of_holdout)
    assert epsilon(plainly([*TRAINING, *HOLDOUT]), DELTA) > max(of_training, of_holdout)
    # Whichever is the larger, and also where only one of them has released anything.
    for weaker in (2.0, 30.0):
        held = [tables(weaker, "holdout")]
        assert epsilon([*TRAINING, *held], DELTA) == max(of_training, epsilon(plainly(held), DELTA))
    assert epsilon(TRAINING, DELTA) == of_training
    assert epsilon(HOLDOUT, DELTA) == of_holdout


def test_what_concerns_everybody_is_paid_by_both_groups() -> None:
    common = [laplace(0.2), tables(20.0)]
    events = [*common, *TRAINING, *HOLDOUT]
    alone = [epsilon([*common, *plainly(group)], DELTA) for group in (TRAINING, HOLDOUT)]
    assert epsilon(events, DELTA) == max(alone)
    assert {len(group) for group in cost_groups(events)} == {5, 3}
    assert cost_groups(common) == (merge_events(common),)
    assert cost_groups(()) == ((),)


@pytest.mark.parametrize("order", [2, 5, 33])
def test_renyi_costs_are_the_larger_of_the_groups_at_each_order(order: int) -> None:
    costs = [renyi_cost(plainly(group), order=order) for group in (TRAINING, HOLDOUT)]
    assert renyi_cost([*TRAINING, *HOLDOUT], order=order) == pytest.approx(max(costs))
    assert renyi_epsilon([*TRAINING, *HOLDOUT], delta=DELTA) >= epsilon([*TRAINING, *HOLDOUT], DELTA)


def test_over_runs_the_larger_cost_of_each_run_adds_up() -> None:
    """A patient may be in the holdout of one run and trained on in another: neither group's own sum would do."""
    odometer = RenyiOdometer.for_limit(10.0, delta=DELTA)
    first, second = (
        [tables(6.0, "training"), tables(60.0, "holdout")],
        [tables(60.0, "training"), tables(6.0, "holdout")],
    )
    together = odometer.read(first, second)
    for path in product((0, 1), (0, 1)):
        paid = [plainly([run[group]]) for run, group in zip((first, second), path, strict=True)]
        assert together >= odometer.read(*paid)
    assert together == pytest.approx(odometer.read(plainly([first[0]]), plainly([second[1]])))
    assert together > odometer.read([*first, *second]) + 0.5
    assert spent(first, second, odometer=odometer) > spent(first, odometer=odometer)
    assert odometer.read() == odometer.read([], ()) == 0.0


def test_pure_groups_are_the_larger_at_delta_zero_and_runs_add_up() -> None:
    run = [laplace(0.1, "training"), laplace(0.25, "holdout")]
    odometer = RenyiOdometer(delta=DELTA)
    assert epsilon(run, 0) == 0.25
    assert spent(run, run, odometer=odometer) == 0.5


def test_an_unprotected_group_makes_the_run_unprotected() -> None:
    assert epsilon([*TRAINING, NonPrivate(purpose="x", units="holdout")], DELTA) == math.inf
    lost = with_shares([DiscreteGaussianSum(purpose="x", sigma=9.0, shares=3, units="holdout")], unknown=0)
    assert [event.units for event in lost] == ["holdout"]
    assert with_shares([DiscreteGaussianSum(purpose="x", sigma=9.0, shares=3, units="training")], unknown=2)[
        0
    ].units == ("training")


def test_the_curve_of_a_run_lies_on_or_above_those_of_its_groups() -> None:
    curve = privacy_curve([*TRAINING, *HOLDOUT], points=100)
    assert [level for level, _ in curve] == sorted({level for level, _ in curve})
    for group in (TRAINING, HOLDOUT):
        own = privacy_curve(plainly(group), points=100)
        for level, delta in curve:
            assert delta >= min((at for below, at in own if below >= level), default=0.0) - 1e-15
    # The claim can be read from it: at its ε the δ of both groups is within the target, up to the grid of the curve.
    target = epsilon([*TRAINING, *HOLDOUT], DELTA)
    assert min(delta for level, delta in curve if level <= target * 1.05) <= DELTA


def test_a_plan_for_one_group_does_not_allow_a_release_of_another() -> None:
    planned = [*TRAINING, *HOLDOUT]
    assert is_within([*HOLDOUT, TRAINING[1]], planned)
    for units in ("all", "training"):
        assert not is_within([tables(7.0, units)], planned)
    assert not is_within(plainly(TRAINING), planned)
    assert len(merge_events([tables(9.0, "training"), tables(9.0), tables(9.0, "holdout")])) == 3


def test_events_of_all_patients_are_written_as_ever_and_those_of_a_group_say_so() -> None:
    assert events_to_json([tables(2.0)]) == (
        '[{"purpose":"tables","kind":"discrete_gaussian","sigma":2.0,"sensitivity":1,"count":14}]'
    )
    text = events_to_json([*TRAINING, *HOLDOUT])
    assert text.count('"units":"training"') == 3
    assert list(events_from_json(text)) == [*TRAINING, *HOLDOUT]
    with pytest.raises(ValueError, match="units"):
        events_from_json('[{"purpose":"x","kind":"non_private","units":"some"}]')


def test_noise_is_calibrated_to_the_larger_group() -> None:
    noise = calibrate(lambda noise: [tables(noise, "training"), tables(30.0, "holdout")], epsilon=2.0, delta=DELTA)
    assert noise == pytest.approx(calibrate(lambda noise: [tables(noise)], epsilon=2.0, delta=DELTA), rel=1e-3)
