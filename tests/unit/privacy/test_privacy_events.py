from __future__ import annotations

import pytest
from pydantic import ValidationError

from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteLaplace,
    NonPrivate,
    SampledGaussian,
    events_from_json,
    events_to_json,
    is_within,
    merge_events,
)

EVERY_KIND = (
    DiscreteLaplace(purpose="count", epsilon=0.15),
    DiscreteGaussian(purpose="histograms", sigma=7.5, count=14),
    DiscreteGaussian(purpose="loss", sigma=2500.0, sensitivity=100),
    SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=1.25, steps=80),
    NonPrivate(purpose="debugging"),
)

# Ledgers of the past are written like this. The text below may gain lines; none of it may ever change.
WRITTEN_IN_THE_PAST = (
    '[{"purpose":"count","kind":"discrete_laplace","epsilon":0.15},'
    '{"purpose":"histograms","kind":"discrete_gaussian","sigma":7.5,"sensitivity":1,"count":14},'
    '{"purpose":"loss","kind":"discrete_gaussian","sigma":2500.0,"sensitivity":100,"count":1},'
    '{"purpose":"training","kind":"sampled_gaussian","sampling_rate":0.1,"noise_multiplier":1.25,"steps":80},'
    '{"purpose":"debugging","kind":"non_private"}]'
)


def test_events_read_what_ledgers_of_the_past_hold():
    assert events_from_json(WRITTEN_IN_THE_PAST) == EVERY_KIND


def test_events_survive_writing_and_reading():
    assert events_from_json(events_to_json(EVERY_KIND)) == EVERY_KIND
    assert events_from_json(events_to_json(())) == ()


@pytest.mark.parametrize(
    "text",
    [
        '[{"kind":"gaussian","purpose":"x","sigma":1.0}]',
        '[{"purpose":"x"}]',
        '[{"kind":"discrete_laplace","purpose":"x","epsilon":1.0,"count":2}]',
        '[{"kind":"discrete_laplace","purpose":"","epsilon":1.0}]',
        '[{"kind":"discrete_laplace","purpose":"x","epsilon":0}]',
        '[{"kind":"discrete_gaussian","purpose":"x","sigma":-1}]',
        '[{"kind":"discrete_gaussian","purpose":"x","sigma":1,"count":0}]',
        '[{"kind":"discrete_gaussian","purpose":"x","sigma":1,"sensitivity":0}]',
        '[{"kind":"discrete_gaussian","purpose":"x","sigma":1,"sensitivity":1.5}]',
        '[{"kind":"sampled_gaussian","purpose":"x","sampling_rate":0,"noise_multiplier":1,"steps":1}]',
        '[{"kind":"sampled_gaussian","purpose":"x","sampling_rate":1.1,"noise_multiplier":1,"steps":1}]',
        '[{"kind":"sampled_gaussian","purpose":"x","sampling_rate":0.1,"noise_multiplier":1,"steps":0}]',
        "not JSON",
    ],
)
def test_events_unknown_or_out_of_range_are_refused_not_guessed(text):
    with pytest.raises(ValidationError):
        events_from_json(text)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_events_have_finite_parameters(value):
    with pytest.raises(ValidationError):
        DiscreteLaplace(purpose="x", epsilon=value)
    with pytest.raises(ValidationError):
        DiscreteGaussian(purpose="x", sigma=value)
    with pytest.raises(ValidationError):
        SampledGaussian(purpose="x", sampling_rate=0.5, noise_multiplier=value, steps=1)


def test_events_cannot_be_changed():
    with pytest.raises(ValidationError):
        EVERY_KIND[0].epsilon = 0.01


def test_merged_events_count_equal_mechanisms_together_whatever_purpose_and_order():
    events = (
        DiscreteGaussian(purpose="a", sigma=2, count=3),
        SampledGaussian(purpose="round 1", sampling_rate=0.1, noise_multiplier=1, steps=5),
        DiscreteLaplace(purpose="n", epsilon=0.1),
        DiscreteGaussian(purpose="b", sigma=2, count=4),
        SampledGaussian(purpose="round 2", sampling_rate=0.1, noise_multiplier=1, steps=7),
        DiscreteLaplace(purpose="m", epsilon=0.1),
        DiscreteGaussian(purpose="c", sigma=3),
    )
    merged = merge_events(events)
    assert merged == merge_events(reversed(events))
    gaussians = {e.sigma: e.count for e in merged if isinstance(e, DiscreteGaussian)}
    assert gaussians == {2: 7, 3: 1}
    assert [e.steps for e in merged if isinstance(e, SampledGaussian)] == [12]
    assert [e.epsilon for e in merged if isinstance(e, DiscreteLaplace)] == [0.1, 0.1]


PLANNED = (
    DiscreteLaplace(purpose="count", epsilon=0.1),
    DiscreteGaussian(purpose="histograms", sigma=5, count=14),
    SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=1, steps=100),
)


@pytest.mark.parametrize(
    "events",
    [
        (),
        PLANNED,
        (SampledGaussian(purpose="other words", sampling_rate=0.1, noise_multiplier=1, steps=40),) * 2,
        (DiscreteGaussian(purpose="some columns", sigma=5, count=3),),
    ],
)
def test_events_within_a_plan(events):
    assert is_within(events, PLANNED)


@pytest.mark.parametrize(
    "events",
    [
        (DiscreteLaplace(purpose="count", epsilon=0.1),) * 2,
        (DiscreteLaplace(purpose="count", epsilon=0.05),),
        (DiscreteGaussian(purpose="histograms", sigma=5, count=15),),
        (DiscreteGaussian(purpose="histograms", sigma=4.9, count=1),),
        (DiscreteGaussian(purpose="histograms", sigma=5, sensitivity=2),),
        (SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=1, steps=60),) * 2,
        (SampledGaussian(purpose="training", sampling_rate=0.2, noise_multiplier=1, steps=1),),
        (SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=0.9, steps=1),),
        (NonPrivate(purpose="count"),),
    ],
)
def test_events_beyond_a_plan(events):
    assert not is_within(events, PLANNED)
