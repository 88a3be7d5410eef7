"""Ctrl-C once finishes what goes on, twice stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from aevorium.cli.console import Console

__all__ = ["Interrupt"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Listens for Ctrl-C, and for being told to end, while it is open.

    Args:
        console: Where the person is told what happens.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_requested = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def is_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._is_requested.is_set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_requested.is_set():
            raise KeyboardInterrupt
        self._is_requested.set()
        self._console.warn("Stopping: what goes on is finished first. Press Ctrl-C again to stop at once.")
