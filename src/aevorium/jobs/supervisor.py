"""`WorkerProcess`: the worker beside an API, in a process of its own, started again if it dies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

__all__ = ["WorkerProcess"]

_LOOK = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_WORKED = 30.0
"""Seconds after which a worker that died counts as one that had worked: the next is started without delay."""


class WorkerProcess:
    """Keeps a worker running while it is open.

    The worker's standard input is a pipe that nobody writes to: it ends when this process does, even if that is
    killed, and then the worker ends as soon as it has done what it was doing.

    Args:
        arguments: What is typed after `python -m`.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", *arguments]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="worker-supervisor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ended.is_set():
            started = time.monotonic()
            process = subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
                self._command,
                stdin=subprocess.PIPE,
                # Keeps Ctrl-C from it: it ends when it has done what it was doing.
                start_new_session=sys.platform != "win32",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            while process.poll() is None and not self._ended.wait(_LOOK):
                pass
            if process.stdin is not None:
                process.stdin.close()
            if self._ended.is_set():
                return
            pause = _FIRST_PAUSE if time.monotonic() - started > _WORKED else min(2 * pause, _LONGEST_PAUSE)
            self._ended.wait(pause)
