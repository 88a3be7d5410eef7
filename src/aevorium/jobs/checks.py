"""Is the server's own log sound, and does it agree with the logs of the runs that it tells of?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aevorium.errors import ArtefactError
from aevorium.governance.chain import GENESIS, AuditChain
from aevorium.jobs.folders import RunFolders
from aevorium.verification import Finding, VerificationResult, check_log, verify_workspace

__all__ = ["verify_server"]

_ENDED = "run_ended"


def verify_server(
    folders: RunFolders, *, homes: Sequence[Path] = (), public_key: str | None = None, own_key: str | None = None
) -> VerificationResult:
    """Checks the log of a server, and every run that was ordered of it.

    Args:
        folders: The server's runs.
        homes: Folders with homes of nodes, by name, that are on this machine.
        public_key: The key (hex) that must have signed the logs; that of their first checkpoint if None.
        own_key: The key (hex) with which this machine signs its logs.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if there is neither a log nor a run.
    """
    root = folders.root
    if not root.database.is_file():
        raise ArtefactError("ARTEFACT_NOT_FOUND", "There is no audit log yet. Nothing was ordered or run here.")
    checks = [*check_log("the server", root.database, root.audit_log, head=None, key=public_key)]
    is_readable = checks[0].is_sound
    for run in folders.all():
        result = verify_workspace(run.workspace, homes=homes, public_key=public_key, own_key=own_key)
        is_own = run.workspace.root == root.root
        prefix = "" if is_own else f"Run {run.record.run_id}: "
        seen = {check.subject for check in checks} if is_own else set()
        checks += [
            Finding(f"{prefix}{check.subject}", check.is_sound, check.text)
            for check in result.checks
            if check.subject not in seen
        ]
    if is_readable:
        checks += _check_ends(folders)
    return VerificationResult(tuple(checks))


def _check_ends(folders: RunFolders) -> Iterator[Finding]:
    """The server noted the head of each run's log when the run ended: that log must still hold it."""
    for entry in AuditChain(folders.root.database).entries_of([_ENDED]):
        head, job = entry.detail.get("head"), str(entry.detail.get("job"))
        if head is None:
            continue
        subject, log = f"Run {job}: its log and the server's", folders.workspace_of(job).database
        if not log.is_file():
            yield Finding(subject, False, "The run's log is gone.")
        elif head == GENESIS and entry.detail.get("state") != "succeeded":
            # A worker can die between the making of a log and its first entry; what succeeds has entries.
            yield Finding(subject, True, "The run ended before its log's first entry, as the server noted.")
        elif head not in _hashes(log):
            yield Finding(subject, False, "The run's log does not hold the entry with which it ended.")
        else:
            yield Finding(subject, True, f"The run ended with {str(head)[:16]}, as the server noted.")


def _hashes(log: Path) -> set[object]:
    """The hashes that the entries of a log name, as far as they can be read."""
    return {entry.get("hash") for entry in AuditChain(log).export() if isinstance(entry, Mapping)}
