"""Compares a synthetic table with noisy tables: those of an evaluation, or those that it was made from.

Safe to release.

A distance between noisy counts is never near 0: noise moves every cell. So each cell's difference is corrected for
what noise adds to it on average, before cells are summed. What comes out is what stands out of the noise, a lower
bound on average; the distance with its noise is an upper one, since E|d + z| is at least |d|. A verdict is given where
both deserve the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.encoding.associations import Associations, TableDesign, count_tables
from aevorium.encoding.evaluation import EvaluationTables, count_evaluation
from aevorium.errors import DataError
from aevorium.evaluation.marginals import Floats
from aevorium.evaluation.score import DEFINITIONS, Score, percent
from aevorium.schema.table import TableSchema

__all__ = [
    "Comparison",
    "TableDistance",
    "compare_evaluation",
    "compare_pairs",
    "comparison_scores",
    "corrected_distance",
]

Counts = NDArray[np.int64]

_LEAST_SIGNAL = 3.0
"""The number of records must be so many standard deviations of its own noise above 0, or nothing is said."""


@dataclass(frozen=True)
class TableDistance:
    """How far one table of the synthetic rows is from a noisy one. Safe to release.

    Attributes:
        columns: One column, or a pair.
        cells: Number of cells.
        measured: Total-variation distance as it is, noise included.
        noise: What it would be on average if both sides were alike: noise, and the choice of patients and rows.
        corrected: The distance without what noise adds to it; a little below 0 by chance where both sides are alike.
        deviation: Standard deviation of `corrected`, at the most.
    """

    columns: tuple[str, ...]
    cells: int
    measured: float
    noise: float
    corrected: float
    deviation: float


@dataclass(frozen=True)
class Comparison:
    """All tables of an evaluation. Safe to release.

    Attributes:
        is_holdout: Whether the tables are of patients that were held out; of all patients otherwise.
        records: Estimated number of these patients.
        columns: One-way tables; empty if noise outweighs the counts.
        pairs: Two-way tables; the same.
    """

    is_holdout: bool
    records: float
    columns: tuple[TableDistance, ...]
    pairs: tuple[TableDistance, ...]

    @property
    def subject(self) -> str:
        """Whom the tables are of."""
        return "patients held out" if self.is_holdout else "all patients"


def corrected_distance(difference: Floats, variance: Floats) -> float:
    """Total-variation distance, from differences of shares that bear noise.

    A difference x = d + z with noise z of standard deviation τ has E|x| above |d|. What is summed instead of |x| is
    |x| - τ·√(4/π)·exp(-x²/2τ²). Its mean is 0 where d = 0 and never above |d|; it is 55 % of |d| at |d| = τ, 86 %
    at 2τ and 97 % at 3τ, since E exp(-x²/2τ²) = exp(-d²/4τ²)/√2. So differences that noise hides are told too small,
    and those that stand out as they are.

    Args:
        difference: Differences of shares, one a cell.
        variance: Variance of the noise in each.

    Returns:
        The distance; below 0 by chance where there is none.
    """
    scale = np.maximum(variance, 1e-300)
    added = np.sqrt(variance * 4 / math.pi) * np.exp(-np.square(difference) / (2 * scale))
    return float(0.5 * (np.abs(difference) - added).sum())


def compare_evaluation(
    *, synthetic: pd.DataFrame, tables: EvaluationTables, schema: TableSchema, is_holdout: bool
) -> Comparison:
    """Compares each evaluation table with the synthetic rows. Safe to release.

    Args:
        synthetic: Typed frame of generated rows.
        tables: The released tables.
        schema: The study's schema.
        is_holdout: Whether they are of patients that were held out.

    Raises:
        DataError: DATA_EMPTY.
    """
    if synthetic.empty:
        raise DataError("DATA_EMPTY", "The synthetic table cannot be scored. It has no rows.")
    design = tables.pairs.design
    counted = count_evaluation(synthetic, schema, bins=tables.bins, design=design)
    generated = EvaluationTables.from_sum(counted, design, bins=tables.bins, noise=0.0)
    total, rows = tables.total, len(synthetic)
    if total < max(1.0, _LEAST_SIGNAL * tables.total_noise):
        return Comparison(is_holdout, total, (), ())

    def distance(columns: tuple[str, ...], noisy: Counts, made: Counts) -> TableDistance:
        return _distance(columns, noisy, made, total=total, rows=rows, noise=tables.noise)

    return Comparison(
        is_holdout=is_holdout,
        records=total,
        columns=tuple(distance((name,), tables.columns[name], generated.columns[name]) for name in design.cells),
        pairs=tuple(
            distance(pair, noisy, made)
            for pair, noisy, made in zip(design.pairs, tables.pairs.counts, generated.pairs.counts, strict=True)
        ),
    )


def compare_pairs(
    *, synthetic: pd.DataFrame, released: Associations, schema: TableSchema, bins: int, total: float
) -> tuple[TableDistance, ...]:
    """Compares the two-way tables that a model was made from with the synthetic rows. Safe to release.

    They say whether the model kept what it was given; a model that fitted their noise would look better than it is.

    Args:
        synthetic: Typed frame of generated rows.
        released: The tables.
        schema: The study's schema.
        bins: The study's number of bins.
        total: The estimated number of records.

    Returns:
        One distance for each pair; none where noise outweighs the counts.
    """
    if synthetic.empty or total < max(1.0, _LEAST_SIGNAL * released.noise):
        return ()
    design = TableDesign(cells=released.design.cells, pairs=released.design.pairs)
    made = Associations.from_sum(count_tables(synthetic, schema, bins=bins, design=design), design, noise=0.0)
    return tuple(
        _distance(pair, noisy, counted, total=total, rows=len(synthetic), noise=released.noise)
        for pair, noisy, counted in zip(design.pairs, released.counts[: len(design.pairs)], made.counts, strict=True)
    )


def _distance(
    columns: tuple[str, ...], noisy: Counts, made: Counts, *, total: float, rows: int, noise: float
) -> TableDistance:
    shares = made.ravel() / rows
    difference = noisy.ravel() / total - shares
    chosen = shares * (1 - shares) * (1 / total + 1 / rows)
    variance = (noise / total) ** 2 + chosen
    return TableDistance(
        columns=columns,
        cells=noisy.size,
        measured=float(0.5 * np.abs(difference).sum()),
        noise=float(0.5 * np.sqrt(variance * 2 / math.pi).sum()),
        corrected=corrected_distance(difference, variance),
        deviation=float(0.5 * math.sqrt(variance.sum())),
    )


def comparison_scores(comparison: Comparison) -> tuple[Score, Score]:
    """The means over columns and over pairs. Safe to release."""
    return (
        _mean_score("evaluation_1way", comparison.columns, noun="a column's", subject=comparison.subject),
        _mean_score("evaluation_2way", comparison.pairs, noun="a pair's", subject=comparison.subject),
    )


def _mean_score(name: str, distances: Sequence[TableDistance], *, noun: str, subject: str) -> Score:
    if not distances:
        return Score.skipped(name, f"There is no such table of {subject}, or noise outweighs its counts.")
    value, measured, noise = (
        float(np.mean([getattr(distance, field) for distance in distances]))
        for field in ("corrected", "measured", "noise")
    )
    value = max(0.0, value)
    # Noise is drawn for each table anew. The same patients are in all of them, but noise is by far the larger part.
    spread = 1.96 * math.sqrt(sum(distance.deviation**2 for distance in distances)) / len(distances)
    interval = (max(0.0, value - spread), measured + spread)
    reading = (
        f"On average {percent(value)} of {noun} rows would have to move to match {subject}, and more if noise hides"
        f" some: with all noise it is {percent(measured)}, and {percent(noise)} would be there by chance alone."
    )
    least, most = (DEFINITIONS[name].judge(bound, 0.0) for bound in (value, measured))
    if least != most:
        return Score(name, value, f"{reading} That is between {least!r} and {most!r}.", interval)
    return Score.judged(name, value, reading=reading, reference=0.0, reference_name="no difference", interval=interval)
