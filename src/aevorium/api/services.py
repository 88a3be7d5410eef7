"""What the operations of the API have in common: the server's state, its results, its log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from aevorium.api.access import Access
from aevorium.errors import AevoriumError
from aevorium.governance.chain import AuditChain
from aevorium.governance.log_views import LogViews
from aevorium.governance.signing import SigningKey
from aevorium.jobs.folders import RunFolders
from aevorium.settings import Settings
from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.jobs import JobStore
from aevorium.state.studies import StudyStore
from aevorium.workspace import Workspace

__all__ = ["REPORT_HEADERS", "ServerLog", "Services"]

REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " img-src data: blob:; font-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
}
"""A report is one file with its scripts within: it may run them, and ask nobody anything."""

_LOGGER = logging.getLogger(__name__)


class ServerLog:
    """The server's audit log, as far as the API writes it.

    Args:
        workspace: Where it lies.
        key: Signs it.
    """

    def __init__(self, workspace: Workspace, *, key: SigningKey) -> None:
        self._workspace = workspace
        self._key = key
        self._views = LogViews()

    @cached_property
    def chain(self) -> AuditChain:
        """The chain, to be added to."""
        return AuditChain(self._workspace.create().database, key=self._key, is_kept=True)

    def note(self, actor: str, action: str, detail: Mapping[str, object]) -> None:
        """Adds an entry, and renews the file that people read.

        Args:
            actor: Who acted.
            action: What was done.
            detail: The particulars; no secret, no patient's value.
        """
        self.chain.append(actor=actor, action=action, detail=detail)
        self.publish()

    def close(self) -> None:
        """Writes the file that people read to its end, and closes the chain's connections."""
        if "chain" not in vars(self):
            return
        try:
            self.publish()
        except (AevoriumError, ValueError) as error:  # a chain that is damaged has no file that is sound
            _LOGGER.error("the audit log's file cannot be written: %s", getattr(error, "code", "AUDIT_BROKEN"))
        self._views.close()
        self.chain.close()

    def publish(self) -> None:
        """Renews the file that people read, soon if not now."""
        self._views.renew(self._workspace.audit_log, self.chain)


@dataclass(frozen=True)
class Services:
    """What the operations work with.

    Attributes:
        access: Knows who asks.
        keys: The API keys.
        jobs: The queue.
        studies: The studies.
        folders: The results of runs.
        log: The server's audit log.
        settings: Say what a person leaves open.
        nodes: Names of the nodes within the worker, if it has any.
    """

    access: Access
    keys: ApiKeyStore
    jobs: JobStore
    studies: StudyStore
    folders: RunFolders
    log: ServerLog
    settings: Settings
    nodes: tuple[str, ...] = ()

    @property
    def workspace(self) -> Workspace:
        """The server's workspace."""
        return self.folders.root
