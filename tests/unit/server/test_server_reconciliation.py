"""Which generated rows are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aevorium.diffusion.layout import Layout
from aevorium.diffusion.sampler import Generated
from aevorium.server.reconciliation import SURPLUS, choose_rows, memberships

LAYOUT = Layout(continuous=2, categories=(3, 2), missing_of=(None, 1))
PRIORS = [np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.4])]


def make_rows(count: int, *, seed: int) -> Generated:
    """Rows that are off: a value in three is missing where two in five should be, and states and values depend."""
    rng = np.random.default_rng(seed)
    first = rng.choice(3, count, p=[0.45, 0.33, 0.22])
    values = np.stack([rng.normal(0.1 * first, 1.05), rng.normal(0.05, 1, count)], axis=1)
    codes = np.stack([first, (rng.random(count) < 1 / 3).astype(int)], axis=1)
    return Generated(values=torch.from_numpy(values).float(), codes=torch.from_numpy(codes))


@pytest.mark.parametrize("keep", [20, 300, 4_000])
def test_the_rows_that_are_kept_have_the_shares_that_are_wanted(keep: int):
    """Of rows kept by chance, some cell of about 40 would be off by more than a tenth of its rows nearly surely."""
    made = make_rows(int(keep * SURPLUS), seed=keep)
    members, shares = memberships(made, layout=LAYOUT, priors=PRIORS)
    assert shares.sum() == pytest.approx(members.shape[1])
    kept = choose_rows(members, shares=shares, keep=keep, generator=torch.Generator().manual_seed(0))
    assert len(set(kept.tolist())) == len(kept) == keep
    assert (np.diff(kept) > 0).all()
    before = np.abs(np.bincount(members[:keep].ravel(), minlength=len(shares)) - keep * shares)
    after = np.abs(np.bincount(members[kept].ravel(), minlength=len(shares)) - keep * shares)
    assert after.sum() < (0.5 if keep >= 300 else 0.9) * before.sum()
    missing = (made.codes[kept, 1] == 1).float().mean()
    assert float(missing) == pytest.approx(0.4, abs=0.01 + 1 / keep)


def test_it_is_the_same_choice_by_the_same_seed_and_all_rows_where_there_are_no_more():
    members, shares = memberships(make_rows(600, seed=1), layout=LAYOUT, priors=PRIORS)
    twice = [choose_rows(members, shares=shares, keep=400, generator=torch.Generator().manual_seed(3)) for _ in "ab"]
    assert (twice[0] == twice[1]).all()
    every = choose_rows(members, shares=shares, keep=600, generator=torch.Generator().manual_seed(3))
    assert (every == np.arange(600)).all()


def test_a_state_that_no_row_has_is_no_harm():
    layout = Layout(continuous=0, categories=(3,), missing_of=())
    made = Generated(values=torch.empty(30, 0), codes=torch.zeros(30, 1, dtype=torch.int64))
    members, shares = memberships(made, layout=layout, priors=[np.array([0.5, 0.5, 0.0])])
    assert len(choose_rows(members, shares=shares, keep=20, generator=torch.Generator())) == 20


def test_values_that_are_missing_count_as_missing_whatever_noise_stands_in_their_place():
    made = Generated(values=torch.tensor([[0.0, -3.0], [0.0, 3.0]]), codes=torch.tensor([[0, 1], [0, 1]]))
    members, _ = memberships(made, layout=LAYOUT, priors=PRIORS)
    assert members[0].tolist() == members[1].tolist()
