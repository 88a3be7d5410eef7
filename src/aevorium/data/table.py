"""A table of records, read at the node or on the machine of the person who owns it."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from aevorium.errors import DataError
from aevorium.schema.frame import TableFindings, typed_frame
from aevorium.schema.table import TableSchema

if TYPE_CHECKING:
    from _csv import Reader

__all__ = ["SUFFIXES", "PatientTable", "read_table"]

SUFFIXES = (".csv", ".csv.gz", ".parquet")
"""Names of files that can be read, in any case of letters."""

_CHUNK = 1 << 20
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, eq=False)
class PatientTable:
    """The records of a node. It never leaves it.

    Attributes:
        frame: A typed frame.
        findings: What was noticed while reading: exact counts.
        unit_ids: Which unit each row belongs to, as text (rows); None if the schema declares no `unit_id`, the table
            was generated, or it lacks the column and that was allowed.
    """

    frame: pd.DataFrame
    findings: TableFindings
    unit_ids: pd.Series | None


def read_table(
    path: Path,
    schema: TableSchema,
    *,
    columns: Literal["measured", "all"] = "measured",
    unit_id: Literal["required", "optional"] = "required",
) -> PatientTable:
    """Reads a table. Reads patient records.

    Args:
        path: A file of one of `SUFFIXES`: CSV in UTF-8 with commas and a header (RFC 4180), or Parquet. The order of
            the columns is free; those outside the schema are not read.
        schema: What the table looks like.
        columns: "measured" for records: derived columns are not read, and the schema's `unit_id` must be there. "all"
            for a generated table: every column, and no `unit_id`.
        unit_id: "optional" reads a table without the schema's `unit_id` too; its `unit_ids` are None, and duplicates
            were not looked for. For a look at a table, never for the records of a node.

    Raises:
        DataError: if the file or its content cannot be used; the message names files, columns and counts, never the
            content of a cell.
    """
    source = str(path)
    wanted = list(schema.measured if columns == "measured" else schema.columns)
    unit_column = schema.unit_id if columns == "measured" else None
    if unit_column is not None:
        wanted.append(unit_column)
    with _file_errors(source):
        if path.is_dir():
            raise _unreadable(source, "It is a folder", hint="Give the file in it.")
        if path.name.lower().endswith(".parquet"):
            header, raw = _read_parquet(path, wanted)
        elif path.name.lower().endswith((".csv", ".csv.gz")):
            header, raw = _read_csv(path, wanted)
        else:
            raise _unreadable(source, f"Its name ends with none of {', '.join(SUFFIXES)}", hint="Convert it.")
    if unit_id == "optional" and unit_column is not None and unit_column not in header:
        return read_table(path, schema.model_copy(update={"unit_id": None}), columns=columns)
    frame, findings = typed_frame(raw, schema, columns=columns, header=header, source=source)
    return PatientTable(frame, findings, None if unit_column is None else raw[unit_column].astype(object))


def _unreadable(source: str, reason: str, *, hint: str | None = None) -> DataError:
    return DataError("DATA_UNREADABLE", f"The file {source!r} cannot be read. {reason}.", hint=hint)


@contextmanager
def _file_errors(source: str) -> Iterator[None]:
    """Turns what reading a file can raise into errors that quote nothing of its content."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("DATA_NOT_FOUND", f"No data file {source!r}.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _unreadable(source, "It is not a complete gzip file", hint="Compress or copy it again.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _unreadable(source, reason, hint="Check its permissions and that it is complete.") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, csv.Error):
        # The library's own message may quote a row.
        raise _unreadable(source, "Its structure is damaged") from None


def _open_bytes(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def _open_rows(path: Path) -> Iterator[Reader]:
    """The rows of a CSV file by Python's reader: slow, but it knows line numbers."""
    with _open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
        yield csv.reader(lines)


def _read_csv(path: Path, wanted: Sequence[str]) -> tuple[list[str], pd.DataFrame]:
    source = str(path)
    _check_bytes(path)
    with _open_rows(path) as rows:
        header = next((cells for cells in rows if cells), None)
        is_bare = not any(rows)
    if header is None:
        raise DataError("DATA_EMPTY", f"The file {source!r} is empty. A header and records are expected.")
    _check_header(source, header, wanted)
    if is_bare or not set(wanted) <= set(header):
        return header, pd.DataFrame(columns=header)
    ragged: list[int] = []

    def note_ragged(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(row.actual_columns)
        return "skip"

    with _open_bytes(path) as file:
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(block_size=16 * _CHUNK),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True,
                # An empty line is a missing cell if there is but one column.
                ignore_empty_lines=len(header) > 1,
                invalid_row_handler=note_ragged,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.large_string()),
                include_columns=list(wanted),
                strings_can_be_null=False,
            ),
        )
    if ragged:
        raise _ragged(path, width=len(header), count=len(ragged))
    return header, table.to_pandas()


def _check_bytes(path: Path) -> None:
    """Refuses what is not UTF-8 text, or has a quote that would swallow rows."""
    source, hint = str(path), "Save it as CSV in UTF-8."
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = quotes = 0
    with _open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            if offset == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise _unreadable(source, "It is UTF-16 text, and UTF-8 is expected", hint=hint)
            if b"\0" in chunk:
                reason = f"It holds a NUL byte at byte {offset + chunk.index(0):,}: it is no UTF-8 text"
                raise _unreadable(source, reason, hint=hint)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(source, at=offset - pending + error.start) from None
            quotes += chunk.count(b'"')
            offset += len(chunk)
    if decoder.getstate()[0]:
        raise _not_utf8(source, at=offset - len(decoder.getstate()[0]))
    if quotes % 2:
        raise _unreadable(source, "A quote is opened and not closed", hint="Write a quote inside a cell twice.")


def _not_utf8(source: str, *, at: int) -> DataError:
    reason = f"UTF-8 text is expected, and byte {at:,} is not: it may be Latin-1 or Windows-1252"
    return _unreadable(source, reason, hint="Save it as CSV in UTF-8.")


def _check_header(source: str, header: Sequence[str], wanted: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        # Of a file without a header the first record stands here: only names that the schema knows may be shown.
        known = [repr(name) for name in repeated if name in wanted]
        others = len(repeated) - len(known)
        parts = [*known, *([f"{others} that the schema does not name"] if others else [])]
        raise _unreadable(
            source,
            f"Its header names columns twice: {', '.join(parts)}",
            hint="Rename or remove one of them; a file without a header needs one.",
        )
    if len(header) == 1 and header[0] not in wanted:
        for delimiter, plural in _DELIMITERS.items():
            if delimiter in header[0]:
                raise _unreadable(
                    source, f"Its cells are separated by {plural}, and commas are expected", hint="Save it with commas."
                )


def _ragged(path: Path, *, width: int, count: int) -> DataError:
    """Finds the line of the first row that has another width than the header; the fast reader does not know it."""
    place = f"{count:,} rows have another number of cells than the header"
    with _open_rows(path) as rows:
        before = 0
        for cells in rows:
            if cells and len(cells) != width:
                more = "" if count == 1 else f" ({count:,} rows differ)"
                place = f"The row on line {before + 1:,} has {len(cells):,} cells{more}, where the header has {width:,}"
                break
            before = rows.line_num
    return _unreadable(str(path), place, hint="Put a cell that contains a comma in quotes.")


def _read_parquet(path: Path, wanted: Sequence[str]) -> tuple[list[str], pd.DataFrame]:
    source = str(path)
    header = [str(name) for name in pyarrow.parquet.read_schema(path).names]
    _check_header(source, header, wanted)
    if not set(wanted) <= set(header):
        return header, pd.DataFrame(columns=header)
    table = pyarrow.parquet.read_table(path, columns=list(wanted))
    texts = {}
    for name in wanted:
        try:
            texts[name] = _as_text(table.column(name))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            reason = f"Column {name!r} holds neither numbers nor text"
            raise _unreadable(source, reason, hint="Turn it into numbers or text.") from None
    return header, pa.table(texts).to_pandas()


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells of any simple type as text; null, and NaN among numbers, as an empty one."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.fill_null(pc.cast(column, pa.large_string()), "")
