"""What a study asks of its nodes, and how its ε is spent phase by phase.

`StudyPlan` is the contract that nodes agree to before any record is read. `PhaseBudget` follows from it by fixed,
public rules, so node and server compute the same one:

1. a noisy count takes a small pure ε₀ (`count_epsilon`); what it says fixes the sampling rate, the grid, and in recipe
   `warm-start` how many pairs of columns get a table and how the rest is divided;
2. the rest, (ε - ε₀, δ), is divided by ρ = Σ Δ²/2σ² (`shares`): a share each for the one-way histograms and the two
   kinds of two-way tables, a little for the charged losses, and private training gets what is left, its noise
   calibrated by exact composition of all of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from aevorium.errors import ConfigError
from aevorium.privacy.accountant import calibrate, epsilon, gaussian_budget, zcdp_budget
from aevorium.privacy.events import DiscreteLaplace, NonPrivate, PrivacyEvent
from aevorium.privacy.schedule import AssociationSchedule, CellNoise, TrainingSchedule
from aevorium.privacy.shares import MOST_CANDIDATES, RecipeName, number_of_pairs, shares_of, signal_of

Trust = Literal["local", "secure-aggregation"]

__all__ = [
    "LOSS_BOUND",
    "LOSS_LEVELS",
    "MIN_AGGREGATED",
    "PhaseBudget",
    "StudyPlan",
    "Trust",
    "cost_of",
    "estimated_events",
    "plan_budget",
]

MIN_AGGREGATED = 3
"""Fewer nodes cannot hide in a sum: each of two knows the other's part from the sum and its own."""

LOSS_BOUND = 4.0
"""A record's loss is clipped to [0, 4] before it is summed; that of independent columns is about 1."""

LOSS_LEVELS = 100
"""The bounded loss is rounded to this many levels, so that its sum is a whole number and takes discrete noise."""

_COUNT_SHARE, _COUNT_CAP = 0.05, 0.25
"""ε₀ of the count: a share of ε, but never more than the cap: a standard deviation of 6 patients is enough."""

_FIXED_NOISE_REFERENCE = 3.0
"""When DP-SGD's noise is given instead of ε, the other phases are budgeted as if ε were this."""

_GUESSED_SIZE = 500.0
"""A node's number of records in an estimate that is made before anything is known of it."""

_EPOCHS, _BATCH_SIZE = 20, 32
"""Recipe `dp-sgd`: passes over the records in a round, and expected records in a step."""

_WARM_RATE, _WARM_STEPS = 0.1, 200
"""Recipe `warm-start`: sampling rate, and steps of all rounds together: large batches, few of them."""


class StudyPlan(BaseModel):
    """What nodes agree to. Public: nothing in it comes from a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: int = Field(default=1, description="Version of this message's format.")
    study: str = Field(min_length=1, description="Name of the schema.")
    schema_hash: str = Field(description="Content hash of the schema.")
    columns: int = Field(ge=1, description="Number of measured columns: one histogram each.")
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
        if self.min_nodes > len(self.nodes):
            raise ValueError(f"min_nodes = {self.min_nodes} is more than the {len(self.nodes)} nodes of the study")
        if self.max_nodes_per_patient > len(self.nodes):
            raise ValueError("max_nodes_per_patient is more than the nodes of the study")
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
            known = self.records or records
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
        rate = min(1.0, self.batch_size / count) if self.batch_size else _WARM_RATE
        return rate, math.ceil(self.epochs / rate if self.epochs else _WARM_STEPS / self.rounds)

    @property
    def declared_size(self) -> float | None:
        """A node's number of records as declared, all nodes alike; None if it is to be counted."""
        return None if self.records is None else self.records / len(self.nodes)


@dataclass(frozen=True)
class PhaseBudget:
    """How a plan's (ε, δ) is spent.

    Attributes:
        plan: The plan.
        count: The event of the count, which every node's own number costs.
        histograms: Noise of the one-way histograms.
        associations: The two-way tables.
        loss: Noise of a round's charged loss, in levels, if there is any.
    """

    plan: StudyPlan
    count: PrivacyEvent
    histograms: CellNoise
    associations: AssociationSchedule
    loss: CellNoise

    @property
    def statistics(self) -> PrivacyEvent:
        """The event of the one-way histograms."""
        return self.histograms.event("one-way histograms", count=self.plan.columns)

    @property
    def count_variance(self) -> float:
        """Variance of a node's noisy count; 0 without privacy."""
        if not isinstance(self.count, DiscreteLaplace):
            return 0.0
        # Two-sided geometric noise with ratio r = exp(-ε) has variance 2r / (1 - r)².
        ratio = math.exp(-self.count.epsilon)
        return 2 * ratio / (1 - ratio) ** 2

    def training(self, size: float) -> TrainingSchedule:
        """The schedule of a node.

        Args:
            size: Its declared or noisy number of records (`StudyPlan.node_size`).

        Raises:
            ConfigError: CONFIG_INVALID, if no noise meets the target.
        """
        plan = self.plan
        rate, steps = plan.steps_of(size)
        noise = plan.noise_multiplier
        if noise is None:
            noise = _calibrated_noise(self, rate, steps) if plan.is_private else 0.0
        return self._schedule(rate, steps, noise=noise, size=size)

    def _schedule(self, rate: float, steps: int, *, noise: float, size: float) -> TrainingSchedule:
        shares = self.plan.noise_shares
        return TrainingSchedule(
            sampling_rate=rate,
            steps=steps,
            rounds=self.plan.rounds,
            noise_multiplier=noise / math.sqrt(shares or 1),
            expected_batch=rate * max(size, 1.0),
            loss=self.loss if noise > 0 else CellNoise(sigma=0.0),
            shares=shares,
        )

    def events(self, size: float) -> tuple[PrivacyEvent, ...]:
        """Everything that a node of this size will have released at the end of the run."""
        return (*self.released_before_training(), *self.training(size).all_events())

    def released_before_training(self) -> tuple[PrivacyEvent, ...]:
        """What every node of the run releases before its first round."""
        tables = self.associations
        return (self.count, self.statistics, *tables.coarse_events(), *tables.fine_events())


def plan_budget(plan: StudyPlan, *, records: float | None = None) -> PhaseBudget:
    """Splits a plan's budget over its phases.

    Args:
        plan: The plan.
        records: The noisy number of records of all nodes, for a plan that declares none. Before there is one, leave it
            out: the count does not depend on it, everything else of recipe `warm-start` is then an estimate.
    """
    known = plan.records or records or _GUESSED_SIZE * len(plan.nodes)
    signal = signal_of(records=known, epsilon=plan.reference_epsilon, nodes=plan.noise_piles)
    pairs = number_of_pairs(columns=plan.columns, signal=signal) if plan.recipe == "warm-start" else 0
    everything = min(plan.columns * (plan.columns - 1) // 2, MOST_CANDIDATES)
    candidates = everything if 0 < pairs < everything else 0
    if not plan.is_private:
        none = CellNoise(sigma=0.0)
        return PhaseBudget(
            plan=plan,
            count=NonPrivate(purpose="count"),
            histograms=none,
            associations=AssociationSchedule(none, none, candidates=candidates, pairs=pairs),
            loss=none,
        )
    shares = shares_of(plan.recipe, epsilon=plan.reference_epsilon, signal=signal, selects=candidates > 0)
    return PhaseBudget(
        plan=plan,
        count=DiscreteLaplace(purpose="count", epsilon=_count_epsilon(plan)),
        histograms=_noise(plan, plan.columns, share=shares.histograms),
        associations=AssociationSchedule(
            coarse=_noise(plan, candidates, share=shares.coarse),
            fine=_noise(plan, pairs, share=shares.fine),
            candidates=candidates,
            pairs=pairs,
        ),
        loss=_noise(plan, plan.rounds, share=shares.losses, sensitivity=LOSS_LEVELS),
    )


def _noise(plan: StudyPlan, count: int, *, share: float, sensitivity: int = 1) -> CellNoise:
    """What one node adds to `count` tables that together take a share of the budget."""
    total = sensitivity * math.sqrt(count / (2 * share * _rest_budget(plan))) if count else 0.0
    return CellNoise(sigma=total / math.sqrt(plan.noise_shares or 1), shares=plan.noise_shares, sensitivity=sensitivity)


def cost_of(plan: StudyPlan) -> float:
    """The ε that a plan with a given noise multiplier costs at its δ, its size declared; rounded up.

    Raises:
        ConfigError: CONFIG_CONFLICT, if the plan declares no size.
    """
    if plan.declared_size is None:
        raise ConfigError(
            "CONFIG_CONFLICT",
            "DP_NOISE_MULTIPLIER is set but the number of records is not declared. What a fixed noise costs depends "
            "on the sampling rate, so it cannot be said before a record is read.",
            hint="Give --records, or leave DP_NOISE_MULTIPLIER unset and choose --epsilon.",
        )
    events = plan_budget(plan).events(plan.declared_size)
    return epsilon(events * plan.max_nodes_per_patient, delta=plan.delta)


def estimated_events(plan: StudyPlan) -> tuple[PrivacyEvent, ...] | None:
    """About what a node will release, so that runs of a period compose by their events and not by their targets.

    The true events are fixed after the count. What they cost hardly depends on the size, which is a guess here. None
    for a plan without privacy.
    """
    if not plan.is_private:
        return None
    return plan_budget(plan).events(plan.declared_size or _GUESSED_SIZE)


def _count_epsilon(plan: StudyPlan) -> float:
    return min(_COUNT_SHARE * plan.reference_epsilon, _COUNT_CAP) / plan.max_nodes_per_patient


def _rest_budget(plan: StudyPlan) -> float:
    """ρ of everything but the count, at each of the nodes where a patient may have a record."""
    nodes = plan.max_nodes_per_patient
    return _rho(plan.recipe, plan.reference_epsilon - nodes * _count_epsilon(plan), plan.delta) / nodes


@lru_cache(maxsize=64)
def _rho(recipe: RecipeName, target: float, delta: float) -> float:
    return gaussian_budget(target, delta) if recipe == "warm-start" else zcdp_budget(target, delta=delta)


@lru_cache(maxsize=256)
def _calibrated_noise(budget: PhaseBudget, rate: float, steps: int) -> float:
    """The noise of a step, all shares together, with which the run meets its target."""
    plan = budget.plan

    def events(noise: float) -> tuple[PrivacyEvent, ...]:
        # The size decides nothing but a divisor here.
        schedule = budget._schedule(rate, steps, noise=noise, size=1.0)
        training = schedule.step_event(steps=steps * plan.rounds)
        losses = budget.loss.event("training loss", count=plan.rounds)
        return (*budget.released_before_training(), losses, training) * plan.max_nodes_per_patient

    return calibrate(events, epsilon=plan.epsilon, delta=plan.delta)
