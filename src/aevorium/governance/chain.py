"""The audit chain: who did what, each entry sealed by the hash of the one before.

Whoever changes, reorders or removes an entry breaks every hash after it. Cutting entries off the *end* leaves a chain
that is sound in itself, so it shows only against a head that somebody noted earlier (`expected_head`).
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
from typing import Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.database import Database
from aevorium.errors import InternalError
from aevorium.workspace import write_atomically

__all__ = ["GENESIS", "AuditChain", "AuditEntry", "ChainProblem", "ChainReport", "plain", "verify_entries"]

GENESIS = "0" * 64
"""What the first entry names as the hash before it, and the head of an empty chain."""

_MIGRATIONS = (("CREATE TABLE entries (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL)",),)

_LARGEST_INTEGER = 2**53 - 1


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
        now: The clock.

    Raises:
        ArtefactError: DATABASE_UNUSABLE.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._database = Database(path, migrations=_MIGRATIONS)
        self._now = now

    def append(self, *, actor: str, action: str, detail: Mapping[str, object]) -> AuditEntry:
        """Adds an entry.

        Args:
            actor: Who acted.
            action: What was done, as a short name.
            detail: The particulars, as JSON values; never a patient's value.
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
                "time": self._now().astimezone(UTC).isoformat(timespec="milliseconds"),
                "actor": plain(actor),
                "action": plain(action),
                "previous": GENESIS if last is None else last.hash,
            }
            content = {**place, "detail": plain(seal(place))}
            entry = AuditEntry.model_validate({**content, "hash": _hash(content)})
            text = rfc8785.dumps(entry.model_dump()).decode()
            connection.execute("INSERT INTO entries (seq, entry) VALUES (?, ?)", (entry.seq, text))
        return entry

    def entries_of(self, actions: Sequence[str]) -> tuple[AuditEntry, ...]:
        """The entries of some actions in order, without reading the others; one that is damaged is left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT entry FROM entries WHERE json_valid(entry)"
                " AND json_extract(entry, '$.action') IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (json.dumps(list(actions)),),
            ).fetchall()
        found = []
        for row in rows:
            with suppress(ValidationError):
                found.append(AuditEntry.model_validate_json(row["entry"]))
        return tuple(found)

    def export(self) -> list[Any]:
        """All entries as JSON values, in order, exactly as stored. Safe to release."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT entry FROM entries ORDER BY seq").fetchall()
        return [_parsed(row["entry"]) for row in rows]

    def entries(self) -> tuple[AuditEntry, ...]:
        """All entries in order. Raises pydantic.ValidationError if one is damaged; `verify` says which."""
        return tuple(AuditEntry.model_validate(entry) for entry in self.export())

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

    def write_view(self, path: Path) -> None:
        """Writes the chain as a JSON file that `verify_entries` can check. Safe to release.

        Raises:
            ConfigError: WORKSPACE_UNWRITABLE.
        """
        entries = self.export()
        head = entries[-1]["hash"] if entries else GENESIS
        view = {"schema_version": 1, "head": head, "entries": entries}
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(view, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _last(connection: sqlite3.Connection) -> AuditEntry | None:
    row = connection.execute("SELECT entry FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else AuditEntry.model_validate_json(row["entry"])


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
