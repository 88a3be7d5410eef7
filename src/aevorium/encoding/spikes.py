"""Values that many records share inside a bin: "120" among blood pressures, a default, weights in whole kilograms.

A histogram shows what a bin holds, and not where in it. People round, and defaults are round, so a round number of the
bin is taken for the value that is shared; which one it is, is public. If it is another one, the bin's records lie at
the wrong place by less than the bin's width, as they would without. What is found is post-processing of noisy counts:
free of charge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.grid import ColumnGrid

__all__ = [
    "MOST_IN_BIN",
    "MOST_SHARE",
    "STATE",
    "Spike",
    "constant_spike",
    "cut_at_spikes",
    "find_spikes",
    "holds_all",
    "spike_problem",
]

MOST_SHARE = 1 - 1e-5
"""Of a bin's records at most so many are at spikes that are found, as F must increase wherever a value may lie; all of
them are only where a column is constant."""

_SURE = 5.0
"""Standard deviations, of privacy noise and chance together, by which a spike stands out."""

_LEAST_SHARE = 0.01
"""Least share of the records in a spike."""

_CONTRAST = 4.0
"""A bin stands out that holds so many times what its neighbours have it expect, and these differ by no more from each
other: a bin beside a steep slope holds a peak, not a spike."""

_BEHIND, _STEEPER = 4, 3.0
"""Unless values begin or end there, as at a limit of detection: then the bin holds more times what its fuller neighbour
does than so many times what that one holds of the mean of so many bins behind it. Smooth peaks of a bin's width or
more are less steep; a heap narrower than a third of a bin is not told from a spike."""

STATE = 0.2
"""A number that more of the records share is a state, such as none or below detection, and no matter of rounding."""

_ROUND = 2.0
"""A number is round if its like lie so many bins apart: that the bin has one is then no matter of course. A state need
not be round, only the roundest number of its bin."""

MOST_IN_BIN = 4
"""Spikes for a bin, on average, that are not too many."""

_ROUNDING = 1e-9


class Spike(BaseModel):
    """One value that many records of its bin share. Safe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(allow_inf_nan=False, description="The value: a round number.")
    share: float = Field(gt=0, le=1, description="Share of its bin's records that have it by a spike.")


def find_spikes(counts: NDArray[np.floating], grid: ColumnGrid, *, noise: float) -> tuple[Spike, ...]:
    """Looks for bins that stand out of their neighbours and have a round number.

    Args:
        counts: Noisy counts of a continuous column's bins, [bins].
        grid: The column's grid.
        noise: Standard deviation of the noise in each of them.
    """
    return tuple(_standing_out(np.maximum(counts, 0.0), grid, noise=noise))


def holds_all(counts: NDArray[np.floating], *, noise: float, total: float) -> int | None:
    """The bin that holds all records as far as the noise lets see, or None.

    The rest of a peak is most likely beside its bin, so the neighbours' counts are added to what the bin lacks. A
    column that is narrower than a bin looks the same as a constant one, and is taken for one.

    Args:
        counts: Noisy counts of a continuous column's bins, [bins].
        noise: Standard deviation of the noise in each of them.
        total: The number of present values, an estimate with no more than a bin's noise.
    """
    place = int(np.argmax(counts))
    most = counts[place]
    beside = counts[max(place - 1, 0) : place + 2].sum() - most
    # The noise of the total, of the bin, and of its two neighbours.
    rest, error = total - most + beside, noise * math.sqrt(4)
    others = np.delete(counts, place).max(initial=0.0)
    return place if most > 2 * _SURE * noise and others <= _SURE * noise and rest <= 3 * error else None


def constant_spike(grid: ColumnGrid, place: int) -> tuple[Spike, ...]:
    """The spike of a bin that holds all records: nothing tells them apart. A bin that is one value needs none."""
    if _is_one_value(grid, place):
        return ()
    value = _roundest(grid, place, is_state=True)
    return () if value is None else (Spike(value=value, share=1.0),)


def _standing_out(held: NDArray[np.float64], grid: ColumnGrid, *, noise: float) -> Iterator[Spike]:
    width = grid.high - grid.low
    density = np.divide(held, width, out=np.zeros_like(held), where=width > 0)
    for place in range(1, len(held) - 1):
        if _is_one_value(grid, place):
            continue
        beside = density[[place - 1, place + 1]] * width[place]
        excess = held[place] - beside.max()
        is_level = beside.max() <= max(_CONTRAST * beside.min(), _SURE * math.sqrt(noise**2 + beside.min()))
        is_high = excess > max(_SURE * math.sqrt(noise**2 + held[place]), _LEAST_SHARE * held.sum())
        contrast = (
            _CONTRAST if is_level else max(_CONTRAST, _STEEPER * _steepness_beside(held, width, place, noise=noise))
        )
        if not (is_high and held[place] >= contrast * beside.max()):
            continue
        value = _roundest(grid, place, is_state=bool(held[place] > STATE * held.sum()))
        if value is not None:
            yield Spike(value=value, share=min(float(1 - beside.mean() / held[place]), MOST_SHARE))


def _steepness_beside(held: NDArray[np.float64], width: NDArray[np.float64], place: int, *, noise: float) -> float:
    """How many times the mean of the bins behind it a bin's fuller neighbour holds, one deviation of chance aside."""
    density = np.divide(held, width, out=np.zeros_like(held), where=width > 0)
    step = -1 if density[place - 1] > density[place + 1] else 1
    fuller = place + step
    behind = density[fuller + step :: step][:_BEHIND] if 0 <= fuller + step < len(held) else np.zeros(1)
    sure = held[fuller] - math.sqrt(noise**2 + held[fuller])
    return max(0.0, float(sure / width[fuller] / behind.mean())) if behind.any() else math.inf


def _is_one_value(grid: ColumnGrid, place: int) -> bool:
    return bool(grid.high[place] - grid.low[place] <= (1 if grid.integer else 0))


def _roundest(grid: ColumnGrid, place: int, *, is_state: bool) -> float | None:
    """The value that many records of a bin are taken to share, if any is round enough."""
    low, high = float(grid.low[place]), float(grid.high[place])
    value = _round_number(low, high, grid=grid, place=place, least=_ROUND * (high - low))
    return _round_number(low, high, grid=grid, place=place, least=0.0) if value is None and is_state else value


def _round_number(low: float, high: float, *, grid: ColumnGrid, place: int, least: float) -> float | None:
    """The bin's multiple of the largest power of ten, or half of one, that is no smaller than `least`."""
    width = high - low
    largest = max(abs(low), abs(high), 10 * width)
    for exponent in range(math.ceil(math.log10(largest)), math.floor(math.log10(width)) - 2, -1):
        for leading in (10, 5):
            # Decimals are read, not computed: the value must be the very number that a file holds.
            step = float(f"{leading}e{exponent - 1}")
            multiple = math.ceil(low / step)
            value = float(f"{multiple * leading}e{exponent - 1}")
            # A bound is a bin of its own, and the value of no bin beside it.
            if step >= least and low <= value < high and grid.locate(np.array([value]))[0] == place:
                return value
    return None


def spike_problem(spikes: tuple[Spike, ...], grid: ColumnGrid) -> str | None:
    """Why spikes do not fit a grid, or None; whatever a record holds, it can then be encoded."""
    if not spikes:
        return None
    values = np.array([spike.value for spike in spikes])
    if grid.categories or len(spikes) > MOST_IN_BIN * grid.states:
        return "are more than there can be"
    if not (np.diff(values) > 0).all():
        return "are not in ascending order"
    if grid.integer and (values != np.round(values)).any():
        return "are not whole numbers"
    if values[0] < grid.low[0] or values[-1] > grid.high[-1]:
        return "lie outside the bounds"
    homes = grid.locate(values)
    if any(_is_one_value(grid, place) for place in homes):
        return "lie in bins of one value"
    if np.bincount(homes, weights=[spike.share for spike in spikes]).max() > 1 + _ROUNDING:
        return "hold more than their bins do"
    return None


def cut_at_spikes(
    grid: ColumnGrid, shares: NDArray[np.float64], spikes: tuple[Spike, ...]
) -> tuple[ColumnGrid, NDArray[np.float64]]:
    """A finer grid with a bin of its own for each spike, and its shares: those of a bin's parts add up to the bin's.

    Args:
        grid: The column's grid.
        shares: Share of each of its bins, [bins].
        spikes: The column's spikes, in ascending order.
    """
    if not spikes:
        return grid, shares
    half = 0.5 if grid.integer else 0.0
    homes = grid.locate(np.array([spike.value for spike in spikes]))
    parts: list[tuple[float, float, float]] = []
    for place, (low, high, share) in enumerate(zip(grid.low, grid.high, shares, strict=True)):
        inside = [spikes[index] for index in np.flatnonzero(homes == place)]
        if not inside:
            parts.append((low, high, share))
            continue
        rest = max(0.0, 1 - sum(spike.share for spike in inside))
        cuts = [(spike.value - half, spike.value + half, spike.share) for spike in inside]
        starts, ends = [low, *(end for _, end, _ in cuts)], [*(start for start, _, _ in cuts), high]
        between = [(start, end, 0.0) for start, end in zip(starts, ends, strict=True) if end > start]
        parts += [
            (start, end, share * (held + rest * (end - start) / (high - low)))
            for start, end, held in sorted([*cuts, *between])
        ]
    lows, highs, held = (np.array(column, dtype=np.float64) for column in zip(*parts, strict=True))
    return replace(grid, low=lows, high=highs), held
