"""A round under secure aggregation at a node: paid for by its first step, gone with the process. Reads no record."""

from __future__ import annotations

from dataclasses import dataclass

from aevorium.encoding.encoder import TableEncoder
from aevorium.errors import FederationError, PolicyRefused
from aevorium.federation.protocol import GradientRequest
from aevorium.governance.gate import ReleasedSteps
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.schedule import TrainingSchedule
from aevorium.schema.table import TableSchema

__all__ = ["OpenSteps", "require_encoder", "require_open"]


@dataclass(frozen=True)
class OpenSteps:
    """A round whose steps are paid for.

    Attributes:
        run_id: The run.
        round: The round.
        plan: What was agreed to.
        bins: Bins of the run's grids.
        schedule: How the run trains.
        encoder: The encoder that came with the first step.
        released: What lets each step out once.
    """

    run_id: str
    round: int
    plan: StudyPlan
    bins: int
    schedule: TrainingSchedule
    encoder: TableEncoder
    released: ReleasedSteps


def require_encoder(request: GradientRequest, *, schema: TableSchema, bins: int) -> TableEncoder:
    """The encoder of a round, which its first step brings, before the round is paid for.

    Args:
        request: The first step.
        schema: The node's schema.
        bins: Bins of the run's grids.

    Raises:
        FederationError: MESSAGE_INVALID.
    """
    if request.encoder is None:
        raise FederationError("MESSAGE_INVALID", "The first step of a round came without the encoder.")
    problem = request.encoder.problem(schema, bins=bins)
    if problem is not None:
        raise FederationError("MESSAGE_INVALID", f"The encoder of a round cannot be used: {problem}.")
    return request.encoder


def require_open(steps: OpenSteps | None, request: GradientRequest) -> OpenSteps:
    """The round that a step belongs to, if it is open and has so many.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
    """
    refused = f"Run {request.run_id!r} refused."
    if steps is None or (steps.run_id, steps.round) != (request.run_id, request.round):
        raise PolicyRefused("RELEASE_OUTSIDE_PLAN", f"{refused} Round {request.round} is not open here.")
    if request.step > steps.schedule.steps:
        raise PolicyRefused("RELEASE_OUTSIDE_PLAN", f"{refused} Its rounds hold {steps.schedule.steps} steps.")
    return steps
