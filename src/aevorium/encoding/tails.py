"""The ends of a histogram: where noise hides the last records, and seems to show some where there are none.

Smoothing alone goes wrong there. It spreads what little is left over wide blocks, so that values are generated that no
record comes near, and it drops the last bin, so that a bound which many records reach is never generated. A table's
smallest and largest values are the first thing that people look at, and scores that cut columns by their range depend
on them. Post-processing of released numbers: free of charge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["support", "with_tails"]

_LENGTHS = np.concatenate([[0.15], np.geomspace(0.25, 256, 21)])
"""How far, in bins, a tail may reach until it has fallen to 1/e; the shortest is an end without a tail."""

_BOUND, _FAR_BOUND, _LONELY_BOUND = 0.7, 2.0, 3.0
"""Standard deviations of noise from which the last bin's own count is taken for records: where there surely are records
near it, where there are none, and where it is so far that all between is taken for noise. A bound that was chosen where
values end and is never reached is a worse fault than one that a few rows reach too many. One that was chosen with room
to spare is reached by none, and a few rows there outweigh all others in the column's deviation and in its
correlations."""

_FAR = 0.25
"""A bound is far from the last bin that surely holds records if a larger part of the bins than this lies between, or of
the values: bins that widen towards it make it near by their number alone, and its rows outweigh others all the more."""

_MORE, _REACH, _APART = 0.5, 3, 0.3
"""The universal threshold shows records where there are none in one column of ten, and far out one such bin outweighs
all others. So what passes it by this many deviations sets a stretch; what is further from it than so many times its
length, and than that part of all bins, is taken for noise. Where bounds fit the values, nothing is as far."""

_LEAST = 0.5
"""Records that a bin has to hold to be one of the column's support."""


def with_tails(
    smooth: NDArray[np.float64], counts: NDArray[np.float64], *, noise: float, middle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Smoothed counts with both ends made anew.

    Beyond the outermost bin from which on there are surely records, counts fall exponentially at an unknown rate. The
    result is the mean over rates, weighted by how likely they make the noisy counts there, and the smoothed counts are
    one possibility more. Far from all that surely is a record, these are taken for noise. Where no bin surely holds
    records, there are no ends to make: an even spread has three quarters, and what smoothing leaves one.

    Args:
        smooth: [bins], smoothed counts, none negative.
        counts: [bins], the noisy counts that they come from.
        noise: Standard deviation of the noise of each bin; 0 leaves the counts alone.
        middle: [bins], the value in the middle of each bin, ascending.
    """
    if noise <= 0:
        return smooth
    upper, lower = _last_sure(counts, noise=noise), _last_sure(counts[::-1], noise=noise)
    if upper is None or lower is None:
        return np.asarray((smooth + 3 * smooth.mean()) / 4)
    found = _with_upper_tail(smooth, counts, sure=upper, noise=noise, middle=middle)
    return _with_upper_tail(found[::-1], counts[::-1], sure=lower, noise=noise, middle=-middle[::-1])[::-1]


def support(counts: NDArray[np.float64]) -> slice:
    """The bins from the first to the last that hold half a record or more; all bins if none does.

    Args:
        counts: [bins], denoised counts.
    """
    held = np.flatnonzero(counts >= _LEAST)
    return slice(int(held[0]), int(held[-1]) + 1) if len(held) else slice(0, len(counts))


def _with_upper_tail(
    smooth: NDArray[np.float64],
    counts: NDArray[np.float64],
    *,
    sure: tuple[int, int],
    noise: float,
    middle: NDArray[np.float64],
) -> NDArray[np.float64]:
    last, far = sure
    smooth = np.where(np.arange(len(smooth)) > far, 0.0, smooth)
    beyond = counts[last + 1 :]
    if not len(beyond):
        # The last bin surely holds records; smoothing may have dropped it, which takes a single bin that stands alone
        # to stand out by more.
        return np.append(smooth[:-1], max(smooth[-1], counts[-1]))
    falling = smooth[last] * np.exp(-np.arange(1, len(beyond) + 1) / _LENGTHS[:, None])
    possible = np.vstack([falling, smooth[last + 1 :]])
    variance = noise**2 + possible
    likely = -0.5 * ((beyond - possible) ** 2 / variance + np.log(variance)).sum(axis=1)
    # Noise that just passes the threshold of smoothing makes the smoothed counts so much likelier.
    likely[-1] -= np.log(len(counts))
    weights = np.exp(likely - likely.max())
    found = np.append(smooth[: last + 1], weights @ possible / weights.sum())
    between = max(len(beyond) / len(counts), (middle[-1] - middle[last]) / (middle[-1] - middle[0]))
    reached = _LONELY_BOUND if far < len(counts) - 1 else _FAR_BOUND if between > _FAR else _BOUND
    if counts[-1] > reached * noise:
        found[-1] = max(found[-1], counts[-1])
    return found


def _last_sure(counts: NDArray[np.float64], *, noise: float) -> tuple[int, int] | None:
    """The outermost bin from which on a run of 1, 2, 4, ... bins surely holds records, and the last that may hold any.

    Sure is what passes the universal threshold of that many runs; None if there is none.
    """
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    lengths = 2 ** np.arange(len(counts).bit_length())
    limit = np.sqrt(2 * np.log(len(counts) * len(lengths)))
    deviations = [(sums[length:] - sums[:-length]) / (noise * np.sqrt(length)) for length in lengths]
    highest = np.full(len(counts), -np.inf)
    for found in deviations:
        highest[: len(found)] = np.maximum(highest[: len(found)], found)
    surest = np.flatnonzero(highest > limit + _MORE)
    far = len(counts) - 1
    if len(surest):
        far = int(surest[-1] + max(_REACH * (surest[-1] - surest[0]), np.ceil(_APART * len(counts))))
    sure = np.flatnonzero(highest[: far + 1] > limit)
    return (int(sure[-1]), far) if len(sure) else None
