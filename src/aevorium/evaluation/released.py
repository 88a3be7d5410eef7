"""Compares a synthetic table with noisy one-way tables that were released already. Safe to release."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aevorium.errors import InternalError
from aevorium.evaluation.comparison import Comparison, comparison_scores
from aevorium.evaluation.fidelity import mean_score
from aevorium.evaluation.marginals import Axis, Floats, MarginalTable, project_to_simplex
from aevorium.evaluation.overlays import Grouping, MarginalOverlay, display_grouping, overlay_table
from aevorium.evaluation.score import Score, Scorecard, percent
from aevorium.evaluation.selection import seeded, select_columns

__all__ = ["ColumnDistance", "ReleasedTable", "card_of_released", "compare_released", "score_released"]

_DRAWS = 200

_NOT_TRAINED_ON = "The evaluation tables are of patients whom no other phase of the run read."
_TRAINED_ON = "The evaluation tables are of the patients that the model learnt from: they say nothing of overfitting."


@dataclass(frozen=True)
class ReleasedTable:
    """Noisy counts of one column, as released. Safe to release.

    Attributes:
        axis: The cells that were counted.
        counts: One a cell; noise may make them negative.
        noise_sd: Standard deviation of the noise in each cell; 0 if the counts are exact (a run without privacy).
    """

    axis: Axis
    counts: tuple[float, ...]
    noise_sd: float

    def __post_init__(self) -> None:
        if len(self.counts) != self.axis.size:
            raise InternalError(f"Column {self.column!r} has {len(self.counts)} counts for {self.axis.size} cells.")

    @classmethod
    def from_cells(
        cls,
        column: str,
        *,
        counts: ArrayLike,
        noise_sd: float,
        low: ArrayLike = (),
        high: ArrayLike = (),
        categories: Sequence[str] = (),
        missing: bool = False,
    ) -> ReleasedTable:
        """Describes the cells of a public grid.

        Args:
            column: Name of the column.
            counts: Noisy counts, shape (cells,), the missing cell last.
            noise_sd: Standard deviation of the noise in each cell.
            low: Where each bin of a continuous column begins; bins are adjacent, and one with low = high is a point.
            high: Where each ends.
            categories: Categories of a categorical column, instead of `low` and `high`.
            missing: Whether the last cell counts missing values.
        """
        numbers = tuple(np.asarray(counts, dtype=np.float64).tolist())
        if categories:
            return cls(Axis.from_categories(column, categories, missing=missing), numbers, noise_sd)
        begins, ends = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        cuts = begins[1:].copy()
        if len(cuts) and begins[0] == ends[0]:
            # a point at the lower bound holds that value alone
            cuts[0] = np.nextafter(begins[0], np.inf)
        bounds = (float(begins[0]), float(ends[-1]))
        return cls(Axis(column, cuts=tuple(cuts.tolist()), missing=missing, bounds=bounds), numbers, noise_sd)

    @property
    def column(self) -> str:
        """Name of the column."""
        return self.axis.name

    @property
    def labels(self) -> tuple[str, ...]:
        """A short text for each cell."""
        return self.axis.labels

    def marginal(self) -> MarginalTable:
        """The counts as a one-way table."""
        return MarginalTable(axes=(self.axis,), counts=np.asarray(self.counts), noise_sd=self.noise_sd)


@dataclass(frozen=True)
class ColumnDistance:
    """How far one column of the synthetic table is from its released table. Safe to release.

    Attributes:
        overlay: Both sides, on bars that people can read; its `distance` is the total-variation distance.
        floor: The distance that noise and the choice of rows alone are expected to make; NaN if nothing can be said.
    """

    overlay: MarginalOverlay
    floor: float


def compare_released(
    *, synthetic: pd.DataFrame, released: Sequence[ReleasedTable], seed: int = 0
) -> tuple[ColumnDistance, ...]:
    """Compares each column that was released with the synthetic table. Safe to release.

    Raises:
        DataError: DATA_COLUMN_MISSING or DATA_EMPTY.
    """
    columns = [table.column for table in released]
    generated = select_columns(synthetic, columns, name="synthetic")
    return tuple(_compare_column(table, generated, rng=seeded(seed, index)) for index, table in enumerate(released))


def score_released(
    *, synthetic: pd.DataFrame, released: Sequence[ReleasedTable], seed: int = 0, simulated: bool = False
) -> Scorecard:
    """Scores a synthetic table against noisy one-way tables that were released already. Safe to release.

    The reference is the noise floor: the distance that the noise of the tables and the choice of rows alone make.

    Args:
        synthetic: Typed frame of generated rows.
        released: Released one-way tables.
        seed: Fixes the draws of the floor.
        simulated: Whether the patients of the run were simulated.

    Raises:
        DataError: DATA_COLUMN_MISSING or DATA_EMPTY.
    """
    return card_of_released(compare_released(synthetic=synthetic, released=released, seed=seed), simulated=simulated)


def card_of_released(
    columns: Sequence[ColumnDistance], *, simulated: bool = False, comparison: Comparison | None = None
) -> Scorecard:
    """The card of columns already compared, and of an evaluation if there was one. Safe to release."""
    known = [column for column in columns if not math.isnan(column.overlay.distance)]
    scores = [_released_mean(known), _released_worst(known)]
    compared_with = f"{len(known)} released noisy one-way tables"
    notes = []
    if comparison is None:
        notes.append("Single columns only: nothing on this card says how columns go together.")
    else:
        scores += comparison_scores(comparison)
        compared_with += f", and with noisy evaluation tables of {comparison.subject}"
        notes.append(_NOT_TRAINED_ON if comparison.is_holdout else _TRAINED_ON)
    if len(known) < len(columns):
        lost = ", ".join(repr(column.overlay.column) for column in columns if column not in known)
        notes.append(f"Nothing can be said of {lost}: noise outweighs the counts.")
    return Scorecard(
        scores=tuple(scores),
        compared_with=compared_with,
        simulated=simulated,
        notes=tuple(notes),
    )


def _released_mean(columns: Sequence[ColumnDistance]) -> Score:
    if not columns:
        return Score.skipped("released_1way", "No released table says anything.")
    value = mean_score(column.overlay.distance for column in columns)
    floor = mean_score(column.floor for column in columns)
    return Score.judged(
        "released_1way",
        value,
        reading=f"On average {percent(value)} of a column's rows would have to move to match; noise explains"
        f" {percent(floor)}.",
        reference=floor,
        reference_name="expected from noise",
    )


def _released_worst(columns: Sequence[ColumnDistance]) -> Score:
    if not columns:
        return Score.skipped("released_worst", "No released table says anything.")
    worst = max(columns, key=lambda column: column.overlay.distance - column.floor)
    return Score.judged(
        "released_worst",
        worst.overlay.distance,
        reading=f"Column {worst.overlay.column!r} lies farthest above its noise floor.",
        reference=worst.floor,
        reference_name="expected from noise, same column",
    )


def _compare_column(released: ReleasedTable, synthetic: pd.DataFrame, *, rng: np.random.Generator) -> ColumnDistance:
    """Compares one column. Safe to release: both sides are.

    Args:
        released: Its released table.
        synthetic: Typed frame of generated rows.
        rng: Draws the noise of which the floor is the mean.
    """
    table = released.marginal()
    generated = MarginalTable.of(synthetic[[released.column]], table.axes)
    overlay = overlay_table(table, generated)
    grouping = display_grouping(released.axis, table.probabilities())
    return ColumnDistance(overlay, _floor(table, grouping, rows=len(synthetic), rng=rng))


def _floor(table: MarginalTable, grouping: Grouping, *, rows: int, rng: np.random.Generator) -> float:
    """Mean distance of rows drawn from the released shares to those shares with fresh noise of the same size."""
    shares = table.probabilities()
    if np.isnan(shares).any():
        return float("nan")
    drawn = grouping.sums(rng.multinomial(rows, shares / shares.sum(), size=_DRAWS) / rows)
    noise = rng.normal(0.0, table.noise_sd / table.total, size=(_DRAWS, len(shares)))
    noisy: Floats = np.stack([_as_shares(shares + extra) for extra in noise])
    return float(0.5 * np.abs(grouping.sums(noisy) - drawn).sum(axis=1).mean())


def _as_shares(values: Floats) -> Floats:
    return project_to_simplex(values / values.sum()) if values.sum() > 0 else np.full(len(values), 1 / len(values))
