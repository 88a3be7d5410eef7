"""The tables that an audit is held on: made-up records, with and without one more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aevorium.data.made_up import CANARIES, canary, draw_records, write_records
from aevorium.schema.table import TableSchema

__all__ = ["AuditTables", "make_tables"]


@dataclass(frozen=True)
class AuditTables:
    """Tables of records that nobody has.

    Attributes:
        nodes: One for each node, by name; the first is the one that a canary is added to.
        canaries: The first node's table with one canary more, by kind; the first is the one that is attacked.
        suspect: The canary that is attacked, alone.
        records: How many records the nodes hold together.
    """

    nodes: Mapping[str, Path]
    canaries: Mapping[str, Path]
    suspect: Path
    records: int


def make_tables(
    schema: TableSchema, folder: Path, *, nodes: Sequence[str], records: int, generator: np.random.Generator
) -> AuditTables:
    """Makes up a table for each node.

    Args:
        schema: The schema.
        folder: Where the tables go.
        nodes: Names of the nodes.
        records: Of all nodes together; each gets as many, or one more.
        generator: Source of the records.
    """
    first = nodes[0]
    sizes = [records // len(nodes) + (place < records % len(nodes)) for place in range(len(nodes))]
    drawn = {name: draw_records(schema, size, generator=generator) for name, size in zip(nodes, sizes, strict=True)}
    tables = {name: folder / f"{name}.csv" for name in nodes}
    for name, frame in drawn.items():
        write_records([frame], tables[name], schema=schema, name=name)
    found = {kind: canary(schema, kind, generator=generator) for kind in CANARIES}
    canaries = {kind: folder / f"{first}_and_{kind}.csv" for kind in found}
    for kind, frame in found.items():
        write_records([drawn[first], frame], canaries[kind], schema=schema, name=first)
    suspect = folder / "suspect.csv"
    write_records([found[CANARIES[0]]], suspect, schema=schema, name="suspect")
    return AuditTables(nodes=tables, canaries=canaries, suspect=suspect, records=records)
