"""`NodeRecords`: the node's table, and which of its records a run uses for what. None of it leaves the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from aevorium.data.table import PatientTable, read_table
from aevorium.diffusion.layout import EncodedTable
from aevorium.encoding.encoder import TableEncoder
from aevorium.errors import InternalError
from aevorium.node.holdout import HoldoutKey
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema

__all__ = ["NodeRecords"]


class NodeRecords:
    """Reads the table once, and keeps the last division and the last encoding of it.

    Args:
        path: The table, CSV or Parquet.
        schema: Its schema.
        home: The node's home, where the key of its holdouts lies.
        generator: Makes generators of randomness.
        notice: Tells the node's own steward what was found in the table.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: TableSchema,
        home: Path,
        generator: Callable[[], torch.Generator],
        notice: Callable[[str], None],
    ) -> None:
        self._path = path
        self._schema = schema
        self._home = home
        self._generator = generator
        self._notice = notice
        self._table: PatientTable | None = None
        self._divided: tuple[float, pd.DataFrame, pd.DataFrame] | None = None
        self._encoded: tuple[pd.DataFrame, TableEncoder, EncodedTable] | None = None

    def load(self) -> PatientTable:
        """The whole table. Reads patient records.

        Raises:
            DataError: It cannot be used.
        """
        if self._table is None:
            self._table = read_table(self._path, self._schema)
            for line in self._table.findings.lines():
                self._notice(line)
        return self._table

    def training(self, plan: StudyPlan) -> pd.DataFrame:
        """The records of every phase but the evaluation. Reads patient records.

        Raises:
            DataError: The table cannot be used.
            ArtefactError: KEY_INVALID.
        """
        return self._divide(plan)[0]

    def evaluation(self, plan: StudyPlan) -> pd.DataFrame:
        """The records of the evaluation: the holdout, or all where none is held out. Reads patient records.

        Raises:
            DataError: The table cannot be used.
            ArtefactError: KEY_INVALID.
        """
        return self._divide(plan)[1]

    def encode(self, records: pd.DataFrame, encoder: TableEncoder) -> EncodedTable:
        """Some of the records as the model takes them. Reads patient records.

        Args:
            records: What `training` returned.
            encoder: The shared encoder.
        """
        if self._encoded is None or self._encoded[0] is not records or self._encoded[1] != encoder:
            # Where a value lies within its bin says nothing that is kept.
            seed = int(torch.randint(2**62, (1,), generator=self._generator()))
            arrays = encoder.encode(records, self._schema, generator=np.random.default_rng(seed))
            encoded = EncodedTable.from_arrays(arrays.values, codes=arrays.codes, observed=arrays.observed)
            self._encoded = (records, encoder, encoded)
        return self._encoded[2]

    def _divide(self, plan: StudyPlan) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The records that the plan trains on, and those that it evaluates with."""
        table = self.load()
        if not plan.has_holdout:
            return table.frame, table.frame
        if table.unit_ids is None:
            raise InternalError("A plan holds patients out, and the table does not tell them apart.")
        share = plan.evaluation_share
        if self._divided is None or self._divided[0] != share:
            held = HoldoutKey.load_or_create(self._home).holds_out(table.unit_ids, share=share)
            parts = [table.frame[mask].reset_index(drop=True) for mask in (~held, held)]
            self._divided = (share, parts[0], parts[1])
        return self._divided[1:]
