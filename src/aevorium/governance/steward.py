"""What a steward has said, signed: periods opened, limits set, plans consented to.

A statement is canonical JSON (RFC 8785) with an Ed25519 signature and the public key, kept as the particulars of an
entry of the node's audit chain. It names its own place there, and so seals everything before it: nobody without the
key can make one, move one, or copy one to another place. The first statement of a home pins the key; statements of
another key count nothing.

What a signature shows is that whoever spoke could read `steward.key` in the node's home. The node's own process can,
too: it opens the first period in the steward's name, by the policy that it was started with. A steward who keeps
`steward.pub` elsewhere can check an exported log against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain, AuditEntry, plain
from aevorium.governance.signing import SigningKey, is_signed

__all__ = [
    "STATEMENTS",
    "SignatureReport",
    "Statement",
    "StatementAction",
    "Steward",
    "check_signatures",
    "statements_of",
    "steward_key",
]

StatementAction = Literal["period_opened", "limit_set", "consent_given", "consent_refused"]

STATEMENTS: tuple[StatementAction, ...] = ("period_opened", "limit_set", "consent_given", "consent_refused")
"""The actions that stand in a chain with a signature."""


def steward_key(home: Path) -> SigningKey:
    """The key of a home's steward. It signs their statements, and the checkpoints of the node's log."""
    return SigningKey(home / "steward.key", hint="Choose another home with AEVORIUM_NODE_HOME.")


@dataclass(frozen=True)
class Statement:
    """One statement whose signature is good. Safe to release.

    Attributes:
        action: What was said.
        time: When: UTC, ISO 8601.
        content: The particulars.
    """

    action: str
    time: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class SignatureReport:
    """What a check of the signatures of a chain found.

    Attributes:
        count: Number of statements with a good signature.
        public_key: The key that they are pinned to (hex); None if there is no statement.
        problem: The first thing that is wrong, as a sentence, or None.
    """

    count: int
    public_key: str | None
    problem: str | None


class Steward:
    """Speaks for a node's steward: signs with the key in the node's home.

    Args:
        folder: The node's home.
        node: The node's name.
        chain: Its audit chain.
    """

    def __init__(self, folder: Path, *, node: str, chain: AuditChain) -> None:
        self._folder = folder
        self._key = steward_key(folder)
        self.node = node
        self.chain = chain

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Keeps other processes from speaking for the same steward, so that a policy and what is said of it agree."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self._folder / ".steward.lock"):
            yield

    def require_key(self) -> str:
        """The public half of the steward's key, if it is the one that the home's statements are signed with.

        Raises:
            ArtefactError: KEY_INVALID; STEWARD_KEY_WRONG.
            ConfigError: WORKSPACE_UNWRITABLE, if no key can be made.
        """
        public = self._key.public_key
        pinned = _pinned(self.chain.entries_of(STATEMENTS))
        if pinned not in (None, public):
            raise ArtefactError(
                "STEWARD_KEY_WRONG",
                f"The key {str(self._key.path)!r} cannot speak for node {self.node!r}. The first"
                f" statement of this home was signed with the key {str(pinned)[:16]}….",
            )
        return public

    def state(self, action: StatementAction, content: Mapping[str, object]) -> Statement:
        """Signs a statement and puts it into the chain.

        Raises:
            ArtefactError: KEY_INVALID; STEWARD_KEY_WRONG, if the home's statements are signed with another key.
            ConfigError: WORKSPACE_UNWRITABLE, if no key can be made.
        """
        key, public = self._key, self.require_key()
        said = plain(content)

        def seal(place: Mapping[str, Any]) -> Mapping[str, object]:
            statement = {**place, "content": said}
            return {"statement": statement, "signature": key.sign(statement), "public_key": public}

        entry = self.chain.append_sealed(actor=self.node, action=action, seal=seal)
        return Statement(action=action, time=entry.time, content=said)


def statements_of(chain: AuditChain, *actions: StatementAction) -> tuple[Statement, ...]:
    """The steward's statements in order, all or those of some actions.

    What is not signed as it should be is no statement; `check_signatures` says what is wrong with it.
    """
    entries = chain.entries_of(STATEMENTS)
    pinned = _pinned(entries)
    return tuple(
        Statement(action=entry.action, time=entry.time, content=entry.detail["statement"]["content"])
        for entry in entries
        if (not actions or entry.action in actions) and _problem_of(entry, pinned=pinned) is None
    )


def check_signatures(entries: Sequence[AuditEntry], *, public_key: str | None = None) -> SignatureReport:
    """Checks every statement of a chain; needs nothing but the entries.

    Args:
        entries: All entries of a sound chain.
        public_key: The key (hex) that must have signed them; the first statement's own if None.
    """
    statements = [entry for entry in entries if entry.action in STATEMENTS]
    pinned = public_key or _pinned(statements)
    for entry in statements:
        problem = _problem_of(entry, pinned=pinned)
        if problem is not None:
            return SignatureReport(len(statements), pinned, f"Entry {entry.seq} ({entry.action}): {problem}.")
    return SignatureReport(len(statements), pinned, None)


def _pinned(entries: Sequence[AuditEntry]) -> str | None:
    """The key of the first statement that is signed with the key it names."""
    for entry in entries:
        key = entry.detail.get("public_key")
        if isinstance(key, str) and _problem_of(entry, pinned=key) is None:
            return key
    return None


def _problem_of(entry: AuditEntry, *, pinned: str | None) -> str | None:
    """Why an entry is no statement of the steward; None if it is one."""
    statement, key, signature = (entry.detail.get(name) for name in ("statement", "public_key", "signature"))
    if not isinstance(statement, dict) or not isinstance(key, str) or not isinstance(signature, str):
        return "it is not signed"
    if key != pinned:
        return "it is signed with another key than the steward's"
    place = entry.model_dump(exclude={"hash", "detail"})
    if {name: statement.get(name) for name in place} != place or not isinstance(statement.get("content"), dict):
        return "what is signed belongs to another place in the chain"
    if not is_signed(statement, signature=signature, public_key=key):
        return "its signature does not fit"
    return None
