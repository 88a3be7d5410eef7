"""What a report is made from. The pipeline fills these; nothing here is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevorium.evaluation.comparison import Comparison, TableDistance
from aevorium.evaluation.overlays import MarginalOverlay
from aevorium.evaluation.score import Scorecard

if TYPE_CHECKING:
    from aevorium.evaluation.fidelity import PairTrend
    from aevorium.evaluation.risk import ClosestRecords
    from aevorium.evaluation.utility import ModelScore

__all__ = ["LocalReport", "NodeSpend", "PhaseSpend", "RoundFacts", "RunReport", "StudyFacts"]


@dataclass(frozen=True)
class StudyFacts:
    """What was run. All of it is public or charged. Safe to release.

    Attributes:
        name: The study.
        schema_name: Name of its schema.
        schema_hash: Content hash of its schema.
        unit: What is protected ("patient").
        recipe: "warm-start" or "dp-sgd".
        trust: "local" or "secure-aggregation".
        epsilon: Target ε; infinity = trained without privacy.
        delta: δ.
        created: When the report was made, ISO 8601.
        version: Version of Aevorium.
        synthetic_rows: Rows of the synthetic table.
        target: The schema's target.
        derived: Columns computed by a rule after generation.
        simulated: Whether the data were simulated.
        warnings: Sentences that belong at the top (such as a δ that is large for so few patients), beside ε = ∞ and
            simulated data, which have banners of their own.
        limits: Further sentences under "what not to use it for".
        assumptions: What the privacy claim rests on.
    """

    name: str
    schema_name: str
    schema_hash: str
    unit: str
    recipe: str
    trust: str
    epsilon: float
    delta: float
    created: str
    version: str
    synthetic_rows: int
    target: str | None = None
    derived: tuple[str, ...] = ()
    simulated: bool = False
    warnings: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def is_private(self) -> bool:
        """Whether ε is finite."""
        return math.isfinite(self.epsilon)


@dataclass(frozen=True)
class PhaseSpend:
    """What one phase would cost a node by itself. Phases compose to less than their sum. Safe to release.

    Attributes:
        phase: Its name.
        epsilon: ε of the phase's planned events alone, at the study's δ.
        releases: How many times the phase releases something.
    """

    phase: str
    epsilon: float
    releases: int


@dataclass(frozen=True)
class NodeSpend:
    """What a study cost one node. Safe to release.

    Attributes:
        node: Its name.
        epsilon: ε of all the study's events composed, at the study's δ.
        limit: The largest ε that the node's policy allows; None if it is not known here.
        phases: In order.
        records: The node's noisy count of records; None if it released none.
    """

    node: str
    epsilon: float
    limit: float | None = None
    phases: tuple[PhaseSpend, ...] = ()
    records: float | None = None


@dataclass(frozen=True)
class RoundFacts:
    """One round of private training. Safe to release.

    Attributes:
        number: From 1.
        nodes_replied: Nodes whose reply counted.
        nodes_asked: Nodes that were asked.
        epsilon: Highest ε of any node, up to and including this round.
        seconds: Wall time.
        loss: A charged, noisy loss; None if none was paid for.
    """

    number: int
    nodes_replied: int
    nodes_asked: int
    epsilon: float
    seconds: float
    loss: float | None = None


@dataclass(frozen=True)
class RunReport:
    """A run's own report: charged numbers only. Safe to release.

    Attributes:
        study: What was run.
        nodes: What it cost.
        rounds: How private training went; empty if there was none.
        card: Scores against the released tables.
        overlays: Released one-way tables against the synthetic table.
        comparison: Evaluation tables against the synthetic table; None if the run paid for none.
        pairs: Two-way tables that the model was made from, against the synthetic table; empty if there are none.
    """

    study: StudyFacts
    nodes: tuple[NodeSpend, ...]
    rounds: tuple[RoundFacts, ...]
    card: Scorecard
    overlays: tuple[MarginalOverlay, ...]
    comparison: Comparison | None = None
    pairs: tuple[TableDistance, ...] = ()

    @property
    def epsilon(self) -> float:
        """The federation's ε: the highest of the nodes, which hold disjoint patients."""
        return max((node.epsilon for node in self.nodes), default=0.0)


@dataclass(frozen=True)
class LocalReport:
    """A report made from real rows. Exact statistics of real records: not for release.

    Attributes:
        study: What was run.
        card: Scores against real rows.
        overlays: Columns of the real rows against those of the synthetic table.
        pairs: Associations of pairs of columns; no chart if empty.
        tstr: Trained on synthetic, tested on real; no chart if None.
        trtr: Trained on real, tested on real; no chart if None.
        closest: Distances to closest records; no chart if None.
    """

    study: StudyFacts
    card: Scorecard
    overlays: tuple[MarginalOverlay, ...]
    pairs: tuple[PairTrend, ...] = ()
    tstr: ModelScore | None = None
    trtr: ModelScore | None = None
    closest: ClosestRecords | None = None
