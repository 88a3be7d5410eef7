"""The privacy statement: the claim of a run in words that a data-protection officer can check. Safe to release.

The figures come from the plan, which nodes agreed to before any record was read, and from their ledgers. The claim is
always the plan's target: what the events that happened would cost is a property of one outcome, not of the run.
"""

from __future__ import annotations

import math

from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate, PrivacyEvent, SampledGaussian
from aevorium.privacy.plan import LOSS_BOUND, LOSS_LEVELS, plan_budget
from aevorium.schema.table import TableSchema
from aevorium.server.record import NodeRecord, StudyRecord

__all__ = ["assumptions", "cautions", "describe_event", "node_size", "privacy_statement"]


_TWO_WAY = (
    "- **Two-way tables**: each record is in exactly one cell of each table, so adding or removing it changes one cell"
    " of each by one. How many tables there are, and their noise, was fixed before the first histogram; which pairs"
    " and cells they count follows from released numbers.\n"
)


def privacy_statement(record: StudyRecord, schema: TableSchema) -> str:
    """The statement as Markdown.

    Args:
        record: The finished run.
        schema: Its schema.
    """
    plan = record.plan
    parts = [f"# Privacy statement: {schema.name}", *_warnings(record), *_claim(record, schema)]
    if plan.is_private:
        parts += _mechanisms(record)
    parts += ["## Assumptions", "\n".join(f"- {line}" for line in assumptions(record, schema))]
    parts += _uncharged(schema) + _provenance(record)
    return "\n\n".join(parts) + "\n"


def describe_event(event: PrivacyEvent) -> tuple[str, str]:
    """An event's mechanism and its parameters, in words."""
    match event:
        case DiscreteLaplace(epsilon=eps):
            return "two-sided geometric noise", f"ε₀ = {eps:g}, sensitivity 1"
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity, count=count):
            return "discrete Gaussian noise", f"σ = {sigma:.4g}, sensitivity {sensitivity}, {count} ×"
        case SampledGaussian(sampling_rate=rate, noise_multiplier=noise, steps=steps):
            return "Poisson-sampled Gaussian (DP-SGD)", f"q = {rate:.5g}, noise multiplier {noise:.5g}, {steps} steps"
        case NonPrivate():
            return "no protection", "ε = ∞"


def node_size(record: StudyRecord, node: NodeRecord) -> float | None:
    """The number of records by which a node's training was planned; None if it neither counted nor declared one."""
    return record.plan.declared_size or (max(node.count, 1) if node.count is not None else None)


def cautions(record: StudyRecord) -> tuple[str, ...]:
    """What a reader of a run's results should know first, beside ε = ∞ and simulated patients."""
    plan, told = record.plan, []
    if record.is_simulated_federation:
        told.append(
            "Simulated federation: all nodes were one process on one machine, and their ledgers are new with this"
            " workspace. Releases from the same records in other workspaces are unknown to them and add up with these."
        )
    if plan.is_private and record.total is not None and plan.delta > 1 / (10 * record.total):
        told.append(
            f"δ = {plan.delta:g} is above 1/(10·n̂) = {1 / (10 * record.total):.2g} for the n̂ = {record.total:.0f}"
            " patients that the noisy counts add up to. Smaller is customary."
        )
    return tuple(told)


def _warnings(record: StudyRecord) -> list[str]:
    notes = []
    if not record.plan.is_private:
        notes.append("> **NO PRIVACY.** This run was made with ε = ∞. Its model and its rows may reveal any record.")
    if not record.is_noise_secret:
        notes.append(
            "> **NOT PRIVATE.** The noise of this run was seeded for a test: whoever knows the seed can undo it."
        )
    if record.is_simulated_data:
        notes.append("> **Simulated.** Every patient of this run was made by a generator; no person is concerned.")
    return [*notes, *(f"> {caution}" for caution in cautions(record))]


def _claim(record: StudyRecord, schema: TableSchema) -> list[str]:
    plan = record.plan
    rows = ["| node | ε of the run (claim) | ε of what it released | limit | left |", "|---|---|---|---|---|"]
    rows += [_node_row(node, plan.epsilon) for node in record.nodes]
    return [
        "## Claim",
        f"- **Unit**: one {schema.unit}. Two tables are neighbours if one has one {schema.unit}'s record more"
        " (add/remove).\n"
        f"- **Guarantee**: everything that a node sent in this run, together, is (ε, δ)-differentially private with"
        f" **ε = {_number(plan.epsilon)}, δ = {plan.delta:g}**. This covers the count, all histograms, every round of"
        " training and every loss shown; the model, the synthetic rows and the report are computed from them.\n"
        f"- **Against whom**: trust = `{plan.trust}`: against everyone who sees what the node sent, the server and the"
        " other nodes included.\n"
        f"- **Over the federation**: patients of different nodes are different people (see assumptions), so the"
        f" federation's ε is the largest of the nodes', {_number(plan.epsilon)}, and not their sum.",
        "\n".join(rows),
        "Limit and left are those of the node's budget period. They count all its runs together, whichever come later,"
        " which is somewhat more than this run by itself.",
    ]


def _node_row(node: NodeRecord, claim: float) -> str:
    limit = "?" if node.limit is None else _number(node.limit)
    left = "?" if node.left is None else _number(node.left)
    return f"| {node.name} | {_number(claim)} | {_number(node.spent)} | {limit} | {left} |"


def _mechanisms(record: StudyRecord) -> list[str]:
    plan = record.plan
    budget = plan_budget(plan, records=record.records)
    rows = ["| node | phase | mechanism | parameters |", "|---|---|---|---|"]
    for node in record.nodes:
        size = node_size(record, node)
        if size is None:
            continue
        schedule = budget.training(size)
        phases = [("count", budget.count), ("statistics", budget.statistics)]
        phases += [("associations, coarse", event) for event in budget.associations.coarse_events()]
        phases += [("associations, fine", event) for event in budget.associations.fine_events()]
        phases += [(f"training, each of {plan.rounds} rounds", event) for event in schedule.round_events()]
        for phase, event in phases:
            mechanism, parameters = describe_event(event)
            rows.append(f"| {node.name} | {phase} | {mechanism} | {parameters} |")
    return [
        "## Mechanisms",
        "\n".join(rows),
        "- **Histograms**: each record is in exactly one cell of each column's histogram, so adding or removing it"
        " changes one cell of each by one. Cells are public: they follow from the schema and the number of bins.\n"
        + (_TWO_WAY if budget.associations.pairs else "")
        + "- **Training**: each record enters a step independently with probability q (Poisson sampling). Its gradient,"
        " averaged over its noise draws, is clipped to a norm; the sum gets Gaussian noise of that norm times the noise"
        " multiplier and is divided by q times the *noisy* size. Empty batches step too.\n"
        f"- **Losses**: each record's loss is bounded to [0, {LOSS_BOUND:g}] and rounded to {LOSS_LEVELS} levels; their"
        f" sum gets discrete Gaussian noise at sensitivity {LOSS_LEVELS}.\n"
        "- **Composition**: the count's ε₀ is added (basic composition: the rest of the plan depends on it);"
        " everything else is composed through privacy loss distributions (dp-accounting, pessimistic, add/remove) and"
        " rounded up. Before the first release that is not pure, a node fixes all events of the run and checks them"
        " against the claim; it then lets nothing else out.",
    ]


def assumptions(record: StudyRecord, schema: TableSchema) -> tuple[str, ...]:
    """What the claim of a run rests on, a sentence or two each.

    Args:
        record: The finished run.
        schema: Its schema.
    """
    plan = record.plan
    lines = [
        "Each patient's records lie at one node (max_nodes_per_patient = 1), fixed before the study.",
        (
            f"One row is one {schema.unit}: the column {schema.unit_id!r} was checked for duplicates."
            if schema.unit_id
            else f"One row is one {schema.unit}: the schema names no unit_id, so this could not be checked."
        ),
        "The schema, the plan, the names of the nodes and their participation are public.",
    ]
    if plan.is_private:
        lines += [
            "Noise of counts, histograms and losses: exact samplers of OpenDP on the operating system's entropy.",
            "Noise of gradients and the choice of batches: a Mersenne Twister whose whole state is drawn from the"
            " operating system's entropy and not stored. It is not a cryptographic generator, and its normal"
            " deviates are floating-point numbers, not reals: the guarantee for training is that of the ideal"
            " mechanism.",
            "Whether a node answers at all, and when, is not counted. A node whose table does not fit the schema says"
            " only that it is not ready. Whether all patients of a table are marked as simulated is public.",
        ]
    if plan.records is not None:
        lines.append(f"The number of records, {plan.records}, was declared as public knowledge.")
    return tuple(lines)


def _uncharged(schema: TableSchema) -> list[str]:
    lines = [
        "Merging histograms and tables, fitting the encoder and the surrogate, training on the surrogate's rows,"
        " averaging models, generating rows, enforcing constraints: they use"
        " released numbers only (post-processing).",
    ]
    derived = [name for name, column in schema.columns.items() if column.derived is not None]
    if derived:
        lines.append(
            f"{', '.join(derived)}: derived after generation by the schema's rule; a real column of that name is not"
            " read."
        )
    lines.append("A comparison with exact real rows (`aevorium validate --real`) is outside this statement.")
    return ["## Not charged, and why", "\n".join(f"- {line}" for line in lines)]


def _provenance(record: StudyRecord) -> list[str]:
    plan = record.plan
    ended = record.finished_at or "not finished"
    lines = [
        f"Run `{record.run_id}`, {record.started_at} to {ended}, purpose: {plan.purpose}",
        f"Schema `{plan.study}`, content hash `{plan.schema_hash}`",
        f"Plan, content hash `{plan.content_hash}`",
        f"Audit log, head `{record.audit_head}`",
        "Software: " + ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Check it with `aevorium audit verify`: it recomputes ε from the nodes' ledgers and verifies the audit chains.",
    ]
    return ["## Provenance", "\n".join(f"- {line}" for line in lines)]


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.4g}"
