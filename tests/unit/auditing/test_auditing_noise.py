"""Noise that is right passes the watch, and noise that is wrong in one way is called wrong in that way."""

from __future__ import annotations

import numpy as np
import pytest

from aevorium.auditing.noise import FloorWatch, NoiseWatch
from aevorium.privacy.events import DiscreteGaussian, DiscreteGaussianSum, DiscreteLaplace
from aevorium.privacy.mechanisms import OsNoise

SIGMA = 3.2
EVENT = DiscreteGaussian(purpose="test", sigma=SIGMA)


def normal(generator, cells, sigma=SIGMA):
    """Rounded normal deviates: within a hundredth of the discrete Gaussian at this width."""
    return np.rint(generator.normal(0.0, sigma, cells))


def watched(draw, *, draws=40, cells=100):
    watch, generator = NoiseWatch(EVENT, nodes=1), np.random.default_rng(3)
    for _ in range(draws):
        watch.add(draw(generator, cells))
    return watch.shortcomings()


@pytest.mark.parametrize("cells", [1, 3, 200])
@pytest.mark.parametrize("draws", [4, 60])
@pytest.mark.parametrize(
    ("event", "nodes"),
    [
        (EVENT, 1),
        (DiscreteGaussian(purpose="test", sigma=0.4), 1),
        (DiscreteGaussianSum(purpose="test", sigma=3.0, shares=3, sensitivity=2), 3),
        (DiscreteLaplace(purpose="test", epsilon=0.2), 1),
    ],
    ids=["wide", "narrow", "sum", "laplace"],
)
def test_what_the_mechanisms_draw_is_right(event, nodes, draws, cells):
    source, watch = OsNoise(), NoiseWatch(event, nodes=nodes)
    for _ in range(draws):
        if isinstance(event, DiscreteLaplace):
            noise = np.array([source.laplace(0, scale=1 / event.epsilon)])
        else:
            zeros = np.zeros(cells, dtype=np.int64)
            noise = np.sum([source.gaussian(zeros, sigma=event.sigma) for _ in range(nodes)], axis=0)
        watch.add(noise.astype(np.float64))
    assert watch.shortcomings() == []
    assert watch.planned == pytest.approx(
        np.sqrt(2 * np.exp(-0.2)) / (1 - np.exp(-0.2)) if isinstance(event, DiscreteLaplace) else watch.planned
    )


def test_less_is_noticed():
    assert watched(lambda generator, cells: normal(generator, cells, 0.9 * SIGMA)) == ["has less noise than is charged"]


def test_one_number_without_noise_is_noticed():
    def draw(generator, cells):
        noise = normal(generator, cells)
        noise[7] = 0.0
        return noise

    assert watched(draw) == ["has a number with less noise than is charged"]


def test_noise_that_is_always_the_same_is_noticed():
    fixed = normal(np.random.default_rng(9), 100)
    assert "has noise that repeats itself" in watched(lambda generator, cells: fixed)


def test_noise_of_one_draw_in_all_numbers_is_noticed():
    found = watched(lambda generator, cells: np.full(cells, normal(generator, 1)[0]))
    assert "has noise that its numbers share" in found


def test_noise_that_is_used_twice_is_noticed():
    found = watched(lambda generator, cells: np.tile(normal(generator, cells // 2), 2))
    assert found == ["has noise that its numbers share"]


def test_other_chance_does_not_hide_that_noise_is_missing():
    generator = np.random.default_rng(4)

    def watch(sigma):
        found = FloorWatch(planned=2.0)
        for _ in range(20):
            for part in (0, 1):
                found.add(100.0 * part + generator.normal(0.0, np.hypot(sigma, 0.5), 50), part=part)
        return found

    assert watch(2.0).shortcomings() == []
    assert watch(1.5).shortcomings() == ["has less noise than is charged"]
    assert watch(2.0).found == pytest.approx(np.hypot(2.0, 0.5), rel=0.1)
