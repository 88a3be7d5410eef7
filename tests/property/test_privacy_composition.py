"""What must hold of ε for every choice of events. Few examples: each computes privacy loss distributions."""

from __future__ import annotations

import math
from fractions import Fraction

from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.privacy.accountant import epsilon, spent
from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteLaplace,
    SampledGaussian,
    events_from_json,
    events_to_json,
    is_within,
    merge_events,
)
from aevorium.privacy.renyi import RenyiOdometer, renyi_cost, renyi_epsilon

DELTA = 1e-5
ROUNDING = 1e-4

pure = st.builds(DiscreteLaplace, purpose=st.just("count"), epsilon=st.floats(1e-3, 1.0))
tables = st.builds(
    DiscreteGaussian,
    purpose=st.just("tables"),
    sigma=st.floats(2.0, 500.0),
    sensitivity=st.integers(1, 3),
    count=st.integers(1, 20),
)
training = st.builds(
    SampledGaussian,
    purpose=st.just("training"),
    sampling_rate=st.floats(0.005, 1.0),
    noise_multiplier=st.floats(1.0, 20.0),
    steps=st.integers(1, 40),
)
event = pure | tables | training
few = st.lists(event, max_size=4)
slow = settings(max_examples=5, deadline=None)
quick = settings(max_examples=100, deadline=None)


@slow
@given(few, event)
def test_one_more_event_never_costs_less(events, further):
    assert epsilon([*events, further], DELTA) >= epsilon(events, DELTA)


@slow
@given(few)
def test_a_smaller_delta_never_costs_less(events):
    assert epsilon(events, 1e-8) >= epsilon(events, 1e-5) >= epsilon(events, 1e-3)


@slow
@given(few)
def test_exact_accounting_is_never_above_renyi_by_more_than_the_rounding(events):
    composed = [e for e in events if not isinstance(e, DiscreteLaplace)]
    assert epsilon(composed, DELTA) <= renyi_epsilon(composed, delta=DELTA) * 1.01 + 2 * ROUNDING


@slow
@given(few, few)
def test_composition_is_no_worse_than_adding_up(first, second):
    together = epsilon([*first, *second], 2 * DELTA)
    assert together <= epsilon(first, DELTA) + epsilon(second, DELTA) + 4 * ROUNDING


odometers = st.just(RenyiOdometer(delta=DELTA)) | st.builds(
    RenyiOdometer.for_limit, st.floats(0.05, 50) | st.just(math.inf), delta=st.just(DELTA)
)


@quick
@given(st.lists(event, min_size=1, max_size=12), odometers)
def test_what_is_spent_never_decreases(events, odometer):
    """From release to release, whichever run it belongs to."""
    figures = [spent(events[: end + 1], odometer=odometer) for end in range(len(events))]
    assert figures == sorted(figures)


@slow
@given(few, odometers)
def test_what_is_spent_is_never_below_an_exact_composition_from_below(events, odometer):
    """The library's optimistic privacy loss distributions bound ε from below; pure events are left to another test."""
    composed = [e for e in events if isinstance(e, SampledGaussian)]
    if composed:
        assert spent(composed, odometer=odometer) >= epsilon_from_below(composed) - 1e-9


def epsilon_from_below(events) -> float:
    total = None
    for each in events:
        single = pld.from_gaussian_mechanism(
            each.noise_multiplier,
            value_discretization_interval=1e-3,
            sampling_prob=each.sampling_rate,
            pessimistic_estimate=False,
            use_connect_dots=False,
        ).self_compose(each.steps)
        total = single if total is None else total.compose(single)
    return total.get_epsilon_for_delta(DELTA)


@quick
@given(st.lists(pure, min_size=1))
def test_pure_events_are_never_understated(events):
    total = sum(Fraction(repr(e.epsilon)) for e in events)
    found = Fraction(repr(epsilon(events, 0)))
    assert total <= found < total + Fraction(1, 10_000)


@quick
@given(st.lists(event), st.lists(event), st.sampled_from([2, 3, 8, 33]))
def test_renyi_costs_add_up(first, second, order):
    together = renyi_cost([*first, *second], order=order)
    apart = renyi_cost(first, order=order) + renyi_cost(second, order=order)
    assert math.isclose(together, apart, rel_tol=1e-9)


@quick
@given(st.lists(event))
def test_events_survive_writing_and_reading(events):
    assert events_from_json(events_to_json(events)) == tuple(events)


@quick
@given(st.lists(event), st.lists(event))
def test_a_part_is_within_the_whole_and_the_whole_within_a_part_only_if_nothing_is_missing(part, rest):
    assert is_within(part, [*part, *rest])
    assert is_within([*part, *rest], part) == (not rest)
    assert merge_events([*part, *rest]) == merge_events([*rest, *part])
