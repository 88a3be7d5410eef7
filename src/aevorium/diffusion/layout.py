"""What an encoded table looks like: `Layout` its shape, `EncodedTable` its contents."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import pad

from aevorium.encoding.encoder import TableEncoder
from aevorium.schema.table import TableSchema

__all__ = ["EncodedTable", "Layout"]


class Layout(BaseModel):
    """The columns of an encoded table. A row becomes one vector: the continuous values, then every one-hot block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    continuous: int = Field(ge=0, description="Number of continuous columns, C.")
    categories: tuple[int, ...] = Field(description="Number of states of each categorical column, K entries.")
    missing_of: tuple[int | None, ...] = Field(
        description="For each continuous column the categorical whose state 1 says 'missing', or null."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(states < 1 for states in self.categories):
            raise ValueError("a categorical column needs at least one state")
        if len(self.missing_of) != self.continuous:
            raise ValueError(f"missing_of has {len(self.missing_of)} entries for {self.continuous} continuous columns")
        if any(flag is not None and not 0 <= flag < len(self.categories) for flag in self.missing_of):
            raise ValueError("missing_of names a categorical column that does not exist")
        if any(flag is not None and self.categories[flag] != 2 for flag in self.missing_of):
            raise ValueError("a missing flag has two states")
        if self.columns == 0:
            raise ValueError("a layout needs at least one column")
        return self

    @classmethod
    def for_table(cls, encoder: TableEncoder, schema: TableSchema) -> Layout:
        """The layout of what an encoder makes of a schema's tables."""
        missing_of = encoder.missing_of(schema)
        return cls(
            continuous=len(missing_of),
            categories=tuple(len(prior) for prior in encoder.priors(schema)),
            missing_of=missing_of,
        )

    @property
    def columns(self) -> int:
        """Number of columns, C + K."""
        return self.continuous + len(self.categories)

    @property
    def dimension(self) -> int:
        """Length D of a row's vector: C plus the number of all states."""
        return self.continuous + sum(self.categories)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Where each one-hot block lies within the one-hot part of the vector (after the C values)."""
        ends = list(accumulate(self.categories))
        return tuple(slice(end - states, end) for end, states in zip(ends, self.categories, strict=True))


@dataclass(frozen=True)
class EncodedTable:
    """Records in the model's own space. Holds patient records unless it was generated.

    Attributes:
        values: float32 [n, C], each column about N(0, 1); arbitrary where not observed.
        codes: int64 [n, K], the state of each categorical column.
        observed: bool [n, C], False where the value is missing.
    """

    values: Tensor
    codes: Tensor
    observed: Tensor

    @classmethod
    def from_arrays(
        cls, values: NDArray[np.float32], *, codes: NDArray[np.int64], observed: NDArray[np.bool_]
    ) -> EncodedTable:
        """Copies NumPy arrays of the shapes above."""
        return cls(
            values=torch.tensor(values, dtype=torch.float32),
            codes=torch.tensor(codes, dtype=torch.int64),
            observed=torch.tensor(observed, dtype=torch.bool),
        )

    def __len__(self) -> int:
        return self.values.shape[0]

    def select(self, index: Tensor) -> EncodedTable:
        """The rows that `index` (int64 [b]) names, in its order."""
        return EncodedTable(values=self.values[index], codes=self.codes[index], observed=self.observed[index])

    def filled_to(self, rows: int) -> EncodedTable:
        """The same rows, and after them so many of nothing observed that there are `rows` in all."""
        missing = rows - len(self)
        return EncodedTable(
            values=pad(self.values, (0, 0, 0, missing)),
            codes=pad(self.codes, (0, 0, 0, missing)),
            observed=pad(self.observed, (0, 0, 0, missing)),
        )

    def to(self, device: torch.device) -> EncodedTable:
        """The same table on another device."""
        return EncodedTable(
            values=self.values.to(device), codes=self.codes.to(device), observed=self.observed.to(device)
        )
