"""Shares of wide noise and the rounding of sums have the distributions that their event charges for.

Every test rejects what is correct with probability 10⁻⁶ at most.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aevorium.errors import InternalError
from aevorium.privacy import aggregation
from aevorium.privacy.aggregation import add_parts, decode_vector, encode_vector, share_noise
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.events import SampledDiscreteGaussianSum
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.schedule import CLIP_LEVELS, CellNoise

FALSE_ALARM = 1e-6
SIZE = 200_000


@pytest.mark.parametrize("sigma", [2.0**20, 3e9, 7e11])
def test_a_wide_share_is_normal_with_the_variance_of_its_event(sigma):
    draws = share_noise(SIZE, sigma=sigma, generator=os_generator()) / sigma
    assert stats.kstest(draws, "norm").pvalue > FALSE_ALARM
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], SIZE) / SIZE
    assert low < np.mean(draws**2) < high


def test_noise_wrong_by_two_percent_would_be_seen():
    draws = share_noise(SIZE, sigma=0.98 * 3e9, generator=os_generator()) / 3e9
    low = stats.chi2.ppf(FALSE_ALARM / 2, SIZE) / SIZE
    assert np.mean(draws**2) < low


def test_the_sampler_by_rejection_is_exact_where_the_lattice_can_be_seen(monkeypatch):
    """The same code at a parameter of 1.5, where rounding a normal deviate without it would be seen."""
    monkeypatch.setattr(aggregation, "_NARROWEST", 1.0)
    monkeypatch.setattr(aggregation, "_REACH", 6.0)
    sigma, reach = 1.5, 5
    draws = share_noise(SIZE, sigma=sigma, generator=os_generator())
    support = np.arange(-reach, reach + 1)
    weights = np.exp(-(np.arange(-9, 10) ** 2) / (2 * sigma**2))
    pooled = np.bincount(np.clip(np.arange(-9, 10), -reach, reach) + reach, weights=weights / weights.sum())
    observed = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=len(support))
    assert stats.chisquare(observed, pooled * SIZE).pvalue > FALSE_ALARM
    rounded = np.rint(np.random.default_rng(0).normal(0, sigma, SIZE)).astype(int)
    counted = np.bincount(np.clip(rounded, -reach, reach) + reach, minlength=len(support))
    assert stats.chisquare(counted, pooled * SIZE).pvalue < FALSE_ALARM


def test_narrow_noise_is_refused():
    with pytest.raises(InternalError, match="narrow"):
        share_noise(3, sigma=1000.0, generator=os_generator())


def test_shares_of_two_nodes_are_independent():
    first, second = (share_noise(SIZE, sigma=2.0**30, generator=os_generator()).astype(float) for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(SIZE)


def test_rounding_is_right_on_average_and_by_less_than_one():
    vector = np.random.default_rng(1).normal(0, 3e-9, SIZE)
    encoded = encode_vector(vector, unit=1.0, levels=CLIP_LEVELS, generator=os_generator())
    exact = vector * CLIP_LEVELS
    assert np.abs(encoded - exact).max() < 1
    # Each rounding error has a variance of at most 1/4.
    assert abs((encoded - exact).mean()) < stats.norm.isf(FALSE_ALARM / 2) * 0.5 / math.sqrt(SIZE)


@given(st.integers(0, 2**32), st.floats(0.01, 50), st.sampled_from([2**20, 2**36]))
@settings(max_examples=60, deadline=None)
def test_one_record_changes_a_rounded_sum_by_no_more_than_its_event_says(seed, clip, levels):
    """With the same dither, whatever the sum of the others is: a gradient of the clip's norm, in any direction."""
    rng = np.random.default_rng(seed)
    size = 300
    change = rng.normal(size=size) * (rng.random(size) < rng.random())
    change *= clip / max(np.linalg.norm(change), 1e-12)
    others = rng.normal(size=size) * clip * 10 ** rng.uniform(-2, 2)
    one, other = (
        encode_vector(vector, unit=clip, levels=levels, generator=torch.Generator().manual_seed(seed))
        for vector in (others, others + change)
    )
    event = SampledDiscreteGaussianSum(
        purpose="x", sampling_rate=1, noise_multiplier=1, shares=1, steps=1, levels=levels, parameters=size
    )
    # A relative 1e-12 for the floating-point sum of the two vectors.
    assert np.linalg.norm((other - one).astype(float)) <= event.sensitivity * (1 + 1e-9)


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3), min_size=1, max_size=6))
def test_parts_add_up_modulo_two_to_the_64(parts):
    total = add_parts([np.array(part, dtype=np.int64) for part in parts])
    for place in range(3):
        assert (int(total[place]) - sum(part[place] for part in parts)) % 2**64 == 0


def test_masks_that_cancel_leave_the_sum():
    """What the parts look like does not matter: only their sum modulo 2^64 does."""
    rng = np.random.default_rng(5)
    vectors = [rng.normal(size=50) for _ in range(4)]
    parts = [encode_vector(v, unit=2.0, levels=CLIP_LEVELS, generator=os_generator()) for v in vectors]
    masks = [rng.integers(-(2**63), 2**63, 50, dtype=np.int64) for _ in range(3)]
    with np.errstate(over="ignore"):
        masks.append(-(masks[0] + masks[1] + masks[2]))
        masked = [part + mask for part, mask in zip(parts, masks, strict=True)]
    total = decode_vector(add_parts(masked), unit=2.0, levels=CLIP_LEVELS)
    assert total == pytest.approx(np.sum(vectors, axis=0), abs=1e-9)


@pytest.mark.parametrize("sigma", [0.4, 2.0, 9.0])
def test_shares_of_table_noise_add_up_to_the_noise_of_their_event(sigma):
    nodes, cells = 5, 20_000
    noise = CellNoise(sigma=sigma, shares=nodes)
    event = noise.event("x")
    exact = np.arange(cells) % 7
    parts = [noise.protect(exact, noise=OsNoise()) for _ in range(nodes)]
    assert all(part.dtype == np.int64 for part in parts)
    # In the unit of the sum, where the event speaks of it.
    assert event.sensitivity == noise.scale
    errors = np.sum(parts, axis=0) - nodes * exact * noise.scale
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], cells) / cells
    assert low < np.mean(errors.astype(float) ** 2) / (event.shares * event.sigma**2) < high
    # In the unit of counts, as the server reads it.
    opened = noise.open(parts) - nodes * exact
    assert low < np.mean(opened.astype(float) ** 2) / noise.noise_of(nodes=nodes) ** 2 < high
