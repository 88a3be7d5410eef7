"""The surrogate's posterior against Bayes' rule on its own rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from surrogate_tables import SCHEMA, make_encoder, make_frame, make_tables
from torch.nn.functional import one_hot

from aevorium.surrogate.cells import cut_columns
from aevorium.surrogate.density import Surrogate, fit_surrogate
from aevorium.surrogate.mixture import FitSettings
from aevorium.surrogate.posterior import MixturePosterior


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    frame = make_frame(5_000, seed=3)
    encoder = make_encoder(frame)
    cells = cut_columns(encoder, SCHEMA, cells=6)
    tables = make_tables(
        frame, cells=cells, pairs=tuple(combinations(SCHEMA.measured, 2)), sigma=5.0, rng=np.random.default_rng(0)
    )
    return fit_surrogate(
        encoder, SCHEMA, cells=cells, tables=[tables], total=5_000.0, noise=5.0, seed=0,
        advance=lambda done, steps: None, settings=FitSettings(components=20, steps=200),
    )  # fmt: skip


def _clean(surrogate: Surrogate, rows: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as vectors, and which of their values are observed."""
    drawn = surrogate.rows(rows, generator=np.random.default_rng(seed))
    blocks = [len(prior) for prior in surrogate.encoder.priors(SCHEMA)]
    codes = torch.from_numpy(drawn.codes)
    states = [one_hot(codes[:, place], size) for place, size in enumerate(blocks)]
    values = torch.from_numpy(drawn.values)
    return torch.cat([values, *states], dim=1).float(), torch.from_numpy(drawn.observed)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_it_is_bayes_rule(surrogate: Surrogate, sigma: float):
    """Against 200,000 rows weighted by how likely they make the noisy row.

    The weights' effective number of rows gives each estimate's standard deviation; 5 of them, for about 500
    estimates, are exceeded once in 3,000 runs.
    """
    pool, observed = _clean(surrogate, 200_000, seed=1)
    rows, _ = _clean(surrogate, 12, seed=2)
    generator = torch.Generator().manual_seed(5)
    noisy = rows + sigma * torch.randn(rows.shape, generator=generator)
    found = MixturePosterior(surrogate)(noisy, torch.full((len(rows),), sigma))
    continuous = observed.shape[1]
    for number, row in enumerate(noisy):
        weight = (-(row - pool).square().sum(dim=1) / (2 * sigma**2)).double().softmax(dim=0)
        effective = float(1 / weight.square().sum())
        if effective < 200:
            continue
        present = weight[:, None] * observed
        share = present.sum(dim=0)
        allowed = 5 / effective**0.5
        assert (found.observed[number] - share).abs().max() < allowed
        assert (found.states[number] - (weight[:, None] * pool[:, continuous:]).sum(dim=0)).abs().max() < allowed
        mean = (present * pool[:, :continuous]).sum(dim=0) / share.clamp(min=1e-9)
        spread = ((present * (pool[:, :continuous] - mean).square()).sum(dim=0) / share.clamp(min=1e-9)).sqrt()
        off = (found.values[number] - mean).abs()
        # A value that is nearly surely missing is told by few rows.
        assert (off < 5 * spread / (effective * share).clamp(min=1e-9).sqrt() + 1e-3)[share > 0.2].all()


def test_it_is_certain_of_a_row_with_next_to_no_noise_and_knows_nothing_of_one_that_is_all_noise(surrogate: Surrogate):
    rows, observed = _clean(surrogate, 500, seed=4)
    continuous = observed.shape[1]
    posterior = MixturePosterior(surrogate)
    near = posterior(rows, torch.full((500,), 1e-3))
    assert torch.allclose(near.values[observed], rows[:, :continuous][observed], atol=5e-3)
    assert torch.allclose(near.states, rows[:, continuous:], atol=1e-3)
    far = posterior(rows + 1e4 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)),
                    torch.full((500,), 1e4))  # fmt: skip
    priors = np.concatenate([prior / prior.sum() for prior in surrogate.encoder.priors(SCHEMA)])
    assert torch.allclose(far.states, torch.from_numpy(priors).float().expand_as(far.states), atol=5e-3)
    assert far.values.abs().max() < 0.3
    assert all(torch.isfinite(part).all() for part in (*near, *far))
