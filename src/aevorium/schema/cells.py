"""From the text of cells to values, a column at a time. Reads patient records; what it counts is exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aevorium.schema.table import Categorical, Continuous

__all__ = ["ConvertedColumn", "convert_column"]

_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True, eq=False)
class ConvertedColumn:
    """A column of a typed frame and what happened on the way.

    Attributes:
        values: The column (rows).
        missing: Empty cells.
        not_numeric: Cells of a continuous column that hold something else than a finite number; NaN in `values`.
        unknown: Cells of a categorical column outside its categories; NaN in `values`.
        nearly_known: Those of `unknown` that differ from a category only in letter case, spaces or a final ".0".
        clipped: Values that lay outside the bounds.
        rounded: Values of an integer column that were not whole.
        other: Unknown categories that became `other`.
    """

    values: pd.Series
    missing: int
    not_numeric: int = 0
    unknown: int = 0
    nearly_known: int = 0
    clipped: int = 0
    rounded: int = 0
    other: int = 0


def convert_column(cells: pd.Series, column: Continuous | Categorical) -> ConvertedColumn:
    """Converts the cells of a column. Reads patient records.

    Args:
        cells: Text (rows); an empty text is a missing cell.
        column: The column's schema entry.

    Returns:
        The values in the form of a typed frame, with counts.
    """
    text = pa.array(cells, pa.large_string(), from_pandas=True)
    empty = pc.fill_null(pc.equal(text, ""), True)
    if isinstance(column, Continuous):
        return _convert_numbers(text, empty, column, index=cells.index)
    return _convert_categories(text, empty, column, index=cells.index)


def _convert_numbers(text: pa.Array, empty: pa.Array, column: Continuous, *, index: pd.Index) -> ConvertedColumn:
    numbers = _parse_numbers(pc.if_else(empty, None, pc.ascii_trim_whitespace(text)))
    is_empty = empty.to_numpy(zero_copy_only=False)
    # Infinity is written in words, or overflows: neither is a value that a patient can have.
    numbers[np.isinf(numbers)] = np.nan
    whole = np.rint(numbers) if column.integer else numbers
    values = np.clip(whole, column.min, column.max)
    is_number = ~np.isnan(numbers)
    return ConvertedColumn(
        values=pd.Series(values, index=index),
        missing=int(is_empty.sum()),
        not_numeric=int((~is_number & ~is_empty).sum()),
        clipped=int((is_number & ((numbers < column.min) | (numbers > column.max))).sum()),
        rounded=int((is_number & (whole != numbers)).sum()),
    )


def _parse_numbers(text: pa.Array) -> NDArray[np.float64]:
    """Numbers as float64, NaN for null and for what is no number."""
    try:
        numbers = pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        numbers = pc.cast(pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None), pa.float64())
    array: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return array.astype(np.float64)


def _convert_categories(text: pa.Array, empty: pa.Array, column: Categorical, *, index: pd.Index) -> ConvertedColumn:
    found = pc.index_in(text, value_set=pa.array(column.categories, pa.large_string()))
    codes = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).copy()
    is_empty = empty.to_numpy(zero_copy_only=False)
    is_unknown = (codes < 0) & ~is_empty
    unknown = int(is_unknown.sum())
    if column.other is not None:
        codes[is_unknown] = column.categories.index(column.other)
    dtype = pd.CategoricalDtype(list(column.categories))
    return ConvertedColumn(
        values=pd.Series(pd.Categorical.from_codes(codes, dtype=dtype), index=index),
        missing=int(is_empty.sum()),
        unknown=unknown if column.other is None else 0,
        nearly_known=_count_nearly_known(text, is_unknown, column) if unknown and column.other is None else 0,
        other=0 if column.other is None else unknown,
    )


def _count_nearly_known(text: pa.Array, is_unknown: NDArray[np.bool_], column: Categorical) -> int:
    unknown = _simplified(text.filter(pa.array(is_unknown)))
    known = _simplified(pa.array(column.categories, pa.large_string()))
    return int(pc.sum(pc.is_in(unknown, value_set=known)).as_py())


def _simplified(text: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(pc.utf8_lower(pc.utf8_trim_whitespace(text)), r"\.0+$", "")
