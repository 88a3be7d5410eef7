"""One-way statistics: cell counts at a node, their noisy sum at the server.

`count_cells` is the only function here that sees records. What it returns is exact and must pass a noise mechanism
and the gate before it leaves the node; everything else works on noisy counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.encoding.grid import ColumnGrid, table_grids
from aevorium.encoding.rounding import split_roundings
from aevorium.schema.table import TableSchema

__all__ = ["TableStatistics", "cells_in_total", "count_cells", "locate_cells"]


def cells_in_total(schema: TableSchema, *, bins: int) -> int:
    """Length of the vector that `count_cells` returns."""
    return sum(grid.cells for grid in table_grids(schema, bins=bins).values())


def count_cells(frame: pd.DataFrame, schema: TableSchema, *, bins: int) -> NDArray[np.int64]:
    """Counts the records in each cell of each measured column. Reads patient records; the counts are exact.

    Args:
        frame: A typed frame with the measured columns.
        schema: Its schema.
        bins: The study's number of bins.

    Returns:
        int64 [cells], the columns one after another. One record is in exactly one cell of each column.
    """
    parts = [
        np.bincount(locate_cells(frame[name], grid), minlength=grid.cells)
        for name, grid in table_grids(schema, bins=bins).items()
    ]
    return np.concatenate(parts).astype(np.int64, copy=False)


def locate_cells(column: pd.Series, grid: ColumnGrid) -> NDArray[np.int64]:
    """The cell of a column's grid that each record is in, int64 [n]. Reads patient records."""
    absent = column.isna().to_numpy()
    if grid.categories:
        index = column.cat.codes.to_numpy().astype(np.int64)
    else:
        index = np.zeros(len(column), dtype=np.int64)
        index[~absent] = grid.locate(column.to_numpy(dtype=np.float64)[~absent])
    index[absent] = grid.states
    return np.asarray(index, dtype=np.int64)


@dataclass(frozen=True)
class TableStatistics:
    """Noisy one-way counts of a whole table. Safe to release.

    Attributes:
        bins: The number of bins that the grids were made with.
        counts: Noisy counts of each column, int64 [cells], in schema order.
        noise: Standard deviation of the noise in each cell.
        roundings: Noisy counts of each column of numbers by rounding (`rounding`); empty where there are none.
        rounding_noise: Standard deviation of the noise in each of their cells.
    """

    bins: int
    counts: Mapping[str, NDArray[np.int64]]
    noise: float
    roundings: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    rounding_noise: float = 0.0

    @classmethod
    def from_sum(cls, total: NDArray[np.int64], schema: TableSchema, *, bins: int, noise: float) -> TableStatistics:
        """Takes the sum of the nodes' noisy vectors apart.

        Args:
            total: int64 [cells].
            schema: The study's schema.
            bins: The study's number of bins.
            noise: Standard deviation of the noise in each cell of the sum.

        Raises:
            ValueError: There are more cells than that, or fewer.
        """
        grids = table_grids(schema, bins=bins)
        ends = np.cumsum([grid.cells for grid in grids.values()])
        if len(total) != ends[-1]:
            raise ValueError(f"{len(total)} cells are not those of the schema's columns, {ends[-1]}")
        parts = dict(zip(grids, np.split(total, ends[:-1]), strict=True))
        return cls(bins=bins, counts=parts, noise=noise)

    def with_roundings(self, total: NDArray[np.int64], schema: TableSchema, *, noise: float) -> TableStatistics:
        """The same with what the nodes' counts by rounding add up to.

        Args:
            total: int64 [cells], the sum of what `count_roundings` returns, with noise.
            schema: The study's schema.
            noise: Standard deviation of the noise in each cell of the sum.

        Raises:
            ValueError: There are more cells than that, or fewer.
        """
        return replace(self, roundings=split_roundings(total, schema), rounding_noise=noise)

    def to_json(self) -> str:
        """The counts as JSON."""
        content = {
            "schema_version": 2,
            "bins": self.bins,
            "noise": self.noise,
            "counts": {name: cells.tolist() for name, cells in self.counts.items()},
            "roundings": {name: cells.tolist() for name, cells in self.roundings.items()},
            "rounding_noise": self.rounding_noise,
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> TableStatistics:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        content = json.loads(text)
        counts, roundings = (
            {name: np.array(cells, dtype=np.int64) for name, cells in part.items()}
            for part in (content["counts"], content.get("roundings", {}))
        )
        return cls(
            bins=int(content["bins"]),
            counts=counts,
            noise=float(content["noise"]),
            roundings=roundings,
            rounding_noise=float(content.get("rounding_noise", 0.0)),
        )

    def total(self, *, count: float, count_variance: float) -> float:
        """The best estimate of the number of records: the noisy count and every column's sum, by their precision.

        Args:
            count: The sum of the nodes' released noisy counts.
            count_variance: Its variance.

        Returns:
            An estimate of at least 1.
        """
        sums = [(float(cells.sum()), len(cells) * self.noise**2) for cells in self.counts.values()]
        pairs = [(count, count_variance), *sums]
        if any(variance <= 0 for _, variance in pairs):
            return max(1.0, next(value for value, variance in pairs if variance <= 0))
        weights = np.array([1 / variance for _, variance in pairs])
        return max(1.0, float(np.average([value for value, _ in pairs], weights=weights)))
