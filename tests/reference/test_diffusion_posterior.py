"""The formula under the model against Bayes' rule by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from aevorium.diffusion.denoiser import IndependentPosterior
from aevorium.diffusion.layout import Layout

SIGMAS = [0.02, 0.3, 1.0, 4.0, 15.0]


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("noisy", [-2.5, 0.0, 0.4, 3.0])
def test_the_expected_value_is_that_of_an_integral_over_clean_values(sigma, noisy):
    layout = Layout(continuous=1, categories=(), missing_of=(None,))
    found = IndependentPosterior(layout, priors=[])(torch.tensor([[noisy]]), torch.tensor([sigma])).values.item()

    def weight(clean: float) -> float:
        return stats.norm.pdf(clean) * stats.norm.pdf(noisy, loc=clean, scale=sigma)

    reach = 12 * sigma / math.sqrt(1 + sigma**2)
    limits = found - reach, found + reach
    mass = integrate.quad(weight, *limits, epsabs=0, epsrel=1e-10)[0]
    expected = integrate.quad(lambda clean: clean * weight(clean), *limits, epsabs=1e-12 * mass)[0] / mass
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_probabilities_of_states_are_those_of_an_enumeration(sigma):
    """Each state is one-hot and every coordinate of the block has its own noise, so the whole block is evidence."""
    layout = Layout(continuous=0, categories=(2, 4), missing_of=())
    priors = [np.array([0.9, 0.1]), np.array([0.4, 0.3, 0.2, 0.1])]
    rng = np.random.default_rng(1)
    noisy = np.zeros((20, 6))
    noisy[:, 1] = 1
    noisy[:, 4] = 1
    noisy += sigma * rng.normal(size=noisy.shape)
    level = torch.full((20,), sigma, dtype=torch.float64)
    logits = IndependentPosterior(layout, priors=priors)(torch.tensor(noisy), level).logits
    for block, prior in zip(layout.blocks, priors, strict=True):
        found = logits[:, block].softmax(dim=-1).numpy()
        log_weights = np.log(prior) + np.stack(
            [
                stats.norm.logpdf(noisy[:, block], loc=np.eye(len(prior))[state], scale=sigma).sum(axis=1)
                for state in range(len(prior))
            ],
            axis=1,
        )
        expected = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-6)
