"""Getting the shape of a histogram out of its noise. Post-processing of released numbers: free of charge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["denoise_histogram", "project_to_total"]

_SHIFTS = 16


def denoise_histogram(counts: NDArray[np.floating], *, noise: float) -> NDArray[np.float64]:
    """Translation-invariant Haar thresholding (Coifman & Donoho 1995): smooth where smooth, sharp at spikes.

    The threshold is the universal one, σ √(2 ln bins) (Donoho & Johnstone 1994): noise hardly ever passes it, however
    many bins there are.

    Args:
        counts: [bins], noisy and possibly negative.
        noise: Standard deviation of the noise of each bin; 0 leaves the counts alone.

    Returns:
        float64 [bins], not negative.
    """
    raw = np.asarray(counts, dtype=np.float64)
    if noise <= 0 or len(raw) < 2:
        return np.maximum(raw, 0.0)
    size = 2 ** int(np.ceil(np.log2(len(raw) + _SHIFTS)))
    limit = noise * np.sqrt(2 * np.log(len(raw)))
    total = np.zeros(len(raw))
    for shift in range(_SHIFTS):
        padded = np.zeros(size)
        padded[shift : shift + len(raw)] = raw
        total += _threshold_haar(padded, limit=limit)[shift : shift + len(raw)]
    return np.maximum(total / _SHIFTS, 0.0)


def _threshold_haar(signal: NDArray[np.float64], *, limit: float) -> NDArray[np.float64]:
    """One orthonormal Haar transform, small details set to zero, and back."""
    details = []
    level = signal
    while len(level) > 1:
        even, odd = level[0::2], level[1::2]
        detail = (even - odd) / np.sqrt(2)
        details.append(np.where(np.abs(detail) > limit, detail, 0.0))
        level = (even + odd) / np.sqrt(2)
    for detail in reversed(details):
        wider = np.empty(2 * len(level))
        wider[0::2] = (level + detail) / np.sqrt(2)
        wider[1::2] = (level - detail) / np.sqrt(2)
        level = wider
    return np.asarray(level, dtype=np.float64)


def project_to_total(counts: NDArray[np.floating], *, total: float) -> NDArray[np.float64]:
    """The nearest non-negative numbers with a given sum (Euclidean projection on a simplex; Held et al. 1974).

    Args:
        counts: [cells], noisy and possibly negative.
        total: Their sum afterwards; positive.
    """
    ordered = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    shifts = (np.cumsum(ordered) - total) / np.arange(1, len(ordered) + 1)
    last = np.flatnonzero(ordered > shifts)[-1]
    return np.asarray(np.maximum(np.asarray(counts, dtype=np.float64) - shifts[last], 0.0))
