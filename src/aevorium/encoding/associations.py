"""Two-way tables: cell counts at a node, their noisy sum at the server.

`count_pairs` is the only function here that sees records. What it returns is exact and must pass a noise mechanism
and the gate before it leaves the node; everything else works on public designs and noisy counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import locate_cells
from aevorium.schema.table import TableSchema

__all__ = ["MOST_CELLS", "Associations", "TableDesign", "count_pairs"]

_MAX_CELLS_OF_COLUMN = 128
MOST_CELLS = 1_000_000
"""A node counts, noises and sends no more cells than that for one request."""


class TableDesign(BaseModel):
    """Which pairs of columns are counted, and in which cells. Public: it follows from released numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: dict[str, tuple[int, ...]] = Field(
        description="For each column the table's cell that each cell of its grid belongs to, 'missing' last."
    )
    pairs: tuple[tuple[str, str], ...] = Field(description="The pairs of columns, each in one table.")

    def cells_of(self, column: str) -> int:
        """Number of cells into which a column is cut."""
        return max(self.cells[column]) + 1

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each pair's table."""
        return tuple((self.cells_of(first), self.cells_of(second)) for first, second in self.pairs)

    @property
    def size(self) -> int:
        """Number of cells of all tables together."""
        return sum(rows * columns for rows, columns in self.shapes)

    def problem(self, schema: TableSchema, *, bins: int) -> str | None:
        """Why a node cannot count these tables; None if it can.

        Args:
            schema: The node's schema.
            bins: The study's number of bins.
        """
        grids = table_grids(schema, bins=bins)
        for name, cells in self.cells.items():
            if name not in grids or len(cells) != grids[name].cells:
                return f"its cells of {name!r} do not fit the grid"
            if set(cells) != set(range(max(cells) + 1)) or max(cells) >= _MAX_CELLS_OF_COLUMN:
                return f"its cells of {name!r} are not numbered from 0 without a gap, or too many"
        if any(first == second or not {first, second} <= self.cells.keys() for first, second in self.pairs):
            return "it pairs a column with itself, or one without cells"
        if len({frozenset(pair) for pair in self.pairs}) != len(self.pairs):
            return "it names a pair twice"
        return "its tables have too many cells" if self.size > MOST_CELLS else None


def count_pairs(frame: pd.DataFrame, schema: TableSchema, *, bins: int, design: TableDesign) -> NDArray[np.int64]:
    """Counts the records in each cell of each table. Reads patient records; the counts are exact.

    Args:
        frame: A typed frame with the measured columns.
        schema: Its schema.
        bins: The study's number of bins.
        design: The tables.

    Returns:
        int64 [cells], the tables one after another, each row by row. One record is in exactly one cell of each table.
    """
    grids = table_grids(schema, bins=bins)
    places = {
        name: np.asarray(cells, dtype=np.int64)[locate_cells(frame[name], grids[name])]
        for name, cells in design.cells.items()
    }
    parts = [
        np.bincount(places[first] * columns + places[second], minlength=rows * columns)
        for (first, second), (rows, columns) in zip(design.pairs, design.shapes, strict=True)
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Associations:
    """Noisy two-way tables of a whole federation. Safe to release.

    Attributes:
        design: What was counted.
        counts: One table a pair, int64 [cells of the first column, cells of the second].
        noise: Standard deviation of the noise in each cell.
    """

    design: TableDesign
    counts: tuple[NDArray[np.int64], ...]
    noise: float

    @classmethod
    def from_sum(cls, total: NDArray[np.int64], design: TableDesign, *, noise: float) -> Associations:
        """Takes the sum of the nodes' noisy vectors apart.

        Args:
            total: int64 [cells].
            design: What was counted.
            noise: Standard deviation of the noise in each cell of the sum.
        """
        ends = list(accumulate(rows * columns for rows, columns in design.shapes))
        parts = np.split(total, ends[:-1]) if ends else []
        tables = tuple(part.reshape(shape) for part, shape in zip(parts, design.shapes, strict=True))
        return cls(design=design, counts=tables, noise=noise)

    def to_dict(self) -> dict[str, object]:
        """The tables as plain values, for JSON."""
        return {
            "noise": self.noise,
            "design": self.design.model_dump(mode="json"),
            "counts": [table.tolist() for table in self.counts],
        }
