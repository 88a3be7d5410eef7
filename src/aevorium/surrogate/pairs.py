"""Which pairs and triples of columns are worth a table: what noisy coarse tables show beyond independence and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from aevorium.encoding.associations import Associations

__all__ = ["candidate_pairs", "excess_of", "select_pairs", "select_triples"]

_TARGET_SHARE = 0.25
"""Share of the selected pairs that are with the target, if the schema names one."""


def candidate_pairs(columns: Sequence[str], *, target: str | None, most: int) -> tuple[tuple[str, str], ...]:
    """The pairs that are looked at: all of them, or where they are too many, a choice that the schema makes.

    Pairs with the target come first, then columns that stand near each other in the schema.

    Args:
        columns: The measured columns in schema order.
        target: The column that people will want to predict, if it is measured.
        most: How many pairs there may be.
    """
    place = {name: number for number, name in enumerate(columns)}

    def rank(pair: tuple[str, str]) -> tuple[bool, int]:
        return target not in pair, place[pair[1]] - place[pair[0]]

    everything = list(combinations(columns, 2))
    return tuple(everything if len(everything) <= most else sorted(everything, key=rank)[:most])


def excess_of(table: NDArray[np.int64], *, noise: float) -> float:
    """The squared distance of a noisy table from independence, less what noise alone adds to it, in records².

    Row and column means are taken out, which removes every error of the one-way shares to first order; what is left
    of pure noise has (rows - 1)·(columns - 1) degrees of freedom. What stands out is not divided by what it varies by:
    pairs are chosen by what would be lost without them, not by how sure that is.

    Args:
        table: [rows, columns], noisy counts.
        noise: Standard deviation of the noise in each cell; 0 if there is none.
    """
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if freedom == 0:
        return -np.inf
    total = max(float(table.sum()), 1.0)
    shares = [np.maximum(table.sum(axis=axis), 0.0) for axis in (1, 0)]
    rows, columns = (side / max(side.sum(), 1.0) for side in shares)
    left = table - total * np.outer(rows, columns)
    left = left - left.mean(axis=0, keepdims=True) - left.mean(axis=1, keepdims=True) + left.mean()
    return float(np.square(left).sum() - freedom * noise**2)


def select_pairs(coarse: Associations, *, count: int, target: str | None) -> tuple[tuple[str, str], ...]:
    """The pairs with the largest excess; a quarter of them, if there are so many, with the target.

    Args:
        coarse: Noisy tables of all candidates.
        count: How many pairs: fixed by the plan, whatever the tables show.
        target: The column that people will want to predict, if it is measured.
    """
    scores = _excesses(coarse)
    ranked = sorted(scores, key=lambda pair: -scores[pair])
    favoured = [pair for pair in ranked if target in pair][: round(_TARGET_SHARE * count)]
    others = [pair for pair in ranked if pair not in favoured]
    chosen = {*favoured, *others[: count - len(favoured)]}
    return tuple(pair for pair in coarse.design.pairs if pair in chosen)


def select_triples(
    columns: Sequence[str], *, target: str | None, count: int, coarse: Associations | None
) -> tuple[tuple[str, str, str], ...]:
    """Pairs of columns that are counted for each state of the target: those that both tell the most of it.

    What two columns say together of a third is in no table of two. The rank of a pair is that of the column that tells
    less, so columns that tell nothing are in none.

    Args:
        columns: The measured columns in schema order.
        target: The column that people will want to predict; with None there are no triples.
        count: How many: fixed by the plan, whatever the tables show.
        coarse: Noisy tables of candidate pairs; None where there are as many triples as there can be.
    """
    if target is None or not count:
        return ()
    scores = {} if coarse is None else _excesses(coarse)
    told = {next(name for name in pair if name != target): score for pair, score in scores.items() if target in pair}

    def rank(pair: tuple[str, str]) -> float:
        return -min(told.get(name, -np.inf) for name in pair)

    pairs = sorted(combinations([name for name in columns if name != target], 2), key=rank)
    return tuple((first, second, target) for first, second in pairs[:count])


def _excesses(coarse: Associations) -> Mapping[tuple[str, str], float]:
    return {
        pair: excess_of(table, noise=coarse.noise)
        for pair, table in zip(coarse.design.pairs, coarse.counts, strict=True)
    }
