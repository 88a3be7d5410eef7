"""Where the results of runs lie: each in a workspace of its own, beside what outlives them all.

A run that was made on the command line lies in the workspace itself, and is found like the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aevorium.errors import ArtefactError
from aevorium.schema.table import TableSchema
from aevorium.server.record import StudyRecord, load_study
from aevorium.workspace import Workspace

__all__ = ["RunFolder", "RunFolders"]


@dataclass(frozen=True)
class RunFolder:
    """A run that has results.

    Attributes:
        workspace: Where they are.
        record: The run.
        schema: Its schema.
    """

    workspace: Workspace
    record: StudyRecord
    schema: TableSchema


class RunFolders:
    """The runs of a server.

    Args:
        root: The server's workspace.
    """

    def __init__(self, root: Workspace) -> None:
        self.root = root
        self._read: dict[Path, tuple[tuple[int, ...], RunFolder]] = {}

    def workspace_of(self, run_id: str) -> Workspace:
        """Where the results of a run go that is ordered now."""
        return Workspace(self.root.runs / run_id)

    def dataset(self, table_id: str, *, kind: str) -> Path:
        """The file of an ordered table."""
        return self.root.datasets / f"{table_id}.{kind}"

    def find(self, run_id: str | None = None) -> RunFolder:
        """The run of this id, or the newest that has finished, or while none has, the newest.

        A run that goes on, or was cut off, hides no model that people work with.

        Raises:
            ArtefactError: RUN_NOT_FOUND; CHECKPOINT_DAMAGED or CHECKPOINT_SCHEMA_MISMATCH, if it cannot be read.
        """
        if run_id is None:
            found = self.all()
            if not found:
                raise ArtefactError(
                    "RUN_NOT_FOUND", "There is no run yet.", hint="Order one with POST /v1/runs, or type: aevorium run"
                )
            return next((run for run in found if run.record.status == "finished"), found[0])
        for workspace in (self.workspace_of(run_id), self.root):
            if workspace.study.is_file():
                run = self._load(workspace)
                if run.record.run_id == run_id:
                    return run
        raise ArtefactError("RUN_NOT_FOUND", "There is no run of this id that has results.")

    def all(self) -> tuple[RunFolder, ...]:
        """Every run that has results and can be read, newest first."""
        runs = []
        for path in (self.root.root, *(self.root.runs.iterdir() if self.root.runs.is_dir() else ())):
            workspace = Workspace(path)
            if workspace.study.is_file():
                try:
                    runs.append(self._load(workspace))
                except ArtefactError:
                    continue  # by its own id it is found, and says what is wrong with it
        return tuple(sorted(runs, key=lambda run: run.record.started_at, reverse=True))

    def _load(self, workspace: Workspace) -> RunFolder:
        """Reads a run, unless its files are those that were read last: whoever asks for all of them asks often."""
        state = (*_state(workspace.study), *_state(workspace.schema))
        known = self._read.get(workspace.root)
        if known is not None and known[0] == state:
            return known[1]
        record, schema = load_study(workspace)
        run = RunFolder(workspace, record, schema)
        # Had a file changed since it was looked at, the next look finds another state.
        self._read[workspace.root] = (state, run)
        return run


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)
