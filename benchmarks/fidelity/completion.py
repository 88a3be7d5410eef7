"""Tables as scores see them: completed, and what is missing in them. Needs NumPy and pandas alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Completed", "Layout", "complete", "missing", "read"]

_EMPTY = "∅"


@dataclass(frozen=True)
class Layout:
    """What scores know of columns.

    Attributes:
        columns: Kind and categories of each measured column.
        target: The column that is predicted.
        target_categories: Its categories.
        no_predictors: Columns that say what the target is.
    """

    columns: dict[str, dict[str, Any]]
    target: str
    target_categories: list[str]
    no_predictors: list[str]


@dataclass(frozen=True)
class Completed:
    """A table without empty cells.

    Attributes:
        frame: The measured columns and a flag for each number that may be missing.
        target: The target of each row.
        numbers: Names of numeric columns.
        categories: For every other column its categories.
    """

    frame: pd.DataFrame
    target: pd.Series
    numbers: list[str]
    categories: dict[str, list[str]]

    def head(self, rows: int) -> Completed:
        """The first rows."""
        return Completed(self.frame.iloc[:rows], self.target.iloc[:rows], self.numbers, self.categories)


def read(path: Path, layout: Layout) -> pd.DataFrame:
    """A table with numbers as numbers and everything else as text; empty cells stay empty."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", np.nan)
    for name, column in layout.columns.items():
        if column["kind"] == "continuous":
            frame[name] = pd.to_numeric(frame[name])
    return frame


def complete(frame: pd.DataFrame, layout: Layout, *, medians: pd.Series) -> Completed:
    """Fills and flags empty cells."""
    filled, categories, numbers = {}, {}, []
    for name, column in layout.columns.items():
        if column["kind"] == "continuous":
            numbers.append(name)
            filled[name] = frame[name].fillna(medians[name])
        else:
            categories[name] = [*column["categories"], *([_EMPTY] if column["missing"] else [])]
            filled[name] = frame[name].fillna(_EMPTY)
    for name in numbers:
        if layout.columns[name]["missing"]:
            flag = f"{name} missing"
            categories[flag] = ["no", "yes"]
            filled[flag] = frame[name].isna().map({True: "yes", False: "no"})
    return Completed(pd.DataFrame(filled), frame[layout.target], numbers, categories)


def missing(train: pd.DataFrame, synthetic: pd.DataFrame, layout: Layout) -> dict[str, object]:
    """How far missing rates are off, in percentage points: by column, and by column within each target category."""
    columns = [name for name, column in layout.columns.items() if column["missing"]]
    if not columns:
        return {}
    by_column = {name: 100 * float(synthetic[name].isna().mean() - train[name].isna().mean()) for name in columns}
    shares = train[layout.target].value_counts(normalize=True)
    ours, theirs = (
        table[columns].isna().groupby(table[layout.target]).mean().reindex(shares.index) for table in (train, synthetic)
    )
    # A category that was never generated has no missing rate; its whole share then counts as off.
    off = 100 * (theirs - ours).abs().fillna(1.0)
    return {
        "missing_by_column": by_column,
        "missing_mean": float(np.mean(np.abs(list(by_column.values())))),
        "missing_most": float(np.max(np.abs(list(by_column.values())))),
        "missing_by_target": float(off.mul(shares, axis=0).sum().mean()),
    }
