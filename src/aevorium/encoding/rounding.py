"""How a column's numbers are rounded: labs to one decimal, weights to half kilograms, pressures to tens.

A histogram shows rounding only where its bins are about as wide as the step. So each number is also counted by the
roundest step that it is a multiple of: one more noisy histogram of a column, a record in exactly one cell of it.
`count_roundings` is the only function here that sees records; what it returns is exact and must pass a noise mechanism
and the gate before it leaves the node. What follows from noisy counts is post-processing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.encoding.grid import ColumnGrid
from aevorium.encoding.spikes import MOST_IN_BIN, MOST_SHARE, Spike
from aevorium.encoding.steps import Step, common_step, multiples_of, roundest, rounding_steps
from aevorium.schema.table import Continuous, TableSchema

__all__ = ["Rounding", "count_roundings", "find_rounding", "roundings_in_total", "split_roundings"]

_INFORMATIVE = 10.0
"""Standard deviations of noise that all numbers together make, at least; else nothing is told."""

_SURE, _LEAST = 4.0, 0.005
"""A step is in use if so many standard deviations, and that part of the numbers, have it as their roundest."""

_REST = 3.0
"""Standard deviations within which what is off all steps in use must be none."""

_HEAP = 1.25
"""Numbers of a rounder step are in heaps if each has so many times what a plain one has."""

_TOO_MANY = 1.5
"""A guessed spike is none if it would hold so many times the numbers that can be as round as it."""

_USUAL = 0.5
"""Share of the numbers that makes a step the usual one."""

_ROUNDS = 30
"""Rounds of proportional fitting."""

_LEAST_PART = 1e-4
"""Least share of a bin's records in a spike."""

_DENSE = 1e3
"""Numbers in a bin of the usual width where they are multiples of nothing."""


def roundings_in_total(schema: TableSchema) -> int:
    """Length of the vector that `count_roundings` returns."""
    return sum(_number_of_cells(column) for column in schema.numbers.values())


def _number_of_cells(column: Continuous) -> int:
    """Cells of one column: what is not told apart, one for each step, and one for numbers off all of them."""
    return len(rounding_steps(column)) + 2


def count_roundings(frame: pd.DataFrame, schema: TableSchema) -> NDArray[np.int64]:
    """Counts numbers by the roundest step that each is a multiple of. Reads patient records; the counts are exact.

    Args:
        frame: A typed frame with the measured columns.
        schema: Its schema.

    Returns:
        int64 [cells], the columns of numbers one after another. A record is in exactly one cell of each. The first of a
        column's cells has what tells nothing: missing values, zeros, and bounds, where clipped values lie.
    """
    parts = [
        np.bincount(_cells(frame[name].to_numpy(dtype=np.float64), column), minlength=_number_of_cells(column))
        for name, column in schema.numbers.items()
    ]
    return np.concatenate([np.empty(0), *parts]).astype(np.int64)


def split_roundings(total: NDArray[np.int64], schema: TableSchema) -> dict[str, NDArray[np.int64]]:
    """Takes a sum of such vectors apart: the counts of each column of numbers, in schema order.

    Raises:
        ValueError: There are more cells than that, or fewer.
    """
    ends = [0, *accumulate(_number_of_cells(column) for column in schema.numbers.values())]
    if len(total) != ends[-1]:
        raise ValueError(f"{len(total)} counts by rounding are not those of the schema's columns, {ends[-1]}")
    return {name: total[begin:end] for name, begin, end in zip(schema.numbers, ends, ends[1:], strict=False)}


def _cells(values: NDArray[np.float64], column: Continuous) -> NDArray[np.int64]:
    steps = rounding_steps(column)
    told = np.isfinite(values) & (values != 0) & (values != column.min) & (values != column.max)
    return np.where(told, 1 + roundest(np.where(told, values, 0.0), steps), 0)


@dataclass(frozen=True)
class Rounding:
    """How a column is rounded, as far as noisy counts tell. Safe to release.

    Attributes:
        step: All numbers are multiples of it; None if some are multiples of none.
        heaps: Other steps in use, whose multiples may be more frequent, the roundest first.
        shares: Share of the numbers of which each of these is the roundest, and last that of all others; sums to 1.
        errors: Standard error of each of them, the noise of what they are shares of included.
        steps: All steps that were counted, the roundest first.
        most: Share of the numbers of which each of these may be the roundest at most, and last of those off them all.
    """

    step: Step | None
    heaps: tuple[Step, ...]
    shares: tuple[float, ...]
    errors: tuple[float, ...]
    steps: tuple[Step, ...]
    most: tuple[float, ...]

    @property
    def usual_step(self) -> Step | None:
        """The roundest step that half of the numbers are multiples of, beside an even spread; else that of all."""
        return next((heap for heap in self.heaps if self.surplus(heap) >= _USUAL), self.step)

    def surplus(self, heap: Step) -> float:
        """Share of the numbers that would have to be multiples of a heap beside an even spread over all that occur."""
        held = sum(share for step, share in zip(self.heaps, self.shares, strict=False) if step.is_multiple_of(heap))
        even = 0.0 if self.step is None else self.step.size / heap.size
        return (held - even) / (1 - even)

    def spikes(
        self, grid: ColumnGrid, held: NDArray[np.float64], *, standing: tuple[Spike, ...] = ()
    ) -> tuple[Spike, ...]:
        """Spikes at frequent multiples, and those that stand.

        How frequent a number is beside others of its bin depends on its rounding alone. How frequent each rounding is
        within bins follows from its share of all numbers by iterative proportional fitting (Deming & Stephan 1940).

        Args:
            grid: The column's grid.
            held: About which part of the records each bin holds, [bins].
            standing: Numbers that are known to be frequent, ascending.
        """
        width = grid.high - grid.low
        heaps = self._told(grid, held, standing=standing)
        if not heaps or not width.any():
            return standing
        wide = width > (1 if grid.integer else 0)
        numbers = np.unique(np.concatenate([multiples_of(step, grid, bins=wide) for step in heaps]))
        numbers = numbers[numbers != 0]
        homes, kinds = grid.locate(numbers), roundest(numbers, heaps)
        among = np.zeros((len(held), len(heaps) + 1))
        np.add.at(among, (homes, kinds), 1.0)
        among[:, -1] = np.maximum(self._numbers_in(grid) - among.sum(axis=1), 0.0)
        free, wanted = self._left(grid, held, standing=standing, heaps=heaps)
        weights = _fit_weights(among, free=free, wanted=wanted)
        excess = np.where(weights > _HEAP * weights[-1], weights - weights[-1], 0.0)[kinds]
        within = (among @ weights)[homes]
        left = np.divide(free, held, out=np.zeros_like(free), where=held > 0)[homes]
        parts = MOST_SHARE * left * np.divide(excess, within, out=np.zeros_like(excess), where=within > 0)
        stands = {spike.value for spike in standing}
        found = (
            Spike(value=value, share=part)
            for value, part in zip(numbers.tolist(), parts.tolist(), strict=True)
            if part > _LEAST_PART and value not in stands
        )
        return tuple(sorted([*standing, *found], key=lambda spike: spike.value))

    def among(self, standing: tuple[Spike, ...], grid: ColumnGrid, held: NDArray[np.float64]) -> tuple[Spike, ...]:
        """Those of the guessed spikes that the counts leave possible.

        Multiples of the step, if there is one; and none that would hold more numbers than are as round as it.

        Args:
            standing: What a histogram alone made of its bins.
            grid: The column's grid.
            held: Which part of the numbers each bin holds, [bins].
        """

        def is_possible(spike: Spike) -> bool:
            value = np.array([spike.value])
            most = self.most[roundest(value, self.steps)[0]] if spike.value else 1.0
            is_multiple = self.step is None or not roundest(value, (self.step,))[0]
            return bool(is_multiple and held[grid.locate(value)[0]] * spike.share <= _TOO_MANY * most)

        return tuple(filter(is_possible, standing))

    def _told(self, grid: ColumnGrid, held: NDArray[np.float64], *, standing: tuple[Spike, ...]) -> tuple[Step, ...]:
        """The heaps that are more than the numbers that stand: the roundest, as many as there can be spikes for."""
        heaps = _countable(self.heaps, grid, most=MOST_IN_BIN * grid.states // 2)
        _, wanted = self._left(grid, held, standing=standing, heaps=heaps)
        least = (_SURE * np.array(self.errors) + _LEAST) * held.sum()
        return tuple(step for step, share, most in zip(heaps, wanted, least, strict=False) if share > most)

    def _left(
        self, grid: ColumnGrid, held: NDArray[np.float64], *, standing: tuple[Spike, ...], heaps: tuple[Step, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each bin holds beside numbers that are known, [bins], and of what kinds that is, [heaps + 1].

        Zeros and bounds are in neither: they are not told apart.
        """
        free, known = held.astype(np.float64), np.zeros(len(heaps) + 1)
        one = grid.high - grid.low <= (1 if grid.integer else 0)
        is_told = one & (grid.middle != 0)
        is_told[[0, -1]] = False
        np.add.at(known, roundest(grid.middle[is_told], heaps), free[is_told])
        free[one] = 0.0
        for spike in standing:
            (home,) = grid.locate(np.array([spike.value]))
            if spike.value != 0:
                known[roundest(np.array([spike.value]), heaps)[0]] += held[home] * spike.share
            free[home] -= held[home] * spike.share
        free = np.maximum(free, 0.0)
        # A heap that is left out counts with those that its numbers are multiples of too.
        shares = np.zeros(len(heaps) + 1)
        np.add.at(shares, roundest(np.array([step.size for step in self.heaps]), heaps), self.shares[:-1])
        shares[-1] += self.shares[-1]
        return free, np.maximum(shares * (free.sum() + known.sum()) - known, 0.0)

    def _numbers_in(self, grid: ColumnGrid) -> NDArray[np.float64]:
        """How many numbers each bin has; their density does not matter where they are not multiples of anything."""
        if self.step is not None:
            return self.step.within(grid.low, grid.high, lowest=float(grid.low[0]))[1]
        return np.asarray(_DENSE * (grid.high - grid.low) / np.median(grid.high - grid.low))


def find_rounding(counts: NDArray[np.int64], column: Continuous, *, noise: float, total: float) -> Rounding | None:
    """What noisy counts say of a column's rounding; None if they say nothing.

    Args:
        counts: Noisy counts of the column, as `count_roundings` orders them.
        column: Its schema entry.
        noise: Standard deviation of the noise in each of them.
        total: The estimated number of records.
    """
    steps, each = rounding_steps(column), np.asarray(counts[1:], dtype=np.float64)
    # One cell's noise, where the sum of all others has that of each of them.
    told = total - float(counts[0])
    if told < max(_INFORMATIVE * noise, 1.0):
        return None
    used = each > max(_SURE * noise, _LEAST * told)
    in_use = tuple(step for step, is_used in zip(steps, used[:-1], strict=True) if is_used)
    if not used.any():
        return None
    common = None if used[-1] else common_step(in_use)
    if common is not None:
        off = np.array([not step.is_multiple_of(common) for step in steps] + [True])
        if each[off].sum() > max(_REST * noise * math.sqrt(off.sum()), _LEAST * told):
            common = None
    heaps = tuple(step for step in in_use if step != common)
    parts = np.array([each[steps.index(step)] for step in heaps]) / told
    # What is not in use counts with the plain numbers: there is hardly any.
    parts = np.append(parts, max(1 - parts.sum(), 0.0))
    parts /= parts.sum()
    errors = noise / told * np.sqrt(1 + parts**2)
    return Rounding(
        step=common,
        heaps=heaps,
        shares=tuple(parts.tolist()),
        errors=tuple(errors.tolist()),
        steps=steps,
        most=tuple(((each + _SURE * noise) / told).tolist()),
    )


def _countable(steps: tuple[Step, ...], grid: ColumnGrid, *, most: int) -> tuple[Step, ...]:
    """The steps, from the roundest on, that have so many multiples between them at most."""
    span, numbers = grid.high[-1] - grid.low[0], np.empty(0)
    for place, step in enumerate(steps):
        is_too_fine = span > most * step.size
        if not is_too_fine:
            numbers = np.union1d(numbers, multiples_of(step, grid, bins=grid.high > grid.low))
        if is_too_fine or len(numbers) > most:
            return steps[:place]
    return steps


def _fit_weights(
    among: NDArray[np.float64], *, free: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weight of a number of each kind, so that all numbers of a kind together hold what is wanted."""
    weights = np.ones(among.shape[1])
    for _ in range(_ROUNDS):
        within = among @ weights
        each = np.divide(free, within, out=np.zeros_like(free), where=within > 0) @ among * weights
        weights *= np.divide(wanted, each, out=np.ones_like(each), where=each > 0)
        weights /= weights.max() if weights.max() > 0 else 1.0
    return weights
