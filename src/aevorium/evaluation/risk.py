"""Does the synthetic table lie closer to the rows it was trained on than to rows it never saw?

These are alarms, not proofs: similarity to training rows that is no greater than to a holdout shows that no copying was
*noticed*. What limits the risk is ε. Everything here reads patient records; the results are not for release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from aevorium.evaluation.completion import complete, is_continuous
from aevorium.evaluation.marginals import Floats

__all__ = [
    "MAX_NEIGHBOUR_ROWS",
    "MIN_NEIGHBOUR_ROWS",
    "ClosestRecords",
    "DistanceHistogram",
    "ExactMatches",
    "NeighbourRatio",
    "closest_records",
    "exact_matches",
    "neighbour_ratio",
]

MAX_NEIGHBOUR_ROWS = 10_000
"""Most rows of each table in searches for the nearest neighbour; a random choice of more."""
MIN_NEIGHBOUR_ROWS = 30
"""Fewest rows of each table for a statement about distances."""

_MAX_BLOCKS = 5
_HISTOGRAM_BINS = 40
_DECIMALS = 6


@dataclass(frozen=True)
class DistanceHistogram:
    """Distances of synthetic rows to their closest record: shares of rows per bin.

    Attributes:
        edges: Bin boundaries, one more than shares.
        train: Shares by distance to the closest training row.
        holdout: Shares by distance to the closest holdout row.
    """

    edges: tuple[float, ...]
    train: tuple[float, ...]
    holdout: tuple[float, ...]


@dataclass(frozen=True)
class ClosestRecords:
    """Which of two equally large sets of real rows the synthetic rows are closer to.

    Attributes:
        share: Share of synthetic rows closer to a training than to a holdout row (ties: half). Expected: 0.5.
        interval: 95% binomial interval (Jeffreys) of the share, for the effective number of distinct neighbours.
        histogram: Both distances.
        rows: How many training rows and holdout rows each comparison used.
    """

    share: float
    interval: tuple[float, float]
    histogram: DistanceHistogram
    rows: int


@dataclass(frozen=True)
class ExactMatches:
    """Rows that are equal in every column to a training row.

    Attributes:
        synthetic: How many synthetic rows are.
        synthetic_rows: Out of how many.
        holdout: How many holdout rows are; None without a holdout.
        holdout_rows: Out of how many; None without a holdout.
    """

    synthetic: int
    synthetic_rows: int
    holdout: int | None = None
    holdout_rows: int | None = None

    @property
    def share(self) -> float:
        """Share of the synthetic rows."""
        return self.synthetic / self.synthetic_rows

    @property
    def holdout_share(self) -> float | None:
        """Share of the holdout rows."""
        if self.holdout is None or not self.holdout_rows:
            return None
        return self.holdout / self.holdout_rows

    @property
    def holdout_interval(self) -> tuple[float, float] | None:
        """95% binomial interval (Jeffreys) of the holdout share."""
        if self.holdout is None or not self.holdout_rows:
            return None
        return _interval(self.holdout, self.holdout_rows)

    @property
    def interval(self) -> tuple[float, float]:
        """95% binomial interval (Jeffreys) of the synthetic share."""
        return _interval(self.synthetic, self.synthetic_rows)


@dataclass(frozen=True)
class NeighbourRatio:
    """5th percentile of the distance to the nearest training row divided by that to the second nearest.

    Attributes:
        synthetic: Of synthetic rows.
        holdout: Of holdout rows: what unseen real rows show; None without a holdout.
    """

    synthetic: float
    holdout: float | None


def closest_records(
    *, synthetic: pd.DataFrame, train: pd.DataFrame, holdout: pd.DataFrame, rng: np.random.Generator
) -> ClosestRecords | None:
    """Distance to closest record with a holdout as reference. Reads patient records.

    The holdout is compared with up to five disjoint random blocks of training rows, each as large as the holdout (which
    is cut to the training rows' number if it is larger), so that 0.5 is expected whatever the sizes are; the share is
    the blocks' mean. Rows that share a neighbour are not independent, so the interval counts the effective number of
    neighbours, 1 / Σ w², where w is the share of synthetic rows that a real row is the nearest neighbour of.

    Args:
        synthetic: Typed frame.
        train: Typed frame: rows that the run trained on.
        holdout: Typed frame: rows that it did not.
        rng: Draws rows and blocks.

    Returns:
        None if a table has fewer than `MIN_NEIGHBOUR_ROWS` rows.
    """
    if min(len(synthetic), len(train), len(holdout)) < MIN_NEIGHBOUR_ROWS:
        return None
    size = min(len(train), len(holdout), MAX_NEIGHBOUR_ROWS)
    blocks = min(len(train) // size, _MAX_BLOCKS)
    real = pd.concat(
        [_sample(train, limit=size * blocks, rng=rng), _sample(holdout, limit=size, rng=rng)], ignore_index=True
    )
    points, queries = _encode(real, _sample(synthetic, limit=MAX_NEIGHBOUR_ROWS, rng=rng))
    to_holdout = _nearest(points[size * blocks :], queries)
    to_train = [_nearest(points[size * block : size * (block + 1)], queries) for block in range(blocks)]
    share = float(np.mean([_closer(found, to_holdout).mean() for found in to_train]))
    effective = 1 / float(np.mean([_concentration(found, to_holdout, size=size) for found in to_train]))
    histogram = _histogram(np.concatenate([found.distances for found in to_train]), to_holdout.distances)
    return ClosestRecords(share, _interval(share * effective, effective), histogram, rows=size)


def exact_matches(*, synthetic: pd.DataFrame, train: pd.DataFrame, holdout: pd.DataFrame | None = None) -> ExactMatches:
    """Counts rows that equal a training row in every column. Reads patient records.

    Args:
        synthetic: Typed frame.
        train: Typed frame: rows that the run trained on.
        holdout: Typed frame: rows that it did not, for what unseen real rows show.
    """
    known = _row_hashes(train)
    found = int(np.isin(_row_hashes(synthetic), known).sum())
    if holdout is None:
        return ExactMatches(found, len(synthetic))
    return ExactMatches(found, len(synthetic), int(np.isin(_row_hashes(holdout), known).sum()), len(holdout))


def neighbour_ratio(
    *, synthetic: pd.DataFrame, train: pd.DataFrame, holdout: pd.DataFrame | None = None, rng: np.random.Generator
) -> NeighbourRatio | None:
    """Nearest-neighbour distance ratio to the training rows. Reads patient records.

    Near 1 a row has many training rows about equally close; near 0 it points at one of them.

    Args:
        synthetic: Typed frame.
        train: Typed frame: rows that the run trained on.
        holdout: Typed frame: rows that it did not, for what unseen real rows show.
        rng: Draws rows.

    Returns:
        None if a table has fewer than `MIN_NEIGHBOUR_ROWS` rows.
    """
    tables = [synthetic, train] if holdout is None else [synthetic, train, holdout]
    if min(len(table) for table in tables) < MIN_NEIGHBOUR_ROWS:
        return None
    generated, known, *unseen = (_sample(table, limit=MAX_NEIGHBOUR_ROWS, rng=rng) for table in tables)
    points, *queries = _encode(known, generated, *unseen)
    ratios = [_fifth_percentile(points, rows) for rows in queries]
    return NeighbourRatio(ratios[0], ratios[1] if holdout is not None else None)


@dataclass(frozen=True, eq=False)
class _Neighbours:
    distances: Floats
    rows: NDArray[np.intp]


def _nearest(points: Floats, queries: Floats) -> _Neighbours:
    distances, rows = _search(points, queries, neighbours=1)
    # the search computes |a|² - 2ab + |b|², so that equal rows come out some 1e-8 apart
    return _Neighbours(np.round(distances[:, 0], _DECIMALS), rows[:, 0])


def _search(points: Floats, queries: Floats, *, neighbours: int) -> tuple[Floats, NDArray[np.intp]]:
    with threadpool_limits(limits=1):
        distances, rows = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(queries)
    return distances, rows


def _closer(train: _Neighbours, holdout: _Neighbours) -> Floats:
    """1 where the training row is closer, 0 where the holdout row is, 0.5 for a tie."""
    return 0.5 + 0.5 * np.sign(holdout.distances - train.distances)


def _concentration(train: _Neighbours, holdout: _Neighbours, *, size: int) -> float:
    closer = _closer(train, holdout)
    weights = np.concatenate(
        [
            np.bincount(train.rows, weights=closer, minlength=size),
            np.bincount(holdout.rows, weights=1 - closer, minlength=size),
        ]
    )
    weights /= len(closer)
    return float(weights @ weights)


def _fifth_percentile(points: Floats, queries: Floats) -> float:
    distances = np.round(_search(points, queries, neighbours=2)[0], _DECIMALS)
    # two training rows at distance 0 are a crowd: the row points at neither
    ratios = np.divide(distances[:, 0], distances[:, 1], out=np.ones(len(queries)), where=distances[:, 1] > 0)
    return float(np.quantile(ratios, 0.05))


def _histogram(train: Floats, holdout: Floats) -> DistanceHistogram:
    high = float(np.quantile(np.concatenate([train, holdout]), 0.995)) or 1.0
    edges = np.linspace(0, high, _HISTOGRAM_BINS + 1)
    shares = [np.histogram(np.minimum(side, high), bins=edges)[0] / len(side) for side in (train, holdout)]
    return DistanceHistogram(tuple(edges.tolist()), tuple(shares[0].tolist()), tuple(shares[1].tolist()))


def _encode(reference: pd.DataFrame, *others: pd.DataFrame) -> list[Floats]:
    """Points whose squared Euclidean distance adds up, over the columns, to at most about 1 each.

    A continuous column becomes its mid-rank among the reference's values, a missing cell its middle; two different
    categories, or one missing and one present cell, are 1 apart.
    """
    completed = complete(reference, *others)
    columns: list[list[Floats]] = [[] for _ in completed]
    for name in completed[0].columns:
        if is_continuous(completed[0][name]):
            ordered = np.sort(completed[0][name].to_numpy(dtype=np.float64))
            for index, table in enumerate(completed):
                values = table[name].to_numpy(dtype=np.float64)
                ranks = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
                columns[index].append(ranks[:, None] / (2 * len(ordered)))
        else:
            states = len(completed[0][name].cat.categories)
            for index, table in enumerate(completed):
                columns[index].append(np.eye(states)[table[name].cat.codes.to_numpy()] * math.sqrt(0.5))
    return [np.hstack(parts) for parts in columns]


def _row_hashes(table: pd.DataFrame) -> NDArray[np.uint64]:
    """64-bit hashes of rows: among a million rows two unequal ones collide with a chance of 1 in 10 million."""
    hashes: NDArray[np.uint64] = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return hashes


def _sample(table: pd.DataFrame, *, limit: int, rng: np.random.Generator) -> pd.DataFrame:
    return table.iloc[rng.permutation(len(table))[:limit]]


def _interval(successes: float, trials: float) -> tuple[float, float]:
    """95% Jeffreys interval of a proportion; unlike Wilson's in scipy it takes a fractional number of trials."""
    low, high = beta.ppf([0.025, 0.975], successes + 0.5, trials - successes + 0.5)
    return float(low), float(high)
