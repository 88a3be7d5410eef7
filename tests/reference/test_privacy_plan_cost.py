"""What a plan costs in all, by an accountant that shares no code with the planner."""

from __future__ import annotations

import math

import pytest
from dp_accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant

from aevorium.privacy.accountant import epsilon, gaussian_budget
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, SampledGaussian
from aevorium.privacy.phases import cost_of, plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.renyi import renyi_epsilon

DELTA = 1e-5


def make_plan(**changes) -> StudyPlan:
    return StudyPlan(
        **{
            "study": "adult",
            "schema_hash": "ab" * 32,
            "columns": 14,
            "epsilon": 3.0,
            "delta": DELTA,
            "nodes": ("a",),
            "min_nodes": 1,
            "rounds": 5,
            "epochs": 4,
            "batch_size": 100,
            "recipe": "dp-sgd",
            **changes,
        }
    )


def library_cost(plan: StudyPlan, size: float, *, interval: float = 1e-3) -> float:
    """ε by dp-accounting: pure ε in full, histograms and losses as Gaussian mechanisms, training step by step."""
    pure, composed = 0.0, []
    for event in plan_budget(plan).events(size):
        if isinstance(event, DiscreteLaplace):
            pure += event.epsilon
        elif isinstance(event, DiscreteGaussian):
            composed.append(SelfComposedDpEvent(GaussianDpEvent(event.sigma / event.sensitivity), event.count))
        else:
            assert isinstance(event, SampledGaussian)
            step = PoissonSampledDpEvent(event.sampling_rate, GaussianDpEvent(event.noise_multiplier))
            composed.append(SelfComposedDpEvent(step, event.steps))
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=interval)
    accountant.compose(ComposedDpEvent(composed))
    return pure + accountant.get_epsilon(plan.delta)


@pytest.mark.parametrize(
    ("target", "size", "rounds", "epochs"),
    [(0.5, 2_000, 3, 4), (1.0, 500, 5, 20), (3.0, 5_000, 5, 4), (10.0, 800, 1, 10), (3.0, 60, 4, 4)],
)
def test_a_plan_spends_its_target_and_no_more(target, size, rounds, epochs):
    plan = make_plan(epsilon=target, rounds=rounds, epochs=epochs)
    events = plan_budget(plan).events(size)
    found = epsilon(events, DELTA)
    assert 0.97 * target <= found <= target
    # The library's grid is pessimistic by up to 1e-3 a step of composition; its result stays within 1 % here.
    assert library_cost(plan, size) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(
    ("target", "size", "columns"),
    [(0.02, 900, 60), (0.1, 900, 60), (1.0, 200, 13), (3.0, 5_000, 14), (10.0, 200, 2), (3.0, 300, 1)],
)
def test_a_plan_with_two_way_tables_spends_its_target_and_no_more(target, size, columns):
    plan = make_plan(recipe="warm-start", epsilon=target, columns=columns, epochs=None, batch_size=None)
    found = epsilon(plan_budget(plan).events(size), DELTA)
    assert 0.97 * target <= found <= target
    # By the library's own grid, fine enough for thousands of tables with a tiny loss each; both are pessimistic. It
    # composes the count too, whose 5 % is added in full here.
    assert library_cost(plan, size, interval=1e-4 if target > 1 else 1e-5) == pytest.approx(found, rel=0.02)


@pytest.mark.long
def test_tables_share_what_one_gaussian_mechanism_may_cost():
    """The budget that is shared out: a Gaussian mechanism of that ρ has the target's ε at δ, by the library."""
    for target in (0.1, 1.0, 10.0):
        noise = 1 / math.sqrt(2 * gaussian_budget(target, DELTA))
        accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-5)
        accountant.compose(GaussianDpEvent(noise))
        assert accountant.get_epsilon(DELTA) == pytest.approx(target, rel=1e-3)


def test_more_rounds_need_more_noise():
    one, three = (plan_budget(make_plan(rounds=rounds, epochs=2)).training(500) for rounds in (1, 3))
    assert one.noise_multiplier < three.noise_multiplier


def test_a_size_that_was_counted_too_small_or_too_large_still_meets_the_target():
    """Privacy may not rest on the size being right: rate and noise both come from the size that was told."""
    plan = make_plan(rounds=2, epochs=2)
    for told in (460.0, 540.0):
        schedule = plan_budget(plan).training(told)
        assert schedule.sampling_rate == pytest.approx(100 / told)
        assert epsilon(plan_budget(plan).events(told), DELTA) <= plan.epsilon


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_a_fixed_noise_costs_what_it_costs(noise):
    """The first specification's 0.3 on 2,000 patients: 335 for training alone, and never less with the rest."""
    plan = make_plan(records=2_000, rounds=5, epochs=20, batch_size=32, noise_multiplier=noise)
    found = cost_of(plan)
    (training,) = {event for event in plan_budget(plan).events(2_000) if isinstance(event, SampledGaussian)}
    assert (training.sampling_rate, training.noise_multiplier) == (0.016, noise)
    alone = epsilon([training] * 5, DELTA)
    assert alone == pytest.approx({0.3: 335.0, 1.0: 8.2}[noise], rel=0.005)
    assert alone < found < alone + 3.5
    assert math.isfinite(found)


def test_rounds_are_composed_not_added():
    """20 rounds of 50 steps at σ = 1.1 and q = 0.02: 3.59 by Rényi accounting, less exactly; not 20 times 1.27.

    Hospitals with disjoint patients have the cost of one: five of them do not make it 126.9.
    """
    one_round = SampledGaussian(purpose="training", sampling_rate=0.02, noise_multiplier=1.1, steps=50)
    assert renyi_epsilon([one_round], delta=DELTA) == pytest.approx(1.27, abs=0.005)
    assert renyi_epsilon([one_round] * 20, delta=DELTA) == pytest.approx(3.59, abs=0.005)
    assert epsilon([one_round] * 20, DELTA) == pytest.approx(3.25, abs=0.01)
