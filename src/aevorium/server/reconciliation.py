"""Which of the generated rows are kept, so that the table has the shares that were released. Post-processing: free.

Rows drawn one by one have shares of their own by chance: of 1,000 rows a share of one half is off by 1.6 points,
however good the model. More rows are drawn than are needed, and those are kept whose single columns agree with the
one-way shares: cells of equal mass of a continuous column, its missing values, and states.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from aevorium.diffusion.layout import Layout
from aevorium.diffusion.sampler import Generated

__all__ = ["SURPLUS", "choose_rows", "memberships"]

SURPLUS = 1.5
"""Rows that are drawn for each that is kept."""

_CELLS = 16
"""Cells of a continuous column, each of equal mass."""

_FIRST_EXCHANGE = 0.1
_MOST_EXCHANGES = 200


def memberships(
    generated: Generated, *, layout: Layout, priors: list[NDArray[np.float64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """In which cell of each column a row lies, and which share of all rows each cell should hold.

    Args:
        generated: n rows in the model's space.
        layout: The columns.
        priors: For each state column its states' probabilities.

    Returns:
        int64 [n, columns], numbers of cells, counted over all columns; float64 [cells], the shares of the cells.
    """
    inner = ndtri(np.arange(1, _CELLS) / _CELLS)
    codes = generated.codes.numpy()
    members, shares = [], []
    flags = {flag for flag in layout.missing_of if flag is not None}
    for place, flag in enumerate(layout.missing_of):
        cells = np.searchsorted(inner, generated.values[:, place].numpy())
        present = 1.0 if flag is None else float(priors[flag][0] / priors[flag].sum())
        if flag is not None:
            cells = np.where(codes[:, flag] == 1, _CELLS, cells)
        members.append(cells)
        shares.append(np.append(np.full(_CELLS, present / _CELLS), [] if flag is None else [1 - present]))
    for place, prior in enumerate(priors):
        if place not in flags:
            members.append(codes[:, place])
            shares.append(prior / prior.sum())
    starts = np.cumsum([0, *(len(part) for part in shares)])[:-1]
    return np.stack(members, axis=1) + starts, np.concatenate(shares)


def choose_rows(
    members: NDArray[np.int64], *, shares: NDArray[np.float64], keep: int, generator: torch.Generator
) -> NDArray[np.int64]:
    """The rows that are kept: int64 [keep], in ascending order.

    A random choice is exchanged against the rest, a smaller part each time, as long as Σ (count - wanted)² / wanted
    over the cells falls: rows of too full cells go, rows of too empty ones come.

    Args:
        members: int64 [n, columns], the cells of each row.
        shares: [cells], the share of the kept rows that is wanted in each.
        keep: How many rows, at most n.
        generator: Makes the first choice.
    """
    order = torch.randperm(len(members), generator=generator).numpy()
    kept, spare = order[:keep], order[keep:]
    wanted = keep * shares
    weight = 1 / np.maximum(wanted, 1.0)

    def excess(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(members[rows].ravel(), minlength=len(shares)) - wanted, dtype=np.float64)

    over = excess(kept)
    exchanged = min(int(_FIRST_EXCHANGE * keep), len(spare))
    for _ in range(_MOST_EXCHANGES):
        if exchanged == 0:
            break
        pressure = (over * weight)[members].sum(axis=1)
        out = np.argpartition(-pressure[kept], exchanged - 1)
        come = np.argpartition(pressure[spare], exchanged - 1)
        tried = np.concatenate([kept[out[exchanged:]], spare[come[:exchanged]]])
        found = excess(tried)
        if (weight * found**2).sum() < (weight * over**2).sum():
            spare = np.concatenate([spare[come[exchanged:]], kept[out[:exchanged]]])
            kept, over = tried, found
        else:
            exchanged //= 2
    return np.sort(kept)
