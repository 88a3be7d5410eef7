"""How close a synthetic table's distributions are to a reference: shapes, trends, distances, missing cells.

Shapes and trends follow SDMetrics 0.32 (KSComplement, TVComplement; CorrelationSimilarity, ContingencySimilarity, the
quality report's thresholds), so that the numbers compare with published ones. As SDMetrics they take tables with
missing cells; a card gives them tables that `completion.complete` filled and flagged, as it does for the distances.
Everything here reads typed frames, and so patient records if one of them is real; the results are exact statistics and
not for release then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aevorium.evaluation.completion import is_continuous
from aevorium.evaluation.marginals import (
    Axis,
    CodedTable,
    Discretiser,
    Floats,
    MarginalTable,
    cramers_v,
    kolmogorov_smirnov,
    total_variation,
)

__all__ = [
    "ASSOCIATION_THRESHOLD",
    "CORRELATION_THRESHOLD",
    "ColumnShape",
    "MissingRate",
    "PairTrend",
    "column_shapes",
    "distance",
    "mean_score",
    "missing_by_target",
    "missing_rates",
    "pair_trends",
    "trends",
    "trends_all",
]

CORRELATION_THRESHOLD = 0.5
"""Two continuous columns count in `trends` if the reference's |Pearson r| is above this (SDMetrics 0.32)."""
ASSOCIATION_THRESHOLD = 0.3
"""Other pairs count in `trends` if the reference's Cramér's V is above this (SDMetrics 0.32)."""

_KS_DECIMALS = 14
_TREND_BINS = 10
_DISTANCE_BINS = {1: 32, 2: 12, 3: 6}
_DISTANCE_LIMIT = {1: 100, 2: 100, 3: 60}


@dataclass(frozen=True)
class ColumnShape:
    """How alike one column is in two tables.

    Attributes:
        column: Its name.
        metric: "KSComplement" or "TVComplement".
        score: 1 = alike, 0 = disjoint; NaN if a table has no value there.
    """

    column: str
    metric: str
    score: float


@dataclass(frozen=True)
class PairTrend:
    """How alike the association of two columns is in two tables.

    Attributes:
        first: A column.
        second: Another.
        metric: "CorrelationSimilarity" or "ContingencySimilarity".
        score: 1 = alike, 0 = opposite; NaN if it is not defined.
        real: The reference's Pearson r or Cramér's V; NaN if not defined.
        synthetic: The same of the synthetic table.
    """

    first: str
    second: str
    metric: str
    score: float
    real: float
    synthetic: float

    @property
    def is_associated(self) -> bool:
        """Whether the reference's association is above the threshold."""
        threshold = CORRELATION_THRESHOLD if self.metric == "CorrelationSimilarity" else ASSOCIATION_THRESHOLD
        return abs(self.real) > threshold


@dataclass(frozen=True)
class MissingRate:
    """Shares of missing cells of one column, 0 to 1."""

    column: str
    real: float
    synthetic: float

    @property
    def error(self) -> float:
        """Absolute difference."""
        return abs(self.real - self.synthetic)


def mean_score(scores: Iterable[float]) -> float:
    """The mean of the scores that are defined; NaN if none is."""
    defined = [score for score in scores if not math.isnan(score)]
    return sum(defined) / len(defined) if defined else math.nan


def column_shapes(reference: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[ColumnShape, ...]:
    """Compares each column: 1 - Kolmogorov-Smirnov distance, or 1 - total variation. Missing cells are left out."""
    return tuple(_column_shape(reference[name], synthetic[name]) for name in reference.columns)


def _column_shape(real: pd.Series, synthetic: pd.Series) -> ColumnShape:
    name = str(real.name)
    if not is_continuous(real):
        axes = (Axis.from_categories(name, [str(category) for category in real.cat.categories]),)
        tables = [MarginalTable.of(values.to_frame(), axes).without_missing() for values in (real, synthetic)]
        return ColumnShape(name, "TVComplement", 1 - total_variation(*tables))
    rounded = [values.round(_KS_DECIMALS) for values in (real, synthetic)]
    distinct = np.unique(np.concatenate([values.dropna().to_numpy(dtype=np.float64) for values in rounded]))
    axes = (Axis(name=name, cuts=tuple(distinct[1:].tolist())),)
    tables = [MarginalTable.of(values.to_frame(), axes).without_missing() for values in rounded]
    return ColumnShape(name, "KSComplement", 1 - kolmogorov_smirnov(*tables))


def pair_trends(reference: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[PairTrend, ...]:
    """Compares each pair of columns, in the order of `itertools.combinations`.

    Two continuous columns: 1 - |difference of Pearson r| / 2 over the rows that have both. Other pairs: 1 - total
    variation of the two-way table, in which missing is a category and a continuous column is cut into ten equal widths
    between its smallest and largest value *of each table on its own* (as SDMetrics does).
    """
    tables = {side: _trend_states(frame) for side, frame in (("real", reference), ("synthetic", synthetic))}
    found = []
    for (i, first), (j, second) in itertools.combinations(enumerate(reference.columns), 2):
        if is_continuous(reference[first]) and is_continuous(reference[second]):
            found.append(_correlation_trend(reference[[first, second]], synthetic[[first, second]]))
            continue
        real, other = (tables[side].marginal((i, j)) for side in ("real", "synthetic"))
        found.append(
            PairTrend(
                first=str(first),
                second=str(second),
                metric="ContingencySimilarity",
                score=1 - total_variation(real, other),
                real=cramers_v(real),
                synthetic=cramers_v(other),
            )
        )
    return tuple(found)


def _trend_states(frame: pd.DataFrame) -> CodedTable:
    """States by each table's own equal widths; the state's number, not its interval, is what two tables share."""
    axes: list[Axis] = []
    codes = np.empty((len(frame), frame.shape[1]), dtype=np.int32, order="F")
    for index, name in enumerate(frame.columns):
        values = frame[name]
        if is_continuous(values):
            numbers = values.to_numpy(dtype=np.float64)
            edges = np.histogram_bin_edges(numbers[~np.isnan(numbers)], bins=_TREND_BINS)
            # numpy puts NaN after every edge, into the state of the largest value: so does SDMetrics
            codes[:, index] = np.digitize(numbers, edges)
            axes.append(
                Axis.from_categories(str(name), [str(state) for state in range(_TREND_BINS + 2)], missing=False)
            )
        else:
            axis = Axis.from_categories(str(name), [str(category) for category in values.cat.categories])
            codes[:, index] = axis.encode(values)
            axes.append(axis)
    return CodedTable(axes=tuple(axes), codes=codes)


def _correlation_trend(real: pd.DataFrame, synthetic: pd.DataFrame) -> PairTrend:
    ours, theirs = _pearson(real), _pearson(synthetic)
    return PairTrend(
        first=str(real.columns[0]),
        second=str(real.columns[1]),
        metric="CorrelationSimilarity",
        score=1 - abs(ours - theirs) / 2,
        real=ours,
        synthetic=theirs,
    )


def _pearson(pair: pd.DataFrame) -> float:
    values = pair.dropna().to_numpy(dtype=np.float64)
    if len(values) < 2 or (values == values[0]).all(axis=0).any():
        return math.nan
    centred = values - values.mean(axis=0)
    spread = np.abs(centred).max(axis=0)
    if not spread.all():
        return math.nan
    # squares of very small numbers would vanish
    centred /= spread
    covariance = float(centred[:, 0] @ centred[:, 1])
    return covariance / math.sqrt(float(centred[:, 0] @ centred[:, 0]) * float(centred[:, 1] @ centred[:, 1]))


def trends(pairs: Iterable[PairTrend]) -> float:
    """The mean over the pairs whose association in the reference is above the thresholds; NaN if there is none."""
    return mean_score(pair.score for pair in pairs if pair.is_associated)


def trends_all(pairs: Iterable[PairTrend]) -> float:
    """The mean over all pairs."""
    return mean_score(pair.score for pair in pairs)


def distance(reference: pd.DataFrame, synthetic: pd.DataFrame, *, ways: int) -> float:
    """Mean total-variation distance over columns (ways=1), pairs (2) or triples (3).

    Continuous columns are cut at the reference's quantiles (32, 12 and 6 bins). Of more than 100 columns or pairs, or
    60 triples, a fixed choice that depends on their number alone is taken. NaN if there are fewer columns than `ways`.

    Args:
        reference: Completed typed frame (`completion.complete`).
        synthetic: The same columns.
        ways: 1, 2 or 3.
    """
    discretiser = Discretiser.from_reference(reference, bins=_DISTANCE_BINS[ways])
    real, other = discretiser.encode(reference), discretiser.encode(synthetic)
    chosen = _combinations(reference.shape[1], ways=ways)
    return mean_score(total_variation(real.marginal(columns), other.marginal(columns)) for columns in chosen)


def _combinations(columns: int, *, ways: int) -> Sequence[tuple[int, ...]]:
    every = list(itertools.combinations(range(columns), ways))
    limit = _DISTANCE_LIMIT[ways]
    if len(every) <= limit:
        return every
    picks = np.random.default_rng(0).choice(len(every), limit, replace=False)
    return [every[pick] for pick in picks]


def missing_rates(reference: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[MissingRate, ...]:
    """The share of missing cells of each column that misses a cell in either table."""
    rates = (
        MissingRate(str(name), float(reference[name].isna().mean()), float(synthetic[name].isna().mean()))
        for name in reference.columns
    )
    return tuple(rate for rate in rates if rate.real > 0 or rate.synthetic > 0)


def missing_by_target(reference: pd.DataFrame, synthetic: pd.DataFrame, *, target: str) -> float:
    """Mean difference of the missing rates within the target's classes, weighted by the reference's classes.

    A continuous target is cut at the reference's quartiles. NaN if no column misses a cell or the target has no value.
    """
    axis = Discretiser.from_reference(reference[[target]], bins=4).axes[0]
    states = {"real": axis.encode(reference[target]), "synthetic": axis.encode(synthetic[target])}
    weights: Floats = np.bincount(states["real"], minlength=axis.size)[: axis.present_states].astype(np.float64)
    errors = []
    for name in (rate.column for rate in missing_rates(reference, synthetic) if rate.column != target):
        rates = {
            "real": _rate_by_state(reference[name], states["real"], size=axis.size),
            "synthetic": _rate_by_state(synthetic[name], states["synthetic"], size=axis.size),
        }
        gaps = np.abs(rates["real"] - rates["synthetic"])[: axis.present_states]
        usable = ~np.isnan(gaps)
        if weights[usable].sum() > 0:
            errors.append(float(np.average(gaps[usable], weights=weights[usable])))
    return mean_score(errors)


def _rate_by_state(values: pd.Series, states: np.ndarray, *, size: int) -> Floats:
    rows = np.bincount(states, minlength=size).astype(np.float64)
    missing = np.bincount(states, weights=values.isna().to_numpy().astype(np.float64), minlength=size)
    rates: Floats = np.divide(missing, rows, out=np.full(size, np.nan), where=rows > 0)
    return rates
