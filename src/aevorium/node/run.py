"""`NodeRun`: what a node knows of a run that it agreed to.

All of it is in the ledger, and is read from there for every request: a node that was killed and started again knows
what it knew before, and nothing in memory can differ from what was charged.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.privacy.ledger import Facts, LedgerRun
from aevorium.privacy.numbers import Numbers
from aevorium.privacy.phases import PhaseBudget, plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.schedule import TrainingSchedule

__all__ = ["NodeRun", "fingerprint_of", "learn_count"]

_PHASES = ("count", "statistics", "associations", "training", "evaluation")
"""The order in which phases release."""


class _Facts(BaseModel):
    """Public facts of a run, as the ledger keeps them."""

    model_config = ConfigDict(frozen=True)

    server: str = Field(description="Identity of the server that asked for the plan.")
    count: int | None = Field(default=None, description="The released noisy number of patients that are not held out.")
    bins: int | None = Field(default=None, description="Bins of the public grids.")
    records: float | None = Field(default=None, description="Number of records of all nodes, by which ε was divided.")


@dataclass(frozen=True)
class NodeRun:
    """A run as the ledger tells of it. Holds public and released facts only. Safe to release.

    Attributes:
        entry: What the ledger holds.
        plan: The plan as agreed.
        server: Identity of the server that asked for it.
        count: The released noisy number of patients that are not held out; None before.
        bins: Bins of the public grids; None before the first request for histograms.
        records: Number of records of all nodes that the rest of ε was divided by; None before.
    """

    entry: LedgerRun
    plan: StudyPlan
    server: str
    count: int | None
    bins: int | None
    records: float | None

    @classmethod
    def read(cls, entry: LedgerRun) -> NodeRun | None:
        """Reads a run; None if another version of Aevorium wrote it, whose runs this one cannot go on with."""
        try:
            facts = _Facts.model_validate(entry.facts)
            plan = StudyPlan.model_validate_json(entry.plan_json)
        except ValidationError:
            return None
        return cls(entry, plan, facts.server, count=facts.count, bins=facts.bins, records=facts.records)

    @property
    def size(self) -> float | None:
        """The number of records by which the node's training is planned; None before it is known."""
        return None if self.count is None else self.plan.node_size(count=self.count, records=self.records)

    @property
    def budget(self) -> PhaseBudget:
        """How the plan's ε is divided, as far as that is fixed."""
        return plan_budget(self.plan, records=self.records)

    @property
    def schedule(self) -> TrainingSchedule | None:
        """The node's training; None before it is fixed, which the first request for histograms does."""
        return None if self.size is None or self.bins is None else self.budget.training(self.size)

    @property
    def has_trained(self) -> bool:
        """Whether a round of training was released, or a part of one."""
        return any(release.phase == "training" for release in self.entry.releases)

    @property
    def basis(self) -> Facts:
        """What every event of the run follows from."""
        return {"bins": self.bins, "records": self.records}

    def may_follow(self, phase: str, round: int) -> bool:
        """Whether a release comes in its turn: none of a later phase, or a later round, was reserved before.

        A node that was lost may miss some, and whatever was reserved may be asked for again.
        """
        releases = self.entry.releases
        if self.entry.find(phase=phase, round=round) is not None:
            return True
        return all(_place(release.phase, release.round) < _place(phase, round) for release in releases)


def _place(phase: str, round: int) -> tuple[int, float]:
    # The loss of a round stands between its steps and those of the next.
    return (_PHASES.index("training"), round + 0.5) if phase == "loss" else (_PHASES.index(phase), round)


def fingerprint_of(request: BaseModel, vector: NDArray[np.generic] | None = None) -> str:
    """SHA-256 (hex) of all that a request asks for. Safe to release.

    Args:
        request: Its body.
        vector: Its array, if it has one.
    """
    body = {"kind": type(request).__name__, "body": request.model_dump(mode="json")}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    if vector is not None:
        digest.update(f"{vector.dtype.str}{vector.shape}".encode())
        digest.update(np.ascontiguousarray(vector).tobytes())
    return digest.hexdigest()


def learn_count(numbers: Numbers) -> Facts:
    """What later phases go by in a released count: int64 [1]."""
    return {"count": int(numbers[0][0])}
