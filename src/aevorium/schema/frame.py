"""The typed frame: the one form in which a table travels between Aevorium's parts.

A typed frame is a pandas DataFrame with exactly the columns of a schema (or only the measured ones, for records), in
the schema's order. A continuous column is float64, whole numbers included; a categorical one has the schema's
categories as its dtype. NaN is a missing cell, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.errors import CATALOGUE, DataError
from aevorium.schema.cells import ConvertedColumn, convert_column
from aevorium.schema.expression import parse_expression, similar
from aevorium.schema.rules import derive
from aevorium.schema.table import Categorical, Continuous, TableSchema

__all__ = [
    "RECORDED_DIGITS",
    "SIGNIFICANT_DIGITS",
    "TableFindings",
    "Violations",
    "export_frame",
    "round_frame",
    "typed_frame",
    "violations",
]

SIGNIFICANT_DIGITS, RECORDED_DIGITS = 6, 10
"""Digits that a continuous value keeps in an exported table, and those of a value that is kept as it is."""


@dataclass(frozen=True)
class TableFindings:
    """What was noticed while a table was read. Exact counts of real records: for the node's own console only.

    Attributes:
        rows: Rows read.
        missing: Empty cells per column that has any.
        clipped: Values outside the bounds per column that has any, set to the nearest bound.
        rounded: Values that were not whole, per integer column that has any.
        other: Unknown categories per column that has any, turned into the column's `other`.
        constraints: Rows that violate it, per constraint that is violated; they are kept.
        ignored: Columns of the file that the schema does not name.
        ignored_derived: Columns of the file that the schema computes by a rule.
    """

    rows: int
    missing: Mapping[str, int] = field(default_factory=dict)
    clipped: Mapping[str, int] = field(default_factory=dict)
    rounded: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, int] = field(default_factory=dict)
    constraints: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    ignored_derived: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The findings as sentences for the node's own console."""
        told = [f"{_counted(self.rows, 'row')} read. These counts are exact: they stay on this machine."]
        for counts, noun, finding in (
            (self.missing, "cell", "empty"),
            (self.clipped, "value", "outside the bounds, set to the nearest bound"),
            (self.rounded, "value", "not whole, rounded"),
            (self.other, "cell", "of unknown category, counted as other"),
        ):
            told += [f"Column {name!r}: {_counted(count, noun)} {finding}." for name, count in counts.items()]
        told += [
            f"Constraint {check!r}: not met by {_counted(n, 'row')}, kept." for check, n in self.constraints.items()
        ]
        if self.ignored:
            told.append(f"Ignored, because the schema does not name them: {_listed(self.ignored)}.")
        if self.ignored_derived:
            told.append(f"Ignored, because the schema computes them: {_listed(self.ignored_derived)}.")
        return told


def typed_frame(
    raw: pd.DataFrame,
    schema: TableSchema,
    *,
    columns: Literal["measured", "all"] = "measured",
    header: Sequence[str] | None = None,
    source: str = "table",
) -> tuple[pd.DataFrame, TableFindings]:
    """Turns a table of text into a typed frame. Reads patient records.

    Only an empty cell is missing. Categories compare exactly as written. Numbers outside the bounds are clipped, and
    numbers of an integer column rounded; both are counted.

    Args:
        raw: Every cell as text.
        schema: The table's schema.
        columns: "measured" for records: the derived columns are left out, and the schema's `unit_id` must be there,
            filled and without duplicates. "all" for a generated table: every column and no `unit_id`.
        header: Names of all columns of the file, if `raw` holds only some of them.
        source: Name of the table in messages.

    Returns:
        The typed frame (without `unit_id`), and what was noticed.

    Raises:
        DataError: one message with every problem found, under the code of the first; no cell's content is in it.
    """
    names = [str(name) for name in (raw.columns if header is None else header)]
    wanted = schema.measured if columns == "measured" else dict(schema.columns)
    unit_id = schema.unit_id if columns == "measured" else None
    _raise_all(source, _missing_columns([*wanted, *([] if unit_id is None else [unit_id])], names))
    if raw.empty:
        raise DataError("DATA_EMPTY", f"The table {source!r} cannot be used. It has a header and no rows.")
    converted = {name: convert_column(raw[name], entry) for name, entry in wanted.items()}
    if all(column.missing == len(raw) for column in converted.values()):
        raise DataError("DATA_EMPTY", f"The table {source!r} cannot be used. Every cell of its columns is empty.")
    problems = _unit_problems(raw[unit_id]) if unit_id is not None else []
    problems += [problem for name, entry in wanted.items() for problem in _cell_problems(name, entry, converted[name])]
    _raise_all(source, problems)
    frame = pd.DataFrame({name: column.values for name, column in converted.items()})
    return frame, _findings(frame, schema, converted=converted, names=names, unit_id=unit_id)


def _findings(
    frame: pd.DataFrame,
    schema: TableSchema,
    *,
    converted: Mapping[str, ConvertedColumn],
    names: Sequence[str],
    unit_id: str | None,
) -> TableFindings:
    outside = [name for name in names if name not in converted and name != unit_id]
    complete = frame if len(converted) == len(schema.columns) else derive(frame, schema)
    return TableFindings(
        rows=len(frame),
        missing={name: column.missing for name, column in converted.items() if column.missing},
        clipped={name: column.clipped for name, column in converted.items() if column.clipped},
        rounded={name: column.rounded for name, column in converted.items() if column.rounded},
        other={name: column.other for name, column in converted.items() if column.other},
        constraints=_broken_constraints(complete, schema),
        ignored=tuple(name for name in outside if name not in schema.columns),
        ignored_derived=tuple(name for name in outside if name in schema.columns),
    )


@dataclass(frozen=True)
class _Problem:
    code: str
    text: str


def _raise_all(source: str, problems: Sequence[_Problem]) -> None:
    if not problems:
        return
    remedies = dict.fromkeys(CATALOGUE[problem.code].remedy for problem in problems)
    told = "; ".join(problem.text for problem in problems)
    raise DataError(problems[0].code, f"The table {source!r} cannot be used. {told}.", hint=" ".join(remedies))


def _missing_columns(wanted: Sequence[str], names: Sequence[str]) -> list[_Problem]:
    spare = [name for name in names if name not in wanted]
    return [
        _Problem("DATA_COLUMN_MISSING", f"Column {name!r} is missing{similar(name, spare)}")
        for name in wanted
        if name not in names
    ]


def _unit_problems(cells: pd.Series) -> list[_Problem]:
    empty = int(((cells == "") | cells.isna()).sum())
    duplicated = int(cells.duplicated().sum())
    if empty:
        return [
            _Problem(
                "DATA_MISSING_UNDECLARED",
                f"Column {cells.name!r} identifies units and is empty in {_counted(empty, 'cell')}",
            )
        ]
    if duplicated:
        text = f"Column {cells.name!r} identifies units and repeats an earlier one in {_counted(duplicated, 'row')}"
        return [_Problem("DATA_DUPLICATE_UNIT", text)]
    return []


def _cell_problems(name: str, entry: Continuous | Categorical, column: ConvertedColumn) -> list[_Problem]:
    problems = []
    if column.not_numeric:
        problems.append(
            _Problem("DATA_NOT_NUMERIC", f"Column {name!r} holds no number in {_counted(column.not_numeric, 'cell')}")
        )
    if column.unknown:
        text = f"Column {name!r} holds a category that is not listed in {_counted(column.unknown, 'cell')}"
        if column.nearly_known:
            text += f" ({column.nearly_known:,} would match but for letter case, spaces or a final '.0')"
        problems.append(_Problem("DATA_CATEGORY_UNKNOWN", text))
    if column.missing and not entry.missing:
        is_empty = column.missing == len(column.values)
        text = f"Column {name!r} is empty" + ("" if is_empty else f" in {_counted(column.missing, 'cell')}")
        problems.append(_Problem("DATA_MISSING_UNDECLARED", text))
    return problems


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def round_frame(frame: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Brings the numbers of a typed frame to the precision of a file.

    Do this to generated rows before constraints are enforced: what was checked is then exactly what is written.

    Args:
        frame: A typed frame.
        schema: Its schema.

    Returns:
        A typed frame: whole numbers where the schema says so, others with `SIGNIFICANT_DIGITS` digits, all within
        their bounds. A decimal of `RECORDED_DIGITS` or fewer is kept: it was made like those that people record.
        Rounding twice is the same as once.
    """
    result = frame.copy(deep=False)
    for name in frame.columns:
        column = schema.columns[name]
        if isinstance(column, Continuous):
            values = frame[name].round() if column.integer else _shortened(frame[name])
            result[name] = values.clip(column.min, column.max)
    return result


def export_frame(frame: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """A typed frame in the types and the precision that people expect in a file.

    Args:
        frame: A typed frame.
        schema: Its schema.

    Returns:
        The columns after `round_frame`: whole numbers as nullable Int64, other numbers as float64, categories as text.
    """
    exported = round_frame(frame, schema)
    for name in frame.columns:
        column = schema.columns[name]
        if isinstance(column, Categorical):
            exported[name] = frame[name].astype(object)
        elif column.integer:
            exported[name] = exported[name].astype("Int64")
    return exported


def _shortened(values: pd.Series) -> pd.Series:
    numbers = values.to_numpy(dtype=np.float64)
    recorded = _rounded(numbers, digits=RECORDED_DIGITS)
    short = np.where(recorded == numbers, recorded, _rounded(numbers, digits=SIGNIFICANT_DIGITS))
    return pd.Series(short, index=values.index)


def _rounded(numbers: NDArray[np.float64], *, digits: int) -> NDArray[np.float64]:
    """The doubles nearest to decimals of few digits, so that they print as those."""
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(np.abs(numbers)))
    places = np.where(np.isfinite(exponent), digits - 1 - exponent, 0)
    # Powers of ten are exact doubles up to 1e22; one division of exact numbers then rounds correctly.
    up, down = 10.0 ** np.clip(places, 0, 22), 10.0 ** np.clip(-places, 0, 22)
    # Adding zero turns -0 into 0.
    return np.asarray(np.rint(numbers * up / down) / up * down + 0.0)


@dataclass(frozen=True)
class Violations:
    """Rows of a typed frame that break its schema; each mapping holds only what is broken.

    Attributes:
        bounds: Values outside the bounds, or not finite, per column.
        whole: Values that are not whole, per integer column.
        categories: Values outside the categories, per column.
        missing: Missing cells per column that may not have any.
        derived: Values that differ from the column's rule, per derived column.
        constraints: Rows per constraint.
    """

    bounds: Mapping[str, int]
    whole: Mapping[str, int]
    categories: Mapping[str, int]
    missing: Mapping[str, int]
    derived: Mapping[str, int]
    constraints: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of them together; 0 for a frame that satisfies its schema."""
        kinds = (self.bounds, self.whole, self.categories, self.missing, self.derived, self.constraints)
        return sum(sum(counts.values()) for counts in kinds)


def violations(frame: pd.DataFrame, schema: TableSchema) -> Violations:
    """Counts what breaks the schema in a typed or exported frame.

    Args:
        frame: All columns of the schema.
        schema: The schema.

    Raises:
        DataError: DATA_COLUMN_MISSING, if a column is not there.
    """
    lacking = [name for name in schema.columns if name not in frame.columns]
    if lacking:
        raise DataError("DATA_COLUMN_MISSING", f"The table lacks columns of its schema. Not there: {_listed(lacking)}.")
    broken: dict[str, dict[str, int]] = {kind: {} for kind in ("bounds", "whole", "categories", "missing", "derived")}
    for name, column in schema.columns.items():
        present = frame[name].dropna()
        if not column.missing:
            broken["missing"][name] = len(frame) - len(present)
        if isinstance(column, Categorical):
            broken["categories"][name] = int((~present.isin(column.categories)).sum())
        else:
            numbers = present.to_numpy(dtype=np.float64)
            broken["bounds"][name] = int(((numbers < column.min) | (numbers > column.max)).sum())
            broken["whole"][name] = int((numbers != np.rint(numbers)).sum()) if column.integer else 0
    computed = derive(frame, schema)
    for name in schema.columns.keys() - schema.measured.keys():
        broken["derived"][name] = int(_differs(frame[name], computed[name]).sum())
    kept = {kind: {name: count for name, count in counts.items() if count} for kind, counts in broken.items()}
    return Violations(**kept, constraints=_broken_constraints(frame, schema))


def _differs(values: pd.Series, computed: pd.Series) -> NDArray[np.bool_]:
    """Where a derived value is not what the rule says, beyond the rounding of exported numbers."""
    if isinstance(computed.dtype, pd.CategoricalDtype):
        both_missing = values.isna() & computed.isna()
        return np.asarray((values.astype(object) != computed.astype(object)) & ~both_missing)
    numbers, rule = values.to_numpy(dtype=np.float64, na_value=np.nan), computed.to_numpy(dtype=np.float64)
    differs = ~np.isclose(numbers, rule, rtol=10.0 ** (1 - SIGNIFICANT_DIGITS), atol=0, equal_nan=True)
    return np.asarray(differs, dtype=np.bool_)


def _broken_constraints(frame: pd.DataFrame, schema: TableSchema) -> dict[str, int]:
    counts = {rule.check: int(parse_expression(rule.check).violated(frame).sum()) for rule in schema.constraints}
    return {check: count for check, count in counts.items() if count}
