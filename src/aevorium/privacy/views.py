"""Who sees what of a run, and how much less private it is to those who know more. Safe to release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import PrivacyEvent, with_shares
from aevorium.privacy.plan import StudyPlan

__all__ = ["View", "views_of"]


@dataclass(frozen=True)
class View:
    """A run as somebody sees it.

    Attributes:
        viewer: Who.
        epsilon: ε of the run for that viewer, at the plan's δ.
        shares: How many nodes' noises the viewer does not know; None where every node's noise is enough by itself.
        reason: Why it is so, in one sentence.
    """

    viewer: str
    epsilon: float
    shares: int | None
    reason: str


def views_of(plan: StudyPlan, events: Sequence[PrivacyEvent]) -> tuple[View, ...]:
    """The views of a run.

    The first one is the plan's claim. The others are computed from the events of this run.

    Args:
        plan: The plan.
        events: Everything that a node releases in the run.
    """
    shares = plan.noise_shares
    if shares is None:
        reason = "What a node sends is private by itself, whoever sees it."
        return (View("everyone: the server, the other nodes, the world", plan.epsilon, None, reason),)

    def seen(viewer: str, unknown: int, reason: str) -> View:
        return View(viewer, epsilon(with_shares(events, unknown=unknown), plan.delta), max(unknown, 0), reason)

    nodes, without = len(plan.nodes), shares - plan.colluding
    reason = f"Of {nodes} shares of noise, {plan.dropouts} may be missing from a sum."
    others = [seen("another node", shares - 1, "It knows its own share of the noise.")]
    if plan.colluding:
        reason_of_others = f"They know {plan.colluding} shares of the noise."
        others.insert(0, seen(f"the server with {plan.colluding} nodes", without, reason_of_others))
    return (
        View("the world, and a server that sees sums alone", plan.epsilon, shares, reason),
        *others,
        seen("whoever sees one node's message alone", 1, "One share protects it, should aggregation fail."),
    )
