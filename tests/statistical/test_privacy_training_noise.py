"""The noise and the batches of DP-SGD have the distribution that its event charges for.

Every test rejects a correct implementation with probability 10⁻⁶ at most; there are five.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, to_vector
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.privacy import training
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.training import TrainingPlan, train_privately

FALSE_ALARM = 1e-6
LAYOUT = Layout(continuous=1, categories=(2,), missing_of=(None,))


@pytest.fixture(autouse=True)
def _plain_descent(monkeypatch):
    """Adam would hide the size of the noise: its first step is the sign."""
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, foreach: torch.optim.SGD(parameters, lr=lr))


def make_table(records: int) -> EncodedTable:
    return EncodedTable(
        values=torch.zeros(records, 1),
        codes=torch.zeros(records, 1, dtype=torch.int64),
        observed=torch.ones(records, 1, dtype=torch.bool),
    )


def make_model(width: int) -> TabularDiffusion:
    config = DenoiserConfig(layout=LAYOUT, width=width, blocks=1)
    return TabularDiffusion(config, priors=[np.array([0.5, 0.5])], generator=torch.Generator().manual_seed(1))


def make_plan(**changes) -> TrainingPlan:
    return TrainingPlan(
        **{
            "sampling_rate": 1.0,
            "steps": 1,
            "noise_multiplier": 1.7,
            "expected_batch": 40.0,
            "clip_norm": 0.6,
            "draws": 1,
            "learning_rate": 1.0,
            "ema_decay": 0.0,
            **changes,
        }
    )


def assert_noise(noise: np.ndarray, *, std: float, tests: int) -> None:
    """Variance, mean and shape, each at a third of the false-alarm rate."""
    alarm = FALSE_ALARM / 3 / tests
    low, high = stats.chi2.ppf([alarm / 2, 1 - alarm / 2], len(noise)) / len(noise)
    assert low * std**2 < np.mean(noise**2) < high * std**2
    assert abs(noise.mean()) < stats.norm.isf(alarm / 2) * std / math.sqrt(len(noise))
    assert stats.kstest(noise / std, "norm").pvalue > alarm


def test_noise_does_not_end_where_a_single_deviate_of_float32_does(monkeypatch):
    """Box and Muller's of 24 bits is never above 5.77: were the noise one of these, a value beyond would be certain."""
    deviates = []

    def highest(*, mean, std, size, device, generator):
        deviates.append(torch.full(size, mean + 5.7 * std, device=device))
        return deviates[-1]

    monkeypatch.setattr(torch, "normal", highest)
    model = make_model(64)
    before = to_vector(model).astype(np.float64)
    train_privately(model, make_table(0), plan=make_plan(), generator=os_generator)
    assert len(deviates) > 4 * len(list(model.parameters()))
    np.testing.assert_allclose(before - to_vector(model), 2 * 5.7 * 1.7 * 0.6 / 40.0, rtol=1e-4)


@pytest.mark.parametrize("records", [0, 25])
def test_a_step_has_noise_of_sigma_times_clip_over_the_expected_batch(records, monkeypatch):
    """In an empty batch, and in one taken in four chunks; batches and draws are shared, so the signal cancels."""
    monkeypatch.setattr(training, "part_size", lambda *_, **__: 7)
    steps = []
    for multiplier in (1.7, 1e-12):
        model = make_model(64)
        before = to_vector(model).astype(np.float64)
        seeded = (torch.Generator().manual_seed(1), os_generator(), torch.Generator().manual_seed(2))
        train_privately(
            model,
            make_table(records),
            plan=make_plan(noise_multiplier=multiplier),
            generator=iter(seeded).__next__,
        )
        steps.append(to_vector(model) - before)
    noise = steps[0] - steps[1]
    assert len(noise) > 9000
    assert_noise(noise, std=1.7 * 0.6 / 40.0, tests=1)


def test_noises_of_two_steps_are_independent_and_in_every_parameter():
    """Two steps without records: the second adds noise of its own."""
    totals = []
    for steps in (1, 2):
        model = make_model(64)
        before = to_vector(model).astype(np.float64)
        generators = iter((os_generator(), torch.Generator().manual_seed(7), os_generator()))
        plan = make_plan(steps=steps, learning_rate=1.0)
        train_privately(model, make_table(0), plan=plan, generator=generators.__next__)
        totals.append(to_vector(model) - before)
    # The step size of the second of two steps is 1 - 0.9/2.
    second = (totals[1] - totals[0]) / 0.55
    assert_noise(second, std=1.7 * 0.6 / 40.0, tests=2)
    limit = stats.norm.isf(FALSE_ALARM / 4) / math.sqrt(len(second))
    assert abs(np.corrcoef(totals[0], second)[0, 1]) < 1.1 * limit
    assert (second != 0).all()


def test_batches_are_poisson_samples_of_the_rate(monkeypatch):
    """Sizes have mean n·q and variance n·q·(1 - q); each record is drawn at the rate, none twice in a step."""
    records, rate, steps = 60, 0.07, 2000
    drawn = []
    original = EncodedTable.select

    def select(self, index):
        drawn.append(index.clone())
        return original(self, index)

    monkeypatch.setattr(EncodedTable, "select", select)
    monkeypatch.setattr(training, "part_size", lambda *_, **__: 7)
    monkeypatch.setattr(training, "_clipped_sum", _no_gradient)
    train_privately(
        make_model(2), make_table(records), plan=make_plan(sampling_rate=rate, steps=steps), generator=os_generator
    )
    assert len(drawn) == steps
    assert all(len(torch.unique(index)) == len(index) for index in drawn)
    sizes = np.array([len(index) for index in drawn])
    alarm = FALSE_ALARM / 3
    total = stats.binomtest(int(sizes.sum()), records * steps, rate)
    assert total.pvalue > alarm
    # Sizes against the binomial distribution: both batches of fixed size and shuffled ones would fail.
    top = 9
    expected = stats.binom.pmf(np.arange(top), records, rate)
    expected = np.append(expected, 1 - expected.sum()) * steps
    observed = np.bincount(np.minimum(sizes, top), minlength=top + 1)
    assert expected.min() > 5
    assert stats.chisquare(observed, expected).pvalue > alarm
    each = torch.bincount(torch.cat(drawn), minlength=records).numpy()
    statistic = ((each - steps * rate) ** 2 / (steps * rate * (1 - rate))).sum()
    assert stats.chi2.sf(statistic, records) > alarm
    assert (sizes == 0).any()


def _no_gradient(losses, batch, **_):
    for parameter in losses.computing.parameters():
        parameter.grad = torch.zeros_like(parameter)


def test_every_step_steps_even_when_no_record_is_drawn():
    """Without a record drawn, a model must move all the same: to stand still would tell that the batch was empty."""
    model = make_model(8)
    before = to_vector(model)
    train_privately(model, make_table(3), plan=make_plan(sampling_rate=1e-12), generator=os_generator)
    assert (to_vector(model) != before).all()
