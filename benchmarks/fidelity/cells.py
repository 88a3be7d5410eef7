"""`Cell`: one run of one method on one table, and the grid of them all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EPSILONS", "METHODS", "PRIVATE_PEERS", "STEPS", "TABLES", "Cell", "Step", "ablation", "grid", "select"]

TABLES = ("synthea", "adult", "heart_disease", "cardio")
EPSILONS = (1.0, 3.0, 10.0, math.inf)
PRIVATE_PEERS = ("mst", "aim")
_PLAIN_PEERS = ("ctgan", "tvae")
_OURS = ("aevorium", "aevorium-surrogate", "dp-sgd")
METHODS = ("real", *_OURS, "aevorium-pretrained", *PRIVATE_PEERS, *_PLAIN_PEERS)

Trust = Literal["secure-aggregation", "local"]
_TRUSTS: tuple[Trust, ...] = ("secure-aggregation", "local")


class Cell(BaseModel):
    """One run of one method on one table."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    table: str
    method: str
    epsilon: float = Field(description="Privacy asked for, end to end; 'inf' for none.", gt=0)
    seed: int = Field(ge=0)
    trust: Trust | None = Field(default=None, description="Who sees what nodes send; None where there are no nodes.")
    step: str = Field(default="", description="Step of the ablation; empty for the product as it is.")
    settings: dict[str, str] = Field(default_factory=dict, description="Environment of `aevorium run`.")
    is_pooled: bool = Field(default=False, description="Whether one node holds all rows.")

    @property
    def name(self) -> str:
        """What distinguishes the cell from all others, as a file can be named."""
        parts = [self.method, self.trust or "", f"eps{self.epsilon:g}", self.step, f"seed{self.seed}"]
        return "_".join(part for part in parts if part)

    def __str__(self) -> str:
        """The cell for people."""
        return f"{self.table}/{self.name}"


class Step(BaseModel):
    """A step of the ablation: what differs from the product as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: str = "aevorium"
    settings: dict[str, str] = Field(default_factory=dict, description="Environment of `aevorium run`.")
    is_pooled: bool = Field(default=False, description="Whether one node holds all rows.")
    trust: Trust = "secure-aggregation"
    epsilons: tuple[float, ...] = (1.0, 10.0)


STEPS = (
    Step(name="1-surrogate", method="aevorium-surrogate"),
    Step(name="2-pretrained", method="aevorium-pretrained"),
    Step(name="3-full"),
    # As many private steps as the recipe takes where training pays: 200 in all, each of a tenth of the records.
    Step(name="4-private-training", settings={"AEVORIUM_TRAINING_EPOCHS": "4"}),
    Step(name="no-pretraining", settings={"AEVORIUM_PRETRAINING_STEPS": "0"}),
    Step(name="no-warm-start", method="dp-sgd"),
    Step(name="one-node", is_pooled=True, trust="local"),
    # What longer training does where nothing is spent by it: 4 passes a round, of which the recipe takes 20.
    *(
        Step(
            name=f"passes-{4 * rounds:03}",
            settings={"AEVORIUM_NUM_ROUNDS": str(rounds), "AEVORIUM_TRAINING_EPOCHS": "4"},
            trust="local",
            epsilons=(math.inf,),
        )
        for rounds in (1, 5, 20)
    ),
)
"""Each row of the ablation. To add one, name it and give the environment of `aevorium run` that makes it."""


def grid(seeds: int, *, tables: Sequence[str] = TABLES) -> list[Cell]:
    """All cells, the first seed of everything before the second of anything.

    Args:
        seeds: How many seeds.
        tables: Which tables.
    """
    return [cell for seed in range(seeds) for table in tables for cell in _of_table(table, seed=seed)]


def _of_table(table: str, *, seed: int) -> Iterable[Cell]:
    # The rows themselves and those that know no privacy have one ε; drawing no numbers, the rows have one seed.
    if seed == 0:
        yield Cell(table=table, method="real", epsilon=math.inf, seed=0)
    for method in PRIVATE_PEERS:
        for epsilon in EPSILONS[:-1]:
            yield Cell(table=table, method=method, epsilon=epsilon, seed=seed)
    for method in _PLAIN_PEERS:
        yield Cell(table=table, method=method, epsilon=math.inf, seed=seed)
    for method in _OURS:
        for trust in _TRUSTS:
            for epsilon in EPSILONS:
                yield Cell(table=table, method=method, epsilon=epsilon, seed=seed, trust=trust)


def ablation(seeds: int, *, tables: Sequence[str] = TABLES) -> list[Cell]:
    """The cells that say what each step buys.

    Args:
        seeds: How many seeds.
        tables: Which tables.
    """
    return [
        Cell(
            table=table,
            method=step.method,
            epsilon=epsilon,
            seed=seed,
            trust=step.trust,
            step=step.name,
            settings=step.settings,
            is_pooled=step.is_pooled,
        )
        for seed in range(seeds)
        for table in tables
        for epsilon in EPSILONS
        for step in STEPS
        if epsilon in step.epsilons
    ]


def select(cells: Iterable[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that a person asked for.

    Args:
        cells: All cells.
        only: Conditions such as "table=adult,method=mst|aim"; a cell that meets one of them is taken. All if empty.

    Raises:
        ValueError: A condition is not of that form, or names no part of a cell.
    """
    conditions = [_condition(text) for text in only]
    return [cell for cell in cells if not conditions or any(_meets(cell, condition) for condition in conditions)]


def _condition(text: str) -> dict[str, set[str]]:
    found = {}
    for part in text.split(","):
        key, sign, values = part.partition("=")
        if not sign or key not in ("table", "method", "trust", "epsilon", "seed", "step"):
            raise ValueError(f"--only {part!r} is not possible: write table=adult,method=mst|aim,epsilon=1,seed=0")
        found[key] = set(values.split("|"))
    return found


def _meets(cell: Cell, condition: dict[str, set[str]]) -> bool:
    parts = {
        "table": cell.table,
        "method": cell.method,
        "trust": cell.trust or "",
        "epsilon": f"{cell.epsilon:g}",
        "seed": str(cell.seed),
        "step": cell.step,
    }
    return all(parts[key] in values for key, values in condition.items())
