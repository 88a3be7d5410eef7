"""What a gate admits: whether a plan, the events fixed for it, and each release stay within what was agreed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from aevorium.errors import BudgetExceeded, PolicyRefused
from aevorium.governance.budget import PeriodBudget
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteLaplace, PrivacyEvent, is_within
from aevorium.privacy.ledger import LedgerRun

__all__ = ["AgreedPlan", "admit_fixing", "admit_release", "check_target", "is_open", "outside_plan"]


@dataclass(frozen=True)
class AgreedPlan:
    """What a server asks a node to agree to. Holds public facts only. Safe to release.

    Attributes:
        run_id: The run; unique for ever.
        plan_json: The whole plan as text, kept in the ledger.
        schema_hash: Content hash of the schema.
        purpose: What the study is for.
        server: Identity of the server.
        epsilon: Target ε of the run; infinite for a run without privacy.
        delta: Target δ of the run.
        planned_events: All that the run may release; it is then held to it. None if that depends on a first noisy
            count: only pure events pass until `ReleaseGate.fix_events`, and the budget treats the plan by its
            target alone. A plan may also announce an estimate here and fix the true events after the count.
        nodes_per_patient: At how many nodes a patient may have a record: so often the events count against the target.
    """

    run_id: str
    plan_json: str
    schema_hash: str
    purpose: str
    server: str
    epsilon: float
    delta: float
    planned_events: tuple[PrivacyEvent, ...] | None = None
    nodes_per_patient: int = 1

    @property
    def plan_hash(self) -> str:
        """SHA-256 (hex) of the plan's text."""
        return hashlib.sha256(self.plan_json.encode()).hexdigest()


def is_open(known: LedgerRun | None, plan: AgreedPlan) -> bool:
    """Whether the very same plan of the same server was agreed to before, and goes on."""
    if known is None or known.closed_at is not None:
        return False
    return known.plan_hash == plan.plan_hash and known.facts.get("server") == plan.server


def admit_fixing(run_id: str, period: PeriodBudget, *, events: Sequence[PrivacyEvent]) -> None:
    """Passes if all that a run may release can be fixed now, and the period bears it.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
        BudgetExceeded: BUDGET_EXCEEDED.
    """
    run = period.runs[run_id]
    released = run.events
    if run.epsilon < math.inf and not all(isinstance(event, DiscreteLaplace) for event in released):
        raise outside_plan(run_id, "Its events can no longer be fixed: it has released more than noisy counts.")
    if not is_within(released, events):
        raise outside_plan(run_id, "The events to fix leave out some that were released.")
    period.admit_events(run_id, planned=events)


def admit_release(run_id: str, period: PeriodBudget, *, phase: str, round: int, events: Sequence[PrivacyEvent]) -> None:
    """Passes if a release is among what its run may still release, and the period bears the run.

    Raises:
        PolicyRefused: RELEASE_OUTSIDE_PLAN.
        BudgetExceeded: BUDGET_EXCEEDED.
    """
    if not events:
        raise outside_plan(run_id, "Nothing would be charged for what was asked.")
    run = period.runs[run_id]
    if run.find(phase=phase, round=round) is not None:
        events = ()  # They are among the run's own already, from before the process that reserved them ended.
    if run.epsilon == math.inf:
        period.admit_events(run_id, planned=run.planned_events or (*run.events, *events))
        return
    planned = run.planned_events
    if planned is None:
        planned = (*run.events, *events)
        if not all(isinstance(event, DiscreteLaplace) for event in planned):
            raise outside_plan(run_id, "Its events are not fixed yet, and only noisy counts may be released before.")
        check_target(run_id, planned, target=run.epsilon, delta=run.delta)
    elif not is_within((*run.events, *events), planned):
        raise outside_plan(run_id, "The agreed plan does not hold these events, or holds fewer of them.")
    period.admit_events(run_id, planned=planned)


def check_target(run_id: str, events: Sequence[PrivacyEvent] | None, *, target: float, delta: float) -> None:
    """Passes if events cost no more than their run's target; whatever is within them then costs no more either."""
    if events is None or target == math.inf:
        return
    cost = epsilon(events, delta=delta)
    if cost > target:
        raise BudgetExceeded(
            "BUDGET_EXCEEDED",
            f"Run {run_id!r} refused. Its events cost ε = {cost:g} at δ = {delta:g}; its plan says ε = {target:g}.",
            hint="The plan contradicts itself; find out why the server sent it.",
        )


def outside_plan(run_id: str, reason: str) -> PolicyRefused:
    """The refusal of something that a run's plan does not hold."""
    return PolicyRefused("RELEASE_OUTSIDE_PLAN", f"Run {run_id!r} refused. {reason}")
