"""Samplers give back the table that their denoiser knows.

A correct sampler fails a test with probability 10⁻⁶ at most (seeds are fixed besides); there are seven tests of chance.
By Hoeffding's inequality a share of 20,000 rows is off by 0.02 with probability 2·exp(-16) = 2·10⁻⁷; what the discrete
steps add is measured to be below 0.01 at the number of levels used, and both fit into `SHARE`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from aevorium.diffusion.denoiser import DenoiserConfig, Estimate, TabularDiffusion
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.sampler import Generated, ddim, ddpm
from aevorium.diffusion.schedule import karras_levels
from aevorium.privacy.training import TrainingPlan, train_privately

ROWS = 20_000
SHARE = 0.03
SAMPLERS = pytest.mark.parametrize(("sample", "steps"), [(ddim, 40), (ddpm, 80)])

LAYOUT = Layout(continuous=2, categories=(2, 3, 4), missing_of=(0, None))
PRIORS = [np.array([0.8, 0.2]), np.array([0.6, 0.3, 0.1]), np.array([0.4, 0.3, 0.2, 0.1])]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained() -> TabularDiffusion:
    return TabularDiffusion(DenoiserConfig(layout=LAYOUT, width=4, blocks=1), priors=PRIORS, generator=seeded()).eval()


@SAMPLERS
def test_an_untrained_model_gives_independent_columns_with_the_priors(sample, steps):
    made = sample(untrained(), rows=ROWS, levels=karras_levels(steps), generator=seeded(2))
    assert made.values.shape == (ROWS, 2)
    assert made.codes.shape == (ROWS, 3)
    for column, prior in enumerate(PRIORS):
        shares = np.bincount(made.codes[:, column].numpy(), minlength=len(prior)) / ROWS
        assert np.abs(shares - prior).max() < SHARE
    for values in made.values.numpy().T:
        assert stats.kstest(values, "norm").statistic < 0.02
    table = np.zeros((3, 4))
    np.add.at(table, (made.codes[:, 1].numpy(), made.codes[:, 2].numpy()), 1 / ROWS)
    assert np.abs(table - np.outer(table.sum(1), table.sum(0))).max() < 0.02
    assert abs(np.corrcoef(made.values.numpy().T)[0, 1]) < 0.05


class ExactMixture:
    """The exact denoiser of a mixture of three kinds of rows: one value, two categories, independent within a kind."""

    weights = np.array([0.5, 0.3, 0.2])
    means = np.array([-1.0, 0.5, 1.75])
    spread = 0.3
    tables = (
        np.array([[0.95, 0.05], [0.2, 0.8], [0.1, 0.9]]),
        np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]]),
    )
    layout = Layout(continuous=1, categories=(2, 3), missing_of=(None,))

    def __init__(self) -> None:
        priors = np.concatenate([self.weights @ table for table in self.tables])
        self.independent = SimpleNamespace(log_prior=torch.tensor(np.log(priors), dtype=torch.float32))

    def __call__(self, noisy: torch.Tensor, sigma: torch.Tensor) -> Estimate:
        x, s2 = noisy.double(), sigma.double().square().unsqueeze(-1)
        total = self.spread**2 + s2
        means = torch.tensor(self.means)
        log_kind = torch.tensor(np.log(self.weights)) - (x[:, :1] - means) ** 2 / (2 * total) - total.log() / 2
        joint, evidence = [], []
        for block, table in zip(self.layout.blocks, self.tables, strict=True):
            states = x[:, 1:][:, block] / s2
            log_table = torch.tensor(np.log(table)) + states.unsqueeze(1)
            joint.append(log_table)
            evidence.append(log_table.logsumexp(dim=2))
        log_all = log_kind + sum(evidence)
        kinds = log_all.softmax(dim=1)
        shrink = self.spread**2 / total
        values = (kinds * (means + shrink * (x[:, :1] - means))).sum(dim=1, keepdim=True)
        logits = [
            (log_all.unsqueeze(2) + log_table - own.unsqueeze(2)).logsumexp(dim=1)
            for log_table, own in zip(joint, evidence, strict=True)
        ]
        return Estimate(values=values.float(), logits=torch.cat(logits, dim=1).float())

    @property
    def states(self) -> np.ndarray:
        """The true joint probabilities of both categories."""
        return np.einsum("k,ka,kb->ab", self.weights, *self.tables)

    def value_cdf(self, x: np.ndarray) -> np.ndarray:
        return stats.norm.cdf((x[:, None] - self.means) / self.spread) @ self.weights

    def mean_given(self, state: int) -> float:
        """The true mean of the value where the first category has a state."""
        weights = self.weights * self.tables[0][:, state]
        return float(weights @ self.means / weights.sum())


def assert_is_the_mixture(made: Generated, truth: ExactMixture, *, slack: float) -> None:
    first, second = made.codes.numpy().T
    table = np.zeros((2, 3))
    np.add.at(table, (first, second), 1 / len(first))
    assert np.abs(table - truth.states).max() < slack
    values = made.values[:, 0].double().numpy()
    assert stats.kstest(values, truth.value_cdf).statistic < slack
    for state in (0, 1):
        assert values[first == state].mean() == pytest.approx(truth.mean_given(state), abs=2 * slack)


@SAMPLERS
def test_an_exact_denoiser_gives_back_its_mixture(sample, steps):
    truth = ExactMixture()
    made = sample(truth, rows=ROWS, levels=karras_levels(steps), generator=seeded(3))
    assert_is_the_mixture(made, truth, slack=SHARE)


def test_the_exact_denoiser_is_exact():
    """Guards the test above: its estimate against an average over rows drawn from the mixture, by importance."""
    truth, rng = ExactMixture(), np.random.default_rng(4)
    kinds = rng.choice(3, size=400_000, p=truth.weights)
    values = truth.means[kinds] + truth.spread * rng.normal(size=len(kinds))
    first = (rng.random(len(kinds)) < truth.tables[0][kinds, 1]).astype(int)
    second = (rng.random(len(kinds))[:, None] > truth.tables[1][kinds].cumsum(axis=1)).sum(axis=1)
    clean = np.concatenate([values[:, None], np.eye(2)[first], np.eye(3)[second.clip(max=2)]], axis=1)
    noisy, sigma = np.array([0.4, 0.9, 0.1, -0.2, 0.6, 0.3]), 0.8
    weights = np.exp(-((noisy - clean) ** 2).sum(axis=1) / (2 * sigma**2))
    expected = weights @ clean / weights.sum()
    found = truth(torch.tensor(noisy[None], dtype=torch.float32), torch.tensor([sigma]))
    states = [found.logits[0, block].softmax(dim=0).numpy() for block in truth.layout.blocks]
    np.testing.assert_allclose(np.concatenate([found.values[0].numpy(), *states]), expected, atol=0.02)


def make_mixture(rows: int) -> EncodedTable:
    truth, rng = ExactMixture(), np.random.default_rng(5)
    kinds = rng.choice(3, size=rows, p=truth.weights)
    codes = [(rng.random(rows)[:, None] > table[kinds].cumsum(axis=1)).sum(axis=1) for table in truth.tables]
    codes = np.stack([code.clip(max=table.shape[1] - 1) for code, table in zip(codes, truth.tables, strict=True)], 1)
    values = truth.means[kinds] + truth.spread * rng.normal(size=rows)
    return EncodedTable.from_arrays(
        values[:, None].astype(np.float32), codes=codes, observed=np.ones((rows, 1), dtype=bool)
    )


def test_training_learns_a_mixture():
    """Without privacy, from 4,000 rows. The untrained model is off by more than 0.1 in the same numbers."""
    truth = ExactMixture()
    priors = [truth.weights @ table for table in truth.tables]
    config = DenoiserConfig(layout=truth.layout, width=48, blocks=2)
    model = TabularDiffusion(config, priors=priors, generator=seeded())
    before = ddim(model.eval(), rows=ROWS, levels=karras_levels(20), generator=seeded(6))
    with pytest.raises(AssertionError):
        assert_is_the_mixture(before, truth, slack=0.07)
    plan = TrainingPlan(
        sampling_rate=256 / 4000,
        steps=250,
        noise_multiplier=0,
        expected_batch=256,
        clip_norm=1,
        draws=2,
        learning_rate=5e-3,
        ema_decay=0.98,
    )
    seeds = iter((7, 8, 9))
    train_privately(model, make_mixture(4000), plan=plan, generator=lambda: seeded(next(seeds)))
    made = ddim(model.eval(), rows=ROWS, levels=karras_levels(40), generator=seeded(6))
    assert_is_the_mixture(made, truth, slack=0.07)


@pytest.mark.parametrize("sample", [ddim, ddpm])
def test_rows_are_a_function_of_the_generator(sample):
    model, before = untrained(), torch.get_rng_state()
    first, again, other = (
        sample(model, rows=50, levels=karras_levels(5), generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.codes, again.codes)
    assert not torch.equal(first.values, other.values)
    assert torch.equal(before, torch.get_rng_state())


def test_missing_cells_do_not_pull_on_other_columns():
    """A column that is missing in most rows, by its flag: values are still N(0, 1) and the flag keeps its share."""
    layout = Layout(continuous=1, categories=(2,), missing_of=(0,))
    config = DenoiserConfig(layout=layout, width=4, blocks=1)
    model = TabularDiffusion(config, priors=[np.array([0.1, 0.9])], generator=seeded()).eval()
    made = ddim(model, rows=ROWS, levels=karras_levels(40), generator=seeded(2))
    assert made.codes[:, 0].double().mean().item() == pytest.approx(0.9, abs=SHARE)
    assert stats.kstest(made.values[:, 0].numpy(), "norm").statistic < 0.02
    assert math.isfinite(made.values.abs().max().item())


@pytest.mark.parametrize("sample", [ddim, ddpm])
@pytest.mark.parametrize(
    "layout",
    [
        Layout(continuous=2, categories=(), missing_of=(None, None)),
        Layout(continuous=0, categories=(3,), missing_of=()),
    ],
)
def test_tables_of_one_kind_of_column_can_be_generated(sample, layout):
    config = DenoiserConfig(layout=layout, width=4, blocks=1)
    priors = [np.ones(states) for states in layout.categories]
    model = TabularDiffusion(config, priors=priors, generator=seeded()).eval()
    made = sample(model, rows=7, levels=karras_levels(4), generator=seeded())
    assert made.values.shape == (7, layout.continuous)
    assert made.codes.shape == (7, len(layout.categories))


def test_steps_of_ddim_are_of_second_order():
    """The flow is deterministic: from the same noise, halving the steps must cut the error by more than Euler's half.

    The levels are the upper ones only, where the exact denoiser is smooth and the order shows.
    """
    levels = torch.logspace(1, -0.3, 641, dtype=torch.float64).float()
    rows = [
        ddim(ExactMixture(), rows=500, levels=levels[:: 640 // steps], generator=seeded(3)).values
        for steps in (640, 40, 20)
    ]
    fine, coarse = ((found - rows[0]).abs().mean().item() for found in rows[1:])
    assert coarse > 3 * fine > 0
