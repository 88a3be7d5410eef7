"""Counts over discretised columns: the one thing that both exact and noisy, federated evaluation can compare.

A `MarginalTable` holds k-way counts. The counts may come from records (exact), from a synthetic table, or from nodes
(noisy, possibly negative); a score takes two of them and does not know which is which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.errors import DataError, InternalError

__all__ = [
    "Axis",
    "CodedTable",
    "Discretiser",
    "MarginalTable",
    "cramers_v",
    "format_number",
    "kolmogorov_smirnov",
    "merge_tables",
    "project_to_simplex",
    "total_variation",
]

Floats = NDArray[np.float64]
Codes = NDArray[np.int32]

_MISSING_LABEL = "missing"


@dataclass(frozen=True)
class Axis:
    """The states of one column: intervals or categories, and, where wanted, a last state for missing cells.

    Attributes:
        name: The column.
        cuts: Ascending inner boundaries: state i holds cuts[i-1] <= x < cuts[i], the outer two are open. None for a
            categorical column.
        categories: The categories in order. None for a continuous column.
        missing: Whether the last state is "missing".
        bounds: Smallest and largest value, for labels only; a categorical column has none.
    """

    name: str
    cuts: tuple[float, ...] | None = None
    categories: tuple[str, ...] | None = None
    missing: bool = True
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.cuts is None) == (self.categories is None):
            raise InternalError(f"The axis {self.name!r} needs cuts or categories, and not both.")

    @classmethod
    def from_quantiles(cls, values: pd.Series, *, bins: int) -> Axis:
        """Cuts a continuous column at the quantiles of `values`. Reads patient records if the values are real.

        Args:
            values: float64, NaN for missing.
            bins: At most this many intervals; fewer where quantiles coincide.
        """
        present = values.to_numpy(dtype=np.float64)
        present = present[~np.isnan(present)]
        if not present.size:
            return cls(name=str(values.name), cuts=())
        edges = np.unique(np.quantile(present, np.linspace(0, 1, bins + 1)))
        return cls(name=str(values.name), cuts=tuple(edges[1:-1].tolist()), bounds=(float(edges[0]), float(edges[-1])))

    @classmethod
    def from_grid(cls, name: str, edges: Sequence[float], *, missing: bool) -> Axis:
        """A public grid.

        Args:
            name: The column.
            edges: Ascending, the outer two included: k + 1 edges make k intervals.
            missing: Whether missing cells are counted in a last state.
        """
        grid = tuple(float(edge) for edge in edges)
        return cls(name=name, cuts=grid[1:-1], missing=missing, bounds=(grid[0], grid[-1]))

    @classmethod
    def from_categories(cls, name: str, categories: Sequence[str], *, missing: bool = True) -> Axis:
        """A closed list of categories."""
        return cls(name=name, categories=tuple(str(category) for category in categories), missing=missing)

    @property
    def is_ordered(self) -> bool:
        """Whether the states, but for the missing one, have an order."""
        return self.cuts is not None

    @property
    def present_states(self) -> int:
        """How many states there are besides the missing one."""
        if self.cuts is not None:
            return len(self.cuts) + 1
        return len(self.categories or ())

    @property
    def size(self) -> int:
        """How many states there are."""
        return self.present_states + int(self.missing)

    @property
    def labels(self) -> tuple[str, ...]:
        """A short text for each state."""
        if self.cuts is None:
            named = tuple(self.categories or ())
        else:
            named = tuple(self.interval_label(state, state + 1) for state in range(self.present_states))
        return (*named, _MISSING_LABEL) if self.missing else named

    def interval_label(self, first: int, last: int) -> str:
        """A short text for the states from `first` to just before `last` of a continuous column.

        Where every cut lies half way between two whole numbers, only whole numbers are named.
        """
        cuts = self.cuts or ()
        low, high = self.bounds or (-math.inf, math.inf)
        edges = (low, *cuts, high)
        left, right = edges[first], edges[last]
        if cuts and all(cut % 1 == 0.5 for cut in cuts) and math.isfinite(left) and math.isfinite(right):
            left, right = math.ceil(left), math.floor(right)
        if left == right or right == np.nextafter(left, math.inf):
            return format_number(left)
        return f"{format_number(left)} to {format_number(right)}"

    def encode(self, values: pd.Series) -> Codes:
        """The state of each cell, shape (rows,). Reads patient records if the values are real.

        Raises:
            DataError: DATA_MISSING_UNDECLARED for a missing cell without a state, DATA_CATEGORY_UNKNOWN.
        """
        codes: Codes = self._encode_numbers(values) if self.cuts is not None else self._encode_categories(values)
        empty = codes < 0
        if empty.any():
            if not self.missing:
                raise DataError(
                    "DATA_MISSING_UNDECLARED",
                    f"The column {self.name!r} has empty cells. Its axis has no state for them.",
                )
            codes[empty] = self.present_states
        return codes

    def _encode_numbers(self, values: pd.Series) -> Codes:
        numbers = values.to_numpy(dtype=np.float64)
        codes: Codes = np.searchsorted(np.asarray(self.cuts), numbers, side="right").astype(np.int32)
        codes[np.isnan(numbers)] = -1
        return codes

    def _encode_categories(self, values: pd.Series) -> Codes:
        position = {category: state for state, category in enumerate(self.categories or ())}
        own = [position.get(str(category), -2) for category in values.cat.categories]
        codes: Codes = np.asarray([*own, -1], dtype=np.int32)[values.cat.codes.to_numpy()]
        if (codes == -2).any():
            raise DataError(
                "DATA_CATEGORY_UNKNOWN", f"The column {self.name!r} holds a category that its axis does not list."
            )
        return codes


@dataclass(frozen=True)
class Discretiser:
    """One axis per column: how a typed frame becomes states.

    Attributes:
        axes: In the order of the coded columns.
    """

    axes: tuple[Axis, ...]

    @classmethod
    def from_reference(cls, reference: pd.DataFrame, *, bins: int) -> Discretiser:
        """Quantile cuts of `reference` for continuous columns. Reads patient records if the reference is real.

        Args:
            reference: Typed frame: float64 or categorical columns.
            bins: At most this many intervals a continuous column.
        """
        return cls(tuple(_axis_of(reference[name], bins=bins) for name in reference.columns))

    def encode(self, frame: pd.DataFrame) -> CodedTable:
        """States of all cells of the axes' columns. Reads patient records if the frame is real."""
        codes = np.empty((len(frame), len(self.axes)), dtype=np.int32, order="F")
        for index, axis in enumerate(self.axes):
            codes[:, index] = axis.encode(frame[axis.name])
        return CodedTable(axes=self.axes, codes=codes)


def _axis_of(values: pd.Series, *, bins: int) -> Axis:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return Axis.from_categories(str(values.name), [str(category) for category in values.cat.categories])
    return Axis.from_quantiles(values, bins=bins)


@dataclass(frozen=True, eq=False)
class CodedTable:
    """A discretised table. Holds records if it was made from records.

    Attributes:
        axes: One a column.
        codes: States, shape (rows, columns).
    """

    axes: tuple[Axis, ...]
    codes: Codes

    def marginal(self, columns: Sequence[int]) -> MarginalTable:
        """Counts over the columns at these positions (one, two or three)."""
        axes = tuple(self.axes[index] for index in columns)
        shape = tuple(axis.size for axis in axes)
        flat = np.zeros(len(self.codes), dtype=np.int64)
        for index, size in zip(columns, shape, strict=True):
            flat *= size
            flat += self.codes[:, index]
        counts = np.bincount(flat, minlength=math.prod(shape)).astype(np.float64).reshape(shape)
        return MarginalTable(axes=axes, counts=counts)


@dataclass(frozen=True, eq=False)
class MarginalTable:
    """Counts over the states of one, two or three columns.

    Exact counts of records are not for release; noisy ones that passed the gate are.

    Attributes:
        axes: One a dimension.
        counts: Shape: the sizes of the axes. Noisy counts may be negative.
        noise_sd: Standard deviation of the noise on each cell; 0 = exact.
    """

    axes: tuple[Axis, ...]
    counts: Floats
    noise_sd: float = 0.0

    def __post_init__(self) -> None:
        shape = tuple(axis.size for axis in self.axes)
        if self.counts.shape != shape:
            raise InternalError(f"A marginal table has shape {self.counts.shape} but its axes say {shape}.")

    @classmethod
    def of(cls, frame: pd.DataFrame, axes: Sequence[Axis]) -> MarginalTable:
        """Exact counts of a typed frame. Reads patient records if the frame is real."""
        return Discretiser(tuple(axes)).encode(frame).marginal(range(len(axes)))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(axis.name for axis in self.axes)

    @property
    def total(self) -> float:
        """The sum of all counts."""
        return float(self.counts.sum())

    def probabilities(self) -> Floats:
        """Shares of the states: >= 0, sum 1; all NaN if the total is not positive (nothing can be said).

        Noisy counts are projected onto the simplex in the Euclidean sense.
        """
        if not self.total > 0:
            return np.full(self.counts.shape, np.nan)
        shares = self.counts / self.total
        if (shares >= 0).all():
            return shares
        return project_to_simplex(shares.ravel()).reshape(shares.shape)

    def without_missing(self) -> MarginalTable:
        """The same counts without the rows in which a column is missing."""
        keep = tuple(slice(0, axis.present_states) for axis in self.axes)
        axes = tuple(
            Axis(name=axis.name, cuts=axis.cuts, categories=axis.categories, missing=False, bounds=axis.bounds)
            for axis in self.axes
        )
        return MarginalTable(axes=axes, counts=self.counts[keep], noise_sd=self.noise_sd)


def format_number(value: float) -> str:
    """A short text for an axis label: four digits, thousands grouped."""
    if abs(value) < 1e-300:
        return "0"
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"


def merge_tables(tables: Iterable[MarginalTable]) -> MarginalTable:
    """Sums the tables of several nodes; independent noise adds up in variance. Safe to release if its inputs are."""
    first, *rest = tables
    for table in rest:
        _require_same_axes(first, table)
    every = (first, *rest)
    counts: Floats = np.sum([table.counts for table in every], axis=0)
    return MarginalTable(axes=first.axes, counts=counts, noise_sd=math.sqrt(sum(table.noise_sd**2 for table in every)))


def project_to_simplex(values: Floats) -> Floats:
    """The nearest point (Euclidean) with entries >= 0 and sum 1; Duchi et al. 2008, figure 1."""
    descending = np.sort(values)[::-1]
    excess = (np.cumsum(descending) - 1) / np.arange(1, len(values) + 1)
    support = int(np.nonzero(descending > excess)[0][-1])
    projected: Floats = np.maximum(values - excess[support], 0)
    projected /= projected.sum()
    return projected


def total_variation(first: MarginalTable, second: MarginalTable) -> float:
    """Half the L1 distance of the shares: 0 = equal, 1 = disjoint; NaN if a table is empty."""
    _require_same_axes(first, second)
    return float(0.5 * np.abs(first.probabilities() - second.probabilities()).sum())


def kolmogorov_smirnov(first: MarginalTable, second: MarginalTable) -> float:
    """Largest distance of the two cumulative shares of a one-way table without a missing state; NaN if one is empty."""
    _require_same_axes(first, second)
    if len(first.axes) != 1 or not first.axes[0].is_ordered or first.axes[0].missing:
        raise InternalError("Kolmogorov-Smirnov needs a one-way table of a continuous column without a missing state.")
    gaps = np.abs(np.cumsum(first.probabilities()) - np.cumsum(second.probabilities()))
    return float(gaps.max()) if gaps.size else math.nan


def cramers_v(table: MarginalTable) -> float:
    """Cramér's V of a two-way table, without bias correction; NaN if a column has a single state in use."""
    shares = table.probabilities()
    if np.isnan(shares).any():
        return math.nan
    shares = shares[shares.sum(axis=1) > 0][:, shares.sum(axis=0) > 0]
    if min(shares.shape) < 2:
        return math.nan
    expected = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    phi_squared = float(((shares - expected) ** 2 / expected).sum())
    return math.sqrt(phi_squared / (min(shares.shape) - 1))


def _require_same_axes(first: MarginalTable, second: MarginalTable) -> None:
    if first.axes != second.axes:
        raise InternalError(f"Tables over different states cannot be compared: {first.names} and {second.names}.")
