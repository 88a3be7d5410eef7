"""Processes of Flower's own parts, started and stopped by ours, which never outlive it.

A child reads its configuration from the first line of its standard input (no secret is ever on a command line), tells
what happens to it as JSON lines on its standard output, and stops when that input ends: when it is told to, and also
when its parent was killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel

from aevorium.errors import ConfigError

__all__ = ["ChildProcess", "be_a_child", "tell_parent"]

_GRACE = 10.0
"""Seconds in which a child ends by itself once it was told to."""

_QUIET_FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""No message to third parties, no question for updates, no installation of what somebody sent."""

Config = TypeVar("Config", bound=BaseModel)


class ChildProcess:
    """One child, from its start to its end.

    Args:
        module: The module that it runs.
        config: What it reads first.
        log: Where its standard error stream goes; written anew.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE, if the log cannot be written.
    """

    def __init__(self, module: str, config: BaseModel, *, log: Path) -> None:
        self.log = log
        self._lines: queue.Queue[dict[str, object] | None] = queue.Queue()
        try:
            log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with log.open("wb") as stream:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
                    [sys.executable, "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    # Keeps Ctrl-C from the child: the parent decides when it ends.
                    start_new_session=sys.platform != "win32",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
        except OSError as error:
            raise ConfigError(
                "WORKSPACE_UNWRITABLE", f"Cannot write {str(log)!r}. {error.strerror or type(error).__name__}."
            ) from error
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("a child was started without its pipes")
        self._stdin: IO[bytes] = stdin
        self._stdin.write(config.model_dump_json().encode() + b"\n")
        self._stdin.flush()
        self._reader = threading.Thread(target=self._read, args=(stdout,), daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Its number, for the operating system."""
        return self._process.pid

    def next_event(self, *, timeout: float) -> Mapping[str, object] | None:
        """What the child told next; None if it told nothing for `timeout` seconds, or has ended."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """Ends the child: politely at first."""
        with suppress(OSError):  # its end was faster
            self._stdin.close()
        try:
            self._process.wait(timeout=_GRACE + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=_GRACE)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                # Whatever a library prints there is nothing that was told to us.
                with suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        self._lines.put(event)
        self._lines.put(None)


def be_a_child(kind: type[Config]) -> Config:
    """Reads a child's configuration, and sees to it that the child ends with its parent.

    To be called before anything of Flower's is imported: it reads some of its settings then.
    """
    os.environ.update(_QUIET_FLOWER)
    config = kind.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return config


def tell_parent(**event: object) -> None:
    """Writes one event for the parent."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    force = threading.Timer(_GRACE, os._exit, args=(1,))
    force.daemon = True
    force.start()
    # Raised in this process, so that it works on Windows too: the handlers run in the main thread.
    signal.raise_signal(signal.SIGTERM)
