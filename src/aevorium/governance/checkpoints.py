"""Signed checkpoints of an audit chain: "entries 1 to n, head h, time t", signed with the log's own Ed25519 key.

The hash chain shows a changed entry to whoever holds an unchanged hash after it. A checkpoint shows it to whoever
holds a public key: a chain that was rewritten as a whole, every hash computed anew, is not the one that was signed,
and one that was cut is shorter than what was signed. What no log can show by itself is a cut that takes the newest
checkpoints along; that shows against any later checkpoint, such as the one at the end of every exported file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.governance.signing import SigningKey, is_signed

__all__ = ["CheckpointReport", "LogCheckpoint", "check_checkpoints"]

_PURPOSE = "aevorium audit checkpoint"
"""Part of what is signed: a steward's key signs statements too, and neither may be taken for the other."""


class LogCheckpoint(BaseModel):
    """One signed head of a chain. Safe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    length: int = Field(ge=1, description="How many entries it covers, from the first on.")
    head: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of the last of them.")
    time: str = Field(description="When it was signed: UTC, ISO 8601.")
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$", description="The key that signed it (Ed25519, hex).")
    signature: str = Field(
        pattern=r"^[0-9a-f]{128}$", description="Over the canonical JSON of purpose, length, head and time."
    )

    @classmethod
    def make(cls, *, length: int, head: str, time: str, key: SigningKey) -> LogCheckpoint:
        """Signs a head."""
        signature = key.sign(_signed(length=length, head=head, time=time))
        return cls(length=length, head=head, time=time, public_key=key.public_key, signature=signature)

    @property
    def is_authentic(self) -> bool:
        """Whether the key that it names has signed it."""
        content = _signed(length=self.length, head=self.head, time=self.time)
        return is_signed(content, signature=self.signature, public_key=self.public_key)


def _signed(*, length: int, head: str, time: str) -> dict[str, Any]:
    return {"purpose": _PURPOSE, "length": length, "head": head, "time": time}


@dataclass(frozen=True)
class CheckpointReport:
    """What a check of the checkpoints of a chain found.

    Attributes:
        count: Number of good checkpoints.
        covered: Number of entries that they cover.
        public_key: The key that they are signed with (hex); None if there is none.
        problem: The first thing that is wrong, as a sentence, or None.
    """

    count: int
    covered: int
    public_key: str | None
    problem: str | None


def check_checkpoints(
    checkpoints: Sequence[object], *, heads: Sequence[str], public_key: str | None = None
) -> CheckpointReport:
    """Checks the checkpoints of a chain whose hashes are sound; needs nothing but both.

    Args:
        checkpoints: As read from JSON, in order.
        heads: The hash of each entry, in order.
        public_key: The key (hex) that must have signed them; that of the first checkpoint if None.
    """
    covered, pinned = 0, public_key
    for number, raw in enumerate(checkpoints, start=1):
        try:
            checkpoint = LogCheckpoint.model_validate(raw)
        except ValidationError:
            return CheckpointReport(number - 1, covered, pinned, f"Checkpoint {number} is not well-formed.")
        pinned = pinned or checkpoint.public_key
        problem = _problem_of(checkpoint, pinned=pinned, after=covered, heads=heads)
        if problem is not None:
            return CheckpointReport(number - 1, covered, pinned, f"Checkpoint {number}: {problem}")
        covered = checkpoint.length
    return CheckpointReport(len(checkpoints), covered, pinned, None)


def _problem_of(checkpoint: LogCheckpoint, *, pinned: str, after: int, heads: Sequence[str]) -> str | None:
    if checkpoint.public_key != pinned:
        return f"it is signed with another key, {checkpoint.public_key[:16]}…, than {pinned[:16]}…."
    if not checkpoint.is_authentic:
        return "its signature does not fit."
    length = checkpoint.length
    if length <= after:
        return f"it covers {length} entries and stands after one that covers {after}."
    if length > len(heads):
        first = len(heads) + 1
        return (
            f"{length} entries were signed at {checkpoint.time}, and {len(heads)} are here. From entry {first} on, they"
            " were cut off."
        )
    if heads[length - 1] != checkpoint.head:
        return f"the entries are not those that were signed at {checkpoint.time}. {_where(after + 1, length)}"
    return None


def _where(first: int, last: int) -> str:
    if first == last:
        return f"Entry {first} is another."
    return f"The first that is another is one of the entries {first} to {last}."
