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
        viewer = "everyone who sees what a node sent: the server, other nodes, the world"
        reason = "trust = local: the noise is added at the node, before anything leaves it"
        return (View(viewer, plan.epsilon, None, reason),)

    # Such a figure belongs to the outcome: only the claim was fixed before a record was read.
    condition = "" if plan.declared_size is not None else "; for the sizes that the noisy counts gave"

    def seen(viewer: str, unknown: int, reason: str) -> View:
        return View(
            viewer, epsilon(with_shares(events, unknown=unknown), plan.delta), max(unknown, 0), reason + condition
        )

    nodes, without = len(plan.nodes), shares - plan.colluding
    reason = f"a sum has the noise of at least {shares} of {nodes} nodes"
    others = [seen("another node", shares - 1, "it knows its own share of the noise")]
    if plan.colluding:
        together = "one node" if plan.colluding == 1 else f"{plan.colluding} nodes"
        told = (
            "that node tells its share of the noise" if plan.colluding == 1 else "they tell their shares of the noise"
        )
        others.insert(0, seen(f"the server with {together}", without, told))
    return (
        View("the world, and a server that sees sums alone", plan.epsilon, shares, reason),
        *others,
        seen("whoever sees one node's message alone", 1, "one share of the noise protects it, should aggregation fail"),
    )
