"""What Ctrl-C does while nodes are at work: it says what the run still waits for, and a second one leaves."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from aevorium.cli.console import Console
from aevorium.errors import AevoriumError

__all__ = ["told_at_once"]

_STOPPING = (
    "Stopping: waiting for the nodes that are at work; what they release stays charged. Press Ctrl-C again to leave at "
    "once."
)


@contextmanager
def told_at_once(console: Console, *, is_at_nodes: Callable[[], bool]) -> Iterator[None]:
    """Answers Ctrl-C when it is pressed, and not only when the running round has ended.

    Args:
        console: Where to answer.
        is_at_nodes: Whether nodes are at work, asked when Ctrl-C is pressed; if they are not, it stops as ever.
    """
    is_told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_told
        if is_told:
            _leave(console)
        if is_at_nodes():
            is_told = True
            # Python refuses a write that interrupts another one to the same stream.
            with suppress(RuntimeError):
                console.warn(_STOPPING)
        raise KeyboardInterrupt

    # Any other handler (a job in the background ignores Ctrl-C) is somebody's choice, and only the main thread has one.
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(console: Console) -> NoReturn:
    """Ends the process without waiting for its threads. Nodes charge before they release, so no spend is lost."""
    error = AevoriumError("RUN_INTERRUPTED", "The run was left at once. What nodes had released stays charged.")
    try:
        console.error(error)
        console.error_envelope(error)
        sys.stderr.flush()
    finally:
        os._exit(error.exit_status)
