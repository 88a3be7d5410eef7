"""`Surrogate`: a density over whole rows, fitted to everything that was released."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aevorium.encoding.associations import Associations, TableDesign
from aevorium.encoding.encoder import EncodedArrays, TableEncoder
from aevorium.schema.table import TableSchema
from aevorium.surrogate.mixture import FitSettings, Mixture, NoisyTable, Slice, TableSet, fit_mixture

__all__ = ["Surrogate", "fit_surrogate"]

_CHANCE = 0.2
"""How much of the chance error of a cell counts as an error, in one-way histograms and tables alike. Little of it: full
cells, which say what columns have to do with each other, then keep more of their weight."""

_NONE = 0.5
"""A cell with fewer records than that has none."""


@dataclass(frozen=True)
class Surrogate:
    """Draws encoded rows. Safe to release: it is fitted to released tables.

    Attributes:
        mixture: The density over cells.
        cells: For each measured column the cell of each cell of its grid.
        encoder: Says how values lie within cells; its one-way shares are the mixture's own.
        schema: The study's schema.
    """

    mixture: Mixture
    cells: Mapping[str, tuple[int, ...]]
    encoder: TableEncoder
    schema: TableSchema

    def parts(self) -> tuple[Surrogate, ...]:
        """The fits that it is the mean of, each a surrogate of its own."""
        return tuple(replace(self, mixture=mixture) for mixture in self.mixture.parts())

    def rows(self, count: int, *, generator: np.random.Generator) -> EncodedArrays:
        """Draws rows: cells from the mixture, then values within them by the one-way shares.

        Args:
            count: How many rows.
            generator: Source of randomness.
        """
        drawn = self.mixture.sample(count, generator=generator)
        for place, name in enumerate(self.schema.measured):
            groups = np.array(self.cells[name])
            shares = np.maximum(self.encoder.grid_shares(name), 1e-12)
            drawn[:, place] = _within(drawn[:, place], groups, shares, generator=generator)
        return self.encoder.encode_cells(drawn, self.schema, generator=generator)


def fit_surrogate(
    encoder: TableEncoder,
    schema: TableSchema,
    *,
    cells: Mapping[str, tuple[int, ...]],
    tables: Sequence[Associations],
    total: float,
    noise: float,
    seed: int,
    advance: Callable[[int, int], None],
    settings: FitSettings | None = None,
) -> Surrogate:
    """Fits a surrogate to released one-way shares and tables of several columns.

    Args:
        encoder: The one-way shares.
        schema: The study's schema.
        cells: The cells over which the density is made: for each measured column the cell of each cell of its grid.
        tables: All tables of several columns that were released, whatever their cells.
        total: The estimated number of records.
        noise: Standard deviation of the noise in each cell of the one-way histograms.
        seed: Fixes the fit.
        advance: Called with the steps made and all steps.
        settings: Size and length of the fit; None takes the public rule.
    """
    names = list(schema.measured)
    shares = [_sums(encoder.grid_shares(name), np.array(cells[name])) for name in names]
    chosen = settings or FitSettings.for_tables(sum(_slices(released.design) for released in tables))
    deviation = [np.sqrt(noise**2 + _CHANCE * np.maximum(total * part, 1.0)) / total for part in shares]
    mixture = fit_mixture(
        shares,
        [_table_set(released, encoder, cells, total=total) for released in tables],
        settings=chosen,
        one_way_deviation=deviation,
        seed=seed,
        advance=lambda done: advance(done, chosen.all_steps),
    )
    # The noise of tables would put a record or two where a column has ended, and its range is seen first of all.
    mixture = mixture.without(
        [_empty(name, part * total, encoder, schema) for name, part in zip(names, shares, strict=True)]
    )
    agreed = {
        name: _spread(mixture.weights @ part, np.array(cells[name]), encoder.grid_shares(name))
        for name, part in zip(names, mixture.columns, strict=True)
    }
    return Surrogate(mixture=mixture, cells=cells, encoder=encoder.with_shares(agreed), schema=schema)


def _empty(name: str, held: NDArray[np.float64], encoder: TableEncoder, schema: TableSchema) -> NDArray[np.bool_]:
    """The cells of a column of numbers in which there are no records, of those for present values; [cells] or fewer."""
    present = held[: len(held) - (encoder.columns[name].missing is not None)]
    empty = (present < _NONE) & (name in schema.numbers)
    # Few records, each in a cell of its own, are below that line everywhere.
    return np.asarray(empty & ~empty.all())


def _slices(design: TableDesign) -> int:
    """The number of two-way tables: each pair's own, and of a triple one for each cell of the third."""
    return sum(shape[0] if len(shape) == 3 else 1 for shape in design.shapes)


def _table_set(
    released: Associations, encoder: TableEncoder, cells: Mapping[str, tuple[int, ...]], *, total: float
) -> TableSet:
    design, place = released.design, {name: number for number, name in enumerate(cells)}
    groups, thirds = ({name: np.array(part) for name, part in cut.items()} for cut in (design.cells, design.thirds))
    expected = {name: _sums(encoder.grid_shares(name), groups[name]) for name in groups}

    def table(first: str, second: str, counts: NDArray[np.int64], *, share: float, given: Slice | None) -> NoisyTable:
        # Rows are a sample of a population: a cell's share is off by its own chance error beside the noise.
        chance = np.maximum(total * share * np.outer(expected[first], expected[second]), 1.0)
        return NoisyTable(
            first=place[first],
            second=place[second],
            shares=counts / total,
            deviation=np.sqrt(released.noise**2 + _CHANCE * chance) / total,
            given=given,
        )

    tables = []
    for (first, second, *third), counts in zip(design.tables, released.counts, strict=True):
        for name in third:
            shares = _sums(encoder.grid_shares(name), thirds[name])
            tables += [
                table(first, second, part, share=float(shares[cell]), given=Slice(place[name], cell))
                for cell, part in enumerate(counts)
            ]
        if not third:
            tables.append(table(first, second, counts, share=1.0, given=None))
    return TableSet(
        maps=[_overlap(np.array(cells[name]), groups[name], encoder.grid_shares(name)) for name in cells],
        thirds={
            place[name]: _overlap(np.array(cells[name]), part, encoder.grid_shares(name))
            for name, part in thirds.items()
        },
        tables=tables,
    )


def _spread(shares: NDArray[np.float64], groups: NDArray[np.int64], within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of a grid's cells that add up to those of the cells that hold them."""
    held = np.maximum(within, 1e-12)
    return np.asarray(shares[groups] * held / _sums(held, groups)[groups])


def _sums(shares: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(groups, weights=shares).astype(np.float64, copy=False)


def _overlap(cells: NDArray[np.int64], groups: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of each cell that lies in each group, by the one-way shares of the grid's cells that they hold."""
    held = np.maximum(shares, 1e-12)
    together = np.zeros((cells.max() + 1, groups.max() + 1))
    np.add.at(together, (cells, groups), held)
    return np.asarray(together / together.sum(axis=1, keepdims=True))


def _within(
    drawn: NDArray[np.int64], groups: NDArray[np.int64], shares: NDArray[np.float64], *, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draws a cell of the grid for each row within its cell of the table."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(shares[order])
    sums = _sums(shares, groups)
    stop = np.cumsum(sums)
    u = stop[drawn] - sums[drawn] * generator.random(len(drawn))
    place = np.searchsorted(ends, u, side="left")
    first = np.searchsorted(groups[order], drawn, side="left")
    last = np.searchsorted(groups[order], drawn, side="right") - 1
    return np.asarray(order[np.clip(place, first, last)], dtype=np.int64)
