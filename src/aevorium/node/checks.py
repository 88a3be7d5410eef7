"""What a node finds wrong with a request before it asks its gate for a release. Reads no record.

The server may be a modified one: whatever it asks for is looked at here. What is raised here, the gate refuses and
writes down.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, load_vector
from aevorium.diffusion.layout import Layout
from aevorium.encoding.encoder import TableEncoder
from aevorium.errors import BudgetExceeded, FederationError, PolicyRefused
from aevorium.federation.protocol import AssociationsRequest, EvaluationRequest, PlanRequest, StatisticsRequest
from aevorium.node.run import NodeRun
from aevorium.privacy.evaluation import EvaluationSchedule
from aevorium.privacy.ledger import LedgerRun
from aevorium.privacy.plan import divides_patients
from aevorium.privacy.schedule import MOST_PARAMETERS, AssociationSchedule, TrainingSchedule
from aevorium.schema.table import TableSchema

__all__ = [
    "RunRequest",
    "check_design",
    "check_evaluation",
    "check_plan",
    "known",
    "model_of",
    "require_agreed",
    "require_as_fixed",
    "require_trust",
    "require_turn",
]

_ANOTHER_ORDER = "Its phases come in another order."

Known = TypeVar("Known")


class RunRequest(Protocol):
    """A request that belongs to an agreed run."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    @property
    def plan_hash(self) -> str:
        """Content hash of the plan that was agreed to."""
        ...


def check_plan(request: PlanRequest, *, schema: TableSchema, node: str, server: str | None, is_simulated: bool) -> None:
    """Passes if a plan is for the node's schema, and of the server that it is connected to, if that is proven.

    Raises:
        PolicyRefused: POLICY_SERVER_REFUSED; SCHEMA_MISMATCH; FEATURE_UNAVAILABLE for secure aggregation over nodes
            that are not simulated.
        BudgetExceeded: BUDGET_EXCEEDED, if it adds no noise and claims an ε.
    """
    plan, refused = request.plan, f"Run {request.run_id!r} refused."
    if plan.trust == "secure-aggregation" and not is_simulated:
        raise PolicyRefused(
            "FEATURE_UNAVAILABLE", f"{refused} Without masks the server would see this node's part of each sum."
        )
    if server is not None and request.server != server:
        raise PolicyRefused(
            "POLICY_SERVER_REFUSED",
            f"{refused} It names another server than the one that node {node!r} is connected to.",
        )
    if plan.schema_hash != schema.content_hash:
        raise PolicyRefused(
            "SCHEMA_MISMATCH", f"{refused} Its schema {plan.study!r} differs from that of node {node!r}."
        )
    columns, numbers = len(schema.measured), len(schema.numbers)
    if (plan.columns, plan.numbers) != (columns, numbers):
        raise PolicyRefused(
            "SCHEMA_MISMATCH",
            f"{refused} It counts {plan.columns} measured columns, {plan.numbers} of them of numbers, in a schema that "
            f"has {columns} and {numbers}.",
            hint="The server may run another version of Aevorium than this node. Install the same on both.",
        )
    divides = divides_patients(schema, share=plan.evaluation_share, nodes_per_patient=plan.max_nodes_per_patient)
    if plan.has_holdout != divides:
        raise PolicyRefused(
            "SCHEMA_MISMATCH",
            f"{refused} By the schema of node {node!r}, patients {'are' if divides else 'cannot be'} held out in it.",
        )
    if not plan.is_private and math.isfinite(plan.epsilon):
        raise BudgetExceeded(
            "BUDGET_EXCEEDED",
            f"{refused} It adds no noise, so it costs ε = ∞; it says ε = {plan.epsilon:g}.",
            hint="The plan contradicts itself; find out why the server sent it.",
        )


def require_agreed(request: RunRequest, entry: LedgerRun | None, *, server: str | None) -> NodeRun:
    """The run that a request belongs to, open or not.

    Args:
        request: The request.
        entry: What the ledger knows of the run that it names.
        server: The server that the node is connected to, if that is proven.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN, if no such plan was agreed to; POLICY_SERVER_REFUSED, if it was agreed with
            another server.
    """
    run = None if entry is None or entry.plan_hash != request.plan_hash else NodeRun.read(entry)
    if run is None:
        raise _outside_plan(request.run_id, "No such plan was agreed here.")
    if server is not None and run.server != server:
        raise PolicyRefused(
            "POLICY_SERVER_REFUSED", f"Run {request.run_id!r} refused. It was agreed with another server."
        )
    return run


def require_turn(run: NodeRun, phase: str, round: int) -> None:
    """Passes if a release comes in its turn: in an open run, after the phases that it builds on and before later ones.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
    """
    if run.entry.closed_at is not None:
        raise _outside_plan(run.entry.run_id, "It has ended.")
    if not run.may_follow(phase, round):
        raise _outside_plan(run.entry.run_id, _ANOTHER_ORDER)
    if phase != "count":
        known(run, run.count)


def require_as_fixed(run: NodeRun, request: StatisticsRequest) -> None:
    """Passes if a request for histograms says what the first one did, by which all events of the run were fixed.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
    """
    if (run.bins, run.records) != (request.bins, request.records):
        raise _outside_plan(request.run_id, "Its histograms were fixed with other bins or records.")


def known(run: NodeRun, fact: Known | None) -> Known:
    """A fact that an earlier phase of the run has established."""
    if fact is None:
        raise _outside_plan(run.entry.run_id, _ANOTHER_ORDER)
    return fact


def require_trust(run: NodeRun, *, is_summed: bool) -> TrainingSchedule:
    """The schedule of a run, if it trains in the way that a request asks for.

    A whole model with one share of the noise, or a single step with the noise of a sum, was never agreed to.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
    """
    schedule = known(run, run.schedule)
    if schedule.rounds == 0:
        raise _outside_plan(run.entry.run_id, "Its plan holds no training.")
    if (run.plan.noise_shares is not None) != is_summed:
        raise _outside_plan(run.entry.run_id, f"Its trust is {run.plan.trust!r}, which trains in another way.")
    return schedule


def check_design(request: AssociationsRequest, *, schema: TableSchema, bins: int, tables: AssociationSchedule) -> None:
    """Passes if a request for tables is for as many as the plan holds, and they can be counted."""
    design = request.design
    pairs, triples, count = len(design.pairs), len(design.triples), design.count
    if request.stage == "coarse":
        is_planned = count == pairs == tables.candidates
    else:
        # Tables of values come in the place of others, never beside them: a record is in one cell of each.
        is_planned = count == tables.count and pairs <= tables.pairs and triples <= tables.triples
    if not design.tables or not is_planned:
        raise _outside_plan(request.run_id, f"Its plan holds another number of {request.stage} tables.")
    problem = design.problem(schema, bins=bins)
    if problem is not None:
        raise FederationError("MESSAGE_INVALID", f"A request for tables cannot be served: {problem}.")


def check_evaluation(
    request: EvaluationRequest, run: NodeRun, *, schema: TableSchema, schedule: EvaluationSchedule
) -> int:
    """Passes if a request for evaluation tables comes after any training, and is for as many as the plan holds.

    Returns:
        The run's number of bins.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
        FederationError: MESSAGE_INVALID, if the tables cannot be counted.
    """
    bins, design = known(run, run.bins), request.design
    if not schedule.columns:
        raise _outside_plan(request.run_id, "Its plan holds no evaluation.")
    if run.budget.rounds and not run.has_trained:
        raise _outside_plan(request.run_id, _ANOTHER_ORDER)
    is_planned = design.count == len(design.pairs) == schedule.pairs
    if design.cells.keys() != schema.measured.keys() or not is_planned:
        raise _outside_plan(request.run_id, "Its plan holds other evaluation tables.")
    problem = design.problem(schema, bins=bins)
    if problem is not None:
        raise FederationError("MESSAGE_INVALID", f"A request for evaluation tables cannot be served: {problem}.")
    return bins


def model_of(
    config: DenoiserConfig, vector: NDArray[np.float32], *, encoder: TableEncoder, schema: TableSchema, bins: int
) -> TabularDiffusion:
    """The global model of a request, if encoder and model fit the schema, whatever the records are.

    Args:
        config: Size and shape of the model.
        vector: float32 [parameters].
        encoder: The shared encoder.
        schema: The node's schema.
        bins: Bins of the run's grids.

    Raises:
        FederationError: MESSAGE_INVALID.
    """
    problem = encoder.problem(schema, bins=bins)
    if problem is not None:
        raise FederationError("MESSAGE_INVALID", f"The encoder of a round cannot be used: {problem}.")
    if config.layout != Layout.for_table(encoder, schema):
        raise FederationError("MESSAGE_INVALID", "The model of a round does not fit the node's schema.")
    if len(vector) > MOST_PARAMETERS:
        raise FederationError("MESSAGE_INVALID", f"The model of a round has more than {MOST_PARAMETERS} parameters.")
    model = TabularDiffusion(config, priors=encoder.priors(schema), generator=torch.Generator().manual_seed(0))
    load_vector(model, vector)
    return model


def _outside_plan(run_id: str, reason: str) -> PolicyRefused:
    return PolicyRefused("RELEASE_OUTSIDE_PLAN", f"Run {run_id!r} refused. {reason}")
