"""The budget ledger: which runs a node agreed to and what each released, on disk, append-only.

A release is *reserved* before its numbers are computed and *committed* when they are handed on. Both count as spent,
for ever: a crash in between can over-count, never under-count.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError

from aevorium.database import Database
from aevorium.errors import ArtefactError, InternalError, PolicyRefused
from aevorium.privacy.events import PrivacyEvent, events_from_json, events_to_json

__all__ = ["Admit", "BudgetLedger", "LedgerRelease", "LedgerRun", "SqliteLedger"]

_VERSION = 1

_TABLES = (
    """CREATE TABLE runs (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL UNIQUE,
        plan TEXT NOT NULL,
        plan_hash TEXT NOT NULL,
        epsilon REAL NOT NULL,
        delta REAL NOT NULL,
        period TEXT NOT NULL,
        agreed_events TEXT,
        fixed_events TEXT,
        agreed_at TEXT NOT NULL,
        closed_at TEXT
    )""",
    """CREATE TABLE releases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES runs (run_id),
        phase TEXT NOT NULL,
        round INTEGER NOT NULL,
        events TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),
        reserved_at TEXT NOT NULL,
        committed_at TEXT,
        UNIQUE (run_id, phase, round)
    )""",
    """CREATE TRIGGER runs_stay BEFORE DELETE ON runs
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER releases_stay BEFORE DELETE ON releases
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER agreements_stay BEFORE UPDATE OF
        position, run_id, plan, plan_hash, epsilon, delta, period, agreed_events, agreed_at ON runs
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER fixed_events_stay BEFORE UPDATE OF fixed_events ON runs WHEN OLD.fixed_events IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER ends_stay BEFORE UPDATE OF closed_at ON runs WHEN OLD.closed_at IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER commits_stay BEFORE UPDATE OF state, committed_at ON releases WHEN OLD.state = 'committed'
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER events_stay BEFORE UPDATE OF run_id, phase, round, events ON releases
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)


@dataclass(frozen=True)
class LedgerRelease:
    """One release of a run. Safe to release.

    Attributes:
        id: The reservation's number.
        run_id: The run.
        phase: The phase of the run.
        round: The round within the phase.
        events: What it costs.
        state: "reserved" (perhaps released) or "committed" (released); both are spent.
        reserved_at: UTC, ISO 8601.
        committed_at: The same; None while only reserved.
    """

    id: int
    run_id: str
    phase: str
    round: int
    events: tuple[PrivacyEvent, ...]
    state: Literal["reserved", "committed"]
    reserved_at: str
    committed_at: str | None


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
    releases: tuple[LedgerRelease, ...] = ()

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """Everything released or reserved, in order."""
        return tuple(event for release in self.releases for event in release.events)

    @property
    def planned_events(self) -> tuple[PrivacyEvent, ...] | None:
        """All that the run may release, as far as it is fixed."""
        return self.agreed_events if self.fixed_events is None else self.fixed_events


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
        admit: Admit | None = None,
    ) -> None:
        """Writes a run down. Raises PolicyRefused (RELEASE_OUTSIDE_PLAN) if the id is taken."""
        ...

    def fix_events(self, run_id: str, events: Sequence[PrivacyEvent], *, admit: Admit | None = None) -> None:
        """Writes down, once, all that a run may release.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, if the run is unknown or closed, or its events were fixed before.
        """
        ...

    def close_run(self, run_id: str) -> None:
        """Marks the end of a run at this node; a second time changes nothing."""
        ...

    def reserve(
        self, run_id: str, *, phase: str, round: int, events: Sequence[PrivacyEvent], admit: Admit | None = None
    ) -> int:
        """Spends the events and returns the reservation's number.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, if the run is unknown or closed, or this phase and round of it were
                reserved before.
        """
        ...

    def commit(self, reservation: int) -> None:
        """Marks a reservation as released. Raises InternalError if there is none, or it was committed before."""
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


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SqliteLedger:
    """A ledger in one SQLite file, in the node's own folder.

    Args:
        path: The file; it and its folder are made when absent, for the owner alone.
        now: The clock.

    Raises:
        ArtefactError: DATABASE_UNUSABLE.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _utc_now) -> None:
        if os.name == "posix" and path.parent.is_dir():
            path.parent.chmod(0o700)
        self._database = Database(path, version=_VERSION, tables=_TABLES)
        self._now = now

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
        admit: Admit | None = None,
    ) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            if self._find(connection, run_id) is not None:
                raise _outside_plan(run_id, "It was agreed before.")
            if admit is not None:
                admit(self._period(connection, period))
            connection.execute(
                "INSERT INTO runs (run_id, plan, plan_hash, epsilon, delta, period, agreed_events, agreed_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    plan_json,
                    plan_hash,
                    epsilon,
                    delta,
                    period,
                    None if agreed_events is None else events_to_json(agreed_events),
                    self._time(),
                ),
            )

    def fix_events(self, run_id: str, events: Sequence[PrivacyEvent], *, admit: Admit | None = None) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            run = self._open(connection, run_id)
            if run.fixed_events is not None:
                raise _outside_plan(run_id, "Its events were fixed before.")
            if admit is not None:
                admit(self._period(connection, run.period))
            connection.execute("UPDATE runs SET fixed_events = ? WHERE run_id = ?", (events_to_json(events), run_id))

    def close_run(self, run_id: str) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE runs SET closed_at = ? WHERE run_id = ? AND closed_at IS NULL", (self._time(), run_id)
            )

    def reserve(
        self, run_id: str, *, phase: str, round: int, events: Sequence[PrivacyEvent], admit: Admit | None = None
    ) -> int:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            run = self._open(connection, run_id)
            if any((release.phase, release.round) == (phase, round) for release in run.releases):
                raise _outside_plan(run_id, f"Phase {phase!r}, round {round} was released before (replayed).")
            if admit is not None:
                admit(self._period(connection, run.period))
            cursor = connection.execute(
                "INSERT INTO releases (run_id, phase, round, events, state, reserved_at)"
                " VALUES (?, ?, ?, ?, 'reserved', ?)",
                (run_id, phase, round, events_to_json(events), self._time()),
            )
            if cursor.lastrowid is None:
                raise InternalError("The ledger gave no number to a reservation.")
            return cursor.lastrowid

    def commit(self, reservation: int) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            cursor = connection.execute(
                "UPDATE releases SET state = 'committed', committed_at = ? WHERE id = ? AND state = 'reserved'",
                (self._time(), reservation),
            )
            if cursor.rowcount != 1:
                raise InternalError(f"There is no open reservation {reservation} in the ledger.")

    def run(self, run_id: str) -> LedgerRun | None:
        """See `BudgetLedger`."""
        with self._database.read() as connection:
            return self._find(connection, run_id)

    def runs(self, period: str) -> dict[str, LedgerRun]:
        """See `BudgetLedger`."""
        with self._database.read() as connection:
            return self._period(connection, period)

    def periods(self) -> tuple[str, ...]:
        """See `BudgetLedger`."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT period FROM runs GROUP BY period ORDER BY MIN(position)").fetchall()
            return tuple(str(row["period"]) for row in rows)

    def _time(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")

    def _open(self, connection: sqlite3.Connection, run_id: str) -> LedgerRun:
        run = self._find(connection, run_id)
        if run is None:
            raise _outside_plan(run_id, "This node never agreed to it.")
        if run.closed_at is not None:
            raise _outside_plan(run_id, "It is closed.")
        return run

    def _find(self, connection: sqlite3.Connection, run_id: str) -> LedgerRun | None:
        row = connection.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else self._read(connection, row)

    def _period(self, connection: sqlite3.Connection, period: str) -> dict[str, LedgerRun]:
        rows = connection.execute("SELECT * FROM runs WHERE period = ? ORDER BY position", (period,)).fetchall()
        return {str(row["run_id"]): self._read(connection, row) for row in rows}

    def _read(self, connection: sqlite3.Connection, row: sqlite3.Row) -> LedgerRun:
        releases = connection.execute(
            "SELECT * FROM releases WHERE run_id = ? ORDER BY id", (row["run_id"],)
        ).fetchall()
        return LedgerRun(
            run_id=row["run_id"],
            plan_json=row["plan"],
            plan_hash=row["plan_hash"],
            epsilon=row["epsilon"],
            delta=row["delta"],
            period=row["period"],
            agreed_events=None if row["agreed_events"] is None else self._events(row["agreed_events"]),
            fixed_events=None if row["fixed_events"] is None else self._events(row["fixed_events"]),
            agreed_at=row["agreed_at"],
            closed_at=row["closed_at"],
            releases=tuple(
                LedgerRelease(**{**dict(release), "events": self._events(release["events"])}) for release in releases
            ),
        )

    def _events(self, text: str) -> tuple[PrivacyEvent, ...]:
        try:
            return events_from_json(text)
        except ValidationError as error:
            path = str(self._database.path)
            raise ArtefactError(
                "DATABASE_UNUSABLE",
                f"The ledger {path!r} cannot be used. This version does not know one of its events.",
                hint="Use the version of Aevorium that wrote it, or a newer one.",
            ) from error


def _outside_plan(run_id: str, reason: str) -> PolicyRefused:
    return PolicyRefused("RELEASE_OUTSIDE_PLAN", f"Run {run_id!r} refused. {reason}")
