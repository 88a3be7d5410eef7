from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from aevorium.diffusion.denoiser import DenoiserConfig, Estimate, TabularDiffusion, load_vector, to_vector
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.process import MixedProcess
from aevorium.diffusion.schedule import (
    LOG_SIGMA_MEAN,
    LOG_SIGMA_SPREAD,
    SIGMA_MAX,
    SIGMA_MIN,
    karras_levels,
    stratified_levels,
)

LAYOUT = Layout(continuous=2, categories=(2, 3), missing_of=(0, None))


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_table(records: int, *, observed: bool = True) -> EncodedTable:
    rng = np.random.default_rng(3)
    return EncodedTable.from_arrays(
        rng.normal(size=(records, 2)).astype(np.float32),
        codes=np.stack([rng.integers(0, 2, records), rng.integers(0, 3, records)], axis=1),
        observed=np.full((records, 2), observed),
    )


def filled_model() -> TabularDiffusion:
    config = DenoiserConfig(layout=LAYOUT, width=8, blocks=1)
    model = TabularDiffusion(config, priors=[np.ones(2), np.ones(3)], generator=seeded())
    load_vector(model, torch.randn(len(to_vector(model)), generator=seeded()).numpy())
    return model


def test_clean_rows_are_values_and_one_hot_blocks():
    table = EncodedTable(
        values=torch.tensor([[1.5, -2.0]]),
        codes=torch.tensor([[1, 2]]),
        observed=torch.ones(1, 2, dtype=torch.bool),
    )
    assert MixedProcess(LAYOUT).clean(table).tolist() == [[1.5, -2.0, 0, 1, 0, 0, 1]]


def test_noise_is_added_in_proportion_to_its_level():
    clean = torch.zeros(4, LAYOUT.dimension)
    process = MixedProcess(LAYOUT)
    noise = process.noise(torch.ones(4, 3), generator=seeded())
    once = process.corrupt(clean, sigma=torch.ones(4, 3), noise=noise)
    assert once.shape == (4, 3, LAYOUT.dimension)
    assert len(torch.unique(once)) == once.numel()
    threefold = process.corrupt(clean, sigma=torch.full((4, 3), 3.0), noise=noise)
    torch.testing.assert_close(threefold, 3 * once)
    shifted = process.corrupt(clean + 5, sigma=torch.ones(4, 3), noise=noise)
    torch.testing.assert_close(shifted, once + 5)
    assert process.corrupt(clean, sigma=torch.ones(4), noise=noise[:, 0]).shape == (4, LAYOUT.dimension)


def test_the_loss_is_that_of_its_definition():
    """One record, one draw, an estimate given by hand: two squared errors and two cross-entropies over four columns."""
    table = EncodedTable(
        values=torch.tensor([[0.5, -1.0]]),
        codes=torch.tensor([[1, 0]]),
        observed=torch.tensor([[True, True]]),
    )
    logits = [0.3, 1.1, -0.2, 0.4, 2.0]
    estimate = Estimate(values=torch.tensor([[[0.7, -1.5]]]), logits=torch.tensor([[logits]]))
    sigma = torch.tensor([[0.5]])
    found = MixedProcess(LAYOUT).loss_at(
        lambda noisy, level: estimate, table, sigma=sigma, noise=torch.zeros(1, 1, LAYOUT.dimension)
    )
    weight = (1 + 0.25) / 0.25
    squares = weight * (0.2**2 + 0.5**2)
    first = math.log(math.exp(0.3) + math.exp(1.1)) - 1.1
    second = math.log(sum(math.exp(x) for x in logits[2:])) + 0.2
    assert found.item() == pytest.approx((squares + first + second) / 4, rel=1e-5)


def test_a_value_under_a_missing_flag_is_not_in_the_loss():
    """It is arbitrary: what the model must learn of a missing cell is its flag alone.

    The model sees what it is given: the encoder fills missing cells with noise, so only the target is masked here.
    """
    process, table = MixedProcess(LAYOUT), make_table(6)
    observed = torch.ones(6, 2, dtype=torch.bool)
    observed[2, 0] = False
    estimate = filled_model()(torch.randn(6, 4, LAYOUT.dimension, generator=seeded()), torch.ones(6, 4))

    def losses(value: float) -> torch.Tensor:
        values = table.values.clone()
        values[2, 0] = value
        changed = EncodedTable(values=values, codes=table.codes, observed=observed)
        return process.loss_at(
            lambda noisy, level: estimate, changed, sigma=torch.ones(6, 4), noise=torch.zeros(6, 4, LAYOUT.dimension)
        )

    assert torch.equal(losses(0.0), losses(1e6))
    observed[2, 0] = True
    seen = losses(0.0), losses(1.0)
    assert not torch.equal(seen[0][2], seen[1][2])
    others = [0, 1, 3, 4, 5]
    assert torch.equal(seen[0][others], seen[1][others])


def test_the_loss_of_a_record_does_not_depend_on_the_others():
    process, model, table = MixedProcess(LAYOUT), filled_model(), make_table(5)
    before = process.loss(model, table, draws=3, generator=seeded())
    values = table.values.clone()
    values[1] = 50.0
    changed = EncodedTable(values=values, codes=table.codes, observed=table.observed)
    after = process.loss(model, changed, draws=3, generator=seeded())
    assert before.shape == (5, 3)
    assert not torch.allclose(before[1], after[1])
    torch.testing.assert_close(after[[0, 2, 3, 4]], before[[0, 2, 3, 4]])


def test_the_independent_model_has_a_loss_of_one_for_each_value_at_every_level():
    layout = Layout(continuous=1, categories=(), missing_of=(None,))
    config = DenoiserConfig(layout=layout, width=4, blocks=1)
    model = TabularDiffusion(config, priors=[], generator=seeded())
    table = EncodedTable(
        values=torch.randn(4000, 1, generator=seeded(1)),
        codes=torch.zeros(4000, 0, dtype=torch.int64),
        observed=torch.ones(4000, 1, dtype=torch.bool),
    )
    for level in (0.05, 0.5, 5.0):
        process, sigma = MixedProcess(layout), torch.full((4000, 4), level)
        losses = process.loss_at(model, table, sigma=sigma, noise=process.noise(sigma, generator=seeded(2)))
        # The squared error of 16,000 draws has a standard error of about 0.013; seeds are fixed.
        assert losses.mean().item() == pytest.approx(1.0, abs=0.06)


def test_tables_without_values_or_without_states_have_losses():
    for layout in (
        Layout(continuous=1, categories=(), missing_of=(None,)),
        Layout(continuous=0, categories=(3,), missing_of=()),
    ):
        config = DenoiserConfig(layout=layout, width=4, blocks=1)
        priors = [np.ones(states) for states in layout.categories]
        model = TabularDiffusion(config, priors=priors, generator=seeded())
        table = EncodedTable(
            values=torch.zeros(2, layout.continuous),
            codes=torch.zeros(2, len(layout.categories), dtype=torch.int64),
            observed=torch.ones(2, layout.continuous, dtype=torch.bool),
        )
        losses = MixedProcess(layout).loss(model, table, draws=3, generator=seeded())
        assert losses.shape == (2, 3)
        assert torch.isfinite(losses).all()


def test_levels_of_training_are_lognormal_and_each_record_has_one_in_each_stratum():
    levels = stratified_levels(4000, draws=8, generator=seeded())
    assert levels.shape == (4000, 8)
    assert levels.min() >= SIGMA_MIN
    assert levels.max() <= SIGMA_MAX
    position = stats.norm.cdf((levels.double().log().numpy() - LOG_SIGMA_MEAN) / LOG_SIGMA_SPREAD)
    inside = (levels > SIGMA_MIN * 1.001) & (levels < SIGMA_MAX * 0.999)
    stratum = np.floor(position * 8 - 1e-4).clip(0)
    expected = np.broadcast_to(np.arange(8), stratum.shape)
    wrong = (stratum != expected) & inside.numpy()
    # Only rounding at the border of two strata may put a level into the one below.
    assert wrong.mean() < 2e-3
    within = position[:, 3] * 8 - 3
    assert stats.kstest(within, "uniform").pvalue > 1e-6


def test_levels_of_sampling_descend_from_the_largest_to_the_smallest():
    levels = karras_levels(20)
    assert levels.shape == (20,)
    assert levels[0].item() == pytest.approx(SIGMA_MAX)
    assert levels[-1].item() == pytest.approx(SIGMA_MIN)
    assert (levels.diff() < 0).all()
    assert karras_levels(2).tolist() == pytest.approx([SIGMA_MAX, SIGMA_MIN])


@pytest.mark.parametrize("observed", [True, False])
def test_the_expected_loss_of_a_row_that_is_known_is_its_loss(observed: bool):
    table, process, model = make_table(50, observed=observed), MixedProcess(LAYOUT), filled_model()
    sigma = stratified_levels(50, draws=1, generator=seeded())
    noise = process.noise(sigma, generator=seeded(8))
    known = process.loss_at(model, table, sigma=sigma, noise=noise)[:, 0]
    clean, level = process.clean(table), sigma[:, 0]
    estimate = model(process.corrupt(clean, sigma=level, noise=noise[:, 0]), level)
    expected = process.expected_loss(
        estimate, sigma=level, values=table.values, observed=table.observed.float(), states=clean[:, 2:]
    )
    assert torch.allclose(expected, known, rtol=1e-4)


def test_the_gradient_by_an_expectation_is_the_mean_of_those_by_its_rows():
    """What pre-training rests on, exactly: two clean rows, equally likely, behind one noisy row."""
    rows, process, model = make_table(2), MixedProcess(LAYOUT), filled_model()
    sigma = torch.full((2,), 0.7)
    noisy = process.clean(rows)[:1].expand(2, -1) + 0.3

    def gradient(values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        observed = torch.ones(len(values), 2)
        estimate = model(noisy[: len(values)], sigma[: len(values)])
        process.expected_loss(
            estimate, sigma=sigma[: len(values)], values=values, observed=observed, states=states
        ).mean().backward()
        return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])

    states = process.clean(rows)[:, 2:]
    together = gradient(rows.values.mean(dim=0, keepdim=True), states.mean(dim=0, keepdim=True))
    assert torch.allclose(together, gradient(rows.values, states), rtol=1e-3, atol=1e-6)
