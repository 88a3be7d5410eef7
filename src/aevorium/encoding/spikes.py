"""Values that many records share inside a bin: "120" among blood pressures, a default, a column that is constant.

A histogram shows that a bin stands out, and not where in it. People round, and defaults are round, so a number of the
bin that is rounder than most bins have one is taken for the value; which it is, is public. If it is another one, the
bin's records lie at the wrong place by less than the bin's width, as they would without. A bin without such a number is
left as it is. Post-processing of noisy counts: free of charge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.grid import ColumnGrid

__all__ = ["Spike", "find_spikes", "in_bin", "spike_problem", "within_bin"]

_SURE = 5.0
"""Standard deviations, of privacy noise and chance together, by which a spike stands out."""

_SHARE = 0.01
"""Least share of the records in a spike."""

_CONTRAST = 4.0
"""A bin stands out that holds so many times what its neighbours have it expect, and these differ by no more from each
other: a bin beside a steep slope holds a peak, not a spike."""


_ROUND = 2.0
"""A number is round if its like lie so many bins apart: that the bin has one is then no matter of course."""


class Spike(BaseModel):
    """One value that many records of a bin share. Safe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bin: int = Field(ge=0, description="The bin that it is in.")
    value: float = Field(allow_inf_nan=False, description="The value: a round number in the bin.")
    share: float = Field(gt=0, le=1, description="Share of the bin's records that have it; the others are spread.")


def find_spikes(counts: NDArray[np.int64], grid: ColumnGrid, *, noise: float) -> tuple[Spike, ...]:
    """Looks for spikes inside the bins of a continuous column.

    Args:
        counts: Noisy counts of the bins, [bins].
        grid: The column's grid.
        noise: Standard deviation of the noise in each of them.
    """
    return tuple(_spikes(np.maximum(counts.astype(np.float64), 0.0), grid, noise=noise))


def _spikes(held: NDArray[np.float64], grid: ColumnGrid, *, noise: float) -> Iterator[Spike]:
    width = grid.high - grid.low
    density = np.divide(held, width, out=np.zeros_like(held), where=width > 0)
    for place in range(1, len(held) - 1):
        if width[place] <= (1 if grid.integer else 0):
            continue
        beside = density[[place - 1, place + 1]] * width[place]
        deviation = math.sqrt(noise**2 + held[place])
        excess = held[place] - beside.max()
        is_level = beside.max() <= max(_CONTRAST * beside.min(), _SURE * math.sqrt(noise**2 + beside.min()))
        if excess <= max(_SURE * deviation, _SHARE * held.sum()) or held[place] < _CONTRAST * beside.max():
            continue
        # A bound is a bin of its own, and the value of no bin beside it.
        value = _round_number(float(grid.low[place]), float(grid.high[place])) if is_level else None
        if value is not None and grid.locate(np.array([value]))[0] == place:
            yield Spike(bin=place, value=value, share=float(1 - beside.mean() / held[place]))


def _round_number(low: float, high: float) -> float | None:
    """The multiple of the largest power of ten, or half of one, in [low, high), if few such bins have one as round."""
    width = high - low
    largest = max(abs(low), abs(high), 10 * width)
    for exponent in range(math.ceil(math.log10(largest)), math.floor(math.log10(width)) - 1, -1):
        for leading in (10, 5):
            # Decimals are read, not computed: the value must be the very number that a file holds.
            step = float(f"{leading}e{exponent - 1}")
            multiple = math.ceil(low / step)
            if step >= _ROUND * width and multiple * step < high:
                return float(f"{multiple * leading}e{exponent - 1}")
    return None


def spike_problem(spikes: tuple[Spike, ...], grid: ColumnGrid) -> str | None:
    """Why spikes do not fit a grid, or None."""
    places = [spike.bin for spike in spikes]
    if len(set(places)) < len(places) or any(place >= len(grid.low) for place in places):
        return "are not one for a bin"
    if not all(grid.low[spike.bin] <= spike.value < grid.high[spike.bin] for spike in spikes):
        return "lie outside their bins"
    return None


def within_bin(
    values: NDArray[np.float64],
    places: NDArray[np.float64],
    index: NDArray[np.int64],
    *,
    spikes: tuple[Spike, ...],
    grid: ColumnGrid,
    drawn: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Shares of a bin's records that lie below each value; for those at a spike a place in its part by chance.

    Args:
        values: The values, [n].
        places: How far through its bin each lies, from 0 to 1.
        index: The bin of each.
        spikes: The column's spikes.
        grid: Its grid.
        drawn: Uniform numbers, [n].
    """
    shares = places.copy()
    for spike in spikes:
        inside = index == spike.bin
        start = _place_of(spike, grid)
        below = places[inside] * (1 - spike.share) + spike.share * (places[inside] > start)
        at = start * (1 - spike.share) + spike.share * drawn[inside]
        shares[inside] = np.where(values[inside] == spike.value, at, below)
    return shares


def in_bin(
    shares: NDArray[np.float64], index: NDArray[np.int64], *, spikes: tuple[Spike, ...], grid: ColumnGrid
) -> NDArray[np.float64]:
    """The values of which such shares of their bin's records lie below: the way back."""
    places = shares.copy()
    width = grid.high - grid.low
    for spike in spikes:
        inside = index == spike.bin
        start = _place_of(spike, grid)
        lower, rest = start * (1 - spike.share), 1 - spike.share
        share = shares[inside]
        below, above = (share / rest, (share - spike.share) / rest) if rest > 0 else (share, share)
        places[inside] = np.where(share < lower, below, np.where(share > lower + spike.share, above, np.nan))
    values = grid.low[index] + np.clip(places, 0.0, 1.0) * width[index]
    for spike in spikes:
        values[(index == spike.bin) & np.isnan(places)] = spike.value
    return np.asarray(values, dtype=np.float64)


def _place_of(spike: Spike, grid: ColumnGrid) -> float:
    return float((spike.value - grid.low[spike.bin]) / (grid.high[spike.bin] - grid.low[spike.bin]))
