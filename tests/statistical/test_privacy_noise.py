"""The noise that production draws has the distribution that its event charges for.

Every test rejects correct noise with probability 10⁻⁶ at most; there are nine.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aevorium.privacy.mechanisms import OsNoise, noisy_count, noisy_histogram

FALSE_ALARM = 1e-6
CELLS = 40_000


def chi_square_p(draws: np.ndarray, pmf_of, *, reach: int) -> float:
    """p-value of whole-number draws against a distribution; both tails from ±reach on are pooled."""
    support = np.arange(-50 * reach, 50 * reach + 1)
    weights = pmf_of(support)
    weights = weights / weights.sum()
    clipped = np.clip(draws, -reach, reach)
    observed = np.bincount(clipped + reach, minlength=2 * reach + 1)
    expected = np.bincount(np.clip(support, -reach, reach) + reach, weights=weights) * len(draws)
    assert expected.min() >= 5
    return float(stats.chisquare(observed, expected * (observed.sum() / expected.sum())).pvalue)


@pytest.mark.parametrize(("sigma", "reach"), [(0.6, 2), (2.5, 8), (7.3, 22)])
def test_histogram_noise_is_the_discrete_gaussian(sigma, reach):
    draws = noisy_histogram(np.zeros(CELLS, dtype=np.int64), sigma=sigma, noise=OsNoise())
    assert chi_square_p(draws, lambda k: np.exp(-(k**2) / (2 * sigma**2)), reach=reach) > FALSE_ALARM


def test_histogram_noise_wrong_by_a_tenth_would_be_seen():
    sigma = 7.3
    draws = noisy_histogram(np.zeros(CELLS, dtype=np.int64), sigma=0.9 * sigma, noise=OsNoise())
    assert chi_square_p(draws, lambda k: np.exp(-(k**2) / (2 * sigma**2)), reach=22) < FALSE_ALARM


@pytest.mark.parametrize("sigma", [40.0, 2500.0])
def test_wide_histogram_noise_has_the_variance_of_its_event_and_no_bias(sigma):
    exact = np.arange(CELLS, dtype=np.int64)
    noise = noisy_histogram(exact, sigma=sigma, noise=OsNoise()) - exact
    low, high = stats.chi2.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], CELLS) / CELLS
    assert low * sigma**2 < np.mean(noise.astype(float) ** 2) < high * sigma**2
    assert abs(noise.mean()) < stats.norm.isf(FALSE_ALARM / 4) * sigma / math.sqrt(CELLS)


def test_cells_get_independent_noise():
    noise = noisy_histogram(np.zeros(CELLS, dtype=np.int64), sigma=10.0, noise=OsNoise()).astype(float)
    lags = range(1, 6)
    limit = stats.norm.isf(FALSE_ALARM / 2 / len(lags)) / math.sqrt(CELLS)
    assert max(abs(np.corrcoef(noise[:-lag], noise[lag:])[0, 1]) for lag in lags) < 1.1 * limit


@pytest.mark.parametrize(("epsilon", "reach"), [(1.0, 5), (0.15, 25)])
def test_count_noise_is_two_sided_geometric(epsilon, reach):
    source = OsNoise()
    draws = np.array([noisy_count(1000, epsilon=epsilon, noise=source) - 1000 for _ in range(5_000)])
    assert chi_square_p(draws, lambda k: np.exp(-epsilon * np.abs(k)), reach=reach) > FALSE_ALARM


def test_two_sources_do_not_repeat_each_other():
    """A repeat of 64 cells at σ = 100 has a probability far below 10⁻¹⁰⁰."""
    exact = np.zeros(64, dtype=np.int64)
    first, second = (noisy_histogram(exact, sigma=100.0, noise=OsNoise()) for _ in range(2))
    assert not np.array_equal(first, second)
