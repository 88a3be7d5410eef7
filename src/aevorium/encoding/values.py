"""Exact values inside bins: amounts that many records share, such as a deductible or a price, round or not.

A histogram shows that a bin stands out, and not which of its numbers do. Nor does it show anything within the few bins
that hold all of a column whose bounds are much wider than its values. Where a column holds whole numbers, such bins are
counted once more, number by number, in one more noisy table. `count_values` is the only function here that sees
records; what it returns is exact and must pass a noise mechanism and the gate before it leaves the node.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.encoding.denoise import project_to_total
from aevorium.encoding.grid import ColumnGrid
from aevorium.encoding.spikes import MOST_IN_BIN, MOST_SHARE, Spike
from aevorium.schema.table import Categorical, Continuous

__all__ = [
    "MOST_NUMBERS",
    "Ranges",
    "count_values",
    "frequent_values",
    "heaped_ranges",
    "narrow_ranges",
    "range_problem",
    "size_of",
]

Ranges = tuple[tuple[int, int], ...]
"""First and last whole number of each range, ascending and disjoint."""

MOST_NUMBERS = 100_000
"""A column's table has no more numbers than that."""

_SURE = 5.0
"""Standard deviations, of privacy noise and chance together, by which a bin stands out of those around it."""

_HEAP, _AROUND = 2.5, 3
"""It holds so many times the median of itself and so many bins to each side."""

_LEAST = 4.0
"""Standard deviations of a table's noise that a bin holds at least: no number of one with less would show. So many that
the numbers of a narrow column have on average."""

_NARROW, _NEARLY_ALL = 8, 0.95
"""A column is narrow if so few bins hold that part of it."""


def heaped_ranges(counts: NDArray[np.float64], grid: ColumnGrid, *, noise: float, table_noise: float) -> Ranges:
    """The bins of several whole numbers in which some are frequent, as far as a histogram can tell.

    Args:
        counts: Noisy counts of a continuous column's bins, [bins].
        grid: The column's grid.
        noise: Standard deviation of the noise in each of them.
        table_noise: Standard deviation of the noise in each cell of the table that would be asked for.

    Returns:
        The numbers of each, the fullest bins' if all together have too many; none if the column has no whole numbers.
    """
    if not grid.integer:
        return ()
    around = np.lib.stride_tricks.sliding_window_view(np.pad(counts, _AROUND, mode="edge"), 2 * _AROUND + 1)
    usual = np.maximum(np.median(around, axis=1), 0.0)
    sure = _SURE * np.sqrt(noise**2 + np.maximum(usual, 1.0))
    is_heaped = (counts >= _HEAP * usual) & (counts - usual >= sure) & (counts >= _LEAST * table_noise)
    chosen: list[tuple[int, int]] = []
    for place in sorted(np.flatnonzero(is_heaped & (grid.high - grid.low > 1)), key=lambda place: -counts[place]):
        numbers = (math.ceil(grid.low[place]), math.floor(grid.high[place]))
        if size_of((*chosen, numbers)) <= MOST_NUMBERS:
            chosen.append(numbers)
    return tuple(sorted(chosen))


def narrow_ranges(shares: NDArray[np.float64], grid: ColumnGrid, *, records: float, table_noise: float) -> Ranges:
    """The few bins of several whole numbers that hold nearly all of a column, if a table can tell what is in them.

    Args:
        shares: Share of each bin among present values, [bins].
        grid: The column's grid.
        records: About how many values are present.
        table_noise: Standard deviation of the noise in each cell of the table that would be asked for.

    Returns:
        The numbers of each; none if the column has no whole numbers, or is spread over more bins than a few.
    """
    if not grid.integer:
        return ()
    fullest = np.argsort(-shares, kind="stable")
    fullest = fullest[: int(np.searchsorted(np.cumsum(shares[fullest]), _NEARLY_ALL)) + 1]
    wide = np.sort(fullest[(grid.high - grid.low)[fullest] > 1])
    if len(fullest) > _NARROW or not len(wide):
        return ()
    ranges = tuple((math.ceil(grid.low[place]), math.floor(grid.high[place])) for place in wide)
    # Of a bin that holds all, most likely a single number is in use: it shows among any others.
    each = records * (1.0 if len(fullest) == 1 else shares[wide].sum() / size_of(ranges))
    return ranges if size_of(ranges) <= MOST_NUMBERS and each >= max(_LEAST * table_noise, 1.0) else ()


def range_problem(column: Continuous | Categorical, ranges: Ranges) -> str | None:
    """Why a node cannot count these numbers, or None; whatever a record holds, it then has exactly one cell."""
    if isinstance(column, Categorical) or not column.integer:
        return "are not of a column of whole numbers"
    is_ascending = all(first <= last for first, last in ranges)
    is_disjoint = all(before < after for (_, before), (after, _) in pairwise(ranges))
    if not (ranges and is_ascending and is_disjoint and column.min <= ranges[0][0] and ranges[-1][1] <= column.max):
        return "are not ranges within its bounds, ascending and disjoint"
    return "are too many" if size_of(ranges) > MOST_NUMBERS else None


def size_of(ranges: Ranges) -> int:
    """How many numbers there are."""
    return sum(last - first + 1 for first, last in ranges)


def count_values(column: pd.Series, ranges: Ranges) -> NDArray[np.int64]:
    """Counts the records that hold each number. Reads patient records; the counts are exact.

    Args:
        column: The column of a typed frame.
        ranges: The numbers; `range_problem` finds nothing wrong with them.

    Returns:
        int64 [1 + numbers]: first the records with any other number or none, so each record is in exactly one cell.
    """
    numbers, values = _numbers(ranges), column.to_numpy(dtype=np.float64)
    place = np.minimum(np.searchsorted(numbers, values), len(numbers) - 1)
    cells = np.where(numbers[place] == values, place + 1, 0)
    return np.bincount(cells, minlength=len(numbers) + 1).astype(np.int64, copy=False)


def frequent_values(
    counts: NDArray[np.int64], grid: ColumnGrid, ranges: Ranges, *, held: NDArray[np.float64], noise: float
) -> tuple[Spike, ...]:
    """The numbers that more records hold than an even spread over their bin, or noise, would let expect.

    Of a bin that holds four deviations of noise for each of its numbers, as narrow columns have, all counts are told:
    they become the nearest that the bin can hold together. Of others, numbers stand out by the universal threshold
    (Donoho & Johnstone 1994): noise hardly ever passes it.

    Args:
        counts: Noisy counts as `count_values` orders them.
        grid: The column's grid.
        ranges: The numbers that were counted: those of whole bins.
        held: About how many records each bin of the grid holds, [bins].
        noise: Standard deviation of the noise in each cell.
    """
    numbers, each = _numbers(ranges), counts[1:].astype(np.float64)
    limit = math.sqrt(2 * math.log(max(len(numbers), 2)))
    homes, found = grid.locate(numbers), []
    for place in np.unique(homes):
        inside = np.flatnonzero(homes == place)
        if len(numbers) <= MOST_IN_BIN * grid.states and held[place] >= max(_LEAST * noise, 1.0) * len(inside):
            shares = _told_shares(each[inside], held=held[place], noise=noise)
        else:
            shares = _frequent_shares(each[inside], held=max(held[place], 1.0), limit=limit, noise=noise)
        found += [
            Spike(value=value, share=MOST_SHARE * share)
            for value, share in zip(numbers[inside].tolist(), shares.tolist(), strict=True)
            if share > 0
        ]
    return tuple(found)


def _told_shares(each: NDArray[np.float64], *, held: float, noise: float) -> NDArray[np.float64]:
    if held - each.max() <= min(_LEAST * noise, (1 - _NEARLY_ALL) * held):
        return np.asarray(np.eye(len(each))[np.argmax(each)])
    return project_to_total(each, total=held) / held


def _frequent_shares(each: NDArray[np.float64], *, held: float, limit: float, noise: float) -> NDArray[np.float64]:
    even = held / len(each)
    is_frequent = each - even > limit * math.sqrt(noise**2 + even)
    frequent = float(each[is_frequent].sum())
    # What a bin holds is known from the histogram; what stands out in it may say more.
    whole = max(held, frequent)
    rest = (whole - frequent) / max(len(each) - int(is_frequent.sum()), 1)
    return np.where(is_frequent, np.maximum(each - rest, 1.0) / whole, 0.0)


def _numbers(ranges: Ranges) -> NDArray[np.float64]:
    return np.concatenate([np.arange(first, last + 1, dtype=np.float64) for first, last in ranges])
