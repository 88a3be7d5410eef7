"""What a budget ledger holds, and what every ledger promises; `aevorium.privacy.ledger` says why that is sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.numbers import Numbers

__all__ = ["Admit", "BudgetLedger", "Facts", "LedgerRelease", "LedgerRun", "Owed", "Reservation"]

Facts = Mapping[str, str | float | None]
"""Public facts of a run, by name. Safe to release."""


@dataclass(frozen=True)
class LedgerRelease:
    """One release of a run. Safe to release.

    Attributes:
        id: The reservation's number.
        run_id: The run.
        phase: The phase of the run.
        round: The round within the phase.
        events: What it costs.
        state: "reserved" (nothing was sent yet), "committed" (its numbers may have left) or "failed" (they could not be
            computed); all are spent.
        reserved_at: UTC, ISO 8601.
        committed_at: The same; None while only reserved.
        fingerprint: SHA-256 (hex) of what was asked for; None in entries of the ledger's first version.
    """

    id: int
    run_id: str
    phase: str
    round: int
    events: tuple[PrivacyEvent, ...]
    state: Literal["reserved", "committed", "failed"]
    reserved_at: str
    committed_at: str | None
    fingerprint: str | None


@dataclass(frozen=True)
class LedgerRun:
    """One run that the node agreed to, with everything it released so far. Safe to release.

    Attributes:
        run_id: The run.
        plan_json: The plan as agreed.
        plan_hash: SHA-256 (hex) of its text.
        epsilon: The run's target ε.
        delta: The run's target δ.
        period: The budget period that pays for it.
        agreed_events: The events that the plan announced; None if it announced none.
        fixed_events: The events fixed later, after a noisy count; None if none were.
        agreed_at: UTC, ISO 8601.
        closed_at: When the run ended at this node; None while more may be released.
        facts: Public facts that the later phases of the run go by.
        releases: In the order of reservation.
    """

    run_id: str
    plan_json: str
    plan_hash: str
    epsilon: float
    delta: float
    period: str
    agreed_events: tuple[PrivacyEvent, ...] | None
    fixed_events: tuple[PrivacyEvent, ...] | None
    agreed_at: str
    closed_at: str | None
    facts: Facts
    releases: tuple[LedgerRelease, ...] = ()

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """Everything released or reserved, in order."""
        return tuple(event for release in self.releases for event in release.events)

    def find(self, *, phase: str, round: int) -> LedgerRelease | None:
        """The release of a phase and round, if it was reserved."""
        return next((found for found in self.releases if (found.phase, found.round) == (phase, round)), None)

    @property
    def planned_events(self) -> tuple[PrivacyEvent, ...] | None:
        """All that the run may release, as far as it is fixed."""
        return self.agreed_events if self.fixed_events is None else self.fixed_events


@dataclass(frozen=True)
class Reservation:
    """A place in the ledger for one release. Safe to release.

    Attributes:
        id: Its number.
        numbers: What was committed under it, kept for a repetition; None if it is still to be computed.
    """

    id: int
    numbers: Numbers | None


@dataclass(frozen=True)
class Owed:
    """An entry that a change of the ledger owes to the audit chain, written in the same transaction as the change.

    Attributes:
        action: What was done.
        detail: The particulars, as JSON values; never a patient's value.
        id: Its number in the ledger.
    """

    action: str
    detail: Mapping[str, object]
    id: int = 0


Admit = Callable[[Mapping[str, LedgerRun]], None]
"""Looks at the runs of the period and raises if the change must not be made. Runs inside the transaction."""


class BudgetLedger(Protocol):
    """What every ledger does; `tests/unit/privacy/test_privacy_ledger.py` holds the suite that each one passes.

    An `admit` function sees the period as it is before the change, within the same transaction; when it raises,
    nothing is written. Two processes therefore cannot both be admitted to budget that suffices for one.
    """

    def open_run(
        self,
        run_id: str,
        *,
        plan_json: str,
        plan_hash: str,
        epsilon: float,
        delta: float,
        period: str,
        agreed_events: Sequence[PrivacyEvent] | None = None,
        facts: Facts | None = None,
        admit: Admit | None = None,
        owes: Owed | None = None,
    ) -> None:
        """Writes a run down. Raises PolicyRefused (RELEASE_OUTSIDE_PLAN) if the id is taken."""
        ...

    def fix_events(
        self,
        run_id: str,
        events: Sequence[PrivacyEvent],
        *,
        facts: Facts | None = None,
        admit: Admit | None = None,
        owes: Owed | None = None,
    ) -> None:
        """Writes down, once, all that a run may release, and the facts that this follows from.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, if the run is unknown or closed, or its events were fixed before.
        """
        ...

    def close_run(self, run_id: str, *, owes: Owed | None = None) -> None:
        """Marks the end of a run at this node and forgets its numbers; a second time changes nothing."""
        ...

    def reserve(
        self,
        run_id: str,
        *,
        phase: str,
        round: int,
        events: Sequence[PrivacyEvent],
        fingerprint: str,
        admit: Admit | None = None,
    ) -> Reservation:
        """Spends the events; or finds the reservation of the same request, which costs nothing more.

        Args:
            run_id: The run.
            phase: The phase of the run.
            round: The round within the phase.
            events: What the release costs.
            fingerprint: SHA-256 (hex) of what is asked for.
            admit: Also asked before a reservation is used anew, not before its numbers are repeated.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, if the run is unknown or closed, or this phase and round of it were
                reserved for another request, have failed, or their numbers are no longer kept.
        """
        ...

    def commit(
        self, reservation: int, *, numbers: Numbers, facts: Facts | None = None, owes: Owed | None = None
    ) -> None:
        """Marks a reservation as released and keeps its numbers; those of earlier rounds of its phase are forgotten.

        Of two processes that computed numbers for one reservation, one commits: one draw leaves.

        Raises:
            InternalError: There is no such reservation, or it was committed or has failed before.
        """
        ...

    def fail(self, reservation: int, *, owes: Owed | None = None) -> None:
        """Marks a reservation whose numbers could not be computed: spent, and never to be tried again."""
        ...

    def owed(self) -> tuple[Owed, ...]:
        """The entries that the audit chain has not got yet, oldest first."""
        ...

    def settle(self, owed: int) -> None:
        """Strikes out an entry that the audit chain has got."""
        ...

    def run(self, run_id: str) -> LedgerRun | None:
        """One run, or None."""
        ...

    def runs(self, period: str) -> dict[str, LedgerRun]:
        """The runs of a period by id, in the order of agreement."""
        ...

    def periods(self) -> tuple[str, ...]:
        """The periods that have runs, oldest first."""
        ...
