"""Tables of two columns, of three, or of one number by number: counts at a node, their noisy sum at the server.

`count_tables` is the only function here that sees records. What it returns is exact and must pass a noise mechanism
and the gate before it leaves the node; everything else works on public designs and noisy counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import locate_cells
from aevorium.encoding.values import Ranges, count_values, range_problem, size_of
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
    values: dict[str, Ranges] = Field(
        default={},
        exclude_if=lambda values: not values,
        description="Columns of whole numbers that are counted number by number, each in one table, and the ranges"
        " where they are.",
    )

    def cells_of(self, column: str) -> int:
        """Number of cells into which a column is cut."""
        return max(self.cells[column]) + 1

    @property
    def tables(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each table of several, in the order in which they are counted: the pairs, then the triples."""
        return (*self.pairs, *self.triples)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The cells of each of them: [rows, columns] of a pair, [cells of the third, rows, columns] of a triple."""
        return tuple(
            (*(max(self.thirds[third]) + 1 for third in table[2:]), *(self.cells_of(name) for name in table[:2]))
            for table in self.tables
        )

    @property
    def count(self) -> int:
        """Number of all tables: a record is in one cell of each."""
        return len(self.tables) + len(self.values)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of cells of each table: those of several columns, then those of values."""
        return (*(math.prod(shape) for shape in self.shapes), *(1 + size_of(part) for part in self.values.values()))

    @property
    def size(self) -> int:
        """Number of cells of all tables together."""
        return sum(self.sizes)

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
        for name, ranges in self.values.items():
            wrong = range_problem(schema.measured[name], ranges) if name in grids else "are of no column"
            if wrong is not None:
                return f"its values of {name!r} {wrong}"
        return "its tables have too many cells" if self.size > MOST_CELLS else None


def count_tables(frame: pd.DataFrame, schema: TableSchema, *, bins: int, design: TableDesign) -> NDArray[np.int64]:
    """Counts the records in each cell of each table. Reads patient records; the counts are exact.

    Args:
        frame: A typed frame with the measured columns.
        schema: Its schema.
        bins: The study's number of bins.
        design: The tables.

    Returns:
        int64 [cells], the tables one after another, each in C order, those of values last. One record is in exactly one
        cell of each table.
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
    parts += [count_values(frame[name], ranges) for name, ranges in design.values.items()]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Associations:
    """Noisy tables of selected columns, of a whole federation. Safe to release.

    Attributes:
        design: What was counted.
        counts: One int64 table for each pair and triple, of the design's shapes.
        noise: Standard deviation of the noise in each cell.
        values: The table of each column that was counted number by number, as `count_values` orders it.
    """

    design: TableDesign
    counts: tuple[NDArray[np.int64], ...]
    noise: float
    values: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def from_sum(cls, total: NDArray[np.int64], design: TableDesign, *, noise: float) -> Self:
        """Takes the sum of the nodes' noisy vectors apart.

        Args:
            total: int64 [cells].
            design: What was counted.
            noise: Standard deviation of the noise in each cell of the sum.
        """
        ends = list(accumulate(design.sizes))
        parts = np.split(total, ends[:-1]) if ends else []
        joint = len(design.shapes)
        tables = tuple(part.reshape(shape) for part, shape in zip(parts[:joint], design.shapes, strict=True))
        return cls(
            design=design, counts=tables, noise=noise, values=dict(zip(design.values, parts[joint:], strict=True))
        )

    def to_dict(self) -> dict[str, object]:
        """The tables as plain values, for JSON."""
        return {
            "noise": self.noise,
            "design": self.design.model_dump(mode="json"),
            "counts": [table.tolist() for table in self.counts],
            "values": {name: counts.tolist() for name, counts in self.values.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: It is something else.
        """
        return cls(
            design=TableDesign.model_validate(content["design"]),
            counts=tuple(np.array(table, dtype=np.int64) for table in content["counts"]),
            noise=float(content["noise"]),
            values={name: np.array(part, dtype=np.int64) for name, part in content.get("values", {}).items()},
        )
