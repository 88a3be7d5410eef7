"""The files of a workspace, each named once, and how a file comes into being: whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aevorium.errors import ArtefactError, ConfigError

__all__ = ["Workspace", "remove_unfinished", "synchronise", "write_atomically"]


@contextmanager
def write_atomically(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it replaces `path` only when the block ends well.

    Args:
        path: The file to make. Its folder is created.
        mode: Permission bits of the finished file (ignored on Windows).

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE, if the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            "WORKSPACE_UNWRITABLE", f"Cannot write {str(path)!r}. {error.strerror or type(error).__name__}."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, *, age: float = 0.0) -> None:
    """Removes what processes that were killed had begun to write in a folder. What cannot be removed stays.

    Args:
        folder: The folder; subfolders are left alone.
        age: Only what nobody wrote to for so many seconds, where others may be writing.
    """
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= age:
                path.unlink()


def synchronise(folder: Path) -> None:
    """Makes what was renamed in a folder last, also if power fails. POSIX alone has a way to ask for it.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(
            "WORKSPACE_UNWRITABLE", f"Cannot write {str(folder)!r}. {error.strerror or type(error).__name__}."
        ) from error


@dataclass(frozen=True)
class Workspace:
    """Where a study's files lie. Makes nothing by itself.

    Attributes:
        root: The workspace folder.
    """

    root: Path

    def create(self) -> Workspace:
        """Makes the folder; raises ConfigError (WORKSPACE_UNWRITABLE) if it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise ConfigError(
                "WORKSPACE_UNWRITABLE",
                f"Cannot write the workspace {str(self.root)!r}. {error.strerror or type(error).__name__}.",
            ) from error
        return self

    @property
    def synthetic(self) -> Path:
        """The generated table."""
        return self.root / "synthetic_data.csv"

    @property
    def schema(self) -> Path:
        """The study's schema, as the run used it."""
        return self.root / "schema.toml"

    @property
    def study(self) -> Path:
        """What was run: the plan, the nodes, the versions."""
        return self.root / "study.json"

    @property
    def encoder(self) -> Path:
        """The encoder, from noisy statistics only."""
        return self.root / "encoder.json"

    @property
    def statistics(self) -> Path:
        """The merged noisy one-way counts."""
        return self.root / "statistics.json"

    @property
    def associations(self) -> Path:
        """The merged noisy tables of selected columns of recipe `warm-start`."""
        return self.root / "associations.json"

    @property
    def evaluation(self) -> Path:
        """The merged noisy tables that the result is compared with, if the run paid for any."""
        return self.root / "evaluation.json"

    @property
    def preprocessor(self) -> Path:
        """The encoder again for other tools; never loaded by Aevorium."""
        return self.root / "preprocessor.joblib"

    @property
    def audit_log(self) -> Path:
        """The hash-chained audit log, as a view."""
        return self.root / "audit_log.json"

    @property
    def privacy_budget(self) -> Path:
        """Spend and limit per node, recomputed from events."""
        return self.root / "privacy_budget.json"

    @property
    def privacy_statement(self) -> Path:
        """The claim, for people."""
        return self.root / "privacy_statement.md"

    @property
    def privacy_statement_json(self) -> Path:
        """The claim, for programs."""
        return self.root / "privacy_statement.json"

    @property
    def round_metrics(self) -> Path:
        """One JSON line a round."""
        return self.root / "round_metrics.jsonl"

    @property
    def report_html(self) -> Path:
        """The run's own report: charged numbers only."""
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        """The run's own report as data."""
        return self.root / "report.json"

    @property
    def local_report_html(self) -> Path:
        """A report made from exact real rows: not to be shared."""
        return self.root / "report.local.html"

    @property
    def local_report_json(self) -> Path:
        """The same as data: not to be shared."""
        return self.root / "report.local.json"

    @property
    def federation(self) -> Path:
        """Folder of the authority, the server's certificate and the keys of nodes that are let in."""
        return self.root / "federation"

    @property
    def database(self) -> Path:
        """The server's state: audit chain and study."""
        return self.root / "server.db"

    @property
    def api_database(self) -> Path:
        """The API's own state, unless another database is chosen."""
        return self.root / "api.db"

    @property
    def datasets(self) -> Path:
        """Folder of the tables that were ordered over the API."""
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        """Folder of the runs that were ordered over the API: each has a workspace of its own there."""
        return self.root / "runs"

    @property
    def worker_lock(self) -> Path:
        """Held by the one process that works through the queue."""
        return self.root / ".worker.lock"

    @property
    def key_lock(self) -> Path:
        """Held while a checkpoint is encrypted, so that no key is dropped meanwhile."""
        return self.root / ".keys.lock"

    def checkpoint(self, round_number: int) -> Path:
        """The encrypted model after a round (1 is the first; 0 is the pre-trained one of a run without rounds)."""
        return self.root / f"global_model_round_{round_number}.npz"

    def checkpoints(self) -> dict[int, Path]:
        """All checkpoints by round, in ascending order."""
        found: dict[int, Path] = {}
        for path in self.root.glob("global_model_round_*.npz"):
            match = re.fullmatch(r"global_model_round_(\d+)\.npz", path.name)
            if match:
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    def newest_checkpoint(self) -> Path:
        """The checkpoint of the last round; raises ArtefactError (ARTEFACT_NOT_FOUND) if there is none."""
        found = self.checkpoints()
        if not found:
            raise ArtefactError(
                "ARTEFACT_NOT_FOUND",
                f"No checkpoint in {str(self.root)!r}. No run has finished a round there.",
                hint="Run 'aevorium run' or 'aevorium demo' first, or give --workspace.",
            )
        return found[max(found)]

    def node_home(self, name: str) -> Path:
        """Where a simulated node keeps its ledger, policy and chain."""
        return self.nodes / name

    @property
    def nodes(self) -> Path:
        """Folder of the homes of simulated nodes."""
        return self.root / "nodes"
