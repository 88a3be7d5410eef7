"""Mixtures of products fitted to all noisy tables at once.

Every component is a product of independent columns, so one- and two-way tables of the mixture are sums of K outer
products, and all of them together are one matrix product. The table of a triple is a two-way table for each cell of its
third column, in which components weigh as much as they have of that cell.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, wait
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag
from torch import Tensor

from aevorium.threads import CORES, single_threads

__all__ = ["FitSettings", "Mixture", "NoisyTable", "Slice", "TableSet", "fit_mixture"]

_LEARNING_RATE = 0.05
_SPREAD = 0.7
"""Standard deviation of the components' first logits around those of the shares."""

_LEAST_STEPS, _STEPS = 400, 4
"""Steps of a fit, and steps for each of its components. On Adult at ε = 1, with 300 components, 1,200 steps in place of
400 took tstr from .898 to .901 and c2st from .667 to .662."""

_NOTHING = 1e-12
"""A share of nothing, of which there still is a logarithm."""

_OFTEN = 0.05
"""Seconds after which progress is told."""

_FITS = 4
"""Fits from different beginnings, of which the mean is taken. What noise has one of them make up, the others do not."""


@dataclass(frozen=True)
class FitSettings:
    """How large the mixture is and how long it is fitted.

    Attributes:
        components: Number of components of a fit.
        steps: Steps of Adam of a fit.
        fits: Number of fits, of which the mean is taken.
    """

    components: int
    steps: int
    fits: int = _FITS

    @property
    def all_steps(self) -> int:
        """Steps of all fits together."""
        return self.steps * self.fits

    @classmethod
    def for_tables(cls, tables: int) -> FitSettings:
        """The size by a public rule: four components a table, and four steps a component.

        Args:
            tables: Number of two-way tables, those of a triple each counted.
        """
        if not tables:
            return cls(components=1, steps=0)
        components = int(np.clip(4 * tables, 60, 300))
        return cls(components=components, steps=max(_LEAST_STEPS, _STEPS * components))


class Slice(NamedTuple):
    """Records that have a column in a cell.

    Attributes:
        column: Number of the column.
        cell: The cell, of those that it is cut into as a third.
    """

    column: int
    cell: int


@dataclass(frozen=True)
class NoisyTable:
    """A two-way table that the mixture should agree with, in shares of all records.

    Attributes:
        first: Number of its first column.
        second: Number of its second column.
        shares: float64 [rows, columns].
        deviation: float64 [rows, columns], how far off each share is expected to be.
        given: Which records it counts; None for all of them.
    """

    first: int
    second: int
    shares: NDArray[np.float64]
    deviation: NDArray[np.float64]
    given: Slice | None = None


@dataclass(frozen=True)
class TableSet:
    """Tables that cut every column in one way, no pair twice for the same records.

    Attributes:
        maps: For each column float64 [cells, table cells], the part of each cell that lies in each table cell.
        tables: The tables.
        thirds: The same for the columns by which tables are counted apart, as those are cut there.
    """

    maps: Sequence[NDArray[np.float64]]
    tables: Sequence[NoisyTable]
    thirds: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Mixture:
    """A density over rows of cells. Safe to release: it is fitted to released tables.

    Attributes:
        weights: float64 [K].
        columns: For each column float64 [K, cells].
        residual: Mean over all cells of ((mixture - table) / deviation)² at the end of a fit, and over the fits.
        fits: Number of fits that it is the mean of; each has K / fits components, those of the first come first.
    """

    weights: NDArray[np.float64]
    columns: tuple[NDArray[np.float64], ...]
    residual: float
    fits: int = 1

    def parts(self) -> tuple[Mixture, ...]:
        """The fits, each a mixture of its own."""
        weights = np.split(self.weights * self.fits, self.fits)
        columns = [np.split(column, self.fits) for column in self.columns]
        return tuple(
            Mixture(weights=weights[part], columns=tuple(column[part] for column in columns), residual=self.residual)
            for part in range(self.fits)
        )

    def pair(self, first: int, second: int) -> NDArray[np.float64]:
        """The two-way table of two columns, in shares."""
        return np.asarray((self.columns[first] * self.weights[:, None]).T @ self.columns[second])

    def without(self, cells: Sequence[NDArray[np.bool_]]) -> Mixture:
        """The same with next to nothing in some cells.

        Args:
            cells: For each column which of its first cells are empty, bool [cells or fewer]; never all. In every
                component the others of these get what the empty ones had, and cells that are not told of stay.
        """
        columns = []
        for empty, part in zip(cells, self.columns, strict=True):
            told, rest = part[:, : len(empty)], part[:, len(empty) :]
            kept = np.where(empty, _NOTHING, told)
            kept *= told.sum(axis=1, keepdims=True) / kept.sum(axis=1, keepdims=True)
            columns.append(np.hstack([kept, rest]))
        return replace(self, columns=tuple(columns))

    def sample(self, rows: int, *, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draws rows: int64 [rows, columns], the cell of each column."""
        component = generator.choice(len(self.weights), size=rows, p=self.weights)
        drawn = []
        for shares in self.columns:
            ends = np.cumsum(shares, axis=1)
            ends /= ends[:, -1:]
            place = (generator.random(rows)[:, None] >= ends[component]).sum(axis=1)
            drawn.append(np.minimum(place, shares.shape[1] - 1))
        return np.stack(drawn, axis=1).astype(np.int64)


def fit_mixture(
    shares: Sequence[NDArray[np.float64]],
    released: Sequence[TableSet],
    *,
    settings: FitSettings,
    one_way_deviation: Sequence[NDArray[np.float64]],
    seed: int,
    advance: Callable[[int], None],
) -> Mixture:
    """Fits mixtures by weighted least squares with a pull towards independence, and takes their mean.

    The loss is Σ ((mixture - table) / deviation)² + λ Σ_k w_k KL(component k ‖ shares). λ is one over the root
    mean squared deviation of a share in the last tables. The mean of several fits from different beginnings is steadier
    than each of them, as in bagging (Breiman 1996).

    Args:
        shares: For each column the released shares of its cells, each summing to 1.
        released: The noisy tables, the finest last.
        settings: Size and length.
        one_way_deviation: For each column how far off its shares are expected to be.
        seed: Fixes the first components.
        advance: Called now and then with the number of steps made; what it raises ends the fits.
    """
    used = [tables for tables in released if tables.tables]
    if not used:
        return Mixture(weights=np.ones(1), columns=tuple(part[None] for part in shares), residual=math.nan)
    pull, blocks = _pull(used[-1]), [_assemble(tables) for tables in used]
    done, is_given_up = [0] * settings.fits, threading.Event()

    def run(number: int) -> Mixture:
        def count(steps: int) -> None:
            if is_given_up.is_set():
                raise CancelledError
            done[number] = steps

        beginning = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        fit = _Fit(shares, blocks, settings=settings, one_way_deviation=one_way_deviation, seed=beginning)
        return fit.run(pull=pull, advance=count)

    # A fit a core: its matrices are too small to be worth dividing among cores, and what comes out is the same.
    with single_threads(min(settings.fits, CORES)) as pool:
        try:
            fits = [pool.submit(run, number) for number in range(settings.fits)]
            while wait(fits, timeout=_OFTEN, return_when=FIRST_EXCEPTION).not_done:
                advance(sum(done))
                for fit in fits:
                    if fit.done():
                        fit.result()
        except BaseException:
            is_given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found = [fit.result() for fit in fits]
    advance(settings.all_steps)
    return _mean(found)


def _pull(finest: TableSet) -> float:
    """Measured, not derived: on tables of 2 to 60 columns and 700 to 50,000 records the best λ was 0.6 to 3 of it."""
    return 1 / math.sqrt(np.mean(np.concatenate([table.deviation.ravel() for table in finest.tables]) ** 2))


def _mean(mixtures: Sequence[Mixture]) -> Mixture:
    return Mixture(
        weights=np.concatenate([mixture.weights for mixture in mixtures]) / len(mixtures),
        columns=tuple(np.concatenate(parts) for parts in zip(*(found.columns for found in mixtures), strict=True)),
        residual=float(np.mean([mixture.residual for mixture in mixtures])),
        fits=len(mixtures),
    )


class _Fit:
    def __init__(
        self,
        shares: Sequence[NDArray[np.float64]],
        blocks: Sequence[_Blocks],
        *,
        settings: FitSettings,
        one_way_deviation: Sequence[NDArray[np.float64]],
        seed: int,
    ) -> None:
        self._settings = settings
        self._sizes = [len(part) for part in shares]
        marginal = torch.from_numpy(np.concatenate(shares)).float().clamp(min=1e-6)
        self._log_marginal = marginal.log()
        self._one_way = marginal
        self._one_way_weight = torch.from_numpy(np.concatenate(one_way_deviation)).float().pow(-2)
        self._blocks = blocks
        self._cells = sum(int(part.weight.count_nonzero()) for block in blocks for part in block.slices)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((settings.components, len(marginal)), generator=generator)
        self._logits = (self._log_marginal + _SPREAD * noise).requires_grad_()
        self._weight_logits = torch.zeros(settings.components, requires_grad=True)
        width = max(self._sizes)
        self._padding = torch.full((len(self._sizes), width), -math.inf)
        inside = [torch.arange(size) + place * width for place, size in enumerate(self._sizes)]
        self._inside = torch.cat(inside)

    def run(self, *, pull: float, advance: Callable[[int], None]) -> Mixture:
        steps = self._settings.steps
        optimizer = torch.optim.Adam([self._logits, self._weight_logits], lr=_LEARNING_RATE, foreach=True)
        residual = math.nan
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
            log_columns = self._log_columns()
            columns, weights = log_columns.exp(), self._weight_logits.softmax(dim=0)
            misfit = self._misfit(columns, weights)
            spread = (weights[:, None] * columns * (log_columns - self._log_marginal)).sum()
            optimizer.zero_grad()
            (misfit + self._one_way_misfit(columns, weights) + pull * spread).backward()
            optimizer.step()
            residual = float(misfit.detach()) / self._cells
            advance(step + 1)
        return self._finished(residual=residual)

    def _log_columns(self) -> Tensor:
        """Logarithms of every component's shares, [K, cells]; each column's sum to 1."""
        components = len(self._logits)
        padded = self._padding.expand(components, -1, -1).reshape(components, -1)
        padded = padded.index_copy(1, self._inside, self._logits)
        normal = padded.view(components, *self._padding.shape).log_softmax(dim=-1)
        return normal.reshape(components, -1).index_select(1, self._inside)

    def _misfit(self, columns: Tensor, weights: Tensor) -> Tensor:
        total = columns.new_zeros(())
        for blocks in self._blocks:
            grouped = columns @ blocks.map
            for part in blocks.slices:
                held = weights if part.given is None else weights * (columns @ part.given)
                modelled = (grouped * held[:, None]).T @ grouped
                total = total + (part.weight * (modelled - part.shares).square()).sum()
        return total

    def _one_way_misfit(self, columns: Tensor, weights: Tensor) -> Tensor:
        return (self._one_way_weight * (weights @ columns - self._one_way).square()).sum()

    @torch.no_grad()
    def _finished(self, *, residual: float) -> Mixture:
        columns = self._log_columns().exp().double()
        weights = self._weight_logits.double().softmax(dim=0)
        parts = [part / part.sum(dim=1, keepdim=True) for part in columns.split(self._sizes, dim=1)]
        return Mixture(weights=weights.numpy(), columns=tuple(part.numpy() for part in parts), residual=residual)


@dataclass(frozen=True)
class _Slice:
    """The tables of some records, as blocks of one matrix over all table cells.

    Attributes:
        given: [cells], the part of each cell by which these records are told; None if they are all.
        shares: [table cells, table cells], 0 where no table is.
        weight: The same shape, deviation⁻², 0 where no table is.
    """

    given: Tensor | None
    shares: Tensor
    weight: Tensor


@dataclass(frozen=True)
class _Blocks:
    """A set of tables.

    Attributes:
        map: [cells, table cells], the part of each cell that lies in each table cell.
        slices: The tables, by the records that they count.
    """

    map: Tensor
    slices: tuple[_Slice, ...]


def _assemble(tables: TableSet) -> _Blocks:
    apart: dict[Slice | None, list[NoisyTable]] = {}
    for table in tables.tables:
        apart.setdefault(table.given, []).append(table)
    whole = torch.from_numpy(block_diag(*tables.maps)).float()
    return _Blocks(whole, tuple(_slice(tables, given, held) for given, held in apart.items()))


def _slice(tables: TableSet, given: Slice | None, held: Sequence[NoisyTable]) -> _Slice:
    ends = np.cumsum([part.shape[1] for part in tables.maps])
    shares, weight = np.zeros((ends[-1], ends[-1])), np.zeros((ends[-1], ends[-1]))
    for table in held:
        rows, columns = (slice(ends[place] - size, ends[place]) for place, size in _sides(table))
        shares[rows, columns], weight[rows, columns] = table.shares, table.deviation**-2
    told = None
    if given is not None:
        parts = [np.zeros(len(part)) for part in tables.maps]
        parts[given.column] = tables.thirds[given.column][:, given.cell]
        told = torch.from_numpy(np.concatenate(parts)).float()
    return _Slice(told, *(torch.from_numpy(part).float() for part in (shares, weight)))


def _sides(table: NoisyTable) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = table.shares.shape
    return (table.first, rows), (table.second, columns)
