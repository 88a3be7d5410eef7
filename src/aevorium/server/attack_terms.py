"""What a guarantee means for an attacker, as a part of a run's statement. Safe to release: it follows from the plan."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from aevorium.privacy.attack import PrivacyCurve, claimed_curve, exact_curve
from aevorium.privacy.phases import PhaseBudget
from aevorium.privacy.plan import StudyPlan

__all__ = ["AttackTerms", "MembershipBound", "Precision", "attack_terms"]

_FALSE_ALARMS = (0.01, 0.001)
"""False-positive rates at which attacks are bounded."""

_PRIORS = (0.5, 0.1)
"""Probabilities of participation before anything is released: a coin's, and a rare one."""

_EXCEPTION = 1e-3
"""Probability of an output for which the bound on the posterior need not hold."""


class _Terms(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Precision(_Terms):
    """How often an attacker is right, given how likely participation was beforehand."""

    prior: float = Field(description="Probability of participation beforehand.")
    at_most: float = Field(description="The bound.")


class MembershipBound(_Terms):
    """What a membership test can reach, whatever it knows besides."""

    false_positive_rate: float = Field(description="Share of patients outside the study that the test flags.")
    true_positive_rate: float = Field(description="Share of participants that it flags, at the most.")
    precision: tuple[Precision, ...] = Field(
        description="Share of its flags that are right, at the most, if it flags at least that share of outsiders."
    )


class AttackTerms(_Terms):
    """What the guarantee means for an attacker who knows everything but whether one patient took part."""

    basis: str = Field(description="What the bounds are computed from.")
    tests: tuple[MembershipBound, ...] = Field(description="Bounds on membership tests.")
    exception: float = Field(description="Probability of an output for which `posterior` need not hold.")
    posterior: tuple[Precision, ...] = Field(
        description="Probability of participation after everything was seen, at the most, but for the exception."
    )


def attack_terms(plan: StudyPlan, budget: PhaseBudget) -> AttackTerms:
    """The terms of a private plan.

    Args:
        plan: The plan.
        budget: What its phases cost.
    """
    curve, basis = _curve(plan, budget)
    return AttackTerms(
        basis=basis,
        tests=tuple(
            MembershipBound(
                false_positive_rate=rate,
                true_positive_rate=curve.true_positive_rate(false_positive_rate=rate),
                precision=tuple(
                    Precision(prior=prior, at_most=curve.precision(prior=prior, false_positive_rate=rate))
                    for prior in _PRIORS
                ),
            )
            for rate in _FALSE_ALARMS
        ),
        exception=_EXCEPTION,
        posterior=tuple(
            Precision(prior=prior, at_most=curve.posterior(prior=prior, exception=_EXCEPTION)) for prior in _PRIORS
        ),
    )


def _curve(plan: StudyPlan, budget: PhaseBudget) -> tuple[PrivacyCurve, str]:
    """The guaranteed curve: that of the planned events only if no parameter of theirs depends on a noisy count."""
    claim = claimed_curve(epsilon=plan.epsilon, delta=plan.delta)
    if plan.declared_size is None:
        return claim, "the claim (ε, δ) alone: the parameters depended on a noisy count"
    planned = exact_curve(budget.events(plan.declared_size) * plan.max_nodes_per_patient)
    return PrivacyCurve((*claim.points, *planned.points)), "all pairs (ε, δ) of the planned events, and the claim"
