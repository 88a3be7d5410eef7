"""A Synthea export on disk: its seven CSV tables, found, checked by name and read in batches."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from aevorium.errors import DataError

__all__ = ["TABLES", "SyntheaExport", "TableColumns", "open_export"]

TABLES = ("patients", "encounters", "conditions", "medications", "observations", "procedures", "allergies")
"""The tables of an export that are read, in the order in which findings list them."""

TableColumns = Mapping[str, tuple[str, ...]]
"""Columns to read from a table: our name for each, and the headers under which exports have written it."""

_BLOCK_BYTES = 1024 * 1024
"""Arrow reads ahead by 32 blocks: 40 MB in all."""
_ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip")


@dataclass(frozen=True)
class _TableFile:
    path: Path
    headers: Mapping[str, str]


@dataclass(frozen=True)
class SyntheaExport:
    """An export whose needed tables and columns are known to exist. Reads patient records.

    Attributes:
        directory: The folder that holds the CSV files.
    """

    directory: Path
    _files: Mapping[str, _TableFile]

    def batches(self, table: str) -> Iterator[pa.RecordBatch]:
        """Reads a table piece by piece: memory holds one piece at a time, whatever the file's size.

        Args:
            table: One of the tables that the export was opened with.

        Yields:
            Batches of text columns under our names; an empty cell is the empty string.

        Raises:
            DataError: DATA_UNREADABLE, if the file is damaged or not UTF-8 in a column that is read.
        """
        file = self._files[table]
        ragged: list[tuple[int, int]] = []

        def refuse(row: pa_csv.InvalidRow) -> str:
            ragged.append((row.actual_columns, row.expected_columns))
            return "error"

        wanted = list(file.headers.values())
        try:
            with pa.input_stream(str(file.path), compression="gzip" if file.path.suffix == ".gz" else None) as stream:
                reader = pa_csv.open_csv(
                    stream,
                    read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                    parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
                    convert_options=pa_csv.ConvertOptions(
                        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
                    ),
                )
                for batch in reader:
                    yield batch.rename_columns(list(file.headers))
        except (pa.ArrowException, OSError) as error:
            # Arrow's own message quotes the row: it must not be passed on.
            reason = "It is damaged, cut short, or not UTF-8 text"
            if ragged:
                reason = f"A row has {ragged[0][0]} fields where the header has {ragged[0][1]}"
            raise DataError(
                "DATA_UNREADABLE", f"Cannot read {file.path.name!r}. {reason}.", hint="Export the table again."
            ) from error


def open_export(directory: Path, *, columns: Mapping[str, TableColumns]) -> SyntheaExport:
    """Finds the tables of an export and checks that each has the columns asked for. Reads headers only.

    Args:
        directory: The folder with the CSV files, plain or gzipped, or its parent if the folder is called `csv`.
        columns: For each table, the columns to read.

    Raises:
        DataError: DATA_NOT_FOUND if there is no such folder, DATA_UNREADABLE if it is an archive or another file,
            SYNTHEA_INCOMPLETE naming every missing table and column at once.
    """
    folder = _find_folder(directory)
    files: dict[str, _TableFile] = {}
    problems: list[str] = []
    for table, wanted in columns.items():
        found = _find_table(folder, table, wanted)
        if isinstance(found, str):
            problems.append(found)
        else:
            files[table] = found
    if problems:
        raise DataError(
            "SYNTHEA_INCOMPLETE", f"The Synthea export {str(folder)!r} cannot be used. {'; '.join(problems)}."
        )
    return SyntheaExport(folder, files)


def _find_folder(directory: Path) -> Path:
    if directory.is_file():
        what, hint = "It is a file, not a folder", "Give the folder that holds patients.csv and the other tables."
        if directory.name.lower().endswith(_ARCHIVES):
            what, hint = "It is an archive", "Extract it, and give the folder that holds patients.csv."
        raise DataError("DATA_UNREADABLE", f"Cannot read the export {str(directory)!r}. {what}.", hint=hint)
    if not directory.is_dir():
        raise DataError("DATA_NOT_FOUND", f"No Synthea export in {str(directory)!r}. There is no such folder.")
    nested = directory / "csv"
    return nested if nested.is_dir() and not _candidates(directory, "patients") else directory


def _candidates(folder: Path, table: str) -> list[Path]:
    return [path for suffix in (".csv", ".csv.gz") if (path := folder / f"{table}{suffix}").is_file()]


def _find_table(folder: Path, table: str, wanted: TableColumns) -> _TableFile | str:
    """Returns the table's file, or what is wrong with it."""
    paths = _candidates(folder, table)
    if not paths:
        return f"{table}.csv is missing"
    if len(paths) > 1:
        return f"{table}.csv and {table}.csv.gz are both there: keep one"
    path = paths[0]
    header = _read_header(path)
    if header is None:
        return f"{path.name} is not UTF-8 text"
    if not header:
        return f"{path.name} is empty"
    if len(header) == 1 and any(sign in header[0] for sign in ";\t|"):
        return f"{path.name} is not separated by commas"
    # Databases that re-export a table like to change the case of its header.
    by_name = {name.strip().casefold(): name for name in header}
    headers: dict[str, str] = {}
    missing: list[str] = []
    for name, spellings in wanted.items():
        match = next((by_name[s.casefold()] for s in spellings if s.casefold() in by_name), None)
        if match is None:
            missing.append(" or ".join(spellings))
        else:
            headers[name] = match
    if missing:
        return f"{path.name} lacks {'the column' if len(missing) == 1 else 'the columns'} {', '.join(missing)}"
    return _TableFile(path, headers)


def _read_header(path: Path) -> list[str] | None:
    """The header's cells without a byte-order mark; empty for an empty file, None if it is not text."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw:
            line = raw.readline().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("DATA_UNREADABLE", f"Cannot read {path.name!r}. It is damaged or cannot be opened.") from error
    return next(csv.reader(io.StringIO(line)), []) if "\0" not in line else None
