"""`NodeRecords`: the node's table, read once, and encoded once for all rounds of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from aevorium.data.table import PatientTable, read_table
from aevorium.diffusion.layout import EncodedTable
from aevorium.encoding.encoder import TableEncoder
from aevorium.schema.table import TableSchema

__all__ = ["NodeRecords"]


class NodeRecords:
    """Keeps patient records in memory. Nothing that it returns is safe to release.

    Args:
        path: The table, CSV or Parquet.
        schema: The schema in which it is held.
        notice: Takes what the node's own steward should know of the table.
        generator: Makes the generator of where a value lies within its bin.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: TableSchema,
        notice: Callable[[str], None],
        generator: Callable[[], torch.Generator],
    ) -> None:
        self._path = path
        self._schema = schema
        self._notice = notice
        self._generator = generator
        self._table: PatientTable | None = None
        self._encoded: tuple[TableEncoder, EncodedTable] | None = None

    def load(self) -> PatientTable:
        """The table. Reads patient records.

        Raises:
            DataError: It cannot be used.
        """
        if self._table is None:
            self._table = read_table(self._path, self._schema)
            for line in self._table.findings.lines():
                self._notice(line)
        return self._table

    def encode(self, encoder: TableEncoder) -> EncodedTable:
        """The encoded table. Reads patient records."""
        if self._encoded is None or self._encoded[0] != encoder:
            # Where a value lies within its bin says nothing that is kept.
            seed = int(torch.randint(2**62, (1,), generator=self._generator()))
            arrays = encoder.encode(self.load().frame, self._schema, generator=np.random.default_rng(seed))
            encoded = EncodedTable.from_arrays(arrays.values, codes=arrays.codes, observed=arrays.observed)
            self._encoded = encoder, encoded
        return self._encoded[1]
