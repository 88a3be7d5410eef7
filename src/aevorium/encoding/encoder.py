"""`TableEncoder`: records to model space and back, fitted to noisy statistics only.

A continuous value x becomes z = Φ⁻¹(u), with u = F(x) for the denoised distribution F. A bin that holds a spike (a
point, a whole number) covers an interval of u, in which u is drawn uniformly, so z is close to N(0, 1) whatever the
column looks like; the way back is exact for points, whole numbers, multiples of the column's step, and numbers inside a
bin that many records share (`spikes`). A missing value is a state of its own: a two-state column says so, and z is
noise. A categorical column becomes the number of its state; missing is one more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import ndtr, ndtri

from aevorium.encoding.associations import Associations
from aevorium.encoding.columns import ColumnCode, fit_column
from aevorium.encoding.grid import ColumnGrid, column_grid
from aevorium.encoding.rounding import find_rounding
from aevorium.encoding.spikes import MOST_IN_BIN, MOST_SHARE, cut_at_spikes, spike_problem
from aevorium.encoding.statistics import TableStatistics
from aevorium.encoding.steps import Step, is_step_of
from aevorium.encoding.values import frequent_values
from aevorium.errors import ArtefactError
from aevorium.schema.frame import SIGNIFICANT_DIGITS
from aevorium.schema.table import Categorical, TableSchema

__all__ = ["EncodedArrays", "TableEncoder"]

_EDGE = 1e-5
"""u is kept this far from 0 and 1, so z stays within ±4.3."""

_BEYOND = 1e-6
"""Further out than this u lies next to no generated row: z beyond ±4.75."""

_NOTHING = 4.0
"""Standard deviations of noise within which a bin holds no other number than the one that was found in it, and a table
all records."""


class EncodedArrays(NamedTuple):
    """An encoded table. Holds patient records unless it was generated.

    Attributes:
        values: float32 [n, C].
        codes: int64 [n, K].
        observed: bool [n, C], False where the value is missing.
    """

    values: NDArray[np.float32]
    codes: NDArray[np.int64]
    observed: NDArray[np.bool_]


class TableEncoder(BaseModel):
    """The encoding of a whole table. Safe to release: it is post-processing of released counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(
        default=3, ge=1, le=3, description="Version of this file's format; 1 has no spikes, 2 no steps."
    )
    schema_hash: str = Field(description="Content hash of the table's schema.")
    bins: int = Field(ge=1, description="The number of bins that the grids were made with.")
    columns: dict[str, ColumnCode] = Field(description="The measured columns, in schema order.")

    @classmethod
    def fit(cls, statistics: TableStatistics, schema: TableSchema, *, total: float) -> TableEncoder:
        """Fits the encoder to noisy counts.

        Args:
            statistics: Merged noisy counts.
            schema: The study's schema.
            total: The estimated number of records.
        """
        columns = {}
        for name, column in schema.measured.items():
            grid = column_grid(column, bins=statistics.bins)
            rounding = None
            if name in statistics.roundings and not isinstance(column, Categorical):
                counts, noise = statistics.roundings[name], statistics.rounding_noise
                rounding = find_rounding(counts, column, noise=noise, total=total)
            columns[name] = fit_column(
                grid, statistics.counts[name], noise=statistics.noise, total=total, rounding=rounding
            )
        return cls(schema_hash=schema.content_hash, bins=statistics.bins, columns=columns)

    @classmethod
    def from_json(cls, text: str, schema: TableSchema) -> TableEncoder:
        """Reads what `to_json` wrote.

        Raises:
            ArtefactError: CHECKPOINT_DAMAGED, CHECKPOINT_SCHEMA_MISMATCH or CHECKPOINT_OUTDATED.
        """
        try:
            encoder = cls.model_validate_json(text)
        except ValidationError as error:
            raise ArtefactError(
                "CHECKPOINT_DAMAGED", "The encoder cannot be read. It is not what a run writes."
            ) from error
        if encoder.schema_hash != schema.content_hash or list(encoder.columns) != list(schema.measured):
            raise ArtefactError(
                "CHECKPOINT_SCHEMA_MISMATCH",
                f"The encoder belongs to another schema than {schema.name!r}. Their content hashes differ.",
            )
        problem = encoder.problem(schema, bins=encoder.bins)
        if problem is not None:
            raise ArtefactError(
                "CHECKPOINT_OUTDATED", f"The encoder does not fit the columns as this version cuts them: {problem}."
            )
        return encoder

    def problem(self, schema: TableSchema, *, bins: int) -> str | None:
        """Why a node must not encode its records with this encoder; None if it can, whatever they are.

        An encoder that lacked a state would fail for some records and not for others, which would tell of them.

        Args:
            schema: The node's schema.
            bins: The study's number of bins.
        """
        if self.schema_hash != schema.content_hash or list(self.columns) != list(schema.measured):
            return "it is for another schema"
        if self.bins != bins:
            return "it has another number of bins"
        for name, column in schema.measured.items():
            code, grid = self.columns[name], column_grid(column, bins=bins)
            shares = np.array(code.shares)
            if len(shares) != grid.states:
                return f"its shares of {name!r} are not one for each state"
            if not np.isfinite(shares).all() or (shares < 0).any() or not 0.999 < shares.sum() < 1.001:
                return f"its shares of {name!r} are no distribution"
            wrong = spike_problem(code.spikes, grid)
            if wrong is not None:
                return f"its spikes of {name!r} {wrong}"
            if code.step is not None and (isinstance(column, Categorical) or not is_step_of(code.step, column)):
                return f"its step of {name!r} is none of the column's"
            if (code.missing is None) == column.missing or not 0 <= (code.missing or 0.0) <= 1:
                return f"its share of missing values of {name!r} does not fit the schema"
        return None

    def to_json(self) -> str:
        """The encoder as JSON."""
        return self.model_dump_json(indent=1)

    def priors(self, schema: TableSchema) -> list[NDArray[np.float64]]:
        """For each of the K state columns its states' probabilities, in the order of `EncodedArrays.codes`."""
        found = []
        for name, column in schema.measured.items():
            code = self.columns[name]
            if isinstance(column, Categorical):
                found.append(self.grid_shares(name))
            elif code.missing is not None:
                found.append(np.array([1.0 - code.missing, code.missing]))
        return found

    def missing_of(self, schema: TableSchema) -> tuple[int | None, ...]:
        """For each of the C continuous columns the state column that flags its missing values, or None."""
        flags: list[int | None] = []
        state = 0
        for column in schema.measured.values():
            if isinstance(column, Categorical):
                state += 1
                continue
            flags.append(state if column.missing else None)
            state += int(column.missing)
        return tuple(flags)

    def encode(self, frame: pd.DataFrame, schema: TableSchema, *, generator: np.random.Generator) -> EncodedArrays:
        """Encodes a typed frame. Reads patient records when the frame holds any.

        Args:
            frame: Typed frame with the measured columns.
            schema: Its schema.
            generator: Draws the places within bins, and the noise at missing values.
        """
        values, codes, observed = [], [], []
        for name, column in schema.measured.items():
            absent = frame[name].isna().to_numpy()
            if isinstance(column, Categorical):
                state = frame[name].cat.codes.to_numpy().astype(np.int64)
                state[absent] = len(column.categories)
                codes.append(state)
                continue
            z = generator.standard_normal(len(frame))
            grid = column_grid(column, bins=self.bins)
            present = frame[name].to_numpy(dtype=np.float64)[~absent]
            z[~absent] = self._to_normal(present, name, grid, generator=generator)
            values.append(z)
            observed.append(~absent)
            if column.missing:
                codes.append(absent.astype(np.int64))
        return _stack(values, codes, observed, rows=len(frame))

    def decode(self, values: NDArray[np.floating], codes: NDArray[np.int64], schema: TableSchema) -> pd.DataFrame:
        """Turns model space back into a typed frame of the measured columns.

        Args:
            values: [n, C].
            codes: [n, K].
            schema: The table's schema.
        """
        decoded: dict[str, pd.Series | pd.Categorical] = {}
        place = state = 0
        for name, column in schema.measured.items():
            if isinstance(column, Categorical):
                index = codes[:, state].copy()
                index[index == len(column.categories)] = -1
                decoded[name] = pd.Categorical.from_codes(index, categories=list(column.categories))
                state += 1
                continue
            cell = self._from_normal(values[:, place], name, column_grid(column, bins=self.bins))
            cell = np.clip(cell, column.min, column.max)
            if column.missing:
                cell[codes[:, state] == 1] = np.nan
                state += 1
            decoded[name] = pd.Series(cell)
            place += 1
        return pd.DataFrame(decoded)

    def grid_shares(self, name: str) -> NDArray[np.float64]:
        """Share of all records in each cell of a column's grid, the missing one last; sums to 1."""
        code = self.columns[name]
        present = np.array(code.shares) * (1.0 - (code.missing or 0.0))
        return present if code.missing is None else np.append(present, code.missing)

    def with_shares(self, shares: Mapping[str, NDArray[np.float64]]) -> TableEncoder:
        """The same grids with other shares.

        Args:
            shares: For each measured column what `grid_shares` returns.
        """
        return self.model_copy(
            update={"columns": {name: self.columns[name].with_shares(part) for name, part in shares.items()}}
        )

    def with_values(self, released: Associations, schema: TableSchema, *, total: float) -> TableEncoder:
        """The same with the numbers inside bins that a column's table of values shows to be frequent.

        What is counted replaces what was guessed of the same bins.

        Args:
            released: Noisy tables, some of single values.
            schema: The table's schema.
            total: The estimated number of records.
        """
        columns = dict(self.columns)
        for name, counts in released.values.items():
            code, ranges = columns[name], released.design.values[name]
            grid = column_grid(schema.measured[name], bins=self.bins)
            # A table counts fewer records than there are, if a node was lost before it.
            known, error = float(counts.sum()), released.noise * math.sqrt(len(counts))
            part = max(known, 1.0) / total if abs(known - total) > _NOTHING * error else 1.0
            held = np.array(code.shares) * (1 - (code.missing or 0.0)) * total * part
            found = frequent_values(counts, grid, ranges, held=held, noise=released.noise)
            others = (1 - found[0].share / MOST_SHARE) * held.max() if found else held.max()
            if code.is_constant and len(found) == 1 and others <= _NOTHING * released.noise:
                found = (found[0].model_copy(update={"share": 1.0}),)
            homes = grid.locate(np.array([spike.value for spike in found]))
            counted = {*grid.locate(np.array([float(first) for first, _ in ranges]))}
            kept = [spike for spike in code.spikes if grid.locate(np.array([spike.value]))[0] not in counted]
            # A node encodes with so many and no more: those that the fewest records have are left out.
            fullest = sorted(zip(found, homes, strict=True), key=lambda pair: -pair[0].share * held[pair[1]])
            most = max(0, MOST_IN_BIN * grid.states - len(kept))
            spikes = tuple(sorted([*kept, *(spike for spike, _ in fullest[:most])], key=lambda spike: spike.value))
            columns[name] = code.model_copy(update={"spikes": spikes})
        return self.model_copy(update={"columns": columns})

    def encode_cells(
        self, cells: NDArray[np.int64], schema: TableSchema, *, generator: np.random.Generator
    ) -> EncodedArrays:
        """Encodes rows of which only the grid cells are known: a value lies anywhere within its cell.

        Args:
            cells: int64 [n, measured columns], the cell of each column's grid.
            schema: The table's schema.
            generator: Draws the places within cells, and the noise at missing values.
        """
        rows = len(cells)
        values, codes, observed = [], [], []
        for place, (name, column) in enumerate(schema.measured.items()):
            index = cells[:, place]
            if isinstance(column, Categorical):
                codes.append(index)
                continue
            ends = self.ends(name)
            absent = index == len(ends) - 1
            z, inside = generator.standard_normal(rows), index[~absent]
            u, share = generator.random(len(inside)), ends[inside + 1] - ends[inside]
            # In a constant column, rows of the other cells are rows of the only one.
            u = np.where(share > 0, ends[inside] + u * share, u)
            z[~absent] = ndtri(np.clip(u, _EDGE, 1 - _EDGE))
            values.append(z)
            observed.append(~absent)
            if column.missing:
                codes.append(absent.astype(np.int64))
        return _stack(values, codes, observed, rows=rows)

    def reach(self, schema: TableSchema) -> dict[str, tuple[float, float]]:
        """Between which numbers all decoded ones but two in a million lie, for each continuous column.

        A model is taught none further out than `_EDGE`, and so hardly makes any. To the ends of the outermost bins come
        another bin and a step, as a number is moved to a multiple nearby, and a unit of the last digit that is written.

        Args:
            schema: The table's schema.
        """
        found = {}
        for name, column in schema.measured.items():
            if isinstance(column, Categorical):
                continue
            grid, step = column_grid(column, bins=self.bins), self.columns[name].step
            ends = self.ends(name)
            held = np.flatnonzero((ends[1:] > _BEYOND) & (ends[:-1] < 1 - _BEYOND))
            low, high = grid.low[max(held[0] - 1, 0)], grid.high[min(held[-1] + 1, grid.states - 1)]
            if step is not None:
                low, high = low - step.size, high + step.size
            if column.integer:
                low, high = math.floor(low), math.ceil(high)
            else:
                largest = max(abs(low), abs(high))
                unit = 10.0 ** (math.floor(math.log10(largest)) + 1 - SIGNIFICANT_DIGITS) if largest else 0.0
                low, high = low - unit, high + unit
            found[name] = (max(column.min, float(low)), min(column.max, float(high)))
        return found

    def ends(self, name: str) -> NDArray[np.float64]:
        """F at the bins' ends, from 0 to 1; [bins + 1]."""
        return _distribution(np.array(self.columns[name].shares))

    def _to_normal(
        self, present: NDArray[np.float64], name: str, grid: ColumnGrid, *, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        grid, ends = self._finest(name, grid)
        index = grid.locate(present)
        within = generator.random(len(present))
        low, width = grid.low[index], grid.high[index] - grid.low[index]
        step = self._step(name, grid)
        if step is None:
            inside = width > 0
            within[inside] = (present[inside] - low[inside]) / width[inside]
        else:
            within = step.place(present, (low, grid.high[index]), within=within, lowest=float(grid.low[0]))
        u = ends[index] + within * (ends[index + 1] - ends[index])
        return np.asarray(ndtri(np.clip(u, _EDGE, 1 - _EDGE)))

    def _from_normal(self, z: NDArray[np.floating], name: str, grid: ColumnGrid) -> NDArray[np.float64]:
        grid, ends = self._finest(name, grid)
        u = ndtr(np.asarray(z, dtype=np.float64))
        index = np.clip(np.searchsorted(ends, u, side="right") - 1, 0, grid.states - 1)
        share = ends[index + 1] - ends[index]
        within = np.clip(np.divide(u - ends[index], share, out=np.zeros_like(u), where=share > 0), 0.0, 1.0)
        value = grid.low[index] + within * (grid.high[index] - grid.low[index])
        step = self._step(name, grid)
        if step is None:
            return np.asarray(value, dtype=np.float64)
        is_one = grid.high - grid.low <= (1 if grid.integer else 0)
        ranges = grid.low[index], grid.high[index]
        on_step = step.nearest(value, ranges, within=within, lowest=float(grid.low[0]))
        return np.where(is_one[index], grid.middle[index], on_step)

    def _step(self, name: str, grid: ColumnGrid) -> Step | None:
        return self.columns[name].step or (Step(digits=1, exponent=0) if grid.integer else None)

    def _finest(self, name: str, grid: ColumnGrid) -> tuple[ColumnGrid, NDArray[np.float64]]:
        """The grid with a bin of its own for each spike, and F at the bins' ends."""
        code = self.columns[name]
        finest, shares = cut_at_spikes(grid, np.array(code.shares), code.spikes)
        return finest, _distribution(shares)


def _distribution(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """F at the bins' ends, from 0 to 1; [bins + 1]."""
    ends = np.concatenate([[0.0], np.cumsum(shares)])
    return np.asarray(ends / ends[-1], dtype=np.float64)


def _stack(
    values: list[NDArray[np.float64]], codes: list[NDArray[np.int64]], observed: list[NDArray[np.bool_]], *, rows: int
) -> EncodedArrays:
    return EncodedArrays(
        values=np.stack(values, axis=1).astype(np.float32) if values else np.empty((rows, 0), np.float32),
        codes=np.stack(codes, axis=1) if codes else np.empty((rows, 0), np.int64),
        observed=np.stack(observed, axis=1) if observed else np.empty((rows, 0), np.bool_),
    )
