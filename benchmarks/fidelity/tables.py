"""The public tables: how each is read, split into nodes and held-out rows, and brought into its schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aevorium.schema.frame import export_frame, typed_frame
from aevorium.schema.rules import derive
from aevorium.schema.table import TableSchema, load_schema

__all__ = ["SPLIT_SEED", "PreparedTable", "load_table_schema", "prepare", "write_scored"]

SPLIT_SEED = 0
"""Of every split and partition: all seeds of all methods see the same rows."""

_HERE = Path(__file__).parent
_EXAMPLES = _HERE.parent.parent / "examples"
_HELD_OUT = 0.2
_NODES = 5


@dataclass(frozen=True)
class _Raw:
    """A table as it comes.

    Attributes:
        train: Rows to learn from, all cells as text.
        holdout: Rows to compare with.
        node: Which node holds each row of `train`.
    """

    train: pd.DataFrame
    holdout: pd.DataFrame
    node: pd.Series


@dataclass(frozen=True)
class _Source:
    schema: str
    read: Callable[[Path], _Raw]


@dataclass(frozen=True)
class PreparedTable:
    """A table ready for every method.

    Attributes:
        name: Its name.
        schema_source: What `aevorium run --schema` takes.
        schema: The schema.
        nodes: The CSV of each node, by name.
        pooled: The CSV of all nodes' rows.
        train: The measured columns of all nodes' rows within the schema: what peers learn from.
        scored_train: The same with the target: what scores know of the training rows.
        scored_holdout: The held-out rows.
        layout: JSON that tells peers and scores of columns, bounds and target.
        rows: Number of training rows.
    """

    name: str
    schema_source: str
    schema: TableSchema
    nodes: dict[str, Path]
    pooled: Path
    train: Path
    scored_train: Path
    scored_holdout: Path
    layout: Path
    rows: int


def load_table_schema(table: str) -> TableSchema:
    """The public schema of a table."""
    return load_schema(_SOURCES[table].schema)


def prepare(table: str, *, data: Path, folder: Path) -> PreparedTable:
    """Reads a table, splits it, and writes what methods and scores need.

    Args:
        table: Its name.
        data: The folder that holds `tables/`.
        folder: Where the files go.
    """
    source = _SOURCES[table]
    schema, raw = load_schema(source.schema), source.read(data / "tables")
    folder.mkdir(parents=True, exist_ok=True)
    nodes = {}
    for name, rows in raw.train.groupby(raw.node, sort=True):
        nodes[str(name)] = folder / f"node_{name}.csv"
        rows.to_csv(nodes[str(name)], index=False)
    raw.train.to_csv(folder / "pooled.csv", index=False)
    typed, _ = typed_frame(raw.train, schema, source=table)
    export_frame(typed, schema).to_csv(folder / "train.csv", index=False)
    write_scored(raw.train, schema, path=folder / "scored_train.csv")
    write_scored(raw.holdout, schema, path=folder / "scored_holdout.csv")
    (folder / "layout.json").write_text(json.dumps(_layout(schema), indent=1) + "\n", encoding="utf-8")
    return PreparedTable(
        name=table,
        schema_source=source.schema,
        schema=schema,
        nodes=nodes,
        pooled=folder / "pooled.csv",
        train=folder / "train.csv",
        scored_train=folder / "scored_train.csv",
        scored_holdout=folder / "scored_holdout.csv",
        layout=folder / "layout.json",
        rows=len(raw.train),
    )


def write_scored(rows: pd.DataFrame, schema: TableSchema, *, path: Path) -> None:
    """Writes rows as they are scored: within the schema, the measured columns and the target, which may be derived.

    Real and generated rows of every method go this way.

    Args:
        rows: Every cell as text, at least the measured columns.
        schema: The schema.
        path: The file.
    """
    if schema.unit_id is not None and schema.unit_id not in rows:
        rows = rows.assign(**{schema.unit_id: np.arange(len(rows)).astype(str)})
    typed, _ = typed_frame(rows, schema)
    columns = list(schema.measured)
    if schema.target is not None and schema.target not in columns:
        columns.append(schema.target)
    export_frame(derive(typed, schema)[columns], schema).to_csv(path, index=False)


def _layout(schema: TableSchema) -> dict[str, object]:
    """Columns, target, and the columns that say what the target is and so must not predict it."""
    target = None if schema.target is None else schema.columns[schema.target]
    rule = None if target is None or target.derived is None else schema.rules[target.derived]
    return {
        "columns": {name: column.model_dump(mode="json") for name, column in schema.measured.items()},
        "target": schema.target,
        "target_categories": getattr(target, "categories", None),
        "no_predictors": sorted(rule.columns) if rule is not None else [],
    }


def _text(path: Path, *, separator: str = ",") -> pd.DataFrame:
    frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    return frame.apply(lambda column: column.str.strip())


def _split(frame: pd.DataFrame, *, node: Callable[[pd.DataFrame], pd.Series]) -> _Raw:
    """Holds a fifth of the rows out; both parts in random order, so that their first rows are like any."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(frame))
    cut = round(_HELD_OUT * len(frame))
    train = frame.iloc[order[cut:]].reset_index(drop=True)
    return _Raw(train=train, holdout=frame.iloc[order[:cut]].reset_index(drop=True), node=node(train))


def _dealt(frame: pd.DataFrame) -> pd.Series:
    """Nodes of a table that has none: each row at one of five, at random."""
    drawn = np.random.default_rng(SPLIT_SEED).integers(_NODES, size=len(frame))
    return pd.Series([f"node{number + 1}" for number in drawn], index=frame.index)


def _read_synthea(tables: Path) -> _Raw:
    frame = _text(tables / "synthea.csv")
    # The seventh, from another state and version, is a shift and no part of this federation.
    frame = frame[frame["Hospital"].str.match(r"H[1-6]_")].reset_index(drop=True)
    frame.insert(0, "PatientId", [f"p{number}" for number in range(len(frame))])
    return _split(frame, node=lambda train: train["Hospital"].str.lower())


def _read_adult(tables: Path) -> _Raw:
    train, test = _text(tables / "adult" / "train.csv.gz"), _text(tables / "adult" / "test.csv.gz")
    return _Raw(train=train, holdout=test, node=_dealt(train))


def _read_heart_disease(tables: Path) -> _Raw:
    frame = _text(tables / "heart_disease" / "heart_disease_4hospitals.csv")
    return _split(frame, node=lambda train: train["hospital"])


def _read_cardio(tables: Path) -> _Raw:
    return _split(_text(tables / "cardio" / "cardio_train.csv.gz", separator=";"), node=_dealt)


_SOURCES = {
    "synthea": _Source("synthea", _read_synthea),
    "adult": _Source(str(_EXAMPLES / "adult.toml"), _read_adult),
    "heart_disease": _Source(str(_EXAMPLES / "heart_disease.toml"), _read_heart_disease),
    "cardio": _Source(str(_HERE / "schemas" / "cardio.toml"), _read_cardio),
}
