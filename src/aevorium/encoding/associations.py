"""Two-way and three-way tables: cell counts at a node, their noisy sum at the server.

`count_tables` is the only function here that sees records. What it returns is exact and must pass a noise mechanism
and the gate before it leaves the node; everything else works on public designs and noisy counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import locate_cells
from aevorium.schema.table import TableSchema

__all__ = ["MOST_CELLS", "Associations", "TableDesign", "count_tables"]

_MAX_CELLS_OF_COLUMN = 128
MOST_CELLS = 1_000_000
"""A node counts, noises and sends no more cells than that for one request."""


class TableDesign(BaseModel):
    """Which columns are counted together, and in which cells. Public: it follows from released numbers.

    A triple's table is one of its first two columns for each cell of the third, which may be cut in a way of its own:
    few cells, so that each holds enough.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: dict[str, tuple[int, ...]] = Field(
        description="For each column the table's cell that each cell of its grid belongs to, 'missing' last."
    )
    pairs: tuple[tuple[str, str], ...] = Field(description="The pairs of columns, each in one table.")
    triples: tuple[tuple[str, str, str], ...] = Field(
        default=(), description="The triples of columns, each in one table: a pair, and what it is counted apart by."
    )
    thirds: dict[str, tuple[int, ...]] = Field(
        default={}, description="For each third column of a triple its cells there, as `cells` has them."
    )

    def cells_of(self, column: str) -> int:
        """Number of cells into which a column is cut."""
        return max(self.cells[column]) + 1

    @property
    def tables(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each table in the order in which they are counted: the pairs, then the triples."""
        return (*self.pairs, *self.triples)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The cells of each table: [rows, columns] of a pair, [cells of the third, rows, columns] of a triple."""
        return tuple(
            (*(max(self.thirds[third]) + 1 for third in table[2:]), *(self.cells_of(name) for name in table[:2]))
            for table in self.tables
        )

    @property
    def size(self) -> int:
        """Number of cells of all tables together."""
        return sum(math.prod(shape) for shape in self.shapes)

    def problem(self, schema: TableSchema, *, bins: int) -> str | None:
        """Why a node cannot count these tables; None if it can.

        Args:
            schema: The node's schema.
            bins: The study's number of bins.
        """
        grids = table_grids(schema, bins=bins)
        for name, cells in (*self.cells.items(), *self.thirds.items()):
            if name not in grids or len(cells) != grids[name].cells:
                return f"its cells of {name!r} do not fit the grid"
            if set(cells) != set(range(max(cells) + 1)) or max(cells) >= _MAX_CELLS_OF_COLUMN:
                return f"its cells of {name!r} are not numbered from 0 without a gap, or too many"
        for table in self.tables:
            has_cells = {*table[:2]} <= self.cells.keys() and {*table[2:]} <= self.thirds.keys()
            if not has_cells or len(set(table)) < len(table):
                return "it pairs a column with itself, or one without cells"
        if len({frozenset(table) for table in self.tables}) != len(self.tables):
            return "it names a table twice"
        return "its tables have too many cells" if self.size > MOST_CELLS else None


def count_tables(frame: pd.DataFrame, schema: TableSchema, *, bins: int, design: TableDesign) -> NDArray[np.int64]:
    """Counts the records in each cell of each table. Reads patient records; the counts are exact.

    Args:
        frame: A typed frame with the measured columns.
        schema: Its schema.
        bins: The study's number of bins.
        design: The tables.

    Returns:
        int64 [cells], the tables one after another, each in C order. One record is in exactly one cell of each table.
    """
    grids = table_grids(schema, bins=bins)
    places, thirds = (
        {name: np.asarray(cells, dtype=np.int64)[locate_cells(frame[name], grids[name])] for name, cells in cut.items()}
        for cut in (design.cells, design.thirds)
    )
    parts = []
    for (first, second, *third), shape in zip(design.tables, design.shapes, strict=True):
        index = (*(thirds[name] for name in third), places[first], places[second])
        parts.append(np.bincount(np.ravel_multi_index(index, shape), minlength=math.prod(shape)))
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Associations:
    """Noisy tables of pairs and triples, of a whole federation. Safe to release.

    Attributes:
        design: What was counted.
        counts: One int64 table each, of the design's shapes.
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
        ends = list(accumulate(math.prod(shape) for shape in design.shapes))
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
