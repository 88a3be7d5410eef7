from __future__ import annotations

import numpy as np
import pytest
import torch

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, load_vector, named_arrays, to_vector
from aevorium.diffusion.layout import Layout
from aevorium.errors import ArtefactError

LAYOUT = Layout(continuous=2, categories=(2, 3), missing_of=(0, None))
CONFIG = DenoiserConfig(layout=LAYOUT, width=8, blocks=2)
PRIORS = [np.array([0.8, 0.2]), np.array([0.5, 0.3, 0.2])]


def make_model(seed: int = 1, config: DenoiserConfig = CONFIG) -> TabularDiffusion:
    priors = PRIORS if config.layout == LAYOUT else [np.ones(states) for states in config.layout.categories]
    return TabularDiffusion(config, priors=priors, generator=torch.Generator().manual_seed(seed))


def filled_model(seed: int = 1) -> TabularDiffusion:
    model = make_model(seed)
    size = len(to_vector(model))
    load_vector(model, torch.randn(size, generator=torch.Generator().manual_seed(seed)).numpy())
    return model


def test_an_untrained_model_is_the_formula_for_independent_columns():
    model = make_model()
    noisy = torch.randn(50, LAYOUT.dimension, generator=torch.Generator().manual_seed(2)) * 3
    sigma = torch.logspace(-1.6, 1.1, 50)
    found, formula = model(noisy, sigma), model.independent(noisy, sigma)
    assert torch.equal(found.values, formula.values)
    assert torch.equal(found.logits, formula.logits)
    trained = filled_model()(noisy, sigma)
    assert not torch.allclose(trained.values, formula.values, atol=1e-2)


def test_draws_of_a_record_are_estimated_as_if_they_were_records():
    model = filled_model()
    noisy = torch.randn(5, 7, LAYOUT.dimension, generator=torch.Generator().manual_seed(2))
    sigma = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) + 0.1
    together = model(noisy, sigma)
    apart = model(noisy.reshape(35, -1), sigma.reshape(35))
    assert together.values.shape == (5, 7, 2)
    assert together.logits.shape == (5, 7, 5)
    torch.testing.assert_close(together.values.reshape(35, 2), apart.values)
    torch.testing.assert_close(together.logits.reshape(35, 5), apart.logits)


def test_a_row_s_estimate_does_not_depend_on_the_rows_beside_it():
    """A layer that mixed rows would let one record change another's gradient, and no clip would bound it."""
    model = filled_model()
    noisy = torch.randn(6, LAYOUT.dimension, generator=torch.Generator().manual_seed(2))
    sigma = torch.full((6,), 0.7)
    before = model(noisy, sigma)
    changed = noisy.clone()
    changed[3] = 1e4
    after = model(changed, sigma)
    others = [0, 1, 2, 4, 5]
    torch.testing.assert_close(after.values[others], before.values[others])
    torch.testing.assert_close(after.logits[others], before.logits[others])


def test_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first, again, other = make_model(1), make_model(1), make_model(2)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(to_vector(first), to_vector(again))
    assert not np.array_equal(to_vector(first), to_vector(other))
    torch.manual_seed(123)
    np.testing.assert_array_equal(to_vector(make_model(1)), to_vector(first))


def test_parameters_survive_as_a_vector():
    source, target = filled_model(1), filled_model(2)
    vector = to_vector(source)
    assert vector.dtype == np.float32
    load_vector(target, vector)
    np.testing.assert_array_equal(to_vector(target), vector)
    noisy, sigma = torch.ones(3, LAYOUT.dimension), torch.ones(3)
    assert torch.equal(source(noisy, sigma).values, target(noisy, sigma).values)
    vector[:] = 0
    assert to_vector(target).any(), "the model must not share the caller's memory"
    assert to_vector(source).any()


@pytest.mark.parametrize("reshape", [lambda v: v[:-1], lambda v: np.append(v, 0), lambda v: v[None], lambda v: v[:0]])
def test_a_vector_of_another_size_is_refused_and_changes_nothing(reshape):
    model = filled_model()
    before = to_vector(model)
    with pytest.raises(ArtefactError) as caught:
        load_vector(model, reshape(np.ones_like(before)).astype(np.float32))
    assert caught.value.code == "CHECKPOINT_MODEL_MISMATCH"
    np.testing.assert_array_equal(to_vector(model), before)
    with pytest.raises(ArtefactError) as caught:
        named_arrays(CONFIG, reshape(np.ones_like(before)).astype(np.float32))
    assert caught.value.code == "CHECKPOINT_MODEL_MISMATCH"


def test_named_arrays_are_the_model_s_parameters_in_its_order():
    model = filled_model()
    arrays = named_arrays(CONFIG, to_vector(model))
    assert list(arrays) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(arrays[name], parameter.detach().numpy())
    np.testing.assert_array_equal(np.concatenate([array.ravel() for array in arrays.values()]), to_vector(model))


def test_priors_are_not_among_the_parameters_that_travel():
    """They are made from the noisy tables anew at every node; training must not change them."""
    model = make_model()
    assert all("log_prior" not in name for name, _ in model.named_parameters())
    assert not model.independent.log_prior.requires_grad


@pytest.mark.parametrize("priors", [[np.ones(2)], [np.ones(2), np.ones(2)], []])
def test_priors_that_do_not_fit_are_refused(priors):
    with pytest.raises(ValueError, match="priors"):
        TabularDiffusion(CONFIG, priors=priors, generator=torch.Generator())


def test_priors_may_be_any_weights_and_no_state_is_impossible():
    """Noisy counts can be negative, or all of them zero."""
    model = TabularDiffusion(
        CONFIG, priors=[np.array([-3.0, 6.0]), np.array([0.0, -1.0, 0.0])], generator=torch.Generator().manual_seed(1)
    )
    shares = model.independent.log_prior.exp()
    assert shares[:2].tolist() == pytest.approx([1e-6, 1.0], rel=1e-3)
    assert shares[2:].tolist() == pytest.approx([1 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize(("columns", "width"), [(8, 64), (24, 64), (25, 128), (160, 128), (161, 256)])
def test_the_default_width_grows_with_the_row(columns, width):
    layout = Layout(continuous=columns, categories=(), missing_of=(None,) * columns)
    assert DenoiserConfig.for_layout(layout).width == width


@pytest.mark.parametrize(
    "layout",
    [
        Layout(continuous=2, categories=(), missing_of=(None, None)),
        Layout(continuous=0, categories=(3, 2), missing_of=()),
    ],
)
def test_tables_of_one_kind_of_column_have_models(layout):
    model = make_model(config=DenoiserConfig(layout=layout, width=4, blocks=1))
    estimate = model(torch.zeros(3, layout.dimension), torch.ones(3))
    assert estimate.values.shape == (3, layout.continuous)
    assert estimate.logits.shape == (3, sum(layout.categories))
