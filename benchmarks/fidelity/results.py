"""`Result`: what a cell came to, one JSON file each, and means with standard errors over seeds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aevorium.workspace import write_atomically
from benchmarks.fidelity.cells import Cell

__all__ = ["SCORES", "Estimate", "Result", "Row", "Store", "summarise"]

SCORES = (
    "1way", "2way", "3way", "tstr", "c2st", "shapes", "trends", "trends_all",
    "missing_mean", "missing_most", "missing_by_target",
)  # fmt: skip
"""In the order of the table. The last three are percentage points, and absent where nothing can be missing."""


class Result(BaseModel):
    """What a cell came to."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    cell: Cell
    status: Literal["done", "timeout", "failed"]
    reason: str = Field(default="", description="Why there are no scores.")
    scores: dict[str, float] = Field(default_factory=dict)
    missing_by_column: dict[str, float] = Field(
        default_factory=dict, description="Missing rate less that of the training rows, in percentage points."
    )
    epsilon_spent: float | None = Field(
        default=None, description="Largest ε over nodes by their ledgers; for peers, what they were told to spend."
    )
    delta: float
    rows: int = Field(description="Training rows; as many were generated.")
    seconds: float = Field(description="From the training rows to the generated ones, wall clock.")
    seconds_cpu: float = Field(description="The same in time of all cores: what a busy machine does not change.")
    seconds_scoring: float = 0.0
    cores: int = Field(description="Cores of the machine.")
    threads: int = Field(description="Threads that numerical libraries were allowed.")
    versions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """The folder of results.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self.folder / cell.table / f"{cell.name}.json"

    def find(self, cell: Cell) -> Result | None:
        """What a cell came to; None if it has not been run."""
        path = self.path(cell)
        return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, result: Result) -> None:
        """Writes a result, whole or not at all."""
        with write_atomically(self.path(result.cell)) as temporary:
            temporary.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def everything(self) -> list[Result]:
        """All results, by file name."""
        paths = sorted(self.folder.glob("*/*.json"))
        return [Result.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: The mean.
        error: Its standard error; NaN of one seed.
    """

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The mean of some values, and how far it is off by chance."""
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(mean=statistics.fmean(values), error=error)


@dataclass(frozen=True)
class Row:
    """All seeds of one method on one table.

    Attributes:
        table: The table.
        method: The method.
        trust: Who sees what nodes send, or empty.
        step: Step of the ablation, or empty.
        epsilon: ε asked for.
        seeds: Seeds that came to scores.
        scores: By name.
        seconds: CPU seconds.
        spent: Largest ε of any seed.
        failures: Reasons of the other seeds.
    """

    table: str
    method: str
    trust: str
    step: str
    epsilon: float
    seeds: int
    scores: dict[str, Estimate]
    seconds: Estimate | None
    spent: float | None
    failures: tuple[str, ...]

    @property
    def name(self) -> str:
        """The method with its trust."""
        return f"{self.method}, {self.trust}" if self.trust else self.method


def summarise(results: Iterable[Result]) -> list[Row]:
    """Brings the seeds of each method together, in the order of the table: by ε, then as they come."""
    groups: dict[tuple[str, str, float, str, str], list[Result]] = defaultdict(list)
    for result in results:
        cell = result.cell
        groups[cell.table, cell.step, cell.epsilon, cell.method, cell.trust or ""].append(result)
    return [_row(group) for _, group in sorted(groups.items())]


def _row(group: Sequence[Result]) -> Row:
    cell, done = group[0].cell, [result for result in group if result.status == "done"]
    spent = [result.epsilon_spent for result in done if result.epsilon_spent is not None]
    return Row(
        table=cell.table,
        method=cell.method,
        trust=cell.trust or "",
        step=cell.step,
        epsilon=cell.epsilon,
        seeds=len(done),
        scores={
            name: Estimate.of([result.scores[name] for result in done])
            for name in SCORES
            if done and all(name in result.scores for result in done)
        },
        seconds=Estimate.of([result.seconds_cpu for result in done]) if done else None,
        spent=max(spent) if spent else None,
        failures=tuple(result.reason for result in group if result.status != "done"),
    )
