from __future__ import annotations

import hashlib
import math

import pytest
from pydantic import ValidationError

from aevorium.errors import ConfigError
from aevorium.privacy.accountant import epsilon as epsilon_of
from aevorium.privacy.accountant import gaussian_budget
from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    DiscreteLaplace,
    NonPrivate,
    SampledGaussian,
    is_within,
)
from aevorium.privacy.phases import LOSS_LEVELS, cost_of, plan_budget
from aevorium.privacy.plan import StudyPlan


def make_plan(**changes) -> StudyPlan:
    return StudyPlan(
        **{
            "study": "adult",
            "schema_hash": "ab" * 32,
            "columns": 14,
            "epsilon": 3.0,
            "delta": 1e-5,
            "nodes": ("a", "b"),
            "min_nodes": 2,
            "rounds": 5,
            "epochs": 4,
            "batch_size": 100,
            "recipe": "dp-sgd",
            **changes,
        }
    )


def test_the_hash_of_a_plan_never_changes():
    """Nodes agree to it, and ledgers hold it: a version that computed another one could not go on with a run."""
    text = (
        '{"batch_size":100,"colluding":0,"columns":14,"delta":0.00001,"dropouts":0,"epochs":4,"epsilon":3,'
        '"max_nodes_per_patient":1,"min_nodes":2,"nodes":["a","b"],'
        '"noise_multiplier":null,"purpose":"synthetic data","recipe":"dp-sgd","records":null,"rounds":5,'
        '"schema_hash":"' + "ab" * 32 + '","schema_version":1,"study":"adult","trust":"local"}'
    )
    assert make_plan().canonical_json == text
    assert make_plan().content_hash == hashlib.sha256(text.encode()).hexdigest()


CHANGES = {
    "schema_version": 2,
    "study": "other",
    "schema_hash": "cd" * 32,
    "columns": 15,
    "has_target": True,
    "purpose": "research",
    "epsilon": 3.0001,
    "delta": 1.0001e-5,
    "nodes": ("b", "a"),
    "min_nodes": 1,
    "rounds": 6,
    "epochs": 5,
    "batch_size": 101,
    "records": 1000,
    "noise_multiplier": 1.0,
    "recipe": "warm-start",
    "max_nodes_per_patient": 2,
}
AGGREGATED = {"trust": "secure-aggregation", "dropouts": 1, "colluding": 1}
"""Fields that have a meaning for a plan of at least three nodes."""
COUNTED = {"numbers": 2}
"""A field that a plan without it leaves out too."""
EVALUATED = {"evaluation_share": 0.2, "has_holdout": True}
"""Fields that a plan without an evaluation leaves out, so that its hash is what it was before there was one."""


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_the_hash_depends_on_every_field(field):
    assert make_plan(**{field: CHANGES[field]}).content_hash != make_plan().content_hash


def test_the_hash_depends_on_what_only_secure_aggregation_has():
    base = {"nodes": ("a", "b", "c", "d"), "min_nodes": 4}
    plans = [
        make_plan(**base),
        *(make_plan(**base, trust="secure-aggregation", **extra) for extra in ({}, {"dropouts": 1}, {"colluding": 1})),
    ]
    assert len({plan.content_hash for plan in plans}) == len(plans)


def test_no_field_is_left_out_of_the_test_above():
    assert set(CHANGES) | set(AGGREGATED) | set(EVALUATED) | set(COUNTED) == set(StudyPlan.model_fields)


def test_the_hash_depends_on_the_evaluation():
    plans = [
        make_plan(),
        make_plan(**COUNTED),
        make_plan(evaluation_share=0.2),
        make_plan(evaluation_share=0.1),
        make_plan(**EVALUATED),
    ]
    assert len({plan.content_hash for plan in plans}) == len(plans)


@pytest.mark.parametrize("changes", [{}, EVALUATED, {"epsilon": math.inf}, {"records": 500, "noise_multiplier": 0.3}])
def test_a_plan_survives_its_journey(changes):
    plan = make_plan(**changes)
    again = StudyPlan.model_validate_json(plan.canonical_json)
    assert again == plan
    assert again.content_hash == plan.content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0},
        {"epsilon": -1},
        {"epsilon": math.nan},
        {"delta": 0},
        {"delta": 1},
        {"delta": math.nan},
        {"nodes": ()},
        {"nodes": ("a", "a")},
        {"min_nodes": 3},
        {"min_nodes": 0},
        {"rounds": 0},
        {"epochs": 0},
        {"batch_size": 0},
        {"records": 0},
        {"noise_multiplier": -0.1},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": math.nan},
        {"trust": "central"},
        {"recipe": "other"},
        {"columns": 0},
        {"numbers": -1},
        {"numbers": 7, "columns": 6},
        {"evaluation_share": -0.1},
        {"evaluation_share": 0.51},
        {"evaluation_share": math.nan},
        {"has_holdout": True},
        {**EVALUATED, "max_nodes_per_patient": 2},
        {"unknown": 1},
    ],
)
def test_impossible_plans_are_refused(changes):
    with pytest.raises(ValidationError):
        make_plan(**changes)


def test_without_privacy_every_phase_says_so_and_draws_no_noise():
    for plan in (make_plan(epsilon=math.inf), make_plan(noise_multiplier=0.0)):
        assert not plan.is_private
        budget = plan_budget(plan)
        schedule = budget.training(1000)
        assert all(isinstance(event, NonPrivate) for event in budget.events(1000))
        assert (budget.histograms.sigma, budget.count_variance) == (0, 0)
        assert (schedule.noise_multiplier, schedule.loss.sigma) == (0, 0)
        assert (schedule.sampling_rate, schedule.expected_batch) == (0.1, 100)


@pytest.mark.parametrize(
    ("size", "rate", "steps"), [(1000, 0.1, 40), (1001, 100 / 1001, 41), (99, 1.0, 4), (0, 1.0, 4), (-30, 1.0, 4)]
)
def test_the_schedule_follows_from_the_size_it_is_told(size, rate, steps):
    """A noisy size may be nothing, or less: the schedule still is one."""
    schedule = plan_budget(make_plan(noise_multiplier=1.0)).training(size)
    assert schedule.sampling_rate == pytest.approx(rate)
    assert schedule.steps == steps
    assert schedule.expected_batch == pytest.approx(rate * max(size, 1))
    assert schedule.noise_multiplier == 1.0


def test_sizes_are_declared_for_all_nodes_together():
    assert make_plan(records=1001).declared_size == 500.5
    assert make_plan().declared_size is None


def test_the_events_of_all_rounds_are_those_of_one_as_often_as_there_are_rounds():
    budget = plan_budget(make_plan(noise_multiplier=1.0))
    schedule = budget.training(1000)
    one, everything = schedule.round_events(), budget.events(1000)
    assert everything == (budget.count, *budget.statistics, *one * 5)
    assert is_within(schedule.all_events(), everything)
    assert one == (
        SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=1.0, steps=40),
        DiscreteGaussian(purpose="training loss", sigma=schedule.loss.sigma, sensitivity=LOSS_LEVELS),
    )


def test_a_count_takes_a_twentieth_and_no_more_than_a_quarter():
    for epsilon, count in [(1.0, 0.05), (3.0, 0.15), (5.0, 0.25), (50.0, 0.25)]:
        event = plan_budget(make_plan(epsilon=epsilon)).count
        assert isinstance(event, DiscreteLaplace)
        assert event.epsilon == pytest.approx(count)


def test_the_variance_of_a_count_is_that_of_two_sided_geometric_noise():
    budget = plan_budget(make_plan())
    weights = {z: math.exp(-budget.count.epsilon * abs(z)) for z in range(-2000, 2001)}
    total = sum(weights.values())
    assert budget.count_variance == pytest.approx(sum(z * z * w for z, w in weights.items()) / total, rel=1e-9)


def test_one_histogram_is_charged_for_each_column():
    for columns in (1, 14, 40):
        (event,) = plan_budget(make_plan(columns=columns)).statistics
        assert isinstance(event, DiscreteGaussian)
        assert (event.count, event.sensitivity) == (columns, 1)
    sigmas = [plan_budget(make_plan(columns=columns)).histograms.sigma for columns in (1, 4, 16)]
    assert sigmas == pytest.approx([sigmas[0], 2 * sigmas[0], 4 * sigmas[0]])


def test_counts_by_rounding_tell_a_thousandth_of_the_records_where_a_fiftieth_of_the_budget_is_enough():
    several = {"nodes": ("a", "b", "c"), "min_nodes": 3, "columns": 12, "numbers": 5, "recipe": "warm-start"}
    few, some, many = (plan_budget(make_plan(**several, records=records)) for records in (300, 3_000, 300_000))
    assert few.roundings is None
    assert len(few.statistics) == 1
    assert some.roundings is not None
    assert many.roundings is not None
    assert 3_000 / 1_000 < some.roundings.noise_of(nodes=3) < 3_000 / 12
    most = 0.02 * gaussian_budget(3.0 - 0.15, 1e-5)
    assert 5 / (2 * some.roundings.sigma**2) == pytest.approx(most, rel=1e-9)
    assert many.roundings.noise_of(nodes=3) == pytest.approx(300, rel=1e-9)
    assert 5 / (2 * many.roundings.sigma**2) < most
    # Where the nodes' noises add up to one, less of the budget is enough.
    summed = plan_budget(make_plan(**several, records=30_000, trust="secure-aggregation"))
    assert summed.roundings is not None
    assert summed.roundings.noise_of(nodes=3) == pytest.approx(30, rel=1e-3)
    for budget in (some, many, summed):
        histograms, roundings = budget.statistics
        assert isinstance(roundings, DiscreteGaussian | DiscreteGaussianSum)
        assert isinstance(histograms, DiscreteGaussian | DiscreteGaussianSum)
        assert (roundings.count, histograms.count) == (5, 12)


def test_a_study_of_any_size_has_counts_by_rounding_that_can_be_composed():
    """A server may ask for a plan of 10^12 records; noise of a thousandth of these would take gigabytes to compose."""
    budget = plan_budget(
        make_plan(columns=12, numbers=5, recipe="warm-start", epochs=None, batch_size=None), records=1e12
    )
    assert budget.roundings is not None
    assert budget.roundings.noise_of(nodes=2) <= 1_000 + 1e-6


def test_counts_by_rounding_are_paid_for_out_of_the_same_budget():
    """The noise of the tables grows, and what all costs together stays what was asked for."""
    without, with_them = (make_plan(columns=12, numbers=numbers, records=2_000, epsilon=3.0) for numbers in (0, 5))
    budgets = [plan_budget(plan) for plan in (without, with_them)]
    assert len(budgets[1].statistics) == 2
    assert budgets[0].histograms.sigma < budgets[1].histograms.sigma < 1.02 * budgets[0].histograms.sigma
    for budget in budgets:
        assert 2.99 < epsilon_of(budget.events(1_000), delta=budget.plan.delta) <= 3.0


def test_numbers_are_left_as_they_are_where_there_is_no_privacy():
    budget = plan_budget(make_plan(columns=12, numbers=5, epsilon=math.inf))
    assert budget.roundings is not None
    assert budget.roundings.sigma == 0
    assert all(isinstance(event, NonPrivate) for event in budget.statistics)


def test_a_fixed_noise_has_no_cost_before_the_size_is_known():
    with pytest.raises(ConfigError) as caught:
        cost_of(make_plan(noise_multiplier=1.0))
    assert caught.value.code == "CONFIG_CONFLICT"
