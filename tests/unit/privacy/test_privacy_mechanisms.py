from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from aevorium.privacy.mechanisms import OsNoise, noisy_count, noisy_histogram


class RecordingNoise:
    """Adds no noise, and remembers what it was asked for. Not private."""

    def __init__(self) -> None:
        self.scales: list[float] = []

    def laplace(self, value: int, *, scale: float) -> int:
        self.scales.append(scale)
        return value

    def gaussian(self, values: np.ndarray, *, sigma: float) -> np.ndarray:
        self.scales.append(sigma)
        return values


@pytest.mark.parametrize("epsilon", [0.1, 0.15, 0.3, 0.7, 1 / 3, 1e-3, 2.9999])
def test_the_scale_of_count_noise_is_never_below_what_the_event_says(epsilon):
    noise = RecordingNoise()
    assert noisy_count(41, epsilon=epsilon, noise=noise) == 41
    product = Fraction(noise.scales[0]) * Fraction(repr(epsilon))
    assert 1 <= product < 1 + Fraction(1, 10**15)


def test_histogram_noise_is_asked_for_with_the_event_s_own_sigma():
    noise = RecordingNoise()
    assert noisy_histogram(np.array([3, 0, 7]), sigma=4.25, noise=noise).tolist() == [3, 0, 7]
    assert noise.scales == [4.25]


def test_os_noise_keeps_shape_and_type():
    noisy = noisy_histogram(np.zeros(500, dtype=np.int64), sigma=3.0, noise=OsNoise())
    assert noisy.shape == (500,)
    assert noisy.dtype == np.int64
    assert len(np.unique(noisy)) > 5
    assert isinstance(noisy_count(10, epsilon=0.5, noise=OsNoise()), int)


def test_os_noise_saturates_at_the_ends_of_its_integers_instead_of_wrapping():
    largest = np.iinfo(np.int64).max
    draws = noisy_histogram(np.full(200, largest), sigma=100.0, noise=OsNoise())
    assert draws.min() > largest - 2000


def test_an_empty_histogram_stays_empty():
    assert noisy_histogram(np.zeros(0, dtype=np.int64), sigma=3.0, noise=OsNoise()).shape == (0,)
