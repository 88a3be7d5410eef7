"""Marginal overlays: one column of two tables side by side, on bars that people can read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aevorium.evaluation.completion import is_continuous
from aevorium.evaluation.marginals import Axis, Floats, MarginalTable

__all__ = ["Grouping", "MarginalOverlay", "display_grouping", "overlay_frames", "overlay_table"]

_MAX_BARS = 30
_TAIL = 0.005


@dataclass(frozen=True)
class MarginalOverlay:
    """Shares of one column's states in a reference and in the synthetic table.

    Attributes:
        column: Its name.
        labels: One a bar.
        reference: Shares of the reference, sum 1.
        synthetic: Shares of the synthetic table, sum 1.
        distance: Total-variation distance over these bars; NaN if a table is empty.
        band: Half width of the 95% noise band of each reference share; None if the reference is exact.
        is_ordered: Whether the bars, but for a last one named "missing", are intervals in order.
        has_missing: Whether the last bar stands for missing cells.
    """

    column: str
    labels: tuple[str, ...]
    reference: tuple[float, ...]
    synthetic: tuple[float, ...]
    distance: float
    band: tuple[float, ...] | None
    is_ordered: bool
    has_missing: bool


@dataclass(frozen=True)
class Grouping:
    """How the fine states of a one-way table are taken together: each group begins at a state.

    Attributes:
        starts: First state of each group, ascending from 0; the missing state, if any, is a group of its own.
        labels: One a group.
    """

    starts: tuple[int, ...]
    labels: tuple[str, ...]

    def sums(self, values: Floats) -> Floats:
        """Sums within the groups, along the last axis."""
        added: Floats = np.add.reduceat(values, self.starts, axis=-1)
        return added

    def sizes(self, states: int) -> Floats:
        """How many of so many states each group takes."""
        return self.sums(np.ones(states))


def display_grouping(axis: Axis, shares: Floats) -> Grouping:
    """Groups the cells of a grid to at most 30 bars and two tails of 0.5% each. Safe to release if `shares` are.

    Args:
        axis: A continuous column's grid, or categories (which stay as they are).
        shares: Shares of its states; NaN if nothing is known.
    """
    states = axis.present_states
    if not axis.is_ordered or states <= _MAX_BARS + 2:
        return Grouping(tuple(range(axis.size)), axis.labels)
    below = np.cumsum(np.nan_to_num(shares[:states]))
    below = below / below[-1] if below[-1] > 0 else np.linspace(1 / states, 1, states)
    low = int(np.searchsorted(below, _TAIL, side="right"))
    high = int(np.searchsorted(below, 1 - _TAIL, side="left")) + 1
    step = math.ceil(max(high - low, 1) / _MAX_BARS)
    starts = sorted({0, *range(low, high, step), *([high] if high < states else [])})
    labels = [axis.interval_label(first, last) for first, last in zip(starts, [*starts[1:], states], strict=True)]
    if axis.missing:
        starts.append(states)
        labels.append(axis.labels[-1])
    return Grouping(tuple(starts), tuple(labels))


def overlay_table(released: MarginalTable, synthetic: MarginalTable) -> MarginalOverlay:
    """Compares with a released noisy one-way table over the same axis. Safe to release if that table is."""
    axis = released.axes[0]
    shares = released.probabilities()
    grouping = display_grouping(axis, shares)
    total = released.total
    noise = np.sqrt(grouping.sizes(axis.size)) * (released.noise_sd / total if total > 0 else math.nan)
    return _overlay(
        axis, grouping.labels, grouping.sums(shares), grouping.sums(synthetic.probabilities()), band=1.96 * noise
    )


def overlay_frames(reference: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[MarginalOverlay, ...]:
    """Compares each column of two typed frames. Reads patient records if one is real; not for release then."""
    return tuple(_overlay_column(reference[name], synthetic[name]) for name in reference.columns)


def _overlay_column(reference: pd.Series, synthetic: pd.Series) -> MarginalOverlay:
    has_missing = bool(reference.isna().any() or synthetic.isna().any())
    axis = _display_axis(reference, synthetic, missing=has_missing)
    tables = [MarginalTable.of(values.to_frame(), [axis]) for values in (reference, synthetic)]
    shares = [table.probabilities() for table in tables]
    return _overlay(axis, axis.labels, shares[0], shares[1], band=None)


def _display_axis(reference: pd.Series, synthetic: pd.Series, *, missing: bool) -> Axis:
    name = str(reference.name)
    if not is_continuous(reference):
        return Axis.from_categories(name, [str(category) for category in reference.cat.categories], missing=missing)
    both = np.concatenate([values.dropna().to_numpy(dtype=np.float64) for values in (reference, synthetic)])
    if not both.size:
        return Axis(name=name, cuts=(), missing=missing)
    low, high = np.quantile(both, [2 * _TAIL, 1 - 2 * _TAIL])
    if (both == np.rint(both)).all():
        step = max(math.ceil((high - low + 1) / _MAX_BARS), 1)
        cuts = np.arange(math.floor(low) - 0.5, math.floor(high) + step, step)
    else:
        cuts = np.linspace(low, high, _MAX_BARS + 1)
    smallest, largest = float(both.min()), float(both.max())
    inner = np.unique(cuts[(cuts > smallest) & (cuts < largest)])
    return Axis(name=name, cuts=tuple(inner.tolist()), missing=missing, bounds=(smallest, largest))


def _overlay(
    axis: Axis, labels: tuple[str, ...], reference: Floats, synthetic: Floats, *, band: Floats | None
) -> MarginalOverlay:
    return MarginalOverlay(
        column=axis.name,
        labels=labels,
        reference=tuple(reference.tolist()),
        synthetic=tuple(synthetic.tolist()),
        distance=float(0.5 * np.abs(reference - synthetic).sum()),
        band=None if band is None else tuple(band.tolist()),
        is_ordered=axis.is_ordered,
        has_missing=axis.missing,
    )
