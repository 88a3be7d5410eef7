"""Records beyond the last that a histogram is sure of, as tables of several columns tell them. Post-processing: free.

Thirty high values spread over a hundred bins are lost in the bins' noise. A table's cell that holds all these bins has
the noise of one. So what lies beyond the outermost known records of a column is cut into cells of its own; those that
surely hold records, all tables together, get them, and a column ends where the last of these does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aevorium.encoding.associations import Associations
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import column_grid
from aevorium.encoding.statistics import TableStatistics
from aevorium.schema.table import TableSchema

__all__ = ["cut_ends", "with_told_ends"]

_CUTS = (1 / 8, 1 / 3)
"""Where the bins beyond are cut, as parts of their number: near ones are likelier to hold records."""

_FEWEST = 6
"""So few bins beyond are left as they are."""

_KNOWN, _KNOWN_BINS = 5.0, 4.0
"""Known are records up to where so many deviations of the noise of a table's cell are left, and so many of the noise of
all bins from there on."""

_SURE, _LEAST = 2.0, 0.3
"""Standard errors from which on a cell surely holds records, and below which the outermost holds none. Both were chosen
with the cuts and the line above: on four tables, single columns, ten draws."""

_LOST = 4.0
"""Standard errors by which tables count fewer records than there are, if some nodes' are not in them."""

_FEW = 1.0
"""With fewer known records in a cell they say nothing of where in it others are: these are spread."""


class _Told(NamedTuple):
    """How many records each cell of a column holds, and the standard errors."""

    held: NDArray[np.float64]
    error: NDArray[np.float64]


def cut_ends(
    cells: Mapping[str, tuple[int, ...]],
    encoder: TableEncoder,
    schema: TableSchema,
    *,
    total: float,
    noise: float,
    bin_noise: float,
) -> dict[str, tuple[int, ...]]:
    """The cells of each column, with those bins apart beyond which there are hardly any known records.

    Args:
        cells: For each measured column the cell of each cell of its grid, neighbours together.
        encoder: What is known of single columns.
        schema: The table's schema.
        total: The estimated number of records.
        noise: Standard deviation of the noise in a cell of a table.
        bin_noise: The same of a bin of a histogram.
    """
    cut = dict(cells)
    for name in schema.numbers:
        code = encoder.columns[name]
        if not code.is_constant:
            shares, present = np.array(code.shares), total * (1 - (code.missing or 0.0))
            groups = np.array(cells[name])[: len(shares)]
            for held in (shares, shares[::-1]):
                last = _last_known(held, records=present, noise=noise, bin_noise=bin_noise)
                groups = _cut_above(groups, last=last)
                groups = groups.max() - groups[::-1]
            missing = [] if code.missing is None else [groups.max() + 1]
            cut[name] = tuple(int(group) for group in (*groups, *missing))
    return cut


def with_told_ends(
    encoder: TableEncoder, schema: TableSchema, released: Associations, *, statistics: TableStatistics, total: float
) -> TableEncoder:
    """The same with as many records beyond a column's known ones as tables tell.

    Args:
        encoder: What is known of single columns.
        schema: The table's schema.
        released: Noisy tables, their columns cut by `cut_ends`.
        statistics: The one-way histograms.
        total: The estimated number of records.
    """
    if released.noise <= 0:
        return encoder
    part = _part(released, total=total)
    changed = {name: encoder.grid_shares(name) for name in schema.measured}
    for name in schema.numbers:
        code = encoder.columns[name]
        if code.is_constant:
            continue
        told = _held(released, name, statistics=statistics, part=part)
        shares, present = np.array(code.shares), total * (1 - (code.missing or 0.0))
        groups = np.array(released.design.cells[name])[: len(shares)]
        grid = column_grid(schema.measured[name], bins=encoder.bins)
        kept = np.ones(len(shares), dtype=np.bool_)
        if code.step is not None:
            kept = code.step.within(grid.low, grid.high, lowest=float(grid.low[0]))[1] > 0
        ends = shares.copy()
        sides = (ends, groups, shares, kept), (ends[::-1], groups[::-1], shares[::-1], kept[::-1])
        for side, cells, before, possible in sides:
            last = _last_known(before, records=present, noise=released.noise, bin_noise=statistics.noise)
            _tell_above(side, cells, last=last, told=told, records=present, possible=possible)
        changed[name][: len(shares)] = ends / ends.sum() * (1 - (code.missing or 0.0))
    return encoder.with_shares(changed)


def _last_known(shares: NDArray[np.float64], *, records: float, noise: float, bin_noise: float) -> int:
    """The last bin before the bound from which on there are more records than noise makes up, here or in a table."""
    held, bins = np.cumsum(shares[-2::-1])[::-1] * records, np.arange(len(shares) - 1, 0, -1)
    known = np.flatnonzero(held > np.maximum(_KNOWN * noise, _KNOWN_BINS * bin_noise * np.sqrt(bins)))
    return int(known[-1]) if len(known) else len(shares) - 2


def _cut_above(groups: NDArray[np.int64], *, last: int) -> NDArray[np.int64]:
    size = len(groups)
    beyond = size - 1 - last
    if beyond < _FEWEST:
        return groups
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    # The bound is a bin of its own, and where clipped values lie.
    cuts = [last + 1, *(last + 1 + int(np.ceil(part * beyond)) for part in _CUTS), size - 1]
    starts = np.unique([*starts[starts <= last], *cuts])
    return np.asarray(np.searchsorted(starts, np.arange(size), side="right") - 1, dtype=np.int64)


def _part(released: Associations, *, total: float) -> float:
    """The part of all records that tables count: less than all where a node was lost before them."""
    counted = float(np.mean([counts.sum() for counts in released.counts])) if released.counts else total
    error = released.noise * np.sqrt(sum(counts.size for counts in released.counts)) / max(len(released.counts), 1)
    return max(counted, 1.0) / total if abs(counted - total) > _LOST * error else 1.0


def _held(released: Associations, name: str, *, statistics: TableStatistics, part: float) -> _Told:
    """How many records each cell of a column holds, all its tables and its histogram together."""
    groups = np.array(released.design.cells[name])
    precision = 1 / (statistics.noise**2 * np.bincount(groups))
    weight, sums = precision, precision * np.bincount(groups, weights=statistics.counts[name])
    for (first, second, *_), counts in zip(released.design.tables, released.counts, strict=True):
        if name in (first, second):
            axis = counts.ndim - 2 if name == first else counts.ndim - 1
            beside = tuple(place for place in range(counts.ndim) if place != axis)
            precision = part**2 / (released.noise**2 * counts.size / counts.shape[axis])
            sums, weight = sums + precision * counts.sum(axis=beside) / part, weight + precision
    return _Told(sums / weight, weight**-0.5)


def _tell_above(
    shares: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    last: int,
    told: _Told,
    records: float,
    possible: NDArray[np.bool_],
) -> None:
    """Changes in place what lies above the last known records, in bins that can hold any."""
    if len(shares) - 1 - last < _FEWEST:
        return
    inner = np.zeros(len(shares), dtype=np.bool_)
    inner[last + 1 : -1] = True
    # With a node lost since the cells were cut, more may be known: a cell that has some of it tells of both together.
    inner &= ~np.isin(groups, groups[: last + 1])
    cells = [inner & (groups == cell) for cell in dict.fromkeys(groups[inner].tolist())]
    held, error = ([float(part[groups[cell][0]]) for cell in cells] for part in told)
    while cells and held[-1] < _LEAST * error[-1]:
        shares[cells.pop()] = 0.0
        held.pop()
        error.pop()
    last_sure = max((place for place, number in enumerate(held) if number > _SURE * error[place]), default=-1)
    for place, (cell, number) in enumerate(zip(cells, held, strict=True)):
        before = shares[cell].sum() * records
        spread = possible[cell] if possible[cell].any() else cell[cell]
        within = shares[cell] / shares[cell].sum() if before > _FEW else spread / spread.sum()
        # What a histogram shows beyond the last cell that is sure may be its own noise: no more of it than tables say.
        shares[cell] = max(number if place <= last_sure else min(number, before), 0.0) / records * within
