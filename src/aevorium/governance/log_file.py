"""An audit log as a file: read strictly, and judged by itself, offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aevorium.errors import ArtefactError
from aevorium.governance.chain import LOG_VERSION, AuditEntry, verify_entries
from aevorium.governance.checkpoints import check_checkpoints

__all__ = ["LogFile", "LogJudgement", "judge_log", "read_log"]


class LogFile(BaseModel):
    """What an audit log's file holds, before anything of it is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1, 2] = Field(description="Version of the format; the first had no checkpoints.")
    head: str = Field(description="Hash of the last entry.")
    entries: list[Any] = Field(description="The entries, from the first on.")
    checkpoints: list[Any] | None = Field(default=None, description="The signed checkpoints; none in version 1.")

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if (self.checkpoints is None) != (self.schema_version < LOG_VERSION):
            raise ValueError("checkpoints belong to version 2")
        return self


@dataclass(frozen=True)
class LogJudgement:
    """What an audit log shows by itself.

    Attributes:
        entries: Its entries; empty if their hashes are not sound.
        problem: What is wrong with the entries, or None.
        signing_problem: What is wrong with the checkpoints, or with what they do not cover, or None.
        signed: What the checkpoints show, as a sentence; None if the log is of the version without them.
        public_key: The key (hex) that it is signed with, or None.
    """

    entries: tuple[AuditEntry, ...]
    problem: str | None
    signing_problem: str | None = None
    signed: str | None = None
    public_key: str | None = None


def read_log(path: Path) -> LogFile:
    """Reads the file of an audit log.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, or AUDIT_BROKEN if it is no audit log at all.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise ArtefactError("ARTEFACT_NOT_FOUND", f"No audit log {str(path)!r}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError("AUDIT_BROKEN", f"The audit log {str(path)!r} is not valid JSON.") from error
    try:
        return LogFile.model_validate(content)
    except ValidationError as error:
        raise ArtefactError(
            "AUDIT_BROKEN",
            f"The file {str(path)!r} is no audit log. It does not hold a version, entries, checkpoints and a head, and"
            " nothing else.",
        ) from error


def judge_log(log: LogFile, *, public_key: str | None = None) -> LogJudgement:
    """Checks hashes, head and checkpoints of a log.

    Args:
        log: The log.
        public_key: The key (hex) that must have signed it; that of its first checkpoint if None.
    """
    report = verify_entries(log.entries)
    if report.problem is not None:
        return LogJudgement((), report.problem.message)
    entries = tuple(AuditEntry.model_validate(entry) for entry in log.entries)
    if report.head != log.head:
        return LogJudgement((), "Its head is not that of its last entry: entries are missing at its end, or more.")
    if log.checkpoints is None:
        problem = None if public_key is None else "It is of the version without checkpoints: nothing in it is signed."
        return LogJudgement(entries, None, signing_problem=problem)
    return _judge_checkpoints(entries, log.checkpoints, public_key=public_key)


def _judge_checkpoints(
    entries: tuple[AuditEntry, ...], checkpoints: Sequence[object], *, public_key: str | None
) -> LogJudgement:
    found = check_checkpoints(checkpoints, heads=[entry.hash for entry in entries], public_key=public_key)
    problem = found.problem
    if problem is None and found.covered < len(entries):
        problem = f"From entry {found.covered + 1} on, nothing is signed: anyone could have written that."
    text = f"{found.count} checkpoints over {found.covered} entries, signed with the key {str(found.public_key)[:16]}…"
    return LogJudgement(entries, None, signing_problem=problem, signed=text, public_key=found.public_key)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are each there once: readers differ in which of two they take."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name is there twice")
    return content
