"""Columns whose values nearly all lie on a lattice of round numbers: weights in whole kilograms, doses in steps of 2.5.

Bins of a width near the lattice's step hold one number of it, or none, or two. If those that hold fewer than their
width lets expect also have fewer records, all along the column, then its values are those of the lattice. Where the
bins are several steps wide, or each of them holds equally many numbers, a histogram cannot tell. What is found is
post-processing of noisy counts: free of charge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aevorium.encoding.denoise import denoise_histogram
from aevorium.encoding.grid import ColumnGrid
from aevorium.encoding.rounding import Rounding, multiples_of
from aevorium.encoding.spikes import MOST_SHARE, STATE, Spike
from aevorium.encoding.tails import with_tails

__all__ = ["Lattice", "find_lattice", "known_lattice"]

_STEPS = (10, 20, 25, 50)
"""Tenths of a power of ten that people round to."""

_SURE = 6.0
"""Standard deviations, of privacy noise and chance together, by which records must lack where the lattice has none."""

_HEAPS, _SURE_AMONG_HEAPS = 3, 1.0
"""Where so many bins stand out at round numbers, people have rounded: less is then to be shown of the other records."""

_LEAST_SHARE, _MOST_RECORDS = 0.5, 0.95
"""Of the records at least this part are on the lattice; a coarse lattice with nearly all goes before a finer one."""

_LEAST_AMONG_WIDENING = 0.8
"""Where bins widen from zero: frequent amounts that are not round seem to be half of a lattice (Adult's losses)."""

_LEAST_PLACES = 6
"""A range with fewer multiples is too short to see a lattice in it."""

_LEAST_LACK, _LEAST_GAPS = 0.15, 4.0
"""A bin lacks records if the lattice has it expect that part fewer than its width; evidence comes from so many bins at
least: a gap is no lattice."""

_FULLEST, _MOST_IN_FULLEST = 4, 0.8
"""So many numbers of the lattice hold this part of the records at most: a peak is no lattice."""

_MOST_BINS, _MOST_HELD = 0.9, 0.75
"""So large a part of the bins, or else of the records, is in bins of about the same width."""

_FEW = 3.0
"""Bins that are narrower than so many steps hold clearly different numbers of multiples."""

_HEAP, _AROUND = 2.5, 3
"""A bin of more times the median of so many bins to each side is one of a heap, if each holds a number or two."""


@dataclass(frozen=True)
class Lattice:
    """Multiples of a round number, on which a part of the records lies. Safe to release.

    Attributes:
        values: Those within the column's inner bins, ascending.
        step: How far apart they are.
        inner: The bins in which it was looked for, bool [bins]; bounds, and bins of quite another width, are not.
        held: How many of them each bin holds, int64 [bins].
        share: Share of the records on them.
        error: Its standard error.
    """

    values: NDArray[np.float64]
    step: float
    inner: NDArray[np.bool_]
    held: NDArray[np.int64]
    share: float
    error: float

    @property
    def is_everything(self) -> bool:
        """Whether all records may be on it."""
        return self.share + 2 * self.error >= 1

    def denoise(self, counts: NDArray[np.float64], grid: ColumnGrid, *, noise: float) -> NDArray[np.float64]:
        """Denoised counts with ends: smooth among bins that hold equally many numbers, not from these to others."""
        shares = with_tails(denoise_histogram(counts, noise=noise), counts, noise=noise, middle=grid.middle)
        shares[self.inner] = 0.0
        for held in np.unique(self.held[self.inner]):
            alike = self.inner & (self.held == held)
            if held > 0 or not self.is_everything:
                smooth = denoise_histogram(counts[alike], noise=noise)
                shares[alike] = with_tails(smooth, counts[alike], noise=noise, middle=grid.middle[alike])
        return shares

    def spikes(self, grid: ColumnGrid, *, standing: tuple[Spike, ...]) -> tuple[Spike, ...]:
        """A spike at each of its values, and those that stand where it was not looked for.

        Args:
            grid: The column's grid.
            standing: What `find_spikes` says. Of the numbers of a bin that stands out it tells which one is frequent.
        """
        homes = grid.locate(self.values)
        outer = tuple(spike for spike in standing if not self.inner[grid.locate(np.array([spike.value]))[0]])
        share = 1.0 if self.is_everything else self.share
        on = share * self.step * self.held[homes]
        off = (1 - share) * (grid.high - grid.low)[homes]
        parts = on / (on + off) / self.held[homes]
        for spike in standing:
            shared = homes == grid.locate(np.array([spike.value]))[0]
            if shared.sum() > 1 and spike.value in self.values[shared]:
                parts[shared] = (1 - spike.share) * parts[shared] + spike.share * (self.values[shared] == spike.value)
        own = (
            Spike(value=float(value), share=float(MOST_SHARE * part))
            for value, part in zip(self.values, parts, strict=True)
        )
        return tuple(sorted((*own, *outer), key=lambda spike: spike.value))


def find_lattice(
    counts: NDArray[np.float64], grid: ColumnGrid, *, noise: float, standing: tuple[Spike, ...] = ()
) -> Lattice | None:
    """Looks for a lattice among bins of about the same width, if these are most or hold most records.

    Args:
        counts: Noisy counts of a continuous column's bins, [bins].
        grid: The column's grid.
        noise: Standard deviation of the noise in each of them.
        standing: What `find_spikes` says.
    """
    among_heaps = len(standing) >= _HEAPS
    sure = _SURE_AMONG_HEAPS if among_heaps else _SURE
    width = grid.high - grid.low
    if not among_heaps:
        counts = _without_states(counts, grid, standing=standing)
    usual = float(np.median(width))
    inner, least = _about(usual, width), _LEAST_SHARE
    if inner.mean() < _MOST_BINS:
        # Bins that widen from zero: those where the records are.
        held = np.where(width > (1 if grid.integer else 0), np.maximum(counts - 2 * noise, 0.0), 0.0)
        usual = _median(width, weights=held)
        inner, least = _about(usual, width), _LEAST_AMONG_WIDENING
        if held[inner].sum() <= _MOST_HELD * held.sum():
            return None
    if usual <= (1 if grid.integer else 0):
        return None
    found = [
        (certainty, lattice)
        for values, step in _round_numbers(grid, width=usual)
        if (judged := _judge(counts, grid, values, step=step, inner=inner, noise=noise, among_heaps=among_heaps))
        is not None
        and judged[0] >= sure
        and judged[1].share >= least
        for certainty, lattice in [judged]
    ]
    complete = [pair for pair in found if pair[1].share >= _MOST_RECORDS]
    return max(complete or found, key=lambda pair: pair[0], default=(0.0, None))[1]


def known_lattice(rounding: Rounding, grid: ColumnGrid) -> Lattice | None:
    """The lattice of a column whose rounding was released, among bins that are narrow beside its step; None without.

    Args:
        rounding: How the column is rounded.
        grid: Its grid.
    """
    found = ((heap, rounding.surplus(heap)) for heap in rounding.heaps)
    step, share = next((pair for pair in found if pair[1] >= _LEAST_SHARE), (rounding.step, 1.0))
    if step is None or (grid.integer and step.size == 1):
        # Bins of whole numbers hold whole numbers of these; a histogram for each kind of bin tells less than one.
        return None
    width = grid.high - grid.low
    # Where all whole numbers are multiples of more than one, bins of one number are empty or not.
    inner = (width > (1 if grid.integer and step != rounding.step else 0)) & (width < _FEW * step.size)
    inner[[0, -1]] = False
    if not inner.any():
        return None
    held = step.within(grid.low, grid.high, lowest=float(grid.low[0]))[1].astype(np.int64)
    values = multiples_of(step, grid, bins=inner)
    return Lattice(values=values, step=step.size, inner=inner, held=held, share=share, error=0.0)


def _about(usual: float, width: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((width > usual / 2) & (width < 2 * usual))


def _round_numbers(grid: ColumnGrid, *, width: float) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Lattices with no more than two numbers to a bin of that width, and no fewer than six in all."""
    low, high = float(grid.low[0]), float(grid.high[-1])
    for exponent in range(math.floor(math.log10(width)) - 1, math.ceil(math.log10(high - low)) + 1):
        for leading in _STEPS:
            step = float(f"{leading}e{exponent - 1}")
            if step < width / 2 or step * _LEAST_PLACES > high - low or (grid.integer and step % 1):
                continue
            multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
            # Decimals are read, not computed: a value must be the very number that a file holds.
            yield np.array([float(f"{multiple * leading}e{exponent - 1}") for multiple in multiples]), step


def _judge(
    counts: NDArray[np.float64],
    grid: ColumnGrid,
    values: NDArray[np.float64],
    *,
    step: float,
    inner: NDArray[np.bool_],
    noise: float,
    among_heaps: bool,
) -> tuple[float, Lattice] | None:
    """How certain it is that records lack where the lattice has no numbers, and the lattice; None if it is not."""
    width = grid.high - grid.low
    homes = grid.locate(values)
    held = np.bincount(homes, minlength=len(width)) * inner
    usual = float(np.median(width[inner]))
    if step < usual:
        counts = _without_heaps(counts, noise=noise)
    middle = grid.middle
    # Where a bin may hold two numbers, a peak is as wide in bins only if it is twice as wide in numbers.
    fullest = 2 * _FULLEST if step < usual and not among_heaps else _FULLEST
    if _is_peak(counts - 2 * noise, np.round(middle / step), inner=inner, fullest=fullest):
        return None
    if_spread, if_lattice = _expected(counts, width, middle, held=held, inner=inner, step=step)
    lacks = inner & (if_lattice < (1 - _LEAST_LACK) * if_spread)
    lacking, variance = (if_spread - if_lattice)[lacks], noise**2 + np.maximum(if_spread[lacks], 1.0)
    evidence = lacking**2 / variance
    if _effective(evidence) < _LEAST_GAPS:
        return None
    shares = (if_spread - counts)[lacks] / lacking
    share, error = float(np.average(shares, weights=evidence)), float(1 / np.sqrt(evidence.sum()))
    # Far more than all, or a few bins alone: what lacks is not what the lattice says.
    is_common = among_heaps or _median(shares, weights=evidence) >= _LEAST_SHARE
    if not (_LEAST_SHARE <= share <= 1.1 + 3 * error and is_common):
        return None
    kept = inner[homes]
    return share / error, Lattice(
        values=values[kept], step=step, inner=inner, held=held, share=min(share, 1.0), error=error
    )


def _expected(
    counts: NDArray[np.float64],
    width: NDArray[np.float64],
    middle: NDArray[np.float64],
    *,
    held: NDArray[np.int64],
    inner: NDArray[np.bool_],
    step: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each bin would hold if the records nearby were spread evenly, and if they were on the lattice."""
    reach = max(step, 1.5 * float(np.median(width[inner])))
    nearby = np.exp(-0.5 * ((middle[:, None] - middle[inner]) / reach) ** 2)
    smooth = np.maximum(nearby @ counts[inner], 0.0)
    around = np.maximum(nearby @ np.stack([width[inner], held[inner]], axis=1), np.finfo(np.float64).tiny)
    return smooth * width / around[:, 0], smooth * held / around[:, 1]


def _without_states(
    counts: NDArray[np.float64], grid: ColumnGrid, *, standing: tuple[Spike, ...]
) -> NDArray[np.float64]:
    """Counts without what is at a state: beside it, bins that lack nothing would seem to lack a lot."""
    left = counts.astype(np.float64)
    for spike in standing:
        (home,) = grid.locate(np.array([spike.value]))
        if counts[home] > STATE * np.maximum(counts, 0).sum():
            left[home] *= 1 - spike.share
    return left


def _without_heaps(counts: NDArray[np.float64], *, noise: float) -> NDArray[np.float64]:
    """Counts with frequent numbers cut down: beside these, bins that lack nothing would seem to lack a lot."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(counts, _AROUND, mode="edge"), 2 * _AROUND + 1)
    return np.asarray(np.minimum(counts, np.maximum(_HEAP * np.median(around, axis=1), 3 * noise)))


def _is_peak(
    counts: NDArray[np.float64], nearest: NDArray[np.float64], *, inner: NDArray[np.bool_], fullest: int
) -> bool:
    places = (nearest - nearest.min()).astype(np.int64)
    held = np.sort(np.bincount(places, weights=np.maximum(counts, 0.0) * inner))
    return bool(held[-fullest:].sum() > _MOST_IN_FULLEST * held.sum())


def _median(values: NDArray[np.float64], *, weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])


def _effective(weights: NDArray[np.float64]) -> float:
    """How many even weights are as uneven as these: (Σw)² / Σw² (Kish 1965)."""
    return float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))
