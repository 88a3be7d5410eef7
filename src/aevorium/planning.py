"""The use case of planning: what a person chooses, the plan that nodes will be asked to agree to, and what it costs.

Nothing here reads a record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, cast

from pydantic import ValidationError

from aevorium.encoding.grid import number_of_bins, table_grids
from aevorium.errors import ConfigError, PolicyRefused
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.phases import cost_of, plan_budget, require_steps
from aevorium.privacy.plan import MIN_AGGREGATED, StudyPlan, Trust, divides_patients
from aevorium.privacy.shares import RecipeName
from aevorium.privacy.views import View, views_of
from aevorium.schema.table import TableSchema
from aevorium.server.statement import describe_event

__all__ = ["PhaseCost", "RunOptions", "Variation", "node_names", "plan_cost", "plan_study", "plan_views", "vary"]


@dataclass(frozen=True)
class RunOptions:
    """What a person chooses of a run; the contract's settings.

    Attributes:
        epsilon: Target ε of the whole run; infinite trains without privacy.
        delta: Target δ.
        recipe: How the model is trained.
        trust: Who may see what a node sends.
        dropouts: Under secure aggregation, nodes that may fail before a sum is no longer opened.
        colluding: Under secure aggregation, nodes that may tell the server their noise.
        max_nodes_per_patient: At how many nodes a patient may have a record.
        rounds: Rounds of training.
        epochs: Passes over a node's records in each round; None leaves it to the recipe.
        batch_size: Expected records in a step; None leaves it to the recipe.
        noise_multiplier: DP-SGD's noise, as it is; None calibrates it from ε.
        records: Declared number of records of all nodes; None plans from a noisy count.
        seed: Fixes initialisation and generated rows; never the privacy noise.
        device: Where models are trained; "auto" takes a CUDA device if there is one.
        min_nodes: Valid replies without which the run fails; None asks for all.
        purpose: What the result is for.
        timeout: Seconds after which a node that has not answered a request counts as lost.
        pretraining_steps: Steps on rows of the surrogate; None leaves them to a public rule.
        evaluation_share: Share of the patients that is held out for evaluation, or, where the schema names no unit_id,
            of the budget.
    """

    epsilon: float = 3.0
    delta: float = 1e-5
    recipe: RecipeName = "warm-start"
    trust: Trust = "local"
    dropouts: int = 0
    colluding: int = 0
    max_nodes_per_patient: int = 1
    rounds: int = 5
    epochs: int | None = None
    batch_size: int | None = None
    noise_multiplier: float | None = None
    records: int | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    min_nodes: int | None = None
    purpose: str = "synthetic data"
    timeout: float = 3600.0
    pretraining_steps: int | None = None
    evaluation_share: float = 0.0

    def require_available(self) -> None:
        """Passes if this machine can do what was chosen.

        Raises:
            ConfigError: DEVICE_NOT_FOUND.
        """
        from aevorium.diffusion.device import find_device

        find_device(self.device)


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of a plan costs by itself.

    Attributes:
        phase: The phase.
        mechanism: Its mechanism.
        parameters: The mechanism's parameters.
        epsilon: ε of this phase alone, at the plan's δ; phases together cost less than the sum.
    """

    phase: str
    mechanism: str
    parameters: str
    epsilon: float


@dataclass(frozen=True)
class Variation:
    """A plan beside others: what it leaves to learn from.

    Attributes:
        change: What differs from the plan that was asked for, such as "epsilon=1"; empty for that plan itself.
        plan: The plan.
        records: Records of all nodes.
        bins: About how many bins there are between a column's bounds.
        cell_noise: Standard deviation of the noise in a cell of the merged one-way histograms, as a share of the
            records in a typical cell: those of all nodes over the median number of cells of a column.
        tables: Tables of two or three columns.
        noise_multiplier: Noise of a step of DP-SGD over the clipping norm.
        sampling_rate: Probability with which a record enters a step.
        steps: Steps of all rounds.
    """

    change: str
    plan: StudyPlan
    records: int
    bins: int
    cell_noise: float
    tables: int
    noise_multiplier: float
    sampling_rate: float
    steps: int


def node_names(nodes: int) -> list[str]:
    """Names for nodes that are planned with and do not exist yet."""
    return [f"node-{place}" for place in range(1, nodes + 1)]


def plan_study(schema: TableSchema, node_names: Sequence[str], options: RunOptions) -> StudyPlan:
    """Makes the plan that nodes will be asked to agree to. Reads no record.

    Raises:
        ConfigError: CONFIG_INVALID, naming the option, or if it takes more steps than nodes agree to; CONFIG_CONFLICT
            for a fixed noise without declared records.
        PolicyRefused: AGGREGATION_TOO_FEW_NODES.
    """
    if options.trust == "secure-aggregation" and len(node_names) < MIN_AGGREGATED:
        raise PolicyRefused(
            "AGGREGATION_TOO_FEW_NODES",
            f"Secure aggregation over {len(node_names)} node{'' if len(node_names) == 1 else 's'} refused. A node "
            f"knows its own part of the sum: with fewer than {MIN_AGGREGATED}, nothing hides the others'.",
        )
    try:
        plan = StudyPlan(
            study=schema.name,
            schema_hash=schema.content_hash,
            columns=len(schema.measured),
            numbers=len(schema.numbers),
            has_target=schema.target in schema.measured,
            purpose=options.purpose,
            recipe=options.recipe,
            trust=options.trust,
            dropouts=options.dropouts,
            colluding=options.colluding,
            max_nodes_per_patient=options.max_nodes_per_patient,
            epsilon=options.epsilon,
            delta=options.delta,
            nodes=tuple(node_names),
            min_nodes=options.min_nodes or len(node_names) - options.dropouts,
            rounds=options.rounds,
            epochs=options.epochs,
            batch_size=options.batch_size,
            records=options.records,
            noise_multiplier=options.noise_multiplier,
            evaluation_share=options.evaluation_share,
            has_holdout=divides_patients(
                schema, share=options.evaluation_share, nodes_per_patient=options.max_nodes_per_patient
            ),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][-1]) if problem["loc"] else "the plan"
        reason = str(problem["msg"]).removeprefix("Value error, ")
        raise ConfigError("CONFIG_INVALID", f"{name} = {problem['input']!r} is not possible. {reason}.") from error
    require_steps(plan)
    if plan.noise_multiplier is not None:
        plan = plan.model_copy(update={"epsilon": cost_of(plan)})
    return plan


def plan_cost(plan: StudyPlan, *, size: float) -> list[PhaseCost]:
    """What each phase of a plan costs a node. Reads no record.

    Args:
        plan: The plan.
        size: How many records of the node are trained on, as declared.
    """
    budget = plan_budget(plan)
    schedule = budget.training(size)
    phases: list[tuple[str, tuple[PrivacyEvent, ...]]] = [
        ("count", (budget.count,)),
        *zip(("statistics", "statistics, roundings"), ((event,) for event in budget.statistics), strict=False),
    ]
    tables = budget.associations
    phases += [(f"associations, {tables.candidates} coarse tables", (event,)) for event in tables.coarse_events()]
    phases += [
        (f"associations, {tables.pairs} pairs and {tables.triples} triples", (event,)) for event in tables.fine_events()
    ]
    phases += [(f"training, {budget.rounds} rounds", (event,) * budget.rounds) for event in schedule.round_events()]
    held, evaluation = ", patients held out" if plan.has_holdout else "", budget.evaluation
    phases += [(f"evaluation, {evaluation.columns + evaluation.pairs} tables{held}", evaluation.events())]
    costs = []
    for phase, events in (phase for phase in phases if phase[1]):
        mechanism, parameters = describe_event(events[0])
        costs.append(PhaseCost(phase, mechanism, parameters, epsilon(events, delta=plan.delta)))
    return costs


def plan_views(plan: StudyPlan, *, size: float) -> tuple[View, ...]:
    """Who sees what of a plan, and at which ε. Reads no record.

    Args:
        plan: The plan.
        size: The node's declared number of records.
    """
    return views_of(plan, plan_budget(plan).events(size))


def vary(
    schema: TableSchema, options: RunOptions, *, records: int, nodes: int, changes: Sequence[tuple[str, str]]
) -> list[Variation]:
    """The plan that was asked for, and others that differ from it in one thing each. Reads no record.

    Args:
        schema: The schema.
        options: What was asked for.
        records: Records of all nodes.
        nodes: Number of nodes.
        changes: What to change, and the value as it was typed: epsilon, nodes, records or trust.

    Raises:
        ConfigError: CONFIG_INVALID, for another name or a value that is not possible; CONFIG_CONFLICT, for an ε beside
            a fixed noise.
    """
    rows = [_variation(schema, options, change="", records=records, nodes=nodes)]
    for name, value in changes:
        changed, of_records, of_nodes = options, records, nodes
        if name == "records":
            of_records = _whole(name, value)
        elif name == "nodes":
            of_nodes = _whole(name, value)
        elif name == "epsilon":
            changed = replace(options, epsilon=_epsilon(value, options))
        elif name == "trust":
            # Any text: `StudyPlan` knows which trust models there are, and refuses the others by name.
            changed = replace(options, trust=cast("Trust", value))
        else:
            raise ConfigError(
                "CONFIG_INVALID",
                f"--what-if {name!r} is not possible. A plan is varied in epsilon, nodes, records and trust.",
                hint="Type for example: --what-if epsilon=1,3,10 --what-if nodes=1,5",
            )
        rows.append(_variation(schema, changed, change=f"{name}={value}", records=of_records, nodes=of_nodes))
    return rows


def _variation(schema: TableSchema, options: RunOptions, *, change: str, records: int, nodes: int) -> Variation:
    plan = plan_study(schema, node_names(nodes), replace(options, records=records))
    budget = plan_budget(plan)
    schedule = budget.training(plan.declared_size or records / nodes)
    bins = number_of_bins(records=records, epsilon=plan.epsilon, nodes=plan.noise_piles)
    cells = median(grid.cells for grid in table_grids(schema, bins=bins).values())
    return Variation(
        change=change,
        plan=plan,
        records=records,
        bins=bins,
        cell_noise=budget.histograms.noise_of(nodes=nodes) / (records / cells),
        tables=budget.associations.count,
        noise_multiplier=schedule.noise_multiplier * math.sqrt(plan.noise_shares or 1),
        sampling_rate=schedule.sampling_rate,
        steps=schedule.steps * budget.rounds,
    )


def _whole(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 10**9:
        raise ConfigError("CONFIG_INVALID", f"{name} = {value!r} is not possible. It must be a whole number above 0.")
    return int(value)


def _epsilon(value: str, options: RunOptions) -> float:
    if options.noise_multiplier is not None:
        raise ConfigError(
            "CONFIG_CONFLICT",
            "--what-if epsilon stands beside a fixed DP_NOISE_MULTIPLIER. A fixed noise has an ε of its own.",
            hint="Leave DP_NOISE_MULTIPLIER unset.",
        )
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError("CONFIG_INVALID", f"epsilon = {value!r} is not possible. It must be a number.") from error
