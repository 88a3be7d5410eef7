"""How a recipe divides its budget over the phases: public rules of ε, sizes and columns, fixed before records are read.

The numbers are judgements from public tables (the Synthea hospitals and Adult), not optima.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["MOST_CANDIDATES", "RecipeName", "Shares", "number_of_pairs", "pays_to_train", "shares_of", "signal_of"]

RecipeName = Literal["warm-start", "dp-sgd"]

MOST_CANDIDATES = 2_000
"""Coarse tables at most, and selected pairs at most: those of 63 columns."""

_TRAINING_SIGNAL = 1e6
"""Below it, steps of DP-SGD from a warm start buy less than their share of the tables does: a proof of the recipe
gained nothing at 325,000 (Adult, ε = 10). Where they begin to pay is not known; this is above all that was tried."""

_LOSSES = 0.02
"""Share of the losses of all rounds: enough to see whether training goes wrong, no more."""


@dataclass(frozen=True)
class Shares:
    """Shares of ρ, what zCDP calls the budget; private training gets what they leave.

    Attributes:
        histograms: One-way histograms.
        coarse: Coarse two-way tables, by which pairs are selected.
        fine: Two-way tables of the selected pairs.
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


def number_of_pairs(*, columns: int, signal: float) -> int:
    """How many pairs of columns get a table of their own.

    At least as many as columns. On six hospitals with 1,119 patients together 12 to 30 pairs differed little (ε = 1
    and 10, each node with noise of its own); a proof of the recipe took 53 for Adult's 32,561 rows at ε = 1.

    Args:
        columns: Number of measured columns.
        signal: See `signal_of`.
    """
    everything = min(columns * (columns - 1) // 2, MOST_CANDIDATES)
    return min(everything, max(columns, round(math.pow(signal, 0.4))))


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
        selects: Whether pairs are selected by coarse tables; there are none where every pair gets a fine one.
        trains: Whether there is private training; the two-way tables of selected pairs get its share if not.
    """
    if recipe == "dp-sgd":
        # At small ε the gradient learns next to nothing, so the marginals deserve more.
        return Shares(histograms=0.5 if epsilon <= 1 else 0.3 if epsilon <= 5 else 0.2, coarse=0.0, fine=0.0)
    # DP-SGD from a warm start buys little, the less the smaller the signal. What tables there are share the rest.
    losses = _LOSSES if trains else 0.0
    training = 0.05 * min(3.0, max(1.0, math.sqrt(signal / 10_000))) if trains else 0.0
    histograms = min(0.55, max(0.15, 4.2 / signal ** (1 / 3)))
    coarse = 0.2 if selects else 0.0
    fine = 1.0 - losses - training - histograms - coarse
    return Shares(histograms=histograms, coarse=coarse, fine=fine, losses=losses)
