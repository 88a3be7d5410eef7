"""Writes generated tables: a stream of typed frames into one file, in constant memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from aevorium.errors import ConfigError
from aevorium.schema.frame import export_frame
from aevorium.schema.table import Categorical, Continuous, TableSchema
from aevorium.workspace import write_atomically

__all__ = ["SUFFIXES", "check_output_path", "write_table"]

SUFFIXES = (".csv", ".parquet")
"""Formats that can be written, by the file's name."""


def check_output_path(path: Path) -> None:
    """Raises ConfigError (CONFIG_INVALID) if a table cannot be written under that name; before the work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            "CONFIG_INVALID",
            f"A table cannot be written to {str(path)!r}. Its name ends with neither .csv nor .parquet.",
            hint="Choose one of the two.",
        )
    if path.is_dir():
        raise ConfigError(
            "CONFIG_INVALID", f"A table cannot be written to {str(path)!r}. It is a folder.", hint="Give a file's name."
        )


def write_table(frames: Iterable[pd.DataFrame], path: Path, schema: TableSchema) -> int:
    """Writes typed frames one after another.

    Args:
        frames: Typed frames with all columns of the schema; consumed one at a time.
        path: A name ending with one of `SUFFIXES`. The file appears when everything is written, or not at all.
        schema: The schema.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: CONFIG_INVALID for another name, WORKSPACE_UNWRITABLE if the file cannot be written.
    """
    check_output_path(path)
    open_writer = _csv_writer if path.suffix.lower() == ".csv" else _parquet_writer
    types = _arrow_schema(schema)
    rows = 0
    with write_atomically(path) as temporary, open_writer(temporary, schema) as writer:
        for frame in frames:
            exported = export_frame(frame[list(schema.columns)], schema)
            writer.write_table(pa.Table.from_pandas(exported, types, preserve_index=False))
            rows += len(frame)
    return rows


@contextmanager
def _csv_writer(path: Path, schema: TableSchema) -> Iterator[pyarrow.csv.CSVWriter]:
    texts = [
        text for column in schema.columns.values() if isinstance(column, Categorical) for text in column.categories
    ]
    # The writer quotes every text or none, so that it is told to quote only where a category needs it.
    style = "needed" if any(sign in text for text in texts for sign in ',"\r\n') else "none"
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style=style)
    with path.open("wb") as file:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(schema.columns)
        file.write(header.getvalue().encode("utf-8"))
        with pyarrow.csv.CSVWriter(file, _arrow_schema(schema), write_options=options) as writer:
            yield writer


@contextmanager
def _parquet_writer(path: Path, schema: TableSchema) -> Iterator[pyarrow.parquet.ParquetWriter]:
    with pyarrow.parquet.ParquetWriter(path, _arrow_schema(schema)) as writer:
        yield writer


def _arrow_schema(schema: TableSchema) -> pa.Schema:
    return pa.schema([(name, _arrow_type(column)) for name, column in schema.columns.items()])


def _arrow_type(column: Continuous | Categorical) -> pa.DataType:
    if isinstance(column, Categorical):
        return pa.string()
    return pa.int64() if column.integer else pa.float64()
