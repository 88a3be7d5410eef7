"""`StudyPlan`: what a study asks of its nodes. Public; `phases` says how its ε is spent."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from aevorium.privacy.evaluation import MOST_EVALUATION_SHARE
from aevorium.privacy.events import Units
from aevorium.privacy.shares import RecipeName
from aevorium.schema.table import TableSchema

Trust = Literal["local", "secure-aggregation"]

__all__ = ["MIN_AGGREGATED", "StudyPlan", "Trust", "divides_patients"]

_LEAST_SUMMED_NOISE = 0.01
"""Shares of less noise would be too narrow against the whole numbers."""

MIN_AGGREGATED = 3
"""Fewer nodes cannot hide in a sum: each of two knows the other's part from the sum and its own."""

_FIXED_NOISE_REFERENCE = 3.0
"""When DP-SGD's noise is given instead of ε, the other phases are budgeted as if ε were this."""

_EPOCHS, _BATCH_SIZE = 20, 32
"""Recipe `dp-sgd`: passes over the records in a round, and expected records in a step."""

_WARM_RATE, _WARM_BATCH, _WARM_STEPS = 0.1, 4_096, 200
"""Recipe `warm-start`: sampling rate, expected records of a node in a step at most, and steps of all rounds together:
large batches, few of them. A tenth of a million records would take minutes a step."""


class StudyPlan(BaseModel):
    """What nodes agree to. Public: nothing in it comes from a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: int = Field(default=1, description="Version of this message's format.")
    study: str = Field(min_length=1, description="Name of the schema.")
    schema_hash: str = Field(description="Content hash of the schema.")
    columns: int = Field(ge=1, description="Number of measured columns: one histogram each.")
    numbers: int = Field(
        default=0,
        ge=0,
        exclude_if=lambda number: number == 0,
        description="Number of measured columns of numbers: one more histogram each, by how numbers are rounded.",
    )
    has_target: bool = Field(
        default=False,
        exclude_if=lambda named: not named,
        description="Whether the schema names a measured column that people will want to predict.",
    )
    purpose: str = Field(default="synthetic data", description="What the result is for.")
    recipe: RecipeName = Field(default="warm-start", description="How the model is trained.")
    trust: Trust = Field(
        default="local",
        description="'local': what a node sends is private by itself; 'secure-aggregation': what their sum says is.",
    )
    dropouts: int = Field(
        default=0, ge=0, description="Nodes that may fail before a sum is no longer opened; with secure aggregation."
    )
    colluding: int = Field(
        default=0, ge=0, description="Nodes that may tell the server their noise; with secure aggregation."
    )
    max_nodes_per_patient: int = Field(default=1, ge=1, description="At how many nodes a patient may have a record.")
    epsilon: float = Field(gt=0, description="The ε of the whole run, end to end; infinite trains without privacy.")
    delta: float = Field(gt=0, lt=1, description="The δ of the whole run.")
    nodes: tuple[str, ...] = Field(min_length=1, description="Names of the nodes that take part.")
    min_nodes: int = Field(ge=1, description="Valid replies without which a phase fails.")
    rounds: int = Field(ge=1, le=10_000, description="Number of rounds.")
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Passes over a node's records in each round, in expectation; absent = the recipe's own.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Expected number of records in a step; absent = the recipe's own."
    )
    records: int | None = Field(
        default=None, ge=1, description="Declared number of records of all nodes; absent = planned from a noisy count."
    )
    noise_multiplier: float | None = Field(
        default=None, ge=0, description="DP-SGD's noise, used as it is; absent = calibrated from ε."
    )

    evaluation_share: float = Field(
        default=0.0,
        ge=0,
        le=MOST_EVALUATION_SHARE,
        exclude_if=lambda share: share == 0,
        description="Share of the patients that is held out for evaluation, or of the budget where nobody can be.",
    )
    has_holdout: bool = Field(
        default=False, exclude_if=lambda held: not held, description="Whether patients are held out."
    )

    @field_validator("epsilon", "noise_multiplier")
    @classmethod
    def _check_number(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and (math.isnan(value) or (info.field_name == "noise_multiplier" and math.isinf(value))):
            raise ValueError(f"{info.field_name} must be a number")
        return value

    @model_validator(mode="after")
    def _check_nodes(self) -> Self:
        if len(set(self.nodes)) != len(self.nodes):
            raise ValueError("two nodes have the same name")
        if self.numbers > self.columns:
            raise ValueError("there are more columns of numbers than columns")
        if self.min_nodes > len(self.nodes):
            raise ValueError(f"min_nodes = {self.min_nodes} is more than the {len(self.nodes)} nodes of the study")
        if self.max_nodes_per_patient > len(self.nodes):
            raise ValueError("max_nodes_per_patient is more than the nodes of the study")
        if self.has_holdout and (self.evaluation_share == 0 or self.max_nodes_per_patient > 1):
            raise ValueError("a holdout takes an evaluation share, and patients at one node each")
        if self.trust == "local":
            if self.dropouts or self.colluding:
                raise ValueError("dropouts and colluding nodes have a meaning under secure aggregation alone")
            return self
        if len(self.nodes) < MIN_AGGREGATED:
            raise ValueError(f"secure aggregation takes at least {MIN_AGGREGATED} nodes")
        if self.dropouts + self.colluding > len(self.nodes) - 2:
            raise ValueError("dropouts and colluding leave fewer than two nodes whose noise protects a sum")
        if self.min_nodes < len(self.nodes) - self.dropouts:
            raise ValueError("min_nodes is below the nodes without which a sum is not opened (nodes less dropouts)")
        if self.noise_multiplier is not None and 0 < self.noise_multiplier < _LEAST_SUMMED_NOISE:
            raise ValueError(f"secure aggregation takes a noise multiplier of at least {_LEAST_SUMMED_NOISE}, or none")
        if self.max_nodes_per_patient > 1:
            raise ValueError("secure aggregation is not possible yet with patients at several nodes")
        return self

    @property
    def noise_shares(self) -> int | None:
        """How many nodes' noises protect a sum under secure aggregation; None under trust 'local'."""
        return None if self.trust == "local" else len(self.nodes) - self.dropouts

    @property
    def noise_piles(self) -> float:
        """Over how many nodes' noise a sum piles up: all of them, or about one where they add shares of one noise."""
        return len(self.nodes) / (self.noise_shares or 1)

    @property
    def has_equal_schedules(self) -> bool:
        """Whether all nodes train by the mean size: where their sum is one mechanism, or a patient is at several."""
        return self.trust == "secure-aggregation" or self.max_nodes_per_patient > 1

    def node_size(self, *, count: int | None, records: float | None) -> float | None:
        """The number of records by which a node's phases are scheduled.

        Args:
            count: The node's noisy count, if there is one yet.
            records: The declared or noisy number of records of all nodes, if there is one yet.

        Returns:
            None if it is not known yet.
        """
        if self.has_equal_schedules:
            known = self.declared_records or records
            return None if known is None else known / len(self.nodes)
        return self.declared_size or (None if count is None else float(max(count, 1)))

    @property
    def canonical_json(self) -> str:
        """The plan as canonical JSON (RFC 8785); an infinite ε is the text "Infinity"."""
        return rfc8785.dumps(json.loads(self.model_dump_json())).decode()

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the plan's canonical JSON: what a node's agreement refers to."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()

    @property
    def is_private(self) -> bool:
        """Whether ε is finite."""
        return math.isfinite(self.epsilon) and self.noise_multiplier != 0

    @property
    def reference_epsilon(self) -> float:
        """The ε by which the phases before training are budgeted."""
        return self.epsilon if self.noise_multiplier is None else _FIXED_NOISE_REFERENCE

    def steps_of(self, size: float) -> tuple[float, int]:
        """The sampling rate of a step and the steps of a round at a node of this size.

        What the plan leaves open is the recipe's: 20 passes in steps of 32 records for `dp-sgd`, 200 steps of a tenth
        of the records over all rounds for `warm-start`.
        """
        count = max(size, 1.0)
        if self.recipe == "dp-sgd":
            rate = min(1.0, (self.batch_size or _BATCH_SIZE) / count)
            return rate, math.ceil((self.epochs or _EPOCHS) / rate)
        rate = min(1.0, self.batch_size / count) if self.batch_size else min(_WARM_RATE, _WARM_BATCH / count)
        return rate, math.ceil(self.epochs / rate if self.epochs else _WARM_STEPS / self.rounds)

    @property
    def asks_for_training(self) -> bool:
        """Whether records are trained on whatever they are worth: by recipe `dp-sgd`, without privacy, or on request.

        Giving passes, a batch or a noise for it is a request.
        """
        is_requested = self.epochs is not None or self.batch_size is not None or self.noise_multiplier is not None
        return self.recipe == "dp-sgd" or not self.is_private or is_requested

    @property
    def units(self) -> Units:
        """Whose records everything but the evaluation is computed from."""
        return "training" if self.has_holdout else "all"

    @property
    def declared_records(self) -> float | None:
        """How many of the declared records are trained on; None if they are to be counted."""
        if self.records is None:
            return None
        return self.records * (1 - self.evaluation_share) if self.has_holdout else float(self.records)

    @property
    def declared_size(self) -> float | None:
        """The same at each node, all nodes alike."""
        return None if self.declared_records is None else self.declared_records / len(self.nodes)


def divides_patients(schema: TableSchema, *, share: float, nodes_per_patient: int) -> bool:
    """Whether a part of the patients can be held out, so that they and the others pay for different things.

    Only where the schema says which column tells patients apart, and where each is at one node: every node draws its
    own holdout, so that a patient at two of them could be held out at one and trained on at the other. Public.

    Args:
        schema: The study's schema.
        share: The evaluation share.
        nodes_per_patient: At how many nodes a patient may have a record.
    """
    return share > 0 and schema.unit_id is not None and nodes_per_patient == 1
