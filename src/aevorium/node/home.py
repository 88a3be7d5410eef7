"""`NodeHome`: the folder where a real node keeps what outlives every run: ledger, audit chain, policy, key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.errors import ConfigError
from aevorium.governance.policy import NodePolicy, load_policy, write_default_policy
from aevorium.workspace import write_atomically

__all__ = ["NodeHome", "NodeTables"]


class NodeTables(BaseModel):
    """Which tables a node held, so that its own machine can compare with them. Never leaves it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    table: Path = Field(description="The node's table.")
    holdout: Path | None = Field(default=None, description="Records that no node holds, to compare with.")


class NodeHome:
    """One node's folder; nobody else can read it.

    Args:
        folder: The folder, made when it is claimed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def key_file(self) -> Path:
        """The node's private key."""
        return self.folder / "node.key"

    @property
    def policy_file(self) -> Path:
        """The steward's policy."""
        return self.folder / "policy.toml"

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Holds the folder for this process; False if another one has it. Released when the process ends.

        Raises:
            ConfigError: WORKSPACE_UNWRITABLE.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise ConfigError(
                "WORKSPACE_UNWRITABLE",
                f"Cannot write the node's home {str(self.folder)!r}. {error.strerror or type(error).__name__}.",
                hint="Choose another with AEVORIUM_NODE_HOME.",
            ) from error
        try:
            yield True
        finally:
            lock.release()

    def policy(self, given: Path | None, *, period: str) -> tuple[NodePolicy, bool]:
        """The policy in force: that given, that of the folder, or a first one, which is written there.

        Args:
            given: A policy file.
            period: Label of the period of a first policy.

        Returns:
            The policy, and whether it was written just now.

        Raises:
            ConfigError: POLICY_INVALID; WORKSPACE_UNWRITABLE.
        """
        if given is not None:
            return load_policy(given), False
        if self.policy_file.exists():
            return load_policy(self.policy_file), False
        return write_default_policy(self.policy_file, period=period), True

    def note_tables(self, tables: NodeTables) -> None:
        """Notes which tables the node holds.

        Raises:
            ConfigError: WORKSPACE_UNWRITABLE.
        """
        with write_atomically(self.folder / "tables.json", mode=0o600) as path:
            path.write_text(tables.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def tables(self) -> NodeTables | None:
        """What `note_tables` noted; None if nothing, or nothing that can be read."""
        try:
            return NodeTables.model_validate_json((self.folder / "tables.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, ValidationError):
            return None
