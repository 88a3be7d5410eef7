"""How columns are cut into the cells of tables, from the released one-way shares alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aevorium.encoding.encoder import TableEncoder
from aevorium.schema.table import Categorical, TableSchema

__all__ = ["MANY_CATEGORIES", "THIRD_CELLS", "THIRD_STATES", "coarse_cells", "cut_columns", "number_of_cells"]

THIRD_CELLS, THIRD_STATES = 4, 8
"""Cells of a continuous column, and most states of a categorical one, where it is the third of a triple."""

_FEWEST, _MOST = 4, 24

_FINENESS = 0.75
"""A little coarser than where noise is as large as a cell's share of independent columns: 8 cells beat 11 and 12."""

_SPIKE = 1.5
"""A bin with so many cells' worth of records is a cell of its own."""

_REST = 0.4
"""What is left over at the end, or before a spike, is a cell from this share of a cell's worth on."""

MANY_CATEGORIES = 64
"""Cells of a categorical column at most: the rarest categories share the last."""


def coarse_cells(*, records: float, noise: float) -> int:
    """How many cells a column gets in the tables by which pairs are selected, 'missing' not counted.

    Three where noise is large; up to five where it leaves room: of many categories three cells show two alone, and
    which two of those that are about as frequent is chance.

    Args:
        records: The estimated number of records of all nodes.
        noise: Standard deviation of the noise in each cell of the merged tables.
    """
    return int(np.clip(round(0.25 * math.sqrt(records / max(noise, 1.0))), 3, 5))


def number_of_cells(*, records: float, noise: float) -> int:
    """About how many cells a continuous column gets in the tables that the surrogate is fitted to.

    About so many that a cell of a table of independent columns holds as many records as its noise is large.

    Args:
        records: The estimated number of records of all nodes.
        noise: Standard deviation of the noise in each cell of the merged tables.
    """
    return int(np.clip(round(_FINENESS * math.sqrt(records / max(noise, 1.0))), _FEWEST, _MOST))


def cut_columns(
    encoder: TableEncoder, schema: TableSchema, *, cells: int, most: int = MANY_CATEGORIES
) -> dict[str, tuple[int, ...]]:
    """Groups the cells of each column's grid into cells of about equal mass.

    A spike is alone in its cell, and so are the missing state and each category.

    Args:
        encoder: What is known of single columns.
        schema: The study's schema.
        cells: About how many cells a continuous column gets.
        most: Most cells of a categorical column: the rarest categories share the last.

    Returns:
        For each measured column the cell of each cell of its grid, as `TableDesign` has it.
    """
    found = {}
    for name, column in schema.measured.items():
        code = encoder.columns[name]
        shares = np.array(code.shares)
        groups = _by_rank(shares, most=most) if isinstance(column, Categorical) else _by_mass(shares, cells=cells)
        if code.missing is not None:
            groups = np.append(groups, groups.max() + 1)
        found[name] = tuple(int(group) for group in groups)
    return found


def _by_rank(shares: NDArray[np.float64], *, most: int) -> NDArray[np.int64]:
    """The most frequent categories each in its own cell, in schema order, and the others in the last."""
    if len(shares) <= most:
        return np.arange(len(shares))
    frequent = np.sort(np.argsort(-shares, kind="stable")[: most - 1])
    groups = np.full(len(shares), most - 1)
    groups[frequent] = np.arange(most - 1)
    return groups


def _by_mass(shares: NDArray[np.float64], *, cells: int) -> NDArray[np.int64]:
    """Runs of neighbouring bins, each closed once it holds a cell's worth of records."""
    worth = 1.0 / cells
    starts, held = [0], 0.0
    for place, share in enumerate(shares):
        is_spike = share >= _SPIKE * worth
        if (is_spike and held >= _REST * worth) or held >= worth:
            starts.append(place)
            held = 0.0
        held += share
        if is_spike and place + 1 < len(shares):
            starts.append(place + 1)
            held = 0.0
    if held < _REST * worth and len(starts) > 1 and shares[starts[-1] - 1] < _SPIKE * worth:
        starts.pop()
    return np.searchsorted(np.unique(starts), np.arange(len(shares)), side="right") - 1
