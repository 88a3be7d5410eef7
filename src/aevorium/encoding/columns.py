"""What the encoder knows of one column, and how it follows from the column's noisy counts.

Everything here is post-processing of released counts: free of charge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.encoding.denoise import denoise_histogram, project_to_total
from aevorium.encoding.grid import ColumnGrid
from aevorium.encoding.rounding import Rounding
from aevorium.encoding.spikes import Spike, constant_spike, find_spikes, holds_all
from aevorium.encoding.steps import Step
from aevorium.encoding.tails import support, with_tails

__all__ = ["ColumnCode", "fit_column"]

_FLOOR = 1e-5
"""Share of a continuous column's mass that is spread evenly over its support: F must increase wherever a value may lie.
A record beyond the support is encoded as if at its end."""

_NARROW = 3.0
"""Bins that are narrower than so many steps hold clearly different numbers of multiples."""


class ColumnCode(BaseModel):
    """What the encoder knows of one column: shares that come from noisy counts. Safe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: tuple[float, ...] = Field(description="Share of each bin or category among present values; sums to 1.")
    missing: float | None = Field(description="Share of missing values; null if the schema allows none.")
    spikes: tuple[Spike, ...] = Field(default=(), description="Values inside bins that many records share, ascending.")
    step: Step | None = Field(
        default=None,
        description="What its numbers are multiples of, where that is known; others become one nearby.",
    )
    is_constant: bool = Field(
        default=False, description="Whether one bin has every number; those of others are encoded as if in it."
    )

    def with_shares(self, shares: NDArray[np.float64]) -> ColumnCode:
        """The same with other shares.

        Args:
            shares: Share of all records in each cell of the column's grid, the missing one last.
        """
        present, missing = (shares, None) if self.missing is None else (shares[:-1], float(shares[-1]))
        # A constant stays one: what a fit to noisy tables puts elsewhere is noise.
        changed = self.shares if self.is_constant else tuple(float(share) for share in present / present.sum())
        return self.model_copy(update={"shares": changed, "missing": missing})


def fit_column(
    grid: ColumnGrid, counts: NDArray[np.int64], *, noise: float, total: float, rounding: Rounding | None
) -> ColumnCode:
    """Fits a column's code to noisy counts of its grid's cells.

    Args:
        grid: The column's grid.
        counts: Noisy counts of its cells, the missing one last.
        noise: Standard deviation of the noise in each of them.
        total: The estimated number of records.
        rounding: How its numbers are rounded; None if nothing tells.
    """
    missing: float | None = None
    present = total
    if grid.missing:
        missing = float(np.clip(counts[grid.states] / total, 0.0, 1.0 - 1.0 / max(total, 2.0)))
        present = total * (1.0 - missing)
    cells = counts[: grid.states].astype(np.float64)
    if grid.categories:
        return _column_code(project_to_total(cells, total=present), missing=missing)
    only = holds_all(cells, noise=noise, total=present)
    if only is not None:
        code = _column_code(np.eye(len(cells))[only], missing=missing, spikes=constant_spike(grid, only))
        return code.model_copy(update={"is_constant": True})
    shares, spikes = _fit_bins(grid, cells, noise=noise, rounding=rounding)
    code = _column_code(shares, missing=missing, spikes=spikes)
    return code if rounding is None else code.model_copy(update={"step": rounding.step})


def _column_code(shares: NDArray[np.float64], *, missing: float | None, spikes: tuple[Spike, ...] = ()) -> ColumnCode:
    return ColumnCode(shares=tuple(float(share) for share in shares / shares.sum()), missing=missing, spikes=spikes)


def _fit_bins(
    grid: ColumnGrid, cells: NDArray[np.float64], *, noise: float, rounding: Rounding | None
) -> tuple[NDArray[np.float64], tuple[Spike, ...]]:
    shares = _denoised(grid, cells, noise=noise, rounding=rounding)
    inside = support(shares)
    even = np.zeros(len(cells))
    even[inside] = 1 / len(even[inside])
    shares = shares / shares.sum() if shares.sum() > 0 else even
    shares = (1 - _FLOOR) * shares + _FLOOR * even
    standing = find_spikes(cells, grid, noise=noise)
    if rounding is None:
        return shares, standing
    return shares, rounding.spikes(grid, shares, standing=rounding.among(standing, grid, shares))


def _denoised(
    grid: ColumnGrid, cells: NDArray[np.float64], *, noise: float, rounding: Rounding | None
) -> NDArray[np.float64]:
    """Smooth counts with ends, [bins].

    Bins that are narrow beside the step of many numbers hold one multiple of it, or none, or two: they are smooth among
    those that hold equally many, not from these to others.
    """

    def smooth(bins: NDArray[np.bool_]) -> NDArray[np.float64]:
        denoised = denoise_histogram(cells[bins], noise=noise)
        return with_tails(denoised, cells[bins], noise=noise, middle=grid.middle[bins])

    shares = smooth(np.ones(len(cells), dtype=bool))
    step = None if rounding is None else rounding.usual_step
    # Bins of whole numbers hold whole numbers of these; a histogram for each kind of bin tells less than one.
    if rounding is None or step is None or (grid.integer and step.size == 1):
        return shares
    width = grid.high - grid.low
    # Where all whole numbers are multiples of more than one, bins of one number are empty or not.
    narrow = (width > (1 if grid.integer and step != rounding.step else 0)) & (width < _NARROW * step.size)
    narrow[[0, -1]] = False
    _, held = step.within(grid.low, grid.high, lowest=float(grid.low[0]))
    # A histogram of a part of the bins tells less of where its ends are than that of all.
    inside = np.zeros(len(cells), dtype=bool)
    inside[support(shares)] = True
    for number in np.unique(held[narrow]):
        alike = narrow & (held == number)
        if number == 0 and step == rounding.step:
            shares[alike] = 0.0
        elif (alike & inside).any():
            shares[alike & inside] = smooth(alike & inside)
    return shares
