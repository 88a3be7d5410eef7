"""`LogViews`: `audit_log.json` beside a chain, renewed often, at a cost that does not grow with the work.

The file is the whole chain, so that anybody can check it with nothing else: to write it takes as long as the chain is.
A process that adds many entries therefore rests after each writing, the longer the longer that took, and then writes
all that was added meanwhile. Until then a reader finds a file that is whole, signed, and a beginning of the chain.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from aevorium.errors import AevoriumError
from aevorium.governance.chain import AuditChain

__all__ = ["LogViews"]

_REST = 20.0
"""A file rests for so many times as long as its last writing took: at most a twentieth of the time goes there."""

_TRIES = 3
"""At the end: another process may write the same file meanwhile."""

_LOGGER = logging.getLogger(__name__)


@dataclass
class _View:
    chain: AuditChain
    rests_until: float = 0.0
    timer: threading.Timer | None = None


class LogViews:
    """Renews the files of the chains that one process adds to. Threads may share it.

    Args:
        rest: For how many times as long as its last writing took a file rests.
    """

    def __init__(self, *, rest: float = _REST) -> None:
        self._rest = rest
        self._views: dict[Path, _View] = {}
        self._lock = threading.Lock()

    def renew(self, path: Path, chain: AuditChain) -> None:
        """Writes the file: now, or if it rests, all that was added by then at the end of its rest.

        Args:
            path: The file.
            chain: What was added to.

        Raises:
            ArtefactError: KEY_INVALID or AUDIT_KEY_WRONG.
            ConfigError: WORKSPACE_UNWRITABLE.
        """
        with self._lock:
            view = self._views.setdefault(path, _View(chain))
            if view.timer is not None:
                return
            view.chain = chain
            if view.rests_until <= time.monotonic():
                self._write(path, view)
            else:
                self._wait(path, view)

    def close(self) -> None:
        """Writes what waits for the end of a rest: the last thing that a process does with its chains."""
        with self._lock:
            for path, view in self._views.items():
                for _ in range(_TRIES):
                    if view.timer is not None:
                        view.timer.cancel()
                        self._write_rest(path, view)

    def _write_later(self, path: Path, view: _View) -> None:
        with self._lock:
            if view.timer is not None:
                self._write_rest(path, view)

    def _write_rest(self, path: Path, view: _View) -> None:
        view.timer = None
        try:
            self._write(path, view)
        except (AevoriumError, ValueError) as error:
            # Whoever added the entry is gone. The entry is safe, and the next one renews the file.
            _LOGGER.error("the audit log's file cannot be written: %s", getattr(error, "code", "AUDIT_BROKEN"))

    def _write(self, path: Path, view: _View) -> None:
        started = time.monotonic()
        head = view.chain.write_view(path)
        ended = time.monotonic()
        view.rests_until = ended + self._rest * (ended - started)
        if view.chain.head != head:
            # Of two processes, the one with the longer file may have written it first.
            self._wait(path, view)

    def _wait(self, path: Path, view: _View) -> None:
        view.timer = threading.Timer(max(0.0, view.rests_until - time.monotonic()), self._write_later, (path, view))
        view.timer.daemon = True
        view.timer.start()
