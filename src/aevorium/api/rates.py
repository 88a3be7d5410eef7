"""`Rates`: how many requests one key, subject or address is answered, and how many wrong tokens."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import limits
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from aevorium.api.problems import RetryLater

__all__ = ["NO_LIMIT", "Rates"]

NO_LIMIT = "off"

_REFUSED = limits.parse("10/minute")
"""Tokens that are refused, of one address."""

_MOST_KNOWN = 4096
"""Those who are counted at once; whoever was away the longest is forgotten. The library's own memory has no end."""


class Rates:
    """Counts requests in moving windows, in the memory of this process.

    Args:
        rate: Such as "600/minute", or `NO_LIMIT`. Refused tokens are limited all the same.
    """

    def __init__(self, rate: str) -> None:
        self._rate = None if rate == NO_LIMIT else limits.parse(rate)
        self._lock = threading.Lock()
        self._limiter = MovingWindowRateLimiter(_Memory(self._lock))
        self._known: OrderedDict[tuple[limits.RateLimitItem, str], None] = OrderedDict()

    def count(self, who: str) -> None:
        """Counts a request.

        Args:
            who: The principal, or the network of an address.

        Raises:
            RetryLater: RATE_LIMITED, if it is one too many.
        """
        if self._rate is not None:
            self._hit(self._rate, who, "Too many came in a short time.")

    def count_refused(self, network: str) -> None:
        """Counts a token that was refused; raises as `count` does."""
        self._hit(_REFUSED, f"refused {network}", "Too many wrong tokens came from its address.")

    def _hit(self, rate: limits.RateLimitItem, who: str, reason: str) -> None:
        with self._lock:
            self._known[rate, who] = None
            self._known.move_to_end((rate, who))
            if len(self._known) > _MOST_KNOWN:
                self._limiter.clear(*self._known.popitem(last=False)[0])
            if self._limiter.hit(rate, who):
                return
            reset = self._limiter.get_window_stats(rate, who).reset_time
        raise RetryLater("RATE_LIMITED", f"The request is not served. {reason}", seconds=reset - time.time())


class _Memory(MemoryStorage):
    """The library's memory, whose own thread tidies up only while nobody counts: it fails over a key that is cleared.

    Args:
        lock: Held by whoever counts.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        super().__init__()

    def _MemoryStorage__expire_events(self) -> None:  # noqa: N802 - the library's private name
        with self._lock:
            super()._MemoryStorage__expire_events()  # type: ignore[misc]
