"""The tables that a synthetic table is compared with after training: how many, and with how much noise.

How many follows from the schema alone: one for each column, and as many pairs as there are columns. Which pairs, and
how columns are cut, the server chooses from released numbers; a table costs the same whatever it counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from aevorium.privacy.accountant import calibrate
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.schedule import CellNoise
from aevorium.privacy.shares import MOST_CANDIDATES

__all__ = ["MOST_EVALUATION_SHARE", "EvaluationSchedule", "holdout_schedule", "number_of_evaluation_pairs"]

MOST_EVALUATION_SHARE = 0.5
"""More would leave training less than the evaluation has."""

_PURPOSE = "evaluation tables"


@dataclass(frozen=True)
class EvaluationSchedule:
    """The tables of the evaluation.

    Attributes:
        cells: Noise in each cell.
        columns: One-way tables; 0 if there is no evaluation.
        pairs: Two-way tables.
    """

    cells: CellNoise
    columns: int = 0
    pairs: int = 0

    def events(self) -> tuple[PrivacyEvent, ...]:
        """What they cost."""
        return (self.cells.event(_PURPOSE, count=self.columns + self.pairs),) if self.columns else ()


def number_of_evaluation_pairs(columns: int) -> int:
    """How many pairs of columns get a table: as many as there are columns, where there are so many."""
    return min(columns, columns * (columns - 1) // 2, MOST_CANDIDATES)


@lru_cache(maxsize=64)
def holdout_schedule(*, columns: int, epsilon: float, delta: float, shares: int | None) -> EvaluationSchedule:
    """The tables of a holdout, whose patients pay for nothing else in the run: all of (ε, δ) is theirs.

    Args:
        columns: Number of measured columns.
        epsilon: The run's ε.
        delta: The run's δ.
        shares: How many nodes' noises are in a sum that is opened; None if every node's tables are seen.

    Raises:
        ConfigError: CONFIG_INVALID, if no noise meets the target.
    """
    pairs = number_of_evaluation_pairs(columns)

    def schedule(noise: float) -> EvaluationSchedule:
        # One patient changes a cell of each table by one: in all of them together by the root of their number.
        sigma = noise * math.sqrt((columns + pairs) / (shares or 1))
        return EvaluationSchedule(CellNoise(sigma=sigma, shares=shares, units="holdout"), columns=columns, pairs=pairs)

    return schedule(calibrate(lambda noise: schedule(noise).events(), epsilon=epsilon, delta=delta))
