"""Whether one more plan fits the budget of a period, and what is left of it.

A node's guarantee is about the whole period: everything released in it is (max_epsilon, max_delta)-DP, whoever chose
the later runs, and whatever they had seen. There are two ways to prove that, and they cannot be mixed by choosing
whichever suits after looking at output. So the first plan of a period settles it, from public numbers alone, before
a record is read:

- **"renyi"**, if the first plan announces its events and their Rényi cost fits the limit: costs add up at one fixed
  order (`RenyiFilter`), plans count with everything they announce until they are closed, and with what they really
  released from then on. This is the usual case, and by far the better bound over many runs.
- **"basic"** otherwise: a first plan so close to the limit that only its own exact accounting shows that it fits, or
  one whose events are not known beforehand. Then the targets (ε, δ) of the runs add up, used up or not (basic
  composition, valid for adaptive choices: Rogers et al. 2016). Only a run that was closed before it reserved anything
  counts nothing: no record was read for it, so it tells nothing. It still settles the period if it was the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aevorium.errors import BudgetExceeded
from aevorium.governance.policy import Budget
from aevorium.privacy.accountant import epsilon, round_up, spent
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.ledger import LedgerRun
from aevorium.privacy.renyi import RenyiFilter

__all__ = ["BudgetView", "Composition", "PeriodBudget", "ReleaseView", "RunView"]

Composition = Literal["renyi", "basic"]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ReleaseView(_View):
    """One release, as the budget file shows it. Safe to release."""

    phase: str = Field(description="Phase of the run.")
    round: int = Field(description="Round within the phase.")
    state: Literal["reserved", "committed", "failed"] = Field(
        description="All are spent; only the numbers of a committed one can have left."
    )
    time: str = Field(description="When it was reserved: UTC, ISO 8601.")
    events: tuple[PrivacyEvent, ...] = Field(description="What it costs.")


class RunView(_View):
    """One run, as the budget file shows it. Safe to release."""

    run_id: str = Field(description="The run.")
    epsilon: float = Field(description="Target ε: what holds for the run.")
    delta: float = Field(description="Target δ.")
    spent: float = Field(description="ε of what was released so far, at the run's δ; never above the target.")
    agreed_at: str = Field(description="UTC, ISO 8601.")
    closed_at: str | None = Field(description="UTC, ISO 8601; null while the run goes on.")
    releases: tuple[ReleaseView, ...] = Field(description="In the order of reservation.")


class BudgetView(_View):
    """A node's budget of one period, recomputed from the ledger's events. Safe to release."""

    schema_version: int = 1
    node: str = Field(description="The node.")
    period: str = Field(description="The period.")
    max_epsilon: float = Field(description="The limit ε.")
    max_delta: float = Field(description="The δ at which it holds.")
    composition: Composition | None = Field(description="How the runs of the period add up; null before the first.")
    spent: float = Field(description="ε of everything released in the period, at max_delta.")
    committed: float = Field(description="The same with all that the agreed plans may still release.")
    left: float = Field(description="The limit less what is committed.")
    runs: tuple[RunView, ...] = Field(description="In the order of agreement.")


@dataclass(frozen=True)
class PeriodBudget:
    """The arithmetic of one period.

    Attributes:
        limit: The steward's limit.
        runs: The runs of the period by id, in the order of agreement.
    """

    limit: Budget
    runs: Mapping[str, LedgerRun]

    @property
    def filter(self) -> RenyiFilter:
        """The Rényi filter of the limit."""
        return RenyiFilter(epsilon=self.limit.max_epsilon, delta=self.limit.max_delta)

    @property
    def composition(self) -> Composition | None:
        """How the runs add up; None before the first."""
        return next((self._composition(run.agreed_events) for run in self.runs.values()), None)

    def _composition(self, agreed: Sequence[PrivacyEvent] | None) -> Composition:
        return "renyi" if agreed is not None and self.filter.cost(agreed) <= self.filter.capacity else "basic"

    def admit_plan(self, run_id: str, *, epsilon: float, delta: float, planned: Sequence[PrivacyEvent] | None) -> None:
        """Passes if a further plan fits.

        Args:
            run_id: The run, for the message.
            epsilon: Its target ε.
            delta: Its target δ.
            planned: The events that it announces; None if they are not known yet.

        Raises:
            BudgetExceeded: BUDGET_EXCEEDED.
        """
        if self.limit.max_epsilon == math.inf:
            return
        if epsilon > self.limit.max_epsilon:
            raise self._exceeded(run_id, f"It would spend ε = {epsilon:g} at once")
        composition = self.composition or self._composition(planned)
        if composition == "basic":
            self._admit_basic(run_id, epsilon=epsilon, delta=delta)
        elif planned is None:
            raise self._exceeded(run_id, "It does not say which events it needs, and other runs share the period")
        else:
            self._admit_renyi(run_id, others=self._charged(), added=planned)

    def admit_events(self, run_id: str, *, planned: Sequence[PrivacyEvent]) -> None:
        """Passes if an agreed run may release `planned` in all; checked anew, since the limit may have been lowered.

        Raises:
            BudgetExceeded: BUDGET_EXCEEDED.
        """
        if self.limit.max_epsilon == math.inf:
            return
        if self.composition == "renyi":
            others = {name: events for name, events in self._charged().items() if name != run_id}
            self._admit_renyi(run_id, others=others, added=planned)
        else:
            self._admit_basic(run_id, epsilon=0.0, delta=0.0)

    def _admit_basic(self, run_id: str, *, epsilon: float, delta: float) -> None:
        total_epsilon = _exact_sum([*(run.epsilon for run in self._bound()), epsilon])
        total_delta = _exact_sum([*(run.delta for run in self._bound()), delta])
        if total_epsilon > self.limit.max_epsilon:
            raise self._exceeded(run_id, f"With it, the targets of the period's runs add up to ε = {total_epsilon:g}")
        if total_delta > self.limit.max_delta:
            raise self._exceeded(run_id, f"With it, the targets of the period's runs add up to δ = {total_delta:g}")

    def _admit_renyi(
        self, run_id: str, *, others: Mapping[str, Sequence[PrivacyEvent]], added: Sequence[PrivacyEvent]
    ) -> None:
        bound = self.filter
        before = math.fsum(bound.cost(events) for events in others.values())
        after = before + bound.cost(added)
        if after > bound.capacity:
            reached, held = round_up(bound.to_epsilon(after)), round_up(bound.to_epsilon(before))
            raise self._exceeded(
                run_id, f"With it, the period could reach ε = {reached:g}; the other runs hold {held:g}"
            )

    def _exceeded(self, run_id: str, reason: str) -> BudgetExceeded:
        limit = self.limit
        return BudgetExceeded(
            "BUDGET_EXCEEDED",
            f"Run {run_id!r} refused. {reason}, and the steward set max_epsilon = {limit.max_epsilon:g}"
            f" at max_delta = {limit.max_delta:g} for period {limit.period!r}.",
        )

    def _charged(self) -> dict[str, tuple[PrivacyEvent, ...]]:
        """What counts against the limit: an open run with all that it plans, a closed one with what it released."""
        return {
            name: run.events if run.closed_at else run.planned_events or run.events for name, run in self.runs.items()
        }

    def _bound(self) -> tuple[LedgerRun, ...]:
        """The runs whose targets count under basic composition: all but those that ended without a reservation."""
        return tuple(run for run in self.runs.values() if run.releases or not run.closed_at)

    def view(self, *, node: str) -> BudgetView:
        """The period as the budget file shows it. Takes about a second when many events are new."""
        composition = self.composition
        views = tuple(_run_view(run) for run in self.runs.values())
        if composition == "renyi":
            used, committed = (
                spent(events, limit_epsilon=self.limit.max_epsilon, limit_delta=self.limit.max_delta)
                for events in ({name: run.events for name, run in self.runs.items()}, self._charged())
            )
        else:
            used = round_up(_exact_decimal([view.spent for view in views]))
            committed = round_up(_exact_decimal([run.epsilon for run in self._bound()]))
        committed = max(used, committed)
        left = math.inf if self.limit.max_epsilon == math.inf else max(0.0, self.limit.max_epsilon - committed)
        return BudgetView(
            node=node,
            period=self.limit.period,
            max_epsilon=self.limit.max_epsilon,
            max_delta=self.limit.max_delta,
            composition=composition,
            spent=used,
            committed=committed,
            left=left if left == math.inf else round(left, 4),
            runs=views,
        )


def _exact_decimal(values: Sequence[float]) -> Decimal:
    return sum((Decimal(repr(value)) for value in values), Decimal(0))


def _exact_sum(values: Sequence[float]) -> float:
    """The sum of the decimal numbers as written: 0.1 + 0.2 is 0.3."""
    return float(_exact_decimal(values))


def _run_view(run: LedgerRun) -> RunView:
    return RunView(
        run_id=run.run_id,
        epsilon=run.epsilon,
        delta=run.delta,
        spent=epsilon(run.events, delta=run.delta),
        agreed_at=run.agreed_at,
        closed_at=run.closed_at,
        releases=tuple(
            ReleaseView(
                phase=release.phase,
                round=release.round,
                state=release.state,
                time=release.reserved_at,
                events=release.events,
            )
            for release in run.releases
        ),
    )
