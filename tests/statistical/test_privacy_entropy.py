"""Generators of privacy noise: filled from the operating system's entropy as a whole, and none like another.

Every test rejects correct generators with probability 10⁻⁶ at most; there are four.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from aevorium.privacy.entropy import os_generator

FALSE_ALARM = 1e-6
WORDS = slice(24, 24 + 8 * 624)


def words_of(generator: torch.Generator) -> np.ndarray:
    return generator.get_state().numpy()[WORDS].copy().view(np.uint64)


def test_the_whole_state_is_drawn_anew():
    """No word at a place is shared by two generators but by chance: 624 · 45 pairs, each with 2⁻³²: 7·10⁻⁶ for one.

    Two shared words have a probability below 10⁻¹⁰.
    """
    states = np.stack([words_of(os_generator()) for _ in range(10)])
    shared = sum(int((states[i] == states[j]).sum()) for i in range(10) for j in range(i))
    assert shared <= 1
    assert states.max() < 2**32
    ones = np.unpackbits(states.astype(np.uint32).view(np.uint8)).sum()
    assert stats.binomtest(int(ones), 32 * states.size, 0.5).pvalue > FALSE_ALARM


def test_the_state_is_not_that_of_the_seed_in_it():
    """A generator seeded by 32 bits could be repeated by whoever tries them all."""
    generator = os_generator()
    seeded = torch.Generator().manual_seed(generator.initial_seed())
    assert (words_of(generator) == words_of(seeded)).sum() <= 1
    assert not torch.equal(torch.randn(50, generator=generator), torch.randn(50, generator=seeded))
    # Each word of a seeded state follows from the one before it (Matsumoto & Nishimura 1998); here none may.
    state = words_of(os_generator())
    previous, index = state[:-1], np.arange(1, 624, dtype=np.uint64)
    follows = (np.uint64(1812433253) * (previous ^ (previous >> np.uint64(30))) + index) & np.uint64(0xFFFFFFFF)
    assert (follows == state[1:]).sum() <= 1
    seeded_state = words_of(torch.Generator().manual_seed(5))
    previous = seeded_state[:-1]
    follows = (np.uint64(1812433253) * (previous ^ (previous >> np.uint64(30))) + index) & np.uint64(0xFFFFFFFF)
    assert (follows == seeded_state[1:]).all(), "the check itself must know a seeded state"


def test_what_it_draws_is_normal_and_uniform():
    generator = os_generator()
    normal = torch.randn(100_000, generator=generator, dtype=torch.float64).numpy()
    uniform = torch.rand(100_000, generator=generator, dtype=torch.float64).numpy()
    assert stats.kstest(normal, "norm").pvalue > FALSE_ALARM / 3
    assert stats.kstest(uniform, "uniform").pvalue > FALSE_ALARM / 3
    limit = stats.norm.isf(FALSE_ALARM / 6) * math.sqrt(96 / len(normal))
    assert abs(np.mean(normal**4) - 3) < limit


def test_two_generators_are_independent():
    first, second = (torch.randn(100_000, generator=os_generator()).numpy() for _ in range(2))
    limit = stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(len(first))
    assert abs(np.corrcoef(first, second)[0, 1]) < 1.1 * limit
