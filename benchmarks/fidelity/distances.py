"""Distances of the counts of two tables, by one, two or three columns. Needs NumPy and pandas alone."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.fidelity.completion import Completed

__all__ = ["ways"]

_BINS = {1: 32, 2: 12, 3: 6}
"""Quantile bins of a numeric column, by how many columns are looked at together."""

_MOST = {1: 1000, 2: 100, 3: 60}
"""Combinations of columns that are looked at; the same for all methods."""


def ways(real: Completed, other: Completed, *, together: int) -> float:
    """Mean total-variation distance over combinations of columns, cut by the quantiles of the real rows."""
    edges = {name: _edges(real.frame[name], bins=_BINS[together]) for name in real.numbers}
    sizes = [len(edges[name]) + 1 for name in real.numbers] + [len(names) for names in real.categories.values()]
    ours, theirs = (_codes(table, edges=edges) for table in (real, other))
    chosen = list(itertools.combinations(range(len(sizes)), together))
    if len(chosen) > _MOST[together]:
        drawn = np.random.default_rng(0).choice(len(chosen), _MOST[together], replace=False)
        chosen = [chosen[place] for place in drawn]
    return float(np.mean([_distance(ours, theirs, columns=columns, sizes=sizes) for columns in chosen]))


def _edges(values: pd.Series, *, bins: int) -> NDArray[np.float64]:
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))[1:-1]


def _codes(table: Completed, *, edges: dict[str, NDArray[np.float64]]) -> NDArray[np.int64]:
    cut = [np.searchsorted(edges[name], table.frame[name], side="right") for name in table.numbers]
    named = [pd.Categorical(table.frame[name], categories=names).codes for name, names in table.categories.items()]
    return np.stack([*cut, *named], axis=1).astype(np.int64)


def _distance(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], *, columns: tuple[int, ...], sizes: list[int]
) -> float:
    shape = [sizes[column] for column in columns]
    shares = [
        np.bincount(np.ravel_multi_index(codes[:, columns].T, shape), minlength=int(np.prod(shape))) / len(codes)
        for codes in (ours, theirs)
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
