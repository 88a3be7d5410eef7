"""Evaluation tables: what a synthetic table is compared with after training.

One-way and two-way tables over the same coarse cells. `count_evaluation` sees records, real or generated; counts of
real ones are exact, and must pass a noise mechanism and the gate before they leave the node.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.encoding.associations import Associations, TableDesign, count_tables
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import locate_cells
from aevorium.schema.table import TableSchema

__all__ = ["EvaluationTables", "count_evaluation"]


def count_evaluation(frame: pd.DataFrame, schema: TableSchema, *, bins: int, design: TableDesign) -> NDArray[np.int64]:
    """Counts the records in each cell of each column, then of each pair. Reads patient records if they are real.

    Args:
        frame: A typed frame with the measured columns.
        schema: Its schema.
        bins: The study's number of bins.
        design: The pairs, and the cells of every measured column.

    Returns:
        int64 [cells]. One record is in exactly one cell of each table.
    """
    grids = table_grids(schema, bins=bins)
    parts = [
        np.bincount(np.asarray(cells)[locate_cells(frame[name], grids[name])], minlength=design.cells_of(name))
        for name, cells in design.cells.items()
    ]
    return np.concatenate([*parts, count_tables(frame, schema, bins=bins, design=design)]).astype(np.int64, copy=False)


@dataclass(frozen=True)
class EvaluationTables:
    """Noisy evaluation tables of a whole federation. Safe to release.

    Attributes:
        bins: The number of bins of the grids whose cells the design takes together.
        columns: One table a column, int64 [cells].
        pairs: The two-way tables, with the design of all and the standard deviation of the noise in each cell.
    """

    bins: int
    columns: Mapping[str, NDArray[np.int64]]
    pairs: Associations

    @classmethod
    def from_sum(cls, total: NDArray[np.int64], design: TableDesign, *, bins: int, noise: float) -> EvaluationTables:
        """Takes a vector of `count_evaluation`, or a sum of such, apart.

        Args:
            total: int64 [cells].
            design: What was counted.
            bins: The study's number of bins.
            noise: Standard deviation of the noise in each cell.
        """
        ends = np.cumsum([design.cells_of(name) for name in design.cells])
        *columns, rest = np.split(total, ends)
        pairs = Associations.from_sum(rest, design, noise=noise)
        return cls(bins=bins, columns=dict(zip(design.cells, columns, strict=True)), pairs=pairs)

    @staticmethod
    def size(design: TableDesign) -> int:
        """Length of the vector that `count_evaluation` returns."""
        return sum(design.cells_of(name) for name in design.cells) + design.size

    @property
    def noise(self) -> float:
        """Standard deviation of the noise in each cell."""
        return self.pairs.noise

    @property
    def total(self) -> float:
        """The number of records, from the sums of all tables by their precision; may be negative where noise rules."""
        return float(np.average([float(table.sum()) for table in self._tables], weights=self._precision))

    @property
    def total_noise(self) -> float:
        """Standard deviation of the noise in `total`."""
        return self.noise / math.sqrt(self._precision.sum())

    @property
    def _tables(self) -> tuple[NDArray[np.int64], ...]:
        return (*self.columns.values(), *self.pairs.counts)

    @property
    def _precision(self) -> NDArray[np.float64]:
        """One over the variance of each table's sum, in units of a cell's."""
        return np.array([1 / table.size for table in self._tables])

    def to_json(self) -> str:
        """The tables as JSON."""
        content = {
            "schema_version": 1,
            "bins": self.bins,
            "columns": {name: cells.tolist() for name, cells in self.columns.items()},
            "pairs": self.pairs.to_dict(),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> EvaluationTables:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        content = json.loads(text)
        return cls(
            bins=int(content["bins"]),
            columns={name: np.array(cells, dtype=np.int64) for name, cells in content["columns"].items()},
            pairs=Associations.from_dict(content["pairs"]),
        )
