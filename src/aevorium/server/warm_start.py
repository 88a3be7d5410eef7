"""What the server does with noisy tables in recipe `warm-start`. Everything here works on released numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch

from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.diffusion.device import CPU
from aevorium.diffusion.layout import EncodedTable
from aevorium.diffusion.pretraining import Density, Pretraining, expectation_loss, pretrain
from aevorium.encoding.associations import MOST_CELLS, Associations, TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import TableStatistics
from aevorium.encoding.values import Ranges, heaped_ranges, narrow_ranges, size_of
from aevorium.privacy.schedule import AssociationSchedule
from aevorium.privacy.shares import RecipeName
from aevorium.progress import Report, StepProgress
from aevorium.schema.table import TableSchema
from aevorium.surrogate.cells import (
    MANY_CATEGORIES,
    THIRD_CELLS,
    THIRD_STATES,
    coarse_cells,
    cut_columns,
    number_of_cells,
)
from aevorium.surrogate.density import Surrogate, fit_surrogate
from aevorium.surrogate.ends import cut_ends, with_told_ends
from aevorium.surrogate.pairs import candidate_pairs, select_pairs, select_triples
from aevorium.surrogate.posterior import MixturePosterior

__all__ = ["WarmStart", "coarse_design", "fine_design", "learning_rate", "pretraining"]

_POOL = 100_000
"""Rows that are drawn from the surrogate; training draws its batches from them."""

_ANCHOR_BATCH = 2_048
"""Rows of the surrogate in a step of private training: its gradient has next to no chance in it."""

_VALUES, _VALUES_SIGNAL = 0.2, 100_000.0
"""Tables of single values take the place of no more than that part of the tables of pairs or triples. Those for heaps
do from this signal on: on Adult at a signal of 325,000 they took c2st from .62 to .59; at 32,500 three amounts stood
out of the noise, and nothing gained by them did."""

_STEPS, _MOST_STEPS = 2_000, 10_000
"""Steps of pre-training: half a minute on two cores for the demo's model."""

_SIGNAL, _GROWTH = 3_000.0, 0.6
"""Where the surrogate says more than it does at this signal, the model takes more steps to learn it. On Adult at a
signal of 32,500 a model was .0019 below its surrogate in trends after 3,600 steps; one of another run, .0010 after
9,000."""


def learning_rate(recipe: RecipeName) -> float:
    """Step size of private training: small where it starts from a trained model."""
    return 3e-3 if recipe == "dp-sgd" else 1e-3


def pretraining(*, columns: int, signal: float, steps: int | None) -> Pretraining:
    """How the model is trained before the first round.

    Args:
        columns: Number of measured columns; many make a step long.
        signal: What the study can tell (`signal_of`).
        steps: Number of steps; None takes the public rule.
    """
    if steps is None:
        told = max(1.0, (signal / _SIGNAL) ** _GROWTH)
        steps = round(min(_STEPS * told, _MOST_STEPS) * min(1.0, 30 / columns))
    return Pretraining(steps=steps)


def coarse_design(
    encoder: TableEncoder, schema: TableSchema, *, schedule: AssociationSchedule, total: float, nodes: int
) -> TableDesign:
    """The tables by which pairs are selected.

    Args:
        encoder: What is known of single columns.
        schema: The study's schema.
        schedule: How many tables, with how much noise.
        total: The estimated number of records.
        nodes: Nodes that add noise.
    """
    cells = coarse_cells(records=total, noise=schedule.coarse.noise_of(nodes=nodes))
    return TableDesign(
        cells=cut_columns(encoder, schema, cells=cells, most=cells),
        pairs=candidate_pairs(list(schema.measured), target=schema.target, most=schedule.candidates),
    )


def fine_design(
    encoder: TableEncoder,
    schema: TableSchema,
    *,
    statistics: TableStatistics,
    schedule: AssociationSchedule,
    signal: float,
    coarse: Associations | None,
    total: float,
    nodes: int,
) -> TableDesign:
    """The tables that the surrogate is fitted to, and those of single values.

    Args:
        encoder: What is known of single columns.
        schema: The study's schema.
        statistics: The one-way histograms.
        schedule: How many tables, with how much noise.
        signal: What the study can tell (`signal_of`).
        coarse: The tables by which the others are selected; None where there is nothing to select.
        total: The estimated number of records.
        nodes: Nodes that add noise.
    """
    noise = schedule.fine.noise_of(nodes=nodes)
    cells = number_of_cells(records=total, noise=schedule.fine.sigma * nodes**0.5)
    # Tables of values take the place of the last triples; of pairs, where there is a choice of them, or nothing else.
    takes_pairs = schedule.pairs < schedule.candidates or not schedule.triples
    spare = schedule.pairs if takes_pairs else schedule.triples
    values = _values(
        encoder, schema, statistics=statistics, noise=noise, total=total, seeks_heaps=signal >= _VALUES_SIGNAL
    )
    values = _fitting(values, most=int(_VALUES * spare))
    number_of_pairs = schedule.pairs - (len(values) if takes_pairs else 0)
    number_of_triples = schedule.triples - (0 if takes_pairs else len(values))
    pairs = (
        candidate_pairs(list(schema.measured), target=schema.target, most=number_of_pairs)
        if coarse is None
        else select_pairs(coarse, count=number_of_pairs, target=schema.target)
    )
    triples = select_triples(list(schema.measured), target=schema.target, count=number_of_triples, coarse=coarse)
    few = cut_columns(encoder, schema, cells=THIRD_CELLS, most=THIRD_STATES)
    thirds = {third: few[third] for *_, third in triples}

    def design(cells: int, most: int) -> TableDesign:
        cut = cut_columns(encoder, schema, cells=cells, most=most)
        cut = cut_ends(cut, encoder, schema, total=total, noise=noise, bin_noise=statistics.noise)
        return TableDesign(cells=cut, pairs=pairs, triples=triples, thirds=thirds, values=values)

    most = MANY_CATEGORIES
    while (found := design(cells, most)).size > MOST_CELLS:
        cells, most = cells * 3 // 4, most * 3 // 4
    return found


def _values(
    encoder: TableEncoder,
    schema: TableSchema,
    *,
    statistics: TableStatistics,
    noise: float,
    total: float,
    seeks_heaps: bool,
) -> dict[str, Ranges]:
    """The columns that are counted number by number: narrow ones, and then those with the most numbers in heaps."""
    narrow, heaped = {}, {}
    for name, grid in table_grids(schema, bins=statistics.bins).items():
        code, counts = encoder.columns[name], statistics.counts[name][: grid.states].astype(np.float64)
        records = total * (1 - (code.missing or 0.0))
        narrow[name] = narrow_ranges(np.array(code.shares), grid, records=records, table_noise=noise)
        if seeks_heaps and not code.is_constant:
            heaped[name] = heaped_ranges(counts, grid, noise=statistics.noise, table_noise=noise)
    found = {name: narrow[name] or heaped.get(name, ()) for name in narrow}
    chosen = sorted(found, key=lambda name: (not narrow[name], -len(found[name])))
    return {name: found[name] for name in chosen if found[name]}


def _fitting(values: dict[str, Ranges], *, most: int) -> dict[str, Ranges]:
    """So many of them at most, with half of all cells that a node counts at most."""
    fitting: dict[str, Ranges] = {}
    for name, ranges in values.items():
        if len(fitting) < most and sum(map(size_of, [*fitting.values(), ranges])) <= MOST_CELLS // 2:
            fitting[name] = ranges
    return fitting


class WarmStart:
    """A surrogate, and the training of a model on its rows.

    Args:
        encoder: The one-way shares.
        schema: The study's schema.
        tables: All tables of several columns that were released; the last ones give the cells.
        statistics: The one-way histograms.
        total: The estimated number of records.
        seed: Fixes fit and rows.
        report: Takes the progress.
    """

    def __init__(
        self,
        encoder: TableEncoder,
        schema: TableSchema,
        *,
        tables: Sequence[Associations],
        statistics: TableStatistics,
        total: float,
        seed: int,
        report: Report,
    ) -> None:
        for released in tables:
            encoder = encoder.with_values(released, schema, total=total)
        if tables:
            encoder = with_told_ends(encoder, schema, tables[-1], statistics=statistics, total=total)
        self._report = report
        self._seed = seed
        self._anchor_rows = torch.Generator().manual_seed(seed)
        cells = tables[-1].design.cells if tables else cut_columns(encoder, schema, cells=1)
        self.surrogate: Surrogate = fit_surrogate(
            encoder,
            schema,
            cells=cells,
            tables=tables,
            total=total,
            noise=statistics.noise,
            seed=seed,
            advance=lambda done, steps: report(StepProgress("fitting the surrogate", done, steps)),
        )
        self._fits = self.surrogate.parts()
        rows = np.random.default_rng(seed)
        self._rows = [_drawn(fit, _POOL // len(self._fits), generator=rows) for fit in self._fits]
        self._anchors = cycle(self._densities(CPU))

    def pretrain(self, model: TabularDiffusion, *, plan: Pretraining, device: torch.device = CPU) -> None:
        """Trains a model in place on rows of the surrogate; it computes on the device, and ends on the CPU."""
        pretrain(
            model.to(device),
            self._densities(device),
            plan=plan,
            generator=torch.Generator(device).manual_seed(self._seed),
            advance=lambda done: self._report(StepProgress("pre-training", done, plan.steps)),
        )
        model.to(CPU)

    def anchor(self, model: TabularDiffusion) -> torch.Tensor:
        """The model's mean loss on fresh rows of the surrogate, of another fit at each call.

        Mixed into the noisy gradient of private training, its own keeps the model from losing to noise what the tables
        told. Post-processing: free of charge.
        """
        return expectation_loss(model, next(self._anchors), batch=_ANCHOR_BATCH, generator=self._anchor_rows)

    def _densities(self, device: torch.device) -> list[Density]:
        """One for each fit: a step on one of them costs a part of a step on their mean."""
        return [
            Density(rows.to(device), posterior=MixturePosterior(fit, device=device))
            for rows, fit in zip(self._rows, self._fits, strict=True)
        ]


def _drawn(surrogate: Surrogate, count: int, *, generator: np.random.Generator) -> EncodedTable:
    rows = surrogate.rows(count, generator=generator)
    return EncodedTable.from_arrays(rows.values, codes=rows.codes, observed=rows.observed)
