"""The columns that are scored, and the streams of draws: one a score, so that adding a score changes no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from aevorium.errors import DataError

__all__ = ["seeded", "select_columns"]


def select_columns(table: pd.DataFrame, columns: Sequence[str], *, name: str) -> pd.DataFrame:
    """The columns in order, rows numbered from 0.

    Raises:
        DataError: DATA_COLUMN_MISSING or DATA_EMPTY, naming the table.
    """
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        listed = ", ".join(repr(column) for column in lacking)
        raise DataError("DATA_COLUMN_MISSING", f"The {name} table lacks columns of its schema. Not there: {listed}.")
    if table.empty:
        raise DataError("DATA_EMPTY", f"The {name} table cannot be scored. It has no rows.")
    return table[list(columns)].reset_index(drop=True)


def seeded(seed: int, stream: int) -> np.random.Generator:
    """An independent generator for each stream of a seed."""
    return np.random.default_rng([seed, stream])
