"""Round numbers that others are multiples of: one decimal, half a kilogram, tens.

Multiples are the very doubles that a file's decimals are read as, so what is encoded to one comes back as written.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.grid import ColumnGrid
from aevorium.schema.table import Continuous

__all__ = ["Step", "common_step", "is_step_of", "multiples_of", "roundest", "rounding_steps"]

_LEADING = (50, 25, 20, 10)
"""Tenths of a power of ten that people round to, the roundest first."""

_DECADES = 9
"""Powers of ten from a column's largest number down to the finest step; decimals are read exactly to so many digits."""

_TOLERANCE, _SINGLE, _MOST = 1e-6, 1e-7, 1e-3
"""How far from a whole number of steps a multiple may be, in steps: what doubles of so many digits need, what a number
that was once a single has lost, and no more than that."""


Ranges = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Where ranges begin, and where they end."""


class Step(BaseModel):
    """A round number that others are multiples of: `digits` · 10^`exponent`. Safe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digits: Literal[1, 2, 5, 25] = Field(description="Its leading digits.")
    exponent: int = Field(ge=-22, le=22, description="The power of ten that they are multiplied by.")

    @property
    def size(self) -> float:
        """The number itself, as a file holds it."""
        return float(f"{self.digits}e{self.exponent}")

    def multiples(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """These multiples of it: the very doubles that a file's decimals are read as.

        Args:
            numbers: Whole numbers.
        """
        whole = numbers * self.digits
        return whole * 10.0**self.exponent if self.exponent >= 0 else whole / 10.0**-self.exponent

    def is_multiple_of(self, other: Step) -> bool:
        """Whether it is a whole number of times another."""
        multiple = self.size / other.size
        return bool(abs(multiple - round(multiple)) <= _TOLERANCE) and round(multiple) > 0

    def within(
        self, low: NDArray[np.float64], high: NDArray[np.float64], *, lowest: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The first of its multiples in each range from `low` up to below `high`, and how many there are.

        Args:
            low: [n].
            high: [n].
            lowest: Where a column begins: that number has a range of its own, and is in no other.
        """
        first, end = self._from(low), self._from(high)
        first = first + ((self.multiples(first) == lowest) & (high > low))
        return first, np.maximum(end - first, 0.0)

    def _from(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number of the first multiple that is not below each edge. Edges are sums, and so a little off."""
        number = np.ceil(edges / self.size - _TOLERANCE)
        return number + (self.multiples(number) < edges)

    def nearest(
        self, values: NDArray[np.float64], ranges: Ranges, *, within: NDArray[np.float64], lowest: float
    ) -> NDArray[np.float64]:
        """Its multiples in place of values in ranges: all of a range alike, or the nearest where a range has none.

        Args:
            values: [n].
            ranges: Where the range of each begins and ends, [n] both.
            within: Which part of its range is below each value, [n].
            lowest: Where the column begins.
        """
        first, count = self.within(*ranges, lowest=lowest)
        place = np.minimum(np.floor(within * count), np.maximum(count - 1, 0.0))
        return self.multiples(np.where(count > 0, first + place, np.rint(values / self.size)))

    def place(
        self, values: NDArray[np.float64], ranges: Ranges, *, within: NDArray[np.float64], lowest: float
    ) -> NDArray[np.float64]:
        """Which part of its range is below each value, so that `nearest` finds it again; [n].

        Args:
            values: [n], in their ranges.
            ranges: Where the range of each begins and ends, [n] both.
            within: Even draws from [0, 1): where among all places of its own a multiple is put, [n].
            lowest: Where the column begins.
        """
        first, count = self.within(*ranges, lowest=lowest)
        number = np.rint(values / self.size)
        has_place = _is_whole(values / self.size) & (number >= first) & (number < first + count)
        low, high = ranges
        part = np.divide(values - low, high - low, out=within.copy(), where=high > low)
        return np.where(has_place, (number - first + within) / np.maximum(count, 1), np.clip(part, 0.0, 1.0))


def is_step_of(step: Step, column: Continuous) -> bool:
    """Whether a step can have been found for a column: it is no finer than what its numbers are told apart by."""
    steps = rounding_steps(column)
    # Multiples of 2 and of 2.5 are multiples of a half.
    is_between = bool(steps) and steps[-1].size / 2 <= step.size <= steps[0].size
    return is_between and not (column.integer and step.size % 1)


def rounding_steps(column: Continuous) -> tuple[Step, ...]:
    """The steps that numbers of a column are told apart by, the roundest first. Public.

    Args:
        column: Its schema entry.
    """
    largest, span = max(abs(column.min), abs(column.max)), column.max - column.min
    if largest == 0:
        return ()
    # Powers of ten are exact doubles up to 1e22.
    top = min(math.floor(math.log10(largest)), 22)
    steps = (
        Step(digits=25 if leading == 25 else leading // 10, exponent=exponent - (leading == 25))
        for exponent in range(top, max(top - _DECADES, -22), -1)
        for leading in _LEADING
    )
    return tuple(step for step in steps if step.size <= span and not (column.integer and step.size % 1))


def roundest(values: NDArray[np.float64], steps: tuple[Step, ...]) -> NDArray[np.int64]:
    """The place among the steps of the first that each value is a multiple of; their number if it is of none."""
    place = np.full(len(values), len(steps), dtype=np.int64)
    for index in range(len(steps) - 1, -1, -1):
        multiple = values / steps[index].size
        place[_is_whole(multiple)] = index
    return place


def _is_whole(multiple: NDArray[np.float64]) -> NDArray[np.bool_]:
    whole = np.rint(multiple)
    most = np.minimum(_TOLERANCE + _SINGLE * np.abs(multiple), _MOST)
    # Of a step of a million a tenth is no multiple, however near to none of it.
    return np.asarray((np.abs(multiple - whole) <= most) & ((whole != 0) | (multiple == 0)))


def common_step(steps: tuple[Step, ...]) -> Step:
    """The largest step that all are multiples of."""
    finest = min(step.exponent for step in steps)
    digits = math.gcd(*(step.digits * 10 ** (step.exponent - finest) for step in steps))
    exponent = finest
    while digits % 10 == 0:
        digits, exponent = digits // 10, exponent + 1
    return Step(digits=digits, exponent=exponent)


def multiples_of(step: Step, grid: ColumnGrid, *, bins: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The multiples of a step within some of a grid's bins, ascending."""
    first, count = step.within(grid.low[bins], grid.high[bins], lowest=float(grid.low[0]))
    each = [begin + np.arange(number) for begin, number in zip(first, count, strict=True)]
    return step.multiples(np.concatenate([np.empty(0), *each]))
