"""Ctrl-C once finishes what goes on, twice stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from aevorium.cli.console import Console
from aevorium.errors import AevoriumError

__all__ = ["Interrupt"]

_STOPPING = (
    "Stopping: the exchange that goes on is finished first, and stays charged. Press Ctrl-C again to stop at once."
)


class Interrupt:
    """Listens for Ctrl-C, and for being told to end, while it is open.

    Args:
        console: Where the person is told what happens.
        leaves: Whether the second time leaves the process without waiting for its threads, which are nodes at work.
            Nodes charge before they release, so no spend is lost.
    """

    def __init__(self, console: Console, *, leaves: bool = False) -> None:
        self._console = console
        self._leaves = leaves
        self._is_requested = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread has handlers, and whoever ignores a signal (a job in the background) goes on doing so.
        if threading.current_thread() is threading.main_thread():
            numbers = [
                number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN
            ]
            self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def is_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._is_requested.is_set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_requested.is_set():
            if self._leaves:
                _leave(self._console)
            raise KeyboardInterrupt
        self._is_requested.set()
        # Python refuses a write that interrupts another one to the same stream.
        with suppress(RuntimeError):
            self._console.warn(_STOPPING)


def _leave(console: Console) -> NoReturn:
    error = AevoriumError("RUN_INTERRUPTED", "The run was left at once. What nodes had released stays charged.")
    try:
        console.error(error)
        console.error_envelope(error)
        sys.stderr.flush()
    finally:
        os._exit(error.exit_status)
