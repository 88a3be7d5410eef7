"""Public grids: how a column is cut into cells before anything is known of its records.

A grid follows from the column's schema entry and a number of bins alone, so node and server derive the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aevorium.schema.table import Categorical, Continuous, TableSchema

__all__ = ["ColumnGrid", "column_grid", "number_of_bins", "table_grids"]

_WIDE_RATIO = 100
"""From this ratio of bounds on, a column gets bins that widen with the distance from zero."""

_TINY = 1e-9


@dataclass(frozen=True)
class ColumnGrid:
    """The cells of one column: bins or categories, and one more for 'missing' if the schema allows it.

    Attributes:
        low: float64 [bins], where each bin begins; empty for a categorical column. A bin with low = high is a point.
        high: float64 [bins], where it ends.
        categories: The categories; empty for a continuous column.
        missing: Whether the last cell counts missing values.
        integer: Whether values are whole numbers; bins then reach from half below to half above.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    categories: tuple[str, ...]
    missing: bool
    integer: bool

    @property
    def middle(self) -> NDArray[np.float64]:
        """The value in the middle of each bin, [bins]."""
        return (self.low + self.high) / 2

    @property
    def states(self) -> int:
        """Number of cells for values that are present."""
        return len(self.categories) or len(self.low)

    @property
    def cells(self) -> int:
        """Number of cells, the missing one included."""
        return self.states + int(self.missing)

    def locate(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bin of each value (within the bounds, not missing); a value on a point bin belongs to that bin."""
        index = np.searchsorted(self.low, values, side="right") - 1
        index = np.clip(index, 0, len(self.low) - 1)
        # A point at the upper bound has the same beginning as the end of the bin below it, so 'right' finds the point;
        # a point at the lower bound is followed by a bin that begins at the same value, and is meant instead of it.
        before = np.maximum(index - 1, 0)
        is_point_before = (self.low[before] == self.high[before]) & (values == self.low[before])
        return np.where(is_point_before, before, index).astype(np.int64)


def number_of_bins(*, records: float, epsilon: float, nodes: float) -> int:
    """How fine the grids are, from released or declared numbers only.

    The finer a grid, the less of each cell stands out of its noise. The signal is n·ε; noise that every node adds by
    itself is √nodes larger than noise added once. The square-root law goes through what worked in a proof of the
    recipe: about 50 bins for 1,600 records and 256 for 32,561, both at ε = 1; other points are not tuned.

    Args:
        records: Noisy or declared number of records of all nodes.
        epsilon: The study's ε; infinite is allowed.
        nodes: Number of nodes.
    """
    signal = max(records, 1.0) * min(epsilon, 20.0) / math.sqrt(nodes)
    return int(np.clip(round(1.4 * math.sqrt(signal)), 24, 512))


def column_grid(column: Continuous | Categorical, *, bins: int) -> ColumnGrid:
    """The grid of one column.

    Args:
        column: Its schema entry.
        bins: About how many bins a continuous column gets; integers with fewer values get one bin a value.
    """
    if isinstance(column, Categorical):
        empty = np.empty(0)
        return ColumnGrid(low=empty, high=empty, categories=column.categories, missing=column.missing, integer=False)
    if column.integer:
        starts = _integer_starts(int(column.min), int(column.max), bins=bins)
        low = starts - 0.5
        high = np.append(low[1:], column.max + 0.5)
    else:
        edges = _edges(column.min, column.max, bins=bins)
        # Clipping, and zero costs, pile up at the bounds: each bound is a point of its own.
        low = np.concatenate([[column.min], edges[:-1], [column.max]]) if column.max > column.min else edges[:1]
        high = np.concatenate([[column.min], edges[1:], [column.max]]) if column.max > column.min else edges[:1]
    return ColumnGrid(low=low, high=high, categories=(), missing=column.missing, integer=column.integer)


def table_grids(schema: TableSchema, *, bins: int) -> dict[str, ColumnGrid]:
    """The grids of all measured columns, in schema order."""
    return {name: column_grid(column, bins=bins) for name, column in schema.measured.items()}


def _edges(low: float, high: float, *, bins: int) -> NDArray[np.float64]:
    """About `bins` + 1 edges: evenly spaced, or widening (asinh) from zero where values span orders of magnitude."""
    if high <= low:
        return np.array([low])
    largest = max(abs(low), abs(high))
    # Bounds on both sides of zero hold values of any size below the larger one.
    smallest = 0.0 if low < 0 < high else min(abs(low), abs(high))
    ratio = largest / max(smallest, 1.0)
    if ratio < _WIDE_RATIO:
        return np.linspace(low, high, bins + 1)
    scale = largest / 2000 if ratio >= 10 * _WIDE_RATIO else largest / 50
    spaced = np.sinh(np.linspace(np.arcsinh(low / scale), np.arcsinh(high / scale), bins + 1)) * scale
    spaced[0], spaced[-1] = low, high
    return spaced


def _integer_starts(low: int, high: int, *, bins: int) -> NDArray[np.float64]:
    """The smallest value of each bin; the first bin holds the lower bound alone."""
    if high - low + 1 <= bins:
        return np.arange(low, high + 1, dtype=np.float64)
    inner = np.floor(_edges(low, high, bins=bins) + _TINY)
    return np.unique(np.concatenate([[low, low + 1], inner[(inner > low) & (inner <= high)], [high]])).astype(
        np.float64
    )
