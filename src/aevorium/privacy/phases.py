"""How the ε of a study is spent phase by phase.

`PhaseBudget` follows from the agreed plan by fixed, public rules, so node and server compute the same one:

1. a noisy count takes a small pure ε₀ (`count_epsilon`); what it says fixes the sampling rate, the grid, and in recipe
   `warm-start` how many pairs and triples of columns get a table and how the rest is divided;
2. the rest, (ε - ε₀, δ), is divided by ρ = Σ Δ²/2σ² (`shares`): a little for counts of numbers by rounding, where these
   tell anything; then a share each for the one-way histograms, the coarse and the fine tables, a little for the charged
   losses, and private training gets what is left, its noise calibrated by exact composition of all of them. Recipe
   `warm-start` has no training and no losses where they would not pay (`shares.pays_to_train`), unless they are asked
   for (`plan.asks_for_training`);
3. with an evaluation share, a part of the patients is held out (`plan.divides_patients`): they pay for the evaluation's
   tables alone, with all of (ε, δ), and the others for everything else. Where nobody can be held out, the tables are
   of all patients and take that share of ρ, before anything else is divided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from aevorium.errors import ConfigError
from aevorium.privacy.accountant import calibrate, epsilon, gaussian_budget, zcdp_budget
from aevorium.privacy.evaluation import EvaluationSchedule, holdout_schedule, number_of_evaluation_pairs
from aevorium.privacy.events import DiscreteLaplace, NonPrivate, PrivacyEvent
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.schedule import AssociationSchedule, CellNoise, TrainingSchedule
from aevorium.privacy.shares import (
    RecipeName,
    number_of_tables,
    pays_to_train,
    share_of_roundings,
    shares_of,
    signal_of,
)

__all__ = [
    "LOSS_BOUND",
    "LOSS_LEVELS",
    "MOST_STEPS",
    "PhaseBudget",
    "cost_of",
    "estimated_events",
    "plan_budget",
    "require_steps",
]

LOSS_BOUND = 4.0
"""A record's loss is clipped to [0, 4] before it is summed; that of independent columns is about 1."""

LOSS_LEVELS = 100
"""The bounded loss is rounded to this many levels, so that its sum is a whole number and takes discrete noise."""

MOST_STEPS = 1_000_000
"""Steps of private training of a run, at all nodes of a patient. Composing more can take minutes and gigabytes."""

_COUNT_SHARE, _COUNT_CAP = 0.05, 0.25
"""ε₀ of the count: a share of ε, but never more than the cap: a standard deviation of 6 patients is enough."""

_GUESSED_SIZE = 500.0
"""A node's number of records in an estimate that is made before anything is known of it."""


@dataclass(frozen=True)
class PhaseBudget:
    """How a plan's (ε, δ) is spent.

    Attributes:
        plan: The plan.
        count: The event of the count, which every node's own number costs.
        histograms: Noise of the one-way histograms.
        roundings: Noise of the counts of numbers by rounding; None if there are none.
        associations: The tables of selected columns.
        loss: Noise of a round's charged loss, in levels, if there is any.
        evaluation: The tables that the result is compared with.
        rounds: Rounds of private training; 0 if there is none.
        signal: What the study can tell (`signal_of`).
    """

    plan: StudyPlan
    count: PrivacyEvent
    histograms: CellNoise
    roundings: CellNoise | None
    associations: AssociationSchedule
    loss: CellNoise
    evaluation: EvaluationSchedule
    rounds: int
    signal: float

    @property
    def statistics(self) -> tuple[PrivacyEvent, ...]:
        """The events of the one-way histograms, and of the counts by rounding."""
        histograms = self.histograms.event("one-way histograms", count=self.plan.columns)
        if self.roundings is None:
            return (histograms,)
        return (histograms, self.roundings.event("roundings of numbers", count=self.plan.numbers))

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
            ConfigError: CONFIG_INVALID, if no noise meets the target, or it takes too many steps.
        """
        plan = self.plan
        rate, steps = self._steps(size)
        if not self.rounds:
            return self._schedule(rate, 0, noise=0.0, size=size)
        noise = plan.noise_multiplier
        if noise is None:
            noise = _calibrated_noise(self, rate, steps) if plan.is_private else 0.0
        return self._schedule(rate, steps, noise=noise, size=size)

    def require_size(self, size: float) -> None:
        """Passes if a node of this size can be trained at.

        Raises:
            ConfigError: CONFIG_INVALID, if it takes too many steps.
        """
        self._steps(size)

    def _steps(self, size: float) -> tuple[float, int]:
        """The sampling rate, and the steps of a round."""
        rate, steps = self.plan.steps_of(size)
        composed = steps * self.rounds * self.plan.max_nodes_per_patient
        if composed > MOST_STEPS:
            raise ConfigError(
                "CONFIG_INVALID",
                f"{composed:,} steps of private training are not possible. No more than {MOST_STEPS:,} are:"
                " what they cost would take minutes to compute, and they themselves days.",
                hint="Give fewer --rounds or --epochs, or a larger --batch-size.",
            )
        return rate, steps

    def _schedule(self, rate: float, steps: int, *, noise: float, size: float) -> TrainingSchedule:
        shares = self.plan.noise_shares
        return TrainingSchedule(
            sampling_rate=rate,
            steps=steps,
            rounds=self.rounds,
            noise_multiplier=noise / math.sqrt(shares or 1),
            expected_batch=rate * max(size, 1.0),
            loss=self.loss if noise > 0 else CellNoise(sigma=0.0, units=self.plan.units),
            shares=shares,
            units=self.plan.units,
        )

    def events(self, size: float) -> tuple[PrivacyEvent, ...]:
        """Everything that a node of this size will have released at the end of the run."""
        return (*self.released_before_training(), *self.training(size).all_events(), *self.evaluation.events())

    def released_before_training(self) -> tuple[PrivacyEvent, ...]:
        """What every node of the run releases before its first round."""
        tables = self.associations
        return (self.count, *self.statistics, *tables.coarse_events(), *tables.fine_events())


def plan_budget(plan: StudyPlan, *, records: float | None = None) -> PhaseBudget:
    """Splits a plan's budget over its phases.

    Args:
        plan: The plan.
        records: The noisy number of records of all nodes, for a plan that declares none. Before there is one, leave it
            out: the count does not depend on it, everything else of recipe `warm-start` is then an estimate.
    """
    known = plan.declared_records or records or _GUESSED_SIZE * len(plan.nodes)
    signal = signal_of(records=known, epsilon=plan.reference_epsilon, nodes=plan.noise_piles)
    pairs, triples, candidates = 0, 0, 0
    if plan.recipe == "warm-start":
        tables = number_of_tables(columns=plan.columns, signal=signal, has_target=plan.has_target)
        pairs, triples, candidates = tables.pairs, tables.triples, tables.candidates
    trains = plan.asks_for_training or pays_to_train(signal=signal)
    rounds = plan.rounds if trains else 0
    if not plan.is_private:
        none = CellNoise(sigma=0.0, units=plan.units)
        return PhaseBudget(
            plan=plan,
            count=NonPrivate(purpose="count", units=plan.units),
            histograms=none,
            roundings=none if plan.numbers else None,
            associations=AssociationSchedule(none, none, candidates, pairs, triples),
            loss=none,
            evaluation=_evaluation(plan),
            rounds=rounds,
            signal=signal,
        )
    shares = shares_of(
        plan.recipe, epsilon=plan.reference_epsilon, signal=signal, selects=candidates > 0, trains=trains
    )
    rest = 1.0 if plan.has_holdout else 1.0 - plan.evaluation_share
    roundings = rest * share_of_roundings(
        numbers=plan.numbers, records=known, budget=rest * _rest_budget(plan), piles=plan.noise_piles
    )
    rest -= roundings
    budget = PhaseBudget(
        plan=plan,
        count=DiscreteLaplace(purpose="count", units=plan.units, epsilon=_count_epsilon(plan)),
        histograms=_noise(plan, plan.columns, share=rest * shares.histograms),
        roundings=_noise(plan, plan.numbers, share=roundings) if roundings else None,
        associations=AssociationSchedule(
            coarse=_noise(plan, candidates, share=rest * shares.coarse),
            fine=_noise(plan, pairs + triples, share=rest * shares.fine),
            candidates=candidates,
            pairs=pairs,
            triples=triples,
        ),
        loss=_noise(plan, rounds, share=rest * shares.losses, sensitivity=LOSS_LEVELS),
        evaluation=_evaluation(plan),
        rounds=rounds,
        signal=signal,
    )
    return budget if trains else _with_last_tables(budget, noise=_calibrated_tables(budget))


def _evaluation(plan: StudyPlan) -> EvaluationSchedule:
    if plan.evaluation_share == 0:
        return EvaluationSchedule(CellNoise(sigma=0.0))
    columns, pairs = plan.columns, number_of_evaluation_pairs(plan.columns)
    if not plan.is_private:
        none = CellNoise(sigma=0.0, units="holdout" if plan.has_holdout else "all")
        return EvaluationSchedule(none, columns=columns, pairs=pairs)
    if plan.has_holdout:
        return holdout_schedule(columns=columns, epsilon=plan.epsilon, delta=plan.delta, shares=plan.noise_shares)
    return EvaluationSchedule(_noise(plan, columns + pairs, share=plan.evaluation_share), columns=columns, pairs=pairs)


def _noise(plan: StudyPlan, count: int, *, share: float, sensitivity: int = 1) -> CellNoise:
    """What one node adds to `count` tables that together take a share of the budget."""
    total = sensitivity * math.sqrt(count / (2 * share * _rest_budget(plan))) if count else 0.0
    return CellNoise(
        sigma=total / math.sqrt(plan.noise_shares or 1),
        shares=plan.noise_shares,
        sensitivity=sensitivity,
        units=plan.units,
    )


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
    # A holdout gets what the others cost, whatever that is.
    events = tuple(event for event in plan_budget(plan).events(plan.declared_size) if event.units != "holdout")
    return epsilon(events * plan.max_nodes_per_patient, delta=plan.delta)


def require_steps(plan: StudyPlan) -> None:
    """Passes unless nodes would refuse a plan for its steps, as far as can be told before they count.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    plan_budget(plan).require_size(plan.declared_size or _GUESSED_SIZE)


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


def _with_last_tables(budget: PhaseBudget, *, noise: float) -> PhaseBudget:
    """The same with another noise, all shares together, in the tables that nothing private follows."""
    sigma = noise / math.sqrt(budget.plan.noise_shares or 1)
    tables = budget.associations
    if not tables.pairs:
        return replace(budget, histograms=replace(budget.histograms, sigma=sigma))
    return replace(budget, associations=replace(tables, fine=replace(tables.fine, sigma=sigma)))


@lru_cache(maxsize=256)
def _calibrated_tables(budget: PhaseBudget) -> float:
    """The noise of the last tables, all shares together, with which a run without training meets its target."""
    plan = budget.plan

    def events(noise: float) -> tuple[PrivacyEvent, ...]:
        beside = () if plan.has_holdout else budget.evaluation.events()
        released = _with_last_tables(budget, noise=noise).released_before_training()
        return (*released, *beside) * plan.max_nodes_per_patient

    return calibrate(events, epsilon=plan.epsilon, delta=plan.delta)


@lru_cache(maxsize=256)
def _calibrated_noise(budget: PhaseBudget, rate: float, steps: int) -> float:
    """The noise of a step, all shares together, with which the run meets its target."""
    plan = budget.plan

    def events(noise: float) -> tuple[PrivacyEvent, ...]:
        # The size decides nothing but a divisor here.
        schedule = budget._schedule(rate, steps, noise=noise, size=1.0)
        training = schedule.step_event(steps=steps * budget.rounds)
        losses = budget.loss.event("training loss", count=budget.rounds)
        beside = () if plan.has_holdout else budget.evaluation.events()
        return (*budget.released_before_training(), losses, training, *beside) * plan.max_nodes_per_patient

    return calibrate(events, epsilon=plan.epsilon, delta=plan.delta)
