"""How a recipe divides its budget over the phases: public rules of ε, sizes and columns, fixed before records are read.

The numbers are judgements from public tables (the Synthea hospitals and Adult), not optima.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "MOST_CANDIDATES",
    "NumberOfTables",
    "RecipeName",
    "Shares",
    "number_of_tables",
    "pays_to_train",
    "share_of_roundings",
    "shares_of",
    "signal_of",
]

RecipeName = Literal["warm-start", "dp-sgd"]

MOST_CANDIDATES = 2_000
"""Coarse tables at most, and selected pairs at most: those of 63 columns."""

_TRAINING_SIGNAL = 1e6
"""Below it, steps of DP-SGD from a warm start buy less than their share of the tables does: a proof of the recipe
gained nothing at 325,000 (Adult, ε = 10). Where they begin to pay is not known; this is above all that was tried."""

_TRIPLES, _TRIPLES_SIGNAL = 0.15, 5_000.0
"""Share of the fine tables that are of triples, from this signal on. A tenth to a third differed little on Synthea and
Adult; at a signal of 11,000 they took the target's AUC from .87 to .90, at 1,100 they cost more than they brought."""

_COARSE, _COARSE_SIGNAL = 0.2, 10_000.0
"""Share of the coarse tables, up to this signal: beyond it, less is enough to tell which columns go together."""

_ROUNDINGS, _TOLD, _LEAST_TOLD = 0.02, 0.001, 1 / 12
"""Share of the counts by rounding at most; the part of the records that their noise is worth where less of the budget
is enough for that, and the part from which on they are left out: then they would tell nothing."""

_MANY = 1e6
"""More records ask for no wider noise: what it costs is then nothing, and to compute that takes long."""

_LOSSES = 0.02
"""Share of the losses of all rounds: enough to see whether training goes wrong, no more."""


@dataclass(frozen=True)
class Shares:
    """Shares of ρ, what zCDP calls the budget; private training gets what they leave.

    Attributes:
        histograms: One-way histograms.
        coarse: Coarse two-way tables, by which pairs are selected.
        fine: Tables of the selected pairs and triples.
        losses: The charged losses of all rounds.
    """

    histograms: float
    coarse: float
    fine: float
    losses: float = _LOSSES


def signal_of(*, records: float, epsilon: float, nodes: float) -> float:
    """What a study can tell: records times ε, over the growth of the noise where every node adds its own.

    Args:
        records: Declared or noisy number of records of all nodes.
        epsilon: The study's ε; infinite is allowed.
        nodes: Over how many nodes' noise a sum piles up: all of them, or about one where they add shares of one noise.
    """
    return max(records, 1.0) * min(epsilon, 20.0) / math.sqrt(nodes)


@dataclass(frozen=True)
class NumberOfTables:
    """How many tables of several columns there are.

    Attributes:
        pairs: Pairs of columns with a fine table.
        triples: Pairs of columns with a fine table for each state of the target.
        candidates: Pairs with a coarse table, by which the others are selected; 0 if there is nothing to select.
    """

    pairs: int
    triples: int
    candidates: int


def number_of_tables(*, columns: int, signal: float, has_target: bool) -> NumberOfTables:
    """How many pairs and triples of columns get a table of their own.

    At least as many as columns. On six hospitals with 1,119 patients together 12 to 30 pairs differed little (ε = 1
    and 10, each node with noise of its own); a proof of the recipe took 53 for Adult's 32,561 rows at ε = 1.

    Args:
        columns: Number of measured columns.
        signal: See `signal_of`.
        has_target: Whether the schema names a measured column that people will want to predict.
    """
    fine = min(max(columns, round(math.pow(signal, 0.4))), MOST_CANDIDATES)
    every_triple = (columns - 1) * (columns - 2) // 2 if has_target else 0
    every_pair = min(columns * (columns - 1) // 2, MOST_CANDIDATES)
    triples = min(every_triple, round(_TRIPLES * fine)) if signal >= _TRIPLES_SIGNAL else 0
    pairs = min(every_pair, fine - triples)
    has_choice = pairs < every_pair or 0 < triples < every_triple
    return NumberOfTables(pairs=pairs, triples=triples, candidates=every_pair if pairs and has_choice else 0)


def pays_to_train(*, signal: float) -> bool:
    """Whether recipe `warm-start` ends with private training, if nobody asks for it.

    Args:
        signal: See `signal_of`.
    """
    return signal >= _TRAINING_SIGNAL


def shares_of(recipe: RecipeName, *, epsilon: float, signal: float, selects: bool, trains: bool) -> Shares:
    """How a recipe divides its budget.

    Args:
        recipe: The recipe.
        epsilon: The study's ε.
        signal: See `signal_of`.
        selects: Whether tables are selected by coarse ones; there are none where everything gets a fine one.
        trains: Whether there is private training; the fine tables get its share if not.
    """
    if recipe == "dp-sgd":
        # At small ε the gradient learns next to nothing, so the marginals deserve more.
        return Shares(histograms=0.5 if epsilon <= 1 else 0.3 if epsilon <= 5 else 0.2, coarse=0.0, fine=0.0)
    # DP-SGD from a warm start buys little, the less the smaller the signal. What tables there are share the rest.
    losses = _LOSSES if trains else 0.0
    training = 0.05 * min(3.0, max(1.0, math.sqrt(signal / 10_000))) if trains else 0.0
    histograms = min(0.55, max(0.15, 4.2 / signal ** (1 / 3)))
    coarse = _COARSE * min(1.0, (_COARSE_SIGNAL / signal) ** (1 / 3)) if selects else 0.0
    fine = 1.0 - losses - training - histograms - coarse
    return Shares(histograms=histograms, coarse=coarse, fine=fine, losses=losses)


def share_of_roundings(*, numbers: int, records: float, budget: float, piles: float) -> float:
    """What counts of numbers by rounding are worth, of the budget; 0 where they would tell nothing.

    Args:
        numbers: Number of measured columns of numbers.
        records: Declared or noisy number of records of all nodes.
        budget: ρ of what is neither the count nor an evaluation, at each node.
        piles: Over how many nodes' noise a sum piles up.
    """
    if not numbers:
        return 0.0
    # The variance of a cell is numbers · piles / 2ρ, of the share of ρ that they take.
    needed = numbers * piles / (2 * budget * (_TOLD * min(records, _MANY)) ** 2)
    enough = numbers * piles / (2 * budget * (_LEAST_TOLD * records) ** 2)
    return 0.0 if enough > _ROUNDINGS else min(needed, _ROUNDINGS)
