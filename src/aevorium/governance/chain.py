"""The audit chain: who did what, each entry sealed by the hash of the one before.

Whoever changes, reorders or removes an entry breaks every hash after it. Cutting entries off the *end*, or computing
all hashes anew, leaves a chain that is sound in itself: that shows against signed checkpoints (`checkpoints`), kept
beside the entries, and against a head that somebody noted earlier (`expected_head`).
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.database import Database
from aevorium.errors import ArtefactError, InternalError
from aevorium.governance.checkpoints import LogCheckpoint
from aevorium.governance.signing import SigningKey
from aevorium.workspace import write_atomically

__all__ = [
    "GENESIS",
    "LOG_VERSION",
    "AuditChain",
    "AuditEntry",
    "ChainProblem",
    "ChainReport",
    "plain",
    "verify_entries",
]

GENESIS = "0" * 64
"""What the first entry names as the hash before it, and the head of an empty chain."""

LOG_VERSION = 2
"""Version of the file that `write_view` writes; the first had no checkpoints."""

_ACTION = "CASE WHEN json_valid(entry) THEN json_extract(entry, '$.action') END"
"""SQL: an entry's action; NULL of one that is damaged, which must not keep the others from being found."""

_MIGRATIONS = (
    ("CREATE TABLE entries (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL)",),
    ("CREATE TABLE checkpoints (length INTEGER PRIMARY KEY, checkpoint TEXT NOT NULL)",),
    (f"CREATE INDEX entries_action ON entries ({_ACTION})",),
)

_SIGNED_AFTER = frozenset(
    {
        *("run_finished", "run_failed", "run_closed", "results_written"),
        *("period_opened", "limit_set", "policy_in_force", "consent_given", "consent_refused"),
        *("table_generated", "key_added", "keys_rotated", "keys_dropped", "api_key_created", "api_key_revoked"),
        *("study_registered", "run_ordered", "order_refused", "run_stop_asked", "run_ended"),
        *("dataset_ordered", "dataset_stop_asked", "dataset_ended", "dataset_downloaded"),
        *("planning_period_opened", "planning_limit_set"),
    }
)
"""Acts after which the head is signed at once."""

_SIGNED_EVERY = 32
"""At most so many entries stand behind the last checkpoint, and none behind no checkpoint at all."""

_LARGEST_INTEGER = 2**53 - 1

_Kept = TypeVar("_Kept", bound=BaseModel)


class AuditEntry(BaseModel):
    """One entry. Safe to release: it never holds a patient's value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seq: int = Field(ge=1, description="Position in the chain; the first is 1.")
    time: str = Field(description="UTC, ISO 8601.")
    actor: str = Field(description="Who acted: a node, a server, a person.")
    action: str = Field(description="What was done, as a short name.")
    detail: dict[str, Any] = Field(description="The particulars; infinite numbers are the text 'Infinity'.")
    previous: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of the entry before.")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the canonical JSON of the other fields.")


@dataclass(frozen=True)
class ChainProblem:
    """The first thing that is wrong with a chain.

    Attributes:
        index: Position in the list, from 0; the length of the list when entries are missing at its end.
        reason: What happened to the entry there.
        message: The same as a sentence.
    """

    index: int
    reason: Literal["altered", "reordered", "missing"]
    message: str


@dataclass(frozen=True)
class ChainReport:
    """What a verification found.

    Attributes:
        length: Number of entries looked at.
        head: Hash of the last sound entry.
        problem: The first problem, or None.
    """

    length: int
    head: str
    problem: ChainProblem | None

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


def verify_entries(entries: Sequence[object], *, expected_head: str | None = None) -> ChainReport:
    """Checks an exported chain; needs nothing but the list itself.

    Args:
        entries: The entries as read from JSON, from the first on.
        expected_head: A hash noted earlier. It must occur, else the chain was cut.
    """
    head = GENESIS
    seen = {GENESIS}
    for index, raw in enumerate(entries):
        problem = _problem_of(raw, index=index, previous=head, entries=entries)
        if problem is not None:
            return ChainReport(length=len(entries), head=head, problem=problem)
        head = AuditEntry.model_validate(raw).hash
        seen.add(head)
    problem = None
    if expected_head is not None and expected_head not in seen:
        message = (
            f"The chain ends with {head[:12]}… and never reaches {expected_head[:12]}…: entries are missing at its end."
        )
        problem = ChainProblem(index=len(entries), reason="missing", message=message)
    return ChainReport(length=len(entries), head=head, problem=problem)


def _problem_of(raw: object, *, index: int, previous: str, entries: Sequence[object]) -> ChainProblem | None:
    expected = index + 1
    try:
        entry = AuditEntry.model_validate(raw)
        is_intact = entry.hash == _hash(entry.model_dump(exclude={"hash"}))
    except (ValidationError, rfc8785.CanonicalizationError):
        return ChainProblem(index, "altered", f"Entry {expected} is not a well-formed entry.")
    if not is_intact:
        return ChainProblem(index, "altered", f"Entry {expected} was altered: its hash is that of other content.")
    if entry.seq == expected:
        if entry.previous == previous:
            return None
        return ChainProblem(index, "altered", f"Entry {expected} follows another entry than the one before it.")
    later = any(isinstance(other, Mapping) and other.get("seq") == expected for other in entries[index + 1 :])
    if entry.seq < expected or later:
        return ChainProblem(index, "reordered", f"Entry {entry.seq} stands where entry {expected} belongs.")
    return ChainProblem(index, "missing", f"Entry {expected} is missing: entry {entry.seq} stands in its place.")


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(dict(content))).hexdigest()


def plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """A value that canonical JSON can hold: no infinities, no numbers beyond 2^53, no stray surrogates."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST_INTEGER else str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        # Canonical JSON writes a large whole float without a point: it would be read as a whole number too large.
        return value if abs(value) <= _LARGEST_INTEGER else repr(value)
    if isinstance(value, Mapping):
        return {str(plain(str(key))): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise InternalError(f"An audit entry cannot hold a value of type {type(value).__name__!r}.")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AuditChain:
    """An append-only chain in one SQLite file.

    Args:
        path: The file; it and its folder are made when absent.
        key: Signs checkpoints: after the first entry, after those of consequence, and every so many. Whoever only reads
            needs none.
        is_kept: Whether connections stay open between uses, for a process that is asked often.
        now: The clock.

    Raises:
        ArtefactError: DATABASE_UNUSABLE.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: SigningKey | None = None,
        is_kept: bool = False,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = Database(path, migrations=_MIGRATIONS, is_kept=is_kept)
        self._key = key
        self._now = now

    def append(self, *, actor: str, action: str, detail: Mapping[str, object]) -> AuditEntry:
        """Adds an entry.

        Args:
            actor: Who acted.
            action: What was done, as a short name.
            detail: The particulars, as JSON values; never a patient's value.

        Raises:
            ArtefactError: KEY_INVALID or AUDIT_KEY_WRONG, if a checkpoint is due and cannot be signed.
        """
        return self.append_sealed(actor=actor, action=action, seal=lambda _: detail)

    def append_sealed(
        self, *, actor: str, action: str, seal: Callable[[Mapping[str, Any]], Mapping[str, object]]
    ) -> AuditEntry:
        """Adds an entry whose particulars depend on its place in the chain, as a signature over that place does.

        Args:
            actor: Who acted.
            action: What was done, as a short name.
            seal: Makes the particulars from the rest of the entry: `seq`, `time`, `actor`, `action`, `previous`. It
                runs inside the transaction.
        """
        with self._database.write() as connection:
            last = _last(connection)
            place = {
                "seq": 1 if last is None else last.seq + 1,
                "time": self._time(),
                "actor": plain(actor),
                "action": plain(action),
                "previous": GENESIS if last is None else last.hash,
            }
            content = {**place, "detail": plain(seal(place))}
            entry = AuditEntry.model_validate({**content, "hash": _hash(content)})
            text = rfc8785.dumps(entry.model_dump()).decode()
            connection.execute("INSERT INTO entries (seq, entry) VALUES (?, ?)", (entry.seq, text))
            signed = _last_checkpoint(connection)
            behind = entry.seq - (0 if signed is None else signed.length)
            is_due = action in _SIGNED_AFTER or behind >= _SIGNED_EVERY or signed is None
            if self._key is not None and is_due:
                _store(connection, self._checkpoint(entry, after=signed, key=self._key))
        return entry

    def close(self) -> None:
        """Closes connections that were kept."""
        self._database.close()

    def sign(self) -> None:
        """Signs the head and keeps the checkpoint, unless that was done, there is no entry, or nothing to sign with.

        Raises:
            ArtefactError: KEY_INVALID; AUDIT_KEY_WRONG, if the chain is signed with another key.
        """
        if self._key is None:
            return
        with self._database.write() as connection:
            last, signed = _last(connection), _last_checkpoint(connection)
            if last is not None and (signed is None or signed.length < last.seq):
                _store(connection, self._checkpoint(last, after=signed, key=self._key))

    def require_key(self) -> None:
        """Passes if the key is the one that the chain is signed with; makes it if nothing is signed yet.

        Raises:
            ArtefactError: KEY_INVALID; AUDIT_KEY_WRONG.
        """
        with self._database.read() as connection:
            signed = _last_checkpoint(connection)
        if self._key is not None:
            self._check_key(self._key, after=signed)
            _ = self._key.public_key

    def _checkpoint(self, entry: AuditEntry, *, after: LogCheckpoint | None, key: SigningKey) -> LogCheckpoint:
        self._check_key(key, after=after)
        return LogCheckpoint.make(length=entry.seq, head=entry.hash, time=self._time(), key=key)

    def _check_key(self, key: SigningKey, *, after: LogCheckpoint | None) -> None:
        # A key that is lost is not replaced by one that then would have to be taken away again.
        if after is not None and (not key.exists() or after.public_key != key.public_key):
            raise ArtefactError(
                "AUDIT_KEY_WRONG",
                f"The key {str(key.path)!r} cannot sign the log {str(self._database.path)!r}. The log is signed with"
                f" the key {after.public_key[:16]}….",
            )

    def _time(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")

    def entries_of(self, actions: Sequence[str]) -> tuple[AuditEntry, ...]:
        """The entries of some actions in order, without reading the others; one that is damaged is left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT entry FROM entries WHERE {_ACTION} IN (SELECT value FROM json_each(?)) ORDER BY seq",  # noqa: S608 - a constant
                (json.dumps(list(actions)),),
            ).fetchall()
        found = []
        for row in rows:
            with suppress(ValidationError):
                found.append(AuditEntry.model_validate_json(row["entry"]))
        return tuple(found)

    def page(self, *, after: int, limit: int, action: str | None = None) -> tuple[AuditEntry, ...]:
        """Some entries in order, without reading the others.

        Args:
            after: Only entries of a larger number.
            limit: How many at most.
            action: Only entries of this action; one that is damaged has none.

        Raises:
            ArtefactError: AUDIT_BROKEN, if one of them is damaged.
        """
        of_action = "" if action is None else f" AND {_ACTION} = :action"
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT entry FROM entries WHERE seq > :after{of_action} ORDER BY seq LIMIT :limit",  # noqa: S608 - constants
                {"after": after, "limit": limit, "action": action},
            ).fetchall()
        return tuple(_sound(AuditEntry, row["entry"]) for row in rows)

    def export(self) -> list[Any]:
        """All entries as JSON values, in order, exactly as stored. Safe to release."""
        with self._database.read() as connection:
            return _entries(connection)

    def checkpoints(self) -> list[Any]:
        """All signed checkpoints as JSON values, in order, exactly as stored. Safe to release."""
        with self._database.read() as connection:
            return _checkpoints(connection)

    def entries(self) -> tuple[AuditEntry, ...]:
        """All entries in order; raises ArtefactError (AUDIT_BROKEN) if one is damaged, and `verify` says which."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT entry FROM entries ORDER BY seq").fetchall()
        return tuple(_sound(AuditEntry, row["entry"]) for row in rows)

    @property
    def last(self) -> AuditEntry | None:
        """The last entry, if there is one."""
        with self._database.read() as connection:
            return _last(connection)

    @property
    def head(self) -> str:
        """The hash of the last entry, or `GENESIS`; note it elsewhere to be able to see a cut."""
        last = self.last
        return GENESIS if last is None else last.hash

    def verify(self, *, expected_head: str | None = None) -> ChainReport:
        """Checks the stored chain; see `verify_entries`."""
        return verify_entries(self.export(), expected_head=expected_head)

    def write_view(self, path: Path) -> str:
        """Writes the chain as a JSON file that anyone can check, and with the key signs all of it. Safe to release.

        The signature at the end of the file is not kept in the chain, unless `sign` was called before.

        Returns:
            The head that the file names.

        Raises:
            ArtefactError: KEY_INVALID or AUDIT_KEY_WRONG.
            ConfigError: WORKSPACE_UNWRITABLE.
        """
        with self._database.read() as connection:
            entries, checkpoints = _entries(connection), _checkpoints(connection)
            last, signed = _last(connection), _last_checkpoint(connection)
        if self._key is not None and last is not None and (signed is None or signed.length < last.seq):
            checkpoints.append(self._checkpoint(last, after=signed, key=self._key).model_dump())
        head = GENESIS if last is None else last.hash
        view = {"schema_version": LOG_VERSION, "head": head, "entries": entries, "checkpoints": checkpoints}
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(view, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return head


def _entries(connection: sqlite3.Connection) -> list[Any]:
    return [_parsed(row["entry"]) for row in connection.execute("SELECT entry FROM entries ORDER BY seq")]


def _checkpoints(connection: sqlite3.Connection) -> list[Any]:
    rows = connection.execute("SELECT checkpoint FROM checkpoints ORDER BY length")
    return [_parsed(row["checkpoint"]) for row in rows]


def _store(connection: sqlite3.Connection, checkpoint: LogCheckpoint) -> None:
    text = rfc8785.dumps(checkpoint.model_dump()).decode()
    connection.execute("INSERT INTO checkpoints (length, checkpoint) VALUES (?, ?)", (checkpoint.length, text))


def _last_checkpoint(connection: sqlite3.Connection) -> LogCheckpoint | None:
    row = connection.execute("SELECT checkpoint FROM checkpoints ORDER BY length DESC LIMIT 1").fetchone()
    return None if row is None else _sound(LogCheckpoint, row["checkpoint"])


def _last(connection: sqlite3.Connection) -> AuditEntry | None:
    row = connection.execute("SELECT entry FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else _sound(AuditEntry, row["entry"])


def _sound(kind: type[_Kept], text: str) -> _Kept:
    """What was kept, if it can still be read: nothing is added to a log whose end cannot."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ArtefactError(
            "AUDIT_BROKEN",
            "The audit log cannot be used. An entry or a checkpoint in it is damaged.",
            hint="Type: aevorium audit verify. It says which; treat the log's claims as unproven.",
        ) from error


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
