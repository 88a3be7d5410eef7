"""The tables of the ledger's file, version by version. A version that was in use is never edited: a new one follows."""

from __future__ import annotations

__all__ = ["MIGRATIONS"]


def _stays(trigger: str) -> str:
    return f"CREATE TRIGGER {trigger} BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"


_FIRST = (
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
    _stays("runs_stay BEFORE DELETE ON runs"),
    _stays("releases_stay BEFORE DELETE ON releases"),
    _stays(
        "agreements_stay BEFORE UPDATE OF position, run_id, plan, plan_hash, epsilon, delta, period, agreed_events,"
        " agreed_at ON runs"
    ),
    _stays("fixed_events_stay BEFORE UPDATE OF fixed_events ON runs WHEN OLD.fixed_events IS NOT NULL"),
    _stays("ends_stay BEFORE UPDATE OF closed_at ON runs WHEN OLD.closed_at IS NOT NULL"),
    _stays("commits_stay BEFORE UPDATE OF state, committed_at ON releases WHEN OLD.state = 'committed'"),
    _stays("events_stay BEFORE UPDATE OF run_id, phase, round, events ON releases"),
)

_SECOND = (
    # Public facts of a run that its later phases go by, as a JSON object.
    "ALTER TABLE runs ADD COLUMN facts TEXT NOT NULL DEFAULT '{}'",
    # SHA-256 of what was asked for; NULL in releases of the first version, which cannot be repeated.
    "ALTER TABLE releases ADD COLUMN fingerprint TEXT",
    "ALTER TABLE releases ADD COLUMN failed_at TEXT",
    _stays("fingerprints_stay BEFORE UPDATE OF fingerprint ON releases"),
    _stays("failures_stay BEFORE UPDATE OF state, committed_at, failed_at ON releases WHEN OLD.failed_at IS NOT NULL"),
    _stays("commits_do_not_fail BEFORE UPDATE OF failed_at ON releases WHEN OLD.state = 'committed'"),
    # The numbers of committed releases; NULL once they are no longer kept.
    "CREATE TABLE outbox (release_id INTEGER PRIMARY KEY REFERENCES releases (id), payload BLOB)",
    _stays("outbox_stays BEFORE DELETE ON outbox"),
    _stays("payloads_stay BEFORE UPDATE ON outbox WHEN NEW.payload IS NOT NULL OR NEW.release_id <> OLD.release_id"),
    # Entries of the audit chain that changes of the ledger owe to it.
    "CREATE TABLE owed (id INTEGER PRIMARY KEY AUTOINCREMENT, action TEXT NOT NULL, detail TEXT NOT NULL)",
)

MIGRATIONS = (_FIRST, _SECOND)
