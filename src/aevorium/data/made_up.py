"""Tables of records that nobody has: drawn from a schema alone, for trying out what must not be tried on patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aevorium.schema.table import Categorical, Continuous, TableSchema
from aevorium.workspace import write_atomically

__all__ = ["CANARIES", "canary", "draw_records", "write_records"]

CANARIES = ("high", "low", "empty", "drawn")
"""Records to look for: at all upper ends, at all lower ends, with all cells empty that may be, and one like others."""

_ABSENT = 0.1
"""Share of empty cells where they are allowed."""


def draw_records(schema: TableSchema, records: int, *, generator: np.random.Generator) -> pd.DataFrame:
    """Draws records with every column by itself, evenly between its bounds or over its categories.

    Args:
        schema: The schema.
        records: How many.
        generator: Source of randomness.

    Returns:
        The measured columns, empty cells None.
    """
    drawn = {}
    for name, column in schema.measured.items():
        if isinstance(column, Categorical):
            values = generator.choice(np.array(column.categories, dtype=object), records)
        else:
            values = _numbers(column, generator.uniform(column.min, column.max, records))
        empty = generator.random(records) < (_ABSENT if column.missing else 0.0)
        drawn[name] = np.where(empty, np.array(None, dtype=object), values)
    return pd.DataFrame(drawn)


def canary(schema: TableSchema, kind: str, *, generator: np.random.Generator) -> pd.DataFrame:
    """One record to look for.

    Args:
        schema: The schema.
        kind: One of `CANARIES`.
        generator: Source of randomness, for a drawn one.
    """
    if kind == "drawn":
        return draw_records(schema, 1, generator=generator)
    cells: dict[str, object] = {}
    for name, column in schema.measured.items():
        if kind == "empty" and column.missing:
            cells[name] = None
        elif isinstance(column, Categorical):
            cells[name] = column.categories[0 if kind == "low" else -1]
        else:
            cells[name] = _numbers(column, np.array([column.min if kind == "low" else column.max]))[0]
    return pd.DataFrame([cells], dtype=object)


def write_records(records: Sequence[pd.DataFrame], path: Path, *, schema: TableSchema, name: str) -> None:
    """Writes records as a node's table, CSV.

    Args:
        records: What `draw_records` and `canary` made; their order is kept.
        path: The file.
        schema: Their schema.
        name: Begins the ids of the records, if the schema has them.
    """
    table = pd.concat(list(records), ignore_index=True)
    if schema.unit_id is not None:
        table.insert(0, schema.unit_id, [f"{name}-{index}" for index in range(len(table))])
    with write_atomically(path) as temporary:
        table.to_csv(temporary, index=False)


def _numbers(column: Continuous, values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int64).astype(object) if column.integer else values.astype(object)
