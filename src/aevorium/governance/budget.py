"""Whether one more plan fits the budget of a period, what is left of it, and what a node has spent in all.

A node's guarantee is about the whole period: everything released in it is (max_epsilon, max_delta)-DP, whoever chose
the later runs, and whatever they had seen. There are two ways to prove that, and they cannot be mixed by choosing
whichever suits after looking at output. So the first plan of a period settles it, with the limit in force then, from
public numbers alone, before a record is read:

- **"renyi"**, if the first plan announces its events and their Rényi cost fits the limit: costs add up in one
  odometer (`privacy.renyi.RenyiOdometer`), plans count with everything they announce until they are closed, and with
  what they really released from then on. This is the usual case, and by far the better bound over many runs.
- **"basic"** otherwise: a first plan so close to the limit that only its own exact accounting shows that it fits, or
  one whose events are not known beforehand. Then the targets (ε, δ) of the runs add up, used up or not (basic
  composition, valid for adaptive choices: Rogers et al. 2016). Only a run that was closed before it reserved anything
  counts nothing: no record was read for it, so it tells nothing. It still settles the period if it was the first.

A steward who sets another limit later changes where the sum has to stop, not how it is formed. Only where a smaller δ
is set than the targets of a "basic" period add up to, what was spent is shown at that δ by the odometer of the lifetime
total, since the sum does not hold there; and no further run is admitted.

**What is shown.** A run shows its own exact ε: what holds of it if it stands alone. A period shows the odometer's ε,
from its first release on: what holds of all its runs together, whichever come later, and therefore somewhat more than
the one run. Both only ever rise. **The lifetime total** is the odometer's ε of everything in the ledger at the policy's
δ, over all periods: later periods are adaptive to earlier ones just as runs are. Its orders share δ evenly, whatever
limits were set, so that no choice of a steward can lower it; and it is never below what one of the periods shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aevorium.errors import BudgetExceeded
from aevorium.governance.policy import Budget
from aevorium.privacy.accountant import epsilon, round_up, spent
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.ledger import LedgerRun
from aevorium.privacy.renyi import RenyiOdometer

__all__ = ["BudgetView", "Composition", "PeriodBudget", "PeriodView", "ReleaseView", "RunView", "lifetime_spend"]

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


class PeriodView(_View):
    """An earlier period, as the budget file shows it. Safe to release."""

    period: str = Field(description="The period.")
    max_epsilon: float = Field(description="The limit ε that it had last.")
    max_delta: float = Field(description="The δ at which it held.")
    spent: float = Field(description="ε of everything released in it, at its max_delta.")
    runs: int = Field(description="Number of its runs.")
    first: str = Field(description="When its first run was agreed: UTC, ISO 8601.")


class BudgetView(_View):
    """A node's budget, recomputed from the ledger's events. Safe to release."""

    schema_version: int = 2
    node: str = Field(description="The node.")
    period: str = Field(description="The period.")
    max_epsilon: float = Field(description="The limit ε.")
    max_delta: float = Field(description="The δ at which it holds.")
    composition: Composition | None = Field(description="How the runs of the period add up; null before the first.")
    spent: float = Field(description="ε of everything released in the period, at max_delta.")
    committed: float = Field(description="The same with all that the agreed plans may still release.")
    left: float = Field(description="The limit less what is committed.")
    runs: tuple[RunView, ...] = Field(description="The runs of the period, in the order of agreement.")
    earlier: tuple[PeriodView, ...] = Field(description="Periods before this one, oldest first.")
    lifetime: float = Field(description="ε of everything that this node ever released, at max_delta.")


@dataclass(frozen=True)
class PeriodBudget:
    """The arithmetic of one period.

    Attributes:
        limit: The steward's limit.
        runs: The runs of the period by id, in the order of agreement.
        settling: The limit in force when the first of them was agreed; None if it was the same.
    """

    limit: Budget
    runs: Mapping[str, LedgerRun]
    settling: Budget | None = None

    @property
    def odometer(self) -> RenyiOdometer:
        """What adds up the period's runs: settled with the first of them."""
        first = self.settling or self.limit
        settled = RenyiOdometer.for_limit(first.max_epsilon, delta=first.max_delta)
        return replace(settled, delta=self.limit.max_delta)

    @property
    def composition(self) -> Composition | None:
        """How the runs add up; None before the first."""
        return next((self._composition(run.agreed_events) for run in self.runs.values()), None)

    def _composition(self, agreed: Sequence[PrivacyEvent] | None) -> Composition:
        first = self.settling or self.limit
        odometer = RenyiOdometer.for_limit(first.max_epsilon, delta=first.max_delta)
        return "renyi" if agreed is not None and odometer.read(agreed) <= first.max_epsilon else "basic"

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
        reached = round_up(self.odometer.read(*others.values(), added))
        if reached > self.limit.max_epsilon:
            before = spent(*others.values(), odometer=self.odometer)
            raise self._exceeded(
                run_id, f"With it, the period could reach ε = {reached:g}; the other runs hold {before:g}"
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

    @property
    def spent(self) -> float:
        """ε of everything released in the period, whichever runs come later."""
        if self.composition == "basic":
            if _exact_sum([run.delta for run in self._bound()]) > self.limit.max_delta:
                # The sum holds at the sum of the runs' δ, and a steward has set a smaller one since.
                released = (run.events for run in self.runs.values())
                return spent(*released, odometer=RenyiOdometer(delta=self.limit.max_delta))
            return round_up(_exact_decimal([epsilon(run.events, delta=run.delta) for run in self.runs.values()]))
        return spent(*(run.events for run in self.runs.values()), odometer=self.odometer)

    @property
    def committed(self) -> float:
        """The same with all that the agreed plans may still release."""
        if self.composition == "basic":
            promised = round_up(_exact_decimal([run.epsilon for run in self._bound()]))
        else:
            promised = spent(*self._charged().values(), odometer=self.odometer)
        return max(self.spent, promised)

    def view(self, *, node: str, earlier: Sequence[PeriodView] = (), lifetime: float | None = None) -> BudgetView:
        """The budget as the file shows it. Takes about a second when many events are new.

        Args:
            node: The node's name.
            earlier: The periods before.
            lifetime: ε of everything that the node ever released; that of this period if None.
        """
        used, committed = self.spent, self.committed
        left = math.inf if self.limit.max_epsilon == math.inf else max(0.0, self.limit.max_epsilon - committed)
        return BudgetView(
            node=node,
            period=self.limit.period,
            max_epsilon=self.limit.max_epsilon,
            max_delta=self.limit.max_delta,
            composition=self.composition,
            spent=used,
            committed=committed,
            left=left if left == math.inf else round(left, 4),
            runs=tuple(_run_view(run) for run in self.runs.values()),
            earlier=tuple(earlier),
            lifetime=used if lifetime is None else lifetime,
        )

    def as_earlier(self) -> PeriodView:
        """The period as it is shown once another one is open; it has runs."""
        return PeriodView(
            period=self.limit.period,
            max_epsilon=self.limit.max_epsilon,
            max_delta=self.limit.max_delta,
            spent=self.spent,
            runs=len(self.runs),
            first=next(iter(self.runs.values())).agreed_at,
        )


def lifetime_spend(runs: Iterable[LedgerRun], *, delta: float, periods: Sequence[float]) -> float:
    """ε at δ of everything that a node ever released, whichever runs and periods come later. Safe to release.

    The odometer of every order with an even share of δ reads all events at once. It depends on no limit, so that it
    was fixed before the first release of all; and it holds although runs, limits and new periods were chosen after
    seeing what earlier ones released. The true ε of one period is within that of all, so the total is raised to the
    figure of a period where that one's odometer, made for its limit, reads more.

    Args:
        runs: All runs of all periods.
        delta: The policy's δ.
        periods: What each period shows.
    """
    total = spent(*(run.events for run in runs), odometer=RenyiOdometer(delta=delta))
    return max([total, *periods])


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
