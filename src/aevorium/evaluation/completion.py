"""Tables without missing cells: filled, with what was missing in columns of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["FLAG_SUFFIX", "complete", "is_continuous"]

FLAG_SUFFIX = " (missing?)"
"""What is appended to a column's name for the column that flags its missing cells."""

_FLAG_STATES = ["no", "yes"]
_EMPTY_CATEGORY = "(missing)"


def is_continuous(values: pd.Series) -> bool:
    """Whether a column of a typed frame is continuous (otherwise it is categorical)."""
    return not isinstance(values.dtype, pd.CategoricalDtype)


def complete(reference: pd.DataFrame, *others: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """Fills the missing cells of tables that are to be compared, all in the same way.

    A continuous column gets the reference's median and, if any of the tables misses a cell, a flag column at the end.
    A categorical column gets a further category. The columns come out as: continuous, categorical, flags.
    Reads patient records if the tables are real.

    Args:
        reference: Typed frame whose medians are used.
        others: Typed frames with the same columns.

    Returns:
        The reference and the others, completed.
    """
    tables = (reference, *others)
    filled: list[dict[str, pd.Series]] = [{} for _ in tables]
    flags: list[dict[str, pd.Series]] = [{} for _ in tables]
    numbers = [name for name in reference.columns if is_continuous(reference[name])]
    rest = [name for name in reference.columns if name not in numbers]
    for name in numbers:
        fill = _median(reference[name])
        has_missing = any(table[name].isna().any() for table in tables)
        for index, table in enumerate(tables):
            filled[index][name] = table[name].fillna(fill)
            if has_missing:
                flag = _unused(f"{name}{FLAG_SUFFIX}", taken=reference.columns)
                flags[index][flag] = _flag(table[name])
    for name in rest:
        has_missing = any(table[name].isna().any() for table in tables)
        empty = _unused(_EMPTY_CATEGORY, taken=reference[name].cat.categories)
        for index, table in enumerate(tables):
            column = table[name]
            filled[index][name] = column.cat.add_categories(empty).fillna(empty) if has_missing else column
    return tuple(
        pd.DataFrame({**filled[index], **flags[index]}, index=table.index) for index, table in enumerate(tables)
    )


def _median(values: pd.Series) -> float:
    present = values.to_numpy(dtype=np.float64)
    present = present[~np.isnan(present)]
    return float(np.median(present)) if present.size else 0.0


def _flag(values: pd.Series) -> pd.Series:
    codes = values.isna().to_numpy().astype(np.int8)
    return pd.Series(pd.Categorical.from_codes(codes, categories=_FLAG_STATES), index=values.index)


def _unused(name: str, *, taken: pd.Index) -> str:
    while name in taken:
        name += "'"
    return name
