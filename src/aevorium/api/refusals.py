"""`Refusals`: who was turned away, in the audit log, so that nobody can flood it.

The log is a chain that never shrinks. So an address, or a key that is refused something, gets one entry a minute, all
of them together get a bounded number, and what was left out is counted and said in the next entry.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from aevorium.errors import AevoriumError
from aevorium.governance.chain import AuditChain
from aevorium.governance.signing import SigningKey
from aevorium.workspace import Workspace

__all__ = ["Refusals", "TokenRefused"]

_SECONDS = 60.0
"""Between two entries on the same one."""

_MOST_ENTRIES = 20
"""In `_SECONDS`, on all together."""

_MOST_KNOWN = 1000
"""Those of whom a count is kept."""

_LOGGER = logging.getLogger(__name__)


class TokenRefused(Exception):
    """A token that is not accepted.

    Args:
        reason: The kind of reason, for the audit log; never a part of the token.
        key: The id of the key, if it is one that was made here.
    """

    def __init__(self, reason: str, *, key: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key


@dataclass
class _Known:
    written_at: float
    left_out: int = 0


class Refusals:
    """Notes refusals in the audit log of a workspace.

    Args:
        workspace: The workspace.
        log_key: Signs its log.
        now: A clock in seconds that never goes back.
    """

    def __init__(self, workspace: Workspace, *, log_key: SigningKey, now: Callable[[], float] = time.monotonic) -> None:
        self._workspace = workspace
        self._log_key = log_key
        self._now = now
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._written: deque[float] = deque()
        self._others_left_out = 0
        self._lock = threading.Lock()

    def note(
        self,
        action: Literal["login_failed", "access_denied"],
        *,
        about: str,
        detail: Mapping[str, str],
    ) -> None:
        """Writes an entry, or counts it. A log that cannot be written does not turn a refusal into anything else.

        Args:
            action: What happened.
            about: Of whom: the network of an address, or a principal.
            detail: The particulars; nothing secret.
        """
        with self._lock:
            counts = self._counts((action, about))
        if counts is None:
            return
        try:
            chain = AuditChain(self._workspace.database, key=self._log_key)
            chain.append(actor=about, action=action, detail={**detail, **counts})
            # Once: a log without its file would be said not to hold. Whatever is ordered renews it.
            if not self._workspace.audit_log.is_file():
                chain.write_view(self._workspace.audit_log)
        except AevoriumError as error:
            _LOGGER.error("a refusal cannot be noted: %s", error.code)

    def _counts(self, who: tuple[str, str]) -> Mapping[str, int] | None:
        """What was left out before, if it is time for an entry; None, and counted, if it is not."""
        now = self._now()
        while self._written and now - self._written[0] >= _SECONDS:
            self._written.popleft()
        known = self._known.get(who)
        if known is not None and now - known.written_at < _SECONDS:
            known.left_out += 1
            return None
        if len(self._written) >= _MOST_ENTRIES:
            self._others_left_out += 1
            return None
        counts = {"left_out": 0 if known is None else known.left_out, "left_out_of_others": self._others_left_out}
        self._others_left_out = 0
        self._written.append(now)
        self._known[who] = _Known(now)
        self._known.move_to_end(who)
        if len(self._known) > _MOST_KNOWN:
            self._others_left_out += self._known.popitem(last=False)[1].left_out
        return counts
