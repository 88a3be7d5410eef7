"""The privacy statement: the claim of a run as facts that can be checked. Safe to release.

The figures come from the plan, which nodes agreed to before any record was read, and from their ledgers. The claim is
always the plan's target: what the events that happened would cost is a property of one outcome, not of the run.
`statement_page` puts the same facts on a page for people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    DiscreteLaplace,
    NonPrivate,
    PrivacyEvent,
    SampledDiscreteGaussianSum,
    SampledGaussian,
)
from aevorium.privacy.phases import LOSS_BOUND, LOSS_LEVELS, PhaseBudget, plan_budget
from aevorium.privacy.schedule import CLIP_LEVELS, MOST_PARAMETERS
from aevorium.privacy.views import views_of
from aevorium.schema.table import TableSchema
from aevorium.server.attack_terms import attack_terms
from aevorium.server.record import NodeRecord, StudyRecord
from aevorium.server.statement_form import (
    FederationFacts,
    Hashes,
    MechanismRow,
    NodeRow,
    PrivacyStatement,
    ViewRow,
)

__all__ = [
    "assumptions",
    "cautions",
    "describe_event",
    "node_size",
    "privacy_statement",
]


def privacy_statement(record: StudyRecord, schema: TableSchema) -> PrivacyStatement:
    """Collects the facts.

    Args:
        record: The finished run.
        schema: Its schema.
    """
    plan = record.plan
    budget = plan_budget(plan, records=record.records)
    return PrivacyStatement(
        study=schema.name,
        run_id=record.run_id,
        started_at=record.started_at,
        finished_at=record.finished_at,
        purpose=plan.purpose,
        recipe=plan.recipe,
        trust=plan.trust,
        is_private=plan.is_private,
        warnings=_warnings(record),
        unit=schema.unit,
        adjacency=f"add/remove: two tables are neighbours if one has one {schema.unit}'s record more",
        epsilon=plan.epsilon,
        delta=plan.delta,
        subject=(
            "Everything that a node sent in this run"
            if plan.noise_shares is None
            else "Everything that was opened in this run, each node's count and the sums over nodes"
        ),
        covers=(
            ("the count, all tables, every round of training and every loss" if budget.rounds else _COUNT_AND_TABLES)
            + "; model, synthetic rows and report are computed from them"
        ),
        views=_views(record, budget),
        federation=FederationFacts(
            epsilon=plan.epsilon,
            released=_released(record, budget),
            rule=_RULE if plan.max_nodes_per_patient == 1 else _RULE_OF_SEVERAL.format(plan.max_nodes_per_patient),
        ),
        nodes=tuple(
            NodeRow(name=node.name, released=node.spent, limit=node.limit, left=node.left) for node in record.nodes
        ),
        attack=attack_terms(plan, budget) if plan.is_private else None,
        mechanisms=_mechanisms(record, budget) if plan.is_private else (),
        sensitivity=_sensitivity(budget),
        sampling=_SAMPLING if budget.rounds else _NO_SAMPLING,
        composition=_COMPOSITION + (_OF_GROUPS if plan.has_holdout else ""),
        assumptions=assumptions(record, schema),
        uncharged=_uncharged(schema),
        software=record.versions,
        hashes=Hashes(
            schema=plan.schema_hash,
            plan=plan.content_hash,
            code={node.name: node.code_hash for node in record.nodes if node.code_hash is not None},
            audit_head=record.audit_head,
        ),
    )


def describe_event(event: PrivacyEvent) -> tuple[str, str]:
    """An event's mechanism and its parameters, in words."""
    match event:
        case DiscreteLaplace(epsilon=eps):
            return "two-sided geometric noise", f"ε₀ = {eps:g}, sensitivity 1"
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity, count=count):
            return "discrete Gaussian noise", f"σ = {sigma:.4g}, sensitivity {sensitivity}, {count} ×"
        case SampledGaussian(sampling_rate=rate, noise_multiplier=noise, steps=steps):
            return "Poisson-sampled Gaussian (DP-SGD)", f"q = {rate:.5g}, noise multiplier {noise:.5g}, {steps} steps"
        case DiscreteGaussianSum(sigma=sigma, shares=shares, sensitivity=sensitivity, count=count):
            return (
                "discrete Gaussian noise, in shares",
                f"{shares} shares of σ = {sigma:.4g}, sensitivity {sensitivity}, {count} ×",
            )
        case SampledDiscreteGaussianSum(sampling_rate=rate, noise_multiplier=noise, steps=steps, shares=shares):
            return (
                "Poisson-sampled discrete Gaussian (DP-SGD), in shares",
                f"q = {rate:.5g}, {shares} shares of noise multiplier {noise:.5g}, {steps} steps",
            )
        case NonPrivate():
            return "no protection", "ε = ∞"


def node_size(record: StudyRecord, node: NodeRecord) -> float | None:
    """The number of records by which a node's training was planned; None if it neither counted nor declared one."""
    if node.count is None and record.plan.records is None:
        return None
    return record.plan.node_size(count=node.count, records=record.records)


def cautions(record: StudyRecord) -> tuple[str, ...]:
    """What a reader of a run's results should know first, beside ε = ∞ and simulated patients."""
    plan, told = record.plan, []
    if record.is_simulated_federation:
        told.append(
            "Simulated federation: all nodes were one process on one machine, and their ledgers began with this"
            " workspace, or with the server that it belongs to. Releases from the same records elsewhere are unknown to"
            " them and add up with these."
        )
    if plan.is_private and record.total is not None and plan.delta > 1 / (10 * record.total):
        told.append(
            f"δ = {plan.delta:g} is above 1/(10·n̂) = {1 / (10 * record.total):.2g} for the n̂ = {record.total:.0f}"
            " patients that the noisy counts add up to. Smaller is customary."
        )
    if plan.noise_shares is not None:
        told.append(
            "Simulated aggregation: whole-number encoding and shares of noise are real, but nothing masks the nodes'"
            " parts from each other. In this process somebody could have looked at a single one (see Views)."
        )
    return tuple(told)


def _warnings(record: StudyRecord) -> tuple[str, ...]:
    notes = []
    if not record.plan.is_private:
        notes.append("NO PRIVACY. This run was made with ε = ∞. Its model and its rows may reveal any record.")
    if not record.is_noise_secret:
        notes.append("NOT PRIVATE. The noise of this run was seeded for a test: whoever knows the seed can undo it.")
    if record.is_simulated_data:
        notes.append("Simulated. Every patient of this run was made by a generator; no person is concerned.")
    return (*notes, *cautions(record))


def _released(record: StudyRecord, budget: PhaseBudget) -> float:
    """ε of what was released about one patient: at the node that released most, or at so many nodes together."""
    several, size = record.plan.max_nodes_per_patient, budget.plan.node_size(count=None, records=record.records)
    if several > 1 and size is not None:
        return epsilon(budget.events(size) * several, delta=record.plan.delta)
    return max((node.spent for node in record.nodes), default=0.0)


_RULE = "the largest of the nodes', not their sum: patients of different nodes are different people"
_RULE_OF_SEVERAL = (
    "the ε of any {} nodes together, whose events are composed: a patient may have a record at so many of them"
)


def _views(record: StudyRecord, budget: PhaseBudget) -> tuple[ViewRow, ...]:
    """A row for each viewer that the trust model tells apart."""
    plan = record.plan
    size = plan.node_size(count=None, records=record.records)
    # Only sums of shares look different to different viewers, and then all nodes have the same events.
    events = () if plan.noise_shares is None or size is None else budget.events(size)
    return tuple(
        ViewRow(viewer=view.viewer, epsilon=view.epsilon, delta=plan.delta, why=view.reason)
        for view in views_of(plan, events)
    )


def _mechanisms(record: StudyRecord, budget: PhaseBudget) -> tuple[MechanismRow, ...]:
    rows: dict[tuple[str, PrivacyEvent, int], list[str]] = {}
    for node in record.nodes:
        size = node_size(record, node)
        if size is not None:
            for planned in _planned(budget, size):
                rows.setdefault(planned, []).append(node.name)
    return tuple(
        MechanismRow(
            phase=phase,
            nodes=tuple(names),
            mechanism=describe_event(event)[0],
            parameters=describe_event(event)[1],
            event=event,
            times=times,
        )
        for (phase, event, times), names in rows.items()
    )


def _planned(budget: PhaseBudget, size: float) -> Iterator[tuple[str, PrivacyEvent, int]]:
    """Each phase, what is charged for it, and how often."""
    yield "count", budget.count, 1
    for phase, event in zip(("statistics", "statistics, roundings"), budget.statistics, strict=False):
        yield phase, event, 1
    for event in budget.associations.coarse_events():
        yield "associations, coarse", event, 1
    for event in budget.associations.fine_events():
        yield "associations, fine", event, 1
    rounds = budget.rounds
    for event in budget.training(size).round_events():
        yield f"training, each of {rounds} rounds", event, rounds
    for event in budget.evaluation.events():
        yield f"evaluation, {_EVALUATED[event.units == 'holdout']}", event, 1


_COMPOSITION = (
    "the count's ε₀ is added in full, because the rest of the plan depends on it; all else is composed through privacy"
    " loss distributions (dp-accounting, pessimistic) and rounded up. Before its first release that is not pure, a node"
    " fixes all events of the run, checks them against the claim, and lets nothing else out"
)


_OF_GROUPS = (
    ". The evaluation reads the patients held out, and no other charged release does: its cost is not added. Each"
    " patient is in one of the two groups, so the ε of the run is the larger of the two groups'"
)
_SAMPLING = (
    "each record enters a step independently with probability q (Poisson). Empty batches step too; sums are divided by"
    " q times the noisy or declared size"
)
_COUNT_AND_TABLES = "the count and all tables"
_NO_SAMPLING = "none. The plan holds no training, and tables count every record"

_EVALUATED = {True: "patients held out", False: "all patients"}


def _sensitivity(budget: PhaseBudget) -> tuple[str, ...]:
    lines = [
        "Histograms: a record is in one cell of each column's, so one cell of each changes by one. Cells follow from"
        " the schema and the number of bins.",
    ]
    if budget.roundings is not None:
        lines.append("Roundings: the same, of each column of numbers.")
    if budget.associations.pairs:
        lines.append(
            "Tables of selected columns, by two, by three or of one number by number: the same. Their number and noise"
            " were fixed before the first histogram; which columns and cells they count follows from released numbers."
        )
    if budget.rounds:
        lines += _sensitivity_of_training(budget)
    if budget.plan.noise_shares is not None:
        lines.append(_sums(budget))
    if budget.evaluation.columns:
        lines.append(
            f"Evaluation tables, of {_EVALUATED[budget.plan.has_holdout]}: the same as histograms and two-way tables,"
            f" {budget.evaluation.columns} and {budget.evaluation.pairs} of them."
        )
    return tuple(lines)


def _sensitivity_of_training(budget: PhaseBudget) -> tuple[str, ...]:
    return (
        "Training: a record's gradient, averaged over its noise draws, is clipped to a norm; the sum gets"
        + (
            " Gaussian noise of that norm times the noise multiplier."
            if budget.plan.noise_shares is None
            else " a share of discrete Gaussian noise from each node, of that norm times the multiplier of a share."
        ),
        f"Losses: a record's loss is bounded to [0, {LOSS_BOUND:g}] and rounded to {LOSS_LEVELS} levels.",
    )


def _sums(budget: PhaseBudget) -> str:
    gradients = (
        f" Gradients are rounded at random to 2^{math.log2(CLIP_LEVELS):g} levels a clipping norm, which adds at most"
        f" {math.sqrt(MOST_PARAMETERS):g} levels to what a record changes."
    )
    return (
        "Sums of nodes: numbers are whole, scaled where a share of noise would be too narrow."
        + (gradients if budget.rounds else "")
        + " That shares add up to nearly one discrete Gaussian is charged too."
    )


def assumptions(record: StudyRecord, schema: TableSchema) -> tuple[str, ...]:
    """What the claim of a run rests on, a sentence or two each.

    Args:
        record: The finished run.
        schema: Its schema.
    """
    plan = record.plan
    several = plan.max_nodes_per_patient
    trains = plan_budget(plan, records=record.records).rounds > 0
    lines = [
        (
            "Each patient's records lie at one node (max_nodes_per_patient = 1), fixed before the study."
            if several == 1
            else f"Each patient has a record at no more than {several} nodes, fixed before the study."
        ),
        (
            f"One row is one {schema.unit}: the column {schema.unit_id!r} was checked for duplicates."
            if schema.unit_id
            else f"One row is one {schema.unit}: the schema names no unit_id, so this could not be checked."
        ),
        "The schema, the plan, the names of the nodes and their participation are public.",
    ]
    if plan.has_holdout:
        lines.append(
            f"A patient is held out, one in {1 / plan.evaluation_share:.3g} on average, by HMAC-SHA256 of the"
            f" {schema.unit_id!r} under a key of the node that was drawn without looking at records. Key and id stay"
            " the same throughout the run."
        )
    if plan.is_private:
        lines.append(
            f"Noise of {'counts, tables and losses' if trains else 'counts and tables'}:"
            " exact samplers of OpenDP on the operating system's entropy."
        )
        if trains:
            lines.append(
                "Noise of gradients and choice of batches: a Mersenne Twister whose whole state comes from the"
                " operating system's entropy and is not stored. It is no cryptographic generator and its deviates are"
                " floating-point numbers: the guarantee for training is that of the ideal mechanism."
            )
        lines.append(
            "Whether and when a node answers is not counted, nor how long a round took, which the run's report gives."
            " A node whose table does not fit the schema says only that it is not ready. Whether all patients are"
            " marked as simulated is public."
        )
    if plan.noise_shares is not None:
        lines.append(
            f"The server opens no sum with fewer than {plan.noise_shares} of the {len(plan.nodes)} nodes' parts, tells"
            " all nodes the same number of records, and no node tells it its noise: what holds if some do, or if a node"
            " looks, is said by the rows below the first. Nodes add the noise that they agreed to."
        )
        if trains:
            lines.append("Gradients are summed as floating-point numbers before they are rounded to whole ones.")
    if plan.records is not None:
        lines.append(f"The number of records, {plan.records}, was declared as public knowledge.")
    return tuple(lines)


def _uncharged(schema: TableSchema) -> tuple[str, ...]:
    lines = [
        "Merging, fitting encoder and surrogate, pre-training on its rows, averaging, generating, and constraints:"
        " they use released numbers only (post-processing).",
    ]
    derived = [name for name, column in schema.columns.items() if column.derived is not None]
    if derived:
        lines.append(f"{', '.join(derived)}: derived after generation; a real column of that name is not read.")
    lines.append("A comparison with exact real rows (`aevorium validate --real`) is outside this statement.")
    return tuple(lines)
