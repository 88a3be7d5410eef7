"""The budget ledger: which runs a node agreed to and what each released, on disk, append-only.

A release is *reserved* before its numbers are computed and *committed* together with them, in one transaction, before
they are handed on. From the reservation on it counts as spent, for ever. What follows for a node that is killed:

- Only committed numbers ever leave. So a reservation that was not committed has sent nothing, and its numbers may be
  drawn anew for the same request, under the same charge: the world sees one draw, whichever it is.
- Committed numbers may be sent again as often as asked for. They are the same bytes, and to repeat what is released
  already is post-processing, which costs nothing (Dwork & Roth 2014, Proposition 2.1).
- Both hold for the same request alone. Another one for the same phase and round would be a second mechanism, so each
  reservation holds the fingerprint of what was asked for, and a different one is refused.
- The first holds only while the end of a process does not depend on records. An exception can, so a reservation whose
  numbers could not be computed has *failed*: it stays spent and is never tried again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from aevorium.database import Database
from aevorium.errors import ArtefactError, InternalError, PolicyRefused
from aevorium.privacy.entries import Admit, BudgetLedger, Facts, LedgerRelease, LedgerRun, Owed, Reservation
from aevorium.privacy.events import PrivacyEvent, events_from_json, events_to_json
from aevorium.privacy.ledger_tables import MIGRATIONS
from aevorium.privacy.numbers import Numbers, numbers_from_bytes, numbers_to_bytes

__all__ = [
    "Admit",
    "BudgetLedger",
    "Facts",
    "LedgerRelease",
    "LedgerRun",
    "Owed",
    "Reservation",
    "SqliteLedger",
]


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
        self._database = Database(path, migrations=MIGRATIONS)
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
        facts: Facts | None = None,
        admit: Admit | None = None,
        owes: Owed | None = None,
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
            _note_facts(connection, run_id, facts)
            _owe(connection, owes)

    def fix_events(
        self,
        run_id: str,
        events: Sequence[PrivacyEvent],
        *,
        facts: Facts | None = None,
        admit: Admit | None = None,
        owes: Owed | None = None,
    ) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            run = self._open(connection, run_id)
            if run.fixed_events is not None:
                raise _outside_plan(run_id, "Its events were fixed before.")
            if admit is not None:
                admit(self._period(connection, run.period))
            connection.execute("UPDATE runs SET fixed_events = ? WHERE run_id = ?", (events_to_json(events), run_id))
            _note_facts(connection, run_id, facts)
            _owe(connection, owes)

    def close_run(self, run_id: str, *, owes: Owed | None = None) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            cursor = connection.execute(
                "UPDATE runs SET closed_at = ? WHERE run_id = ? AND closed_at IS NULL", (self._time(), run_id)
            )
            if cursor.rowcount == 1:
                _forget(connection, run_id)
                _owe(connection, owes)

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
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            run = self._open(connection, run_id)
            found = run.find(phase=phase, round=round)
            if found is not None:
                _require_same(found, events=events, fingerprint=fingerprint)
                if found.state == "committed":
                    return Reservation(found.id, _numbers_of(connection, found))
            if admit is not None:
                admit(self._period(connection, run.period))
            if found is not None:
                return Reservation(found.id, None)
            cursor = connection.execute(
                "INSERT INTO releases (run_id, phase, round, events, state, reserved_at, fingerprint)"
                " VALUES (?, ?, ?, ?, 'reserved', ?, ?)",
                (run_id, phase, round, events_to_json(events), self._time(), fingerprint),
            )
            if cursor.lastrowid is None:
                raise InternalError("The ledger gave no number to a reservation.")
            return Reservation(cursor.lastrowid, None)

    def commit(
        self, reservation: int, *, numbers: Numbers, facts: Facts | None = None, owes: Owed | None = None
    ) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            row = _open_reservation(connection, reservation)
            connection.execute(
                "UPDATE releases SET state = 'committed', committed_at = ? WHERE id = ?", (self._time(), reservation)
            )
            _forget(connection, row["run_id"], phase=row["phase"])
            connection.execute("INSERT INTO outbox VALUES (?, ?)", (reservation, numbers_to_bytes(numbers)))
            _note_facts(connection, row["run_id"], facts)
            _owe(connection, owes)

    def fail(self, reservation: int, *, owes: Owed | None = None) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            _open_reservation(connection, reservation)
            connection.execute("UPDATE releases SET failed_at = ? WHERE id = ?", (self._time(), reservation))
            _owe(connection, owes)

    def owed(self) -> tuple[Owed, ...]:
        """See `BudgetLedger`."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM owed ORDER BY id").fetchall()
            return tuple(Owed(row["action"], json.loads(row["detail"]), id=row["id"]) for row in rows)

    def settle(self, owed: int) -> None:
        """See `BudgetLedger`."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM owed WHERE id = ?", (owed,))

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
            facts=json.loads(row["facts"]),
            releases=tuple(self._release(release) for release in releases),
        )

    def _release(self, row: sqlite3.Row) -> LedgerRelease:
        return LedgerRelease(
            id=row["id"],
            run_id=row["run_id"],
            phase=row["phase"],
            round=row["round"],
            events=self._events(row["events"]),
            state=row["state"] if row["failed_at"] is None else "failed",
            reserved_at=row["reserved_at"],
            committed_at=row["committed_at"],
            fingerprint=row["fingerprint"],
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


def _require_same(found: LedgerRelease, *, events: Sequence[PrivacyEvent], fingerprint: str) -> None:
    """Passes if a reservation was made for the very same request, and its numbers can still be had."""
    what = f"Phase {found.phase!r}, round {found.round}"
    if found.fingerprint != fingerprint or found.events != tuple(events):
        raise _outside_plan(found.run_id, f"{what} was asked for before (replayed), with other content.")
    if found.state == "failed":
        raise _outside_plan(found.run_id, f"{what} was asked for before (replayed), and failed.")


def _open_reservation(connection: sqlite3.Connection, reservation: int) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM releases WHERE id = ? AND state = 'reserved' AND failed_at IS NULL", (reservation,)
    ).fetchone()
    if row is None:
        raise InternalError(f"There is no open reservation {reservation} in the ledger.")
    return row


def _numbers_of(connection: sqlite3.Connection, release: LedgerRelease) -> Numbers:
    row = connection.execute("SELECT payload FROM outbox WHERE release_id = ?", (release.id,)).fetchone()
    if row is None or row["payload"] is None:
        raise _outside_plan(
            release.run_id,
            f"Phase {release.phase!r}, round {release.round} was released before (replayed); the numbers are no longer"
            " kept.",
        )
    return numbers_from_bytes(row["payload"])


def _forget(connection: sqlite3.Connection, run_id: str, *, phase: str | None = None) -> None:
    """Forgets the numbers of a run, or of one phase of it; that they were released stays."""
    connection.execute(
        "UPDATE outbox SET payload = NULL WHERE payload IS NOT NULL AND release_id IN"
        " (SELECT id FROM releases WHERE run_id = ? AND phase = COALESCE(?, phase))",
        (run_id, phase),
    )


def _note_facts(connection: sqlite3.Connection, run_id: str, facts: Facts | None) -> None:
    """Adds facts to those of a run. What is known stays: later phases were fixed by it."""
    if not facts:
        return
    row = connection.execute("SELECT facts FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    known = json.loads(row["facts"])
    if any(name in known and known[name] != value for name, value in facts.items()):
        raise InternalError(f"A fact of run {run_id!r} would change.")
    connection.execute("UPDATE runs SET facts = ? WHERE run_id = ?", (json.dumps({**known, **facts}), run_id))


def _owe(connection: sqlite3.Connection, owes: Owed | None) -> None:
    if owes is not None:
        connection.execute("INSERT INTO owed (action, detail) VALUES (?, ?)", (owes.action, json.dumps(owes.detail)))


def _outside_plan(run_id: str, reason: str) -> PolicyRefused:
    return PolicyRefused("RELEASE_OUTSIDE_PLAN", f"Run {run_id!r} refused. {reason}")
